"""`manage.py loadtest sync|async`: a bounded storm of triggers against one's own server."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.text import Text

from campaigns.callbacks.signing import installation_secrets
from campaigns.conf import conf
from campaigns.console import bars
from campaigns.loadtest import chart, report
from campaigns.loadtest.loading import Listening, Progress, Refused, Result, load
from campaigns.loadtest.plan import ASYNC, MOST_SECONDS, SYNC, BadPlan, Plan, read_payload
from campaigns.loadtest.target import NotOwn, Target, own
from delivery.conf import conf as delivery_conf

URL = "http://127.0.0.1:8000"
AT_ONCE = {SYNC: 8, ASYNC: 50}
WIDTH = 110
MOST_PATIENCE = 600
ALL_INTERFACES = ("0.0.0.0", "::", "")  # noqa: S104 - refused


class Command(BaseCommand):
    help = (
        "Triggers a workflow again and again, many at once, on your own server, and says how quickly it answers: "
        "percentiles, throughput and errors; of asynchronous triggers also the time until the callback came. A test: "
        "mails go into the sandbox, unless --really-send. Exit code: 0 all went well, 1 not all, 2 usage error."
    )
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("mode", choices=(SYNC, ASYNC), help="Whether triggers wait for the end of their runs.")
        add("--url", default=URL, help=f"The server (default {URL}). It must be yours.")
        add("--token", help="A token of the API with the scope send. Default: OUTREACH_API_TOKEN.")
        add("--workflow", required=True, metavar="SLUG", help="Which workflow to trigger, by its slug or id.")
        add(
            "--concurrency",
            type=int,
            metavar="N",
            help=f"How many at once (default {AT_ONCE[ASYNC]}, sync {AT_ONCE[SYNC]}).",
        )
        add("--count", type=int, default=1000, metavar="N", help="How many triggers (default 1,000).")
        add("--seconds", type=float, default=MOST_SECONDS, metavar="S", help="None begins after so long.")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--payload", metavar="FILE", help="The body of each trigger, a JSON object.")
        what.add_argument(
            "--recipients",
            type=int,
            metavar="N",
            help="Make so many recipients up for each (email and name). Without: the audience's, of whom a test takes "
            "one.",
        )
        add("--wait", type=float, default=30, metavar="S", help="How long a synchronous one waits for its run.")
        add(
            "--callback-listen",
            default="127.0.0.1:0",
            metavar="HOST:PORT",
            help="Where to be called back (default: this machine, any port).",
        )
        add("--no-callbacks", action="store_true", help="Do not ask to be called back.")
        add("--patience", type=float, default=30, metavar="S", help="Seconds to wait after the last callback.")
        add("--really-send", action="store_true", help="No test: mails go out through the workflow's pool.")
        add("--yes", action="store_true", help="With --really-send: do not ask.")
        add("--json", action="store_true", help="Print one JSON object and nothing else.")
        add("--chart", metavar="FILE", help="Write throughput and percentiles over time as FILE.svg.")

    def handle(self, **options: object) -> None:
        try:
            plan = _plan(options)
            target = own(options["url"], delivery_conf().allowed_networks, conf().public_url)
            listening = _listening(options, target)
        except (BadPlan, NotOwn) as error:
            raise _usage(str(error)) from error
        chart_file = _chart_file(options["chart"])
        self._refuse_unless_meant(plan, target, yes=options["yes"])
        token = options["token"] or os.environ.get("OUTREACH_API_TOKEN", "")
        result = self._load(plan, target, token, listening, quiet=options["json"])
        if chart_file:
            _write(chart_file, chart.svg(result))
        if options["json"]:
            self.stdout.write(json.dumps(report.as_json(result)))
        else:
            console = Console(file=self.stdout._out, width=WIDTH, highlight=False)
            console.print(report.summary(result))
            if chart_file:
                console.print(Text(f"Chart: {chart_file}"), soft_wrap=True)
        if not result.went_well:
            raise SystemExit(1)

    def _load(self, plan: Plan, target: Target, token: str, listening: Listening | None, *, quiet: bool) -> Result:
        try:
            with self._bars(plan, with_callbacks=listening is not None and plan.mode == ASYNC, quiet=quiet) as watch:
                return uvloop.run(_stoppable(plan, target, token, listening, watch))
        except Refused as refusal:
            raise _usage(str(refusal)) from refusal
        except OSError as error:
            raise _usage(f"--callback-listen: cannot listen there: {error}.") from error
        except asyncio.CancelledError:
            self.stderr.write("Stopped, with requests under way whose answers nobody read.")
            raise SystemExit(130) from None  # as a shell says of Ctrl-C

    def _refuse_unless_meant(self, plan: Plan, target: Target, *, yes: bool) -> None:
        """Asks before anybody is mailed."""
        if not plan.real or yes:
            return
        words = f"This mails people: {report.in_words(plan, target.url)}."
        if not self.stderr.isatty():
            raise _usage(f"{words} Nobody is there to be asked: say --yes, or leave out --really-send.")
        self.stderr.write(f"{words} Go on? [y/N] ", ending="")
        self.stderr.flush()
        if input().strip().lower() not in ("y", "yes"):
            raise _usage("Nothing was sent.")

    @contextmanager
    def _bars(self, plan: Plan, *, with_callbacks: bool, quiet: bool) -> Iterator[Callable[[Progress], None]]:
        """Bars on the terminal, if there is one."""
        if quiet or not self.stderr.isatty():
            yield lambda progress: None
            return
        with bars(Console(stderr=True)) as progress:
            triggers = progress.add_task("triggers", total=plan.count, note="")
            callbacks = progress.add_task("callbacks", total=plan.count, note="") if with_callbacks else None

            def watch(now: Progress) -> None:
                progress.update(triggers, completed=now.answered, note=f"{now.errors:,} errors" if now.errors else "")
                if callbacks is not None:
                    progress.update(callbacks, completed=min(now.back, plan.count))

            yield watch


async def _stoppable(
    plan: Plan, target: Target, token: str, listening: Listening | None, watch: Callable[[Progress], None]
) -> Result:
    """Ctrl-C ends it in order, with what there is; a second one at once."""
    stop, task = asyncio.Event(), asyncio.current_task()
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    with contextlib.suppress(ValueError, RuntimeError):  # only the main thread hears of signals
        loop.add_signal_handler(signal.SIGINT, interrupt)
    return await load(plan, target, token, listening, stop=stop, watch=watch)


def _plan(options: dict[str, object]) -> Plan:
    mode = options["mode"]
    concurrency = options["concurrency"]
    return Plan(
        mode=mode,
        workflow=options["workflow"],
        count=options["count"],
        at_once=AT_ONCE[mode] if concurrency is None else concurrency,
        seconds=options["seconds"],
        wait=options["wait"],
        recipients=options["recipients"],
        payload=_payload(options["payload"]),
        real=options["really_send"],
    )


def _payload(name: str | None) -> dict[str, object]:
    if name is None:
        return {}
    try:
        return read_payload(name, Path(name).read_bytes())
    except OSError as error:
        raise BadPlan(f"--payload: {name} cannot be read: {error.strerror}.") from error


def _listening(options: dict[str, object], target: Target) -> Listening | None:
    if options["no_callbacks"] or options["mode"] != ASYNC:
        return None
    text = options["callback_listen"]
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if host in ALL_INTERFACES or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise BadPlan(f"--callback-listen: {text!r} is no address of this machine with a port, such as 127.0.0.1:9000.")
    if not 0 <= options["patience"] <= MOST_PATIENCE:
        raise BadPlan(f"--patience must be from 0 to {MOST_PATIENCE}, not {options['patience']:g}.")
    if not target.is_this_machine and host in ("localhost", "::1", "127.0.0.1"):
        raise BadPlan(
            f"--callback-listen: {target.url} is another machine and cannot reach {host}. Name an address of this "
            "machine that it reaches, such as 10.20.0.5:9000, or say --no-callbacks."
        )
    return Listening(host, int(port), installation_secrets(), options["patience"])


def _chart_file(name: str | None) -> Path | None:
    if name is None:
        return None
    path = Path(name)
    if path.suffix != ".svg":
        raise _usage(f"--chart: {name} must end in .svg.")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise _usage(f"--chart: {name} cannot be written; name another file, such as load.svg.")
    return path


def _write(path: Path, picture: str) -> None:
    try:
        path.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise _usage(f"--chart: {path} could not be written: {error.strerror}. Name another file.") from error


def _usage(message: str) -> CommandError:
    return CommandError(message, returncode=2)
