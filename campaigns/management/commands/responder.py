"""`manage.py responder`: answers the inbound emails of an HTTP endpoint, as an example of a workflow."""

import argparse
import getpass
import math
import os
import sys

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from campaigns.management.commands import run_workflow
from campaigns.models import Workflow
from campaigns.responder import KEY_NAME, SLUG, Endpoint, set_up
from delivery.engines import composes
from delivery.exceptions import SecretUnreadable
from delivery.management.deeds import usable_database
from delivery.models import Engine

KEY_ENV = "RESPONDER_API_KEY"
LEAD = 0.5
SEED = "1"


class Command(run_workflow.Command):
    help = (
        "Sets up the example workflow “responder” and runs it to its end in this process: reads the inbound emails of "
        "URL/emails, composes an answer to each, and posts it to URL/responses, in their order and just before their "
        "deadlines. "
        "Exit code: 0 completed, 1 failed or incomplete, 2 usage or configuration error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--url", required=True, help="Where the endpoint is, such as https://mail.example/api.")
        parser.add_argument(
            "--key-env",
            default=KEY_ENV,
            metavar="NAME",
            help=f"The environment variable that holds the API key: {KEY_ENV}. Without it the key is asked for.",
        )
        parser.add_argument("--key-name", default=KEY_NAME, metavar="HEADER", help=f"The key's header: {KEY_NAME}.")
        parser.add_argument("--test-flag", action="store_true", help="Ask for emails for tests only: ?test=true.")
        parser.add_argument(
            "--lead",
            type=_seconds,
            default=LEAD,
            metavar="SECONDS",
            help=f"So long before its deadline an answer goes: {LEAD}. A retry comes a second later at the earliest: "
            "with 2 it is still in time.",
        )
        parser.add_argument(
            "--on-failed",
            choices=("skip", "release"),
            default="skip",
            help="What becomes of emails that depend on one that could not be answered: skip.",
        )
        writer = parser.add_mutually_exclusive_group()
        writer.add_argument("--seed", default=SEED, help="The mock model writes the same answers for the same seed.")
        writer.add_argument("--composer", metavar="SLUG", help="An engine that composes, in place of the mock model.")
        parser.add_argument("--prepare", action="store_true", help="Only set it up, to be looked at in the admin.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object and nothing else.")

    def handle(self, **options: object) -> None:
        workflow = self._set_up(options)
        if options["prepare"]:
            self.stdout.write(f"It is set up: `manage.py run_workflow {workflow.slug}` runs it.")
            return
        super().handle(workflow=workflow.slug, json=options["json"], detach=False, idempotency_key=None, test=None)

    def _set_up(self, options: dict[str, object]) -> Workflow:
        endpoint = Endpoint(options["url"], _key(options["key_env"]), options["key_name"], options["test_flag"])
        try:
            with usable_database():
                composer = _composer(options["composer"]) if options["composer"] else None
                return set_up(
                    endpoint,
                    lead=options["lead"],
                    on_failed=options["on_failed"],
                    seed=options["seed"],
                    composer=composer,
                )
        except ValidationError as error:
            raise CommandError(
                f"The workflow {SLUG} cannot be set up so: {' '.join(error.messages)}", returncode=2
            ) from None
        except SecretUnreadable as error:
            raise CommandError(str(error), returncode=2) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 86400, such as 0.5")
    return seconds


def _key(variable: str) -> str:
    """The API key. It is never taken from the command line, where every user of the host could read it."""
    key = os.environ.get(variable, "")
    if not key and sys.stdin.isatty():
        key = getpass.getpass("API key: ")
    if not key.strip():
        raise CommandError(
            f"There is no API key: the environment variable {variable} is not set or empty. Set it, such as by "
            f"`read -rs {variable} && export {variable}`, or run this in a terminal, where the key is asked for.",
            returncode=2,
        )
    return key.strip()


def _composer(slug: str) -> Engine:
    composers = {engine.slug: engine for engine in Engine.objects.order_by("slug") if composes(engine)}
    if slug not in composers:
        there = f"There is: {', '.join(composers)}." if composers else "There is none yet: add one in the admin."
        raise CommandError(
            f"There is no engine {slug!r} that composes. {there} Without --composer the mock model writes.",
            returncode=2,
        )
    return composers[slug]
