"""`manage.py replay RUN`: sends what failed of a run again, all of it or single deliveries."""

import json

from django.core.management.base import CommandError, CommandParser

from campaigns.exceptions import CampaignError
from campaigns.management.runs import run_named
from campaigns.models import Run
from campaigns.replay import FAILED, replay_run, replayable
from delivery.exceptions import DeliveryError
from delivery.management.deeds import DeedCommand, person, usable_database
from delivery.queue import REPLAYED


class Command(DeedCommand):
    help = (
        "Sends deliveries of a run again that did not get through: its dead letters, what was rejected and what "
        "expired. A run that was over is sending again; a running cluster (`manage.py runworkers`) takes it, or "
        "`manage.py run_workflow`. Uncertain deliveries may have arrived: they go out only when --states names them. "
        "Exit code: 0 done, 1 nothing was replayed, 2 usage or configuration error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("run", help="The id of a run.")
        parser.add_argument(
            "--delivery", type=int, nargs="+", action="extend", metavar="ID", help="Only these deliveries of it."
        )
        parser.add_argument(
            "--states",
            default=",".join(FAILED),
            metavar="STATES",
            help=f"Which, parted by commas: of {', '.join(REPLAYED)}. Default: {','.join(FAILED)}.",
        )
        parser.add_argument("--why", default="", metavar="TEXT", help="Kept in the run's history.")
        parser.add_argument("--dry-run", action="store_true", help="Only say how many there are.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object and nothing else.")

    def handle(self, **options: object) -> None:
        states = _states(options["states"])
        ids = options["delivery"]
        with usable_database():
            run = run_named(options["run"])
            found = replayable(run, states, ids)
            count, refusal = sum(found.values()), ""
            if not options["dry_run"]:
                count, refusal = _replayed(run, options["why"].strip(), states, ids)
                run.refresh_from_db()
        if options["json"]:
            report = {"run_id": run.pk, "state": run.state, "found": found, "replayed": 0, "dry_run": True}
            if not options["dry_run"]:
                report |= {"replayed": count, "dry_run": False}
            if refusal:
                report["error"] = refusal
            self.stdout.write(json.dumps(report))
            if not count:
                raise SystemExit(1)
            return
        if refusal or not count:
            raise CommandError(refusal or f"Run {run.pk} has nothing that is {' or '.join(states)}.", returncode=1)
        listed = ", ".join(f"{n:,} {state}" for state, n in found.items())
        if options["dry_run"]:
            self.stdout.write(f"Run {run.pk} would send {count:,} again: {listed}. Nothing was changed.")
        else:
            self.stdout.write(
                f"Run {run.pk} sends {count:,} again. A running cluster takes it, or "
                f"`manage.py run_workflow {run.workflow.slug}`."
            )


def _states(text: str) -> list[str]:
    states = [state.strip() for state in text.split(",") if state.strip()]
    if not states or set(states) - set(REPLAYED):
        raise CommandError(f"--states must be some of {', '.join(REPLAYED)}, parted by commas.", returncode=2)
    return states


def _replayed(run: Run, why: str, states: list[str], ids: list[int] | None) -> tuple[int, str]:
    """How many were replayed, and why none were."""
    try:
        return replay_run(run, person(), why, states=states, ids=ids), ""
    except (CampaignError, DeliveryError) as refusal:
        return 0, str(refusal)
