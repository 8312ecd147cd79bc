"""`manage.py hold_engine SLUG`: stops an engine for a while, or lets it go on."""

from datetime import timedelta

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from delivery.exceptions import IllegalHold
from delivery.hold import hold, release
from delivery.management.deeds import DeedCommand, person, usable_database
from delivery.models import Engine

LISTED = 20
LONGEST = 366 * 24 * 60  # minutes


class Command(DeedCommand):
    help = (
        "Holds an engine: from the workers' next look, within a second or so, nothing goes through it, and other "
        "engines of its pools take over. With --release it goes on. "
        "Exit code: 0 done, 1 refused (it is held already, or is not held), 2 usage or configuration error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="The slug or the name of an engine.")
        parser.add_argument("--why", default="", metavar="TEXT", help="The reason; a hold needs one.")
        parser.add_argument("--minutes", type=int, metavar="N", help="The hold ends by itself after N minutes.")
        parser.add_argument("--release", action="store_true", help="End the hold.")

    def handle(self, **options: object) -> None:
        minutes, why = options["minutes"], options["why"].strip()
        if options["release"] and minutes is not None:
            raise CommandError("--minutes belongs to a hold: leave it out to release an engine.", returncode=2)
        if minutes is not None and not 1 <= minutes <= LONGEST:
            raise CommandError(f"--minutes must be from 1 to {LONGEST}, not {minutes}.", returncode=2)
        if not options["release"] and not why:
            raise CommandError("A hold needs a reason: add --why 'TEXT'.", returncode=2)
        with usable_database():
            engine = _engine(options["slug"])
            try:
                if options["release"]:
                    release(engine, person(), why)
                else:
                    hold(engine, person(), why, minutes and timezone.now() + timedelta(minutes=minutes))
            except IllegalHold as refusal:
                raise CommandError(str(refusal), returncode=1) from refusal
        self.stdout.write(_said(engine))


def _engine(wanted: str) -> Engine:
    engine = Engine.objects.filter(slug=wanted).first() or Engine.objects.filter(name=wanted).first()
    if engine is None:
        slugs = list(Engine.objects.values_list("slug", flat=True))
        more = f" and {len(slugs) - LISTED} more" if len(slugs) > LISTED else ""
        hint = f"There is: {', '.join(slugs[:LISTED])}{more}." if slugs else "There is none yet: add one in the admin."
        raise CommandError(f"There is no engine {wanted!r}. {hint}", returncode=2)
    return engine


def _said(engine: Engine) -> str:
    if not engine.held:
        return f"Engine {engine.slug} is released."
    until = f"until {timezone.localtime(engine.held_until):%Y-%m-%d %H:%M %Z}" if engine.held_until else ""
    return f"Engine {engine.slug} is held {until or f'until `manage.py hold_engine {engine.slug} --release`'}."
