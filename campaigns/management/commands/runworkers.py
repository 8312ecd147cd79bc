"""`manage.py runworkers`: the worker cluster in the foreground, safe to kill."""

from django.core.management.base import BaseCommand

from campaigns import cluster


class Command(BaseCommand):
    help = "Runs the worker cluster (OUTREACH_WORKERS processes) until SIGTERM or Ctrl-C."

    def handle(self, **options: object) -> None:
        cluster.run()
