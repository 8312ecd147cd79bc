"""`manage.py up`: web server, worker cluster and mail catcher side by side in the foreground, for one's own machine."""

import signal
import subprocess
import sys
import time

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

MANAGE = [sys.executable, "manage.py"]
GRACE = 40  # seconds for each to end by itself


class Command(BaseCommand):
    help = "Runs web server, worker cluster and mail catcher in the foreground. Ctrl-C ends all three."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--bind", default="127.0.0.1:8000", help="Where the web server listens.")
        parser.add_argument("--mail-port", type=int, default=2525, help="Where the mail catcher listens.")

    def handle(self, **options: object) -> None:
        commands = {
            "web": [
                *(sys.executable, "-m", "gunicorn", "outreach.wsgi", "--bind", options["bind"], "--threads", "8"),
                *("--logger-class", "outreach.gunicorn_log.Logger"),
            ],
            "workers": [*MANAGE, "runworkers"],
            "catcher": [
                *MANAGE,
                "mailcatcher",
                *("--port", str(options["mail_port"]), "--maildir", str(settings.VAR_DIR / "demo-mail")),
            ],
        }
        # In sessions of their own: Ctrl-C reaches this process alone, which then asks each of them once.
        running = {
            name: subprocess.Popen(command, cwd=settings.BASE_DIR, start_new_session=True)  # noqa: S603
            for name, command in commands.items()
        }
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        ended = None
        try:
            while ended is None:
                time.sleep(0.3)
                ended = next((name for name, process in running.items() if process.poll() is not None), None)
        except KeyboardInterrupt:
            self.stdout.write("Stopping ...")
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
        if ended:
            raise CommandError(f"{ended} ended by itself, so everything was stopped; its last lines say why.")
