"""`manage.py mailcatcher`: an SMTP server for trying things out. Keeps every mail in a Maildir, delivers none."""

import signal
import threading
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = "Runs a local SMTP server that keeps every mail in a Maildir and delivers none."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=2525)
        parser.add_argument("--maildir", type=Path, default=settings.VAR_DIR / "mail")

    def handle(self, **options: object) -> None:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        controller = catcher(options["port"], options["maildir"])
        self.stdout.write(f"Catching mail on 127.0.0.1:{options['port']}, keeping it in {options['maildir']}.")
        stop.wait()
        controller.stop()


def catcher(port: int, maildir: Path) -> Controller:
    """A running catcher, in a thread of its own. Raises CommandError when the port is taken."""
    maildir.parent.mkdir(parents=True, exist_ok=True)
    controller = Controller(Mailbox(str(maildir)), hostname="127.0.0.1", port=port)
    try:
        controller.start()
    except OSError as error:
        raise CommandError(
            f"Port {port} cannot be used ({error.strerror}): is another catcher running? "
            "Stop it, or choose another --port.",
            returncode=2,
        ) from None
    return controller
