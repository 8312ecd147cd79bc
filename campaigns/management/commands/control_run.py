"""`manage.py control_run RUN pause|resume|cancel`: what the buttons of the admin do."""

from django.core.management.base import CommandError, CommandParser

from campaigns import control
from campaigns.exceptions import CampaignError
from campaigns.management.runs import run_named
from delivery.exceptions import DeliveryError
from delivery.management.deeds import DeedCommand, person, usable_database

DEEDS = {
    "pause": (control.pause, "is paused: nothing that is not yet handed over goes out"),
    "resume": (control.resume, "goes on"),
    "cancel": (control.cancel, "is cancelled: nothing more goes out"),
}


class Command(DeedCommand):
    help = (
        "Pauses, resumes or cancels a run, wherever it is worked on. "
        "Exit code: 0 done, 1 refused (not possible in the run's state), 2 usage or configuration error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("run", help="The id of a run.")
        parser.add_argument("deed", choices=DEEDS)
        parser.add_argument("--why", default="", metavar="TEXT", help="Kept in the run's history.")

    def handle(self, **options: object) -> None:
        deed, said = DEEDS[options["deed"]]
        with usable_database():
            run = run_named(options["run"])
            try:
                deed(run, person(), options["why"].strip())
            except (CampaignError, DeliveryError) as refusal:
                raise CommandError(str(refusal), returncode=1) from refusal
        self.stdout.write(f"Run {run.pk} {said}.")
