"""Prints the secrets that sign what runs tell their callback_url."""

from django.core.management.base import BaseCommand

from campaigns.callbacks import signing


class Command(BaseCommand):
    help = (
        "Prints what receivers verify the callbacks of runs with (Standard Webhooks): one secret from each of "
        "OUTREACH_SECRET_KEYS, the first of them first. All of them sign. A webhook has a secret of its own."
    )

    def handle(self, *args: object, **options: object) -> None:
        for secret in signing.installation_secrets():
            self.stdout.write(secret)
