"""`manage.py demo`: a real campaign from nothing to a local mail catcher. `--prepare` only makes the data."""

import os
import secrets
import socket
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

from campaigns import demo
from delivery.management.commands.mailcatcher import catcher

USER = "demo"
USUAL_PORT = 2525


class Command(BaseCommand):
    help = "Runs a made-up campaign of 2,000 recipients into a local mail catcher and says what to do next."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--port", type=int, help=f"Where the mail catcher listens: {USUAL_PORT}, or any port if that is taken."
        )
        parser.add_argument("--prepare", action="store_true", help="Only make the data and the admin's user.")

    def handle(self, **options: object) -> None:
        port = options["port"] or (USUAL_PORT if options["prepare"] else _usual_or_free_port())
        password = _admin_user()
        if options["prepare"]:
            demo.set_up(port)
            self.stdout.write(f"Admin: http://127.0.0.1:8000/admin/  user: {USER}  password: {password}")
            return
        maildir = settings.VAR_DIR / "demo-mail"
        server = catcher(port, maildir)
        workflow = demo.set_up(port)
        try:
            call_command("run_workflow", workflow.slug)
        finally:
            server.stop()
        self._say_what_next(maildir, password)

    def _say_what_next(self, maildir: Path, password: str) -> None:
        first = min((maildir / "new").iterdir(), default=None)
        for line in (
            "",
            "What next:",
            f"  the mails       {os.path.relpath(maildir)} (a Maildir; one mail: {first.name if first else 'none'})",
            "  once more       make demo            (a new run of the same workflow)",
            f"  look around     make run             (then http://127.0.0.1:8000/admin/ as {USER} with {password})",
            '  your own        README.md, "A first workflow of your own"',
        ):
            self.stdout.write(line)


def _usual_or_free_port() -> int:
    """The usual port, or any other when something listens there, such as the catcher of `make run`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", USUAL_PORT))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _admin_user() -> str:
    """The password of the demo's user. It is made up once and kept beside the database, readable by its owner."""
    file = settings.VAR_DIR / "demo-password"
    users = get_user_model()
    if not users.objects.filter(username=USER).exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(9))
        users.objects.create_superuser(USER, password=file.read_text())
    return file.read_text() if file.exists() else "(the one you set)"
