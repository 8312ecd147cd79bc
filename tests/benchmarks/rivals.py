"""The same mails by what a Django project would use without Outreach, each in a process of its own.

    python -m tests.benchmarks.rivals django-smtp --port 2525 --messages 2000
    python -m tests.benchmarks.rivals post-office --port 2525 --messages 2000     (DATABASE_URL in the environment)

Prints one JSON line. Starting Python, importing and migrating are not measured.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.mix import HTML, SENDER, SUBJECT, TEXT, mix, recipient
from tests.benchmarks.report import peak_rss_mb

ROOT = Path(__file__).resolve().parent.parent.parent
ENQUEUED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """What sending cost. `peak_mb` is the resident memory of the one process that did it."""

    messages: int
    seconds: float
    cpu_seconds: float
    peak_mb: float

    @property
    def per_second(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds


def django_smtp(port: int, messages: int) -> Result:
    """Django's own SMTP backend on one kept connection; the mails come rendered, which costs it nothing."""
    return _measured_apart("django-smtp", port, messages, {})


def post_office(port: int, messages: int, database_url: str) -> Result:
    """django-post_office with one process and its default of five threads: `send_many` from its template, then
    `send_queued` until nothing is left. The database is migrated first and should be empty."""
    return _measured_apart("post-office", port, messages, {"DATABASE_URL": database_url})


def _measured_apart(rival: str, port: int, messages: int, environment: dict[str, str]) -> Result:
    command = [sys.executable, "-m", "tests.benchmarks.rivals", rival, f"--port={port}", f"--messages={messages}"]
    # The caller may be a Django project with settings of its own.
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(command, cwd=ROOT, env=inherited | environment, stdout=subprocess.PIPE, text=True, check=True)
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def _prepare_django_smtp(port: int, messages: int) -> Callable[[], None]:
    from django.conf import settings
    from django.core.mail import EmailMultiAlternatives, get_connection

    settings.configure(EMAIL_HOST="127.0.0.1", EMAIL_PORT=port, USE_TZ=True)

    def send() -> None:
        with get_connection("django.core.mail.backends.smtp.EmailBackend") as connection:
            for i in range(messages):
                address, name, subject, text, html = mix(i)
                mail = EmailMultiAlternatives(subject, text, SENDER, [f"{name} <{address}>"], connection=connection)
                mail.attach_alternative(html, "text/html")
                mail.send()

    return send


def _prepare_post_office(port: int, messages: int) -> Callable[[], None]:
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.post_office_settings",
        "RIVAL_SMTP_PORT": str(port),
    }
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from post_office import mail
    from post_office.models import STATUS, Email, EmailTemplate

    template = EmailTemplate.objects.create(name="offer", subject=SUBJECT, content=TEXT, html_content=HTML)

    def request(i: int) -> dict:
        address, variables = recipient(i)
        to = f"{variables['name']} <{address}>"
        return {"recipients": [to], "sender": SENDER, "template": template, "context": variables}

    def send() -> None:
        for start in range(0, messages, ENQUEUED_AT_ONCE):
            mail.send_many([request(i) for i in range(start, min(start + ENQUEUED_AT_ONCE, messages))])
        while sum(mail.send_queued(processes=1)):
            pass
        sent = Email.objects.filter(status=STATUS.sent).count()
        if sent != messages:
            raise SystemExit(f"django-post_office sent {sent} of {messages} messages.")

    return send


RIVALS = {"django-smtp": _prepare_django_smtp, "post-office": _prepare_post_office}


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> None:
    """The command line: measures one rival in this process."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rivals", description=__doc__.split("\n")[0])
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--messages", type=int, required=True)
    options = parser.parse_args()
    send = RIVALS[options.rival](options.port, options.messages)

    started, cpu_before = time.monotonic(), _cpu_seconds()
    send()
    seconds, cpu_seconds = time.monotonic() - started, _cpu_seconds() - cpu_before

    result = Result(options.messages, round(seconds, 3), round(cpu_seconds, 3), round(peak_rss_mb(), 1))
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
