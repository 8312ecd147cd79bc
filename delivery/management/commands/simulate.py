"""`manage.py simulate`: the worker's own policies and dispatch in virtual time, over scripted vendors."""

import json
import os
import time
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.live import Live
from rich.text import Text

from delivery.core.breaker import BreakerPolicy
from delivery.core.dispatch import UncertainPolicy
from delivery.core.failover import Strategy
from delivery.core.retry import RetryPolicy, RetryRule
from delivery.core.script import EXAMPLE, ScriptProblem, VendorScript
from delivery.simulation import report
from delivery.simulation.run import Progress, Result, Scenario, simulate
from delivery.simulation.vendors import Policies

MIDDLEWARES = ("retry", "circuit-breaker", "rate-limiter")
VENDORS = (
    "alpha:rate=100/s,burst=20,latency=80ms,spread=20%,errors=1%,down=60s-180s",
    "beta:rate=50/s,burst=10,latency=120ms,errors=0.5%",
)
MOST = 50_000_000
WIDTH = 110  # of the report, whatever the terminal: the same result, the same text
REDRAW = 0.2  # seconds


class Command(BaseCommand):
    help = (
        "Simulates a run in virtual time: the very code that sends, over vendors by script, without a database or a "
        "network. Says who takes how much, how long it takes, and what becomes of every delivery. The same seed gives "
        "the same result. Exit code: 0 every delivery is accounted for, 1 not, 2 usage error."
    )
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--deliveries", type=int, default=10_000, metavar="N", help="How many mails to send (default 10,000).")
        add(
            "--vendor",
            action="append",
            metavar="SCRIPT",
            help=_literally(
                f"A vendor, in order of preference; may come several times. Like {EXAMPLE}. Settings: rate, burst, "
                "latency, spread, errors, rejects, slow, drops, down, locked, batch, concurrency, weight, keys. "
                f"Without any, two are made up: {' and '.join(VENDORS)}."
            ),
        )
        add(
            "--middlewares",
            default=",".join(MIDDLEWARES),
            metavar="LIST",
            help=f"Which policies are on, of {', '.join(MIDDLEWARES)}, parted by commas, or none. Default: all.",
        )
        add("--retries", type=int, default=4, metavar="N", help="Tries after the first one (default 4).")
        add(
            "--strategy",
            choices=[s.value for s in Strategy],
            default=Strategy.PRIORITY.value,
            help="How one of several able vendors is chosen (default priority).",
        )
        add(
            "--uncertain",
            choices=[p.value for p in UncertainPolicy],
            default=UncertainPolicy.HOLD.value,
            help="What becomes of a mail whose answer was lost (default hold).",
        )
        add("--workers", type=int, default=1, metavar="N", help="Workers that share the work (default 1).")
        add("--seed", default="1", metavar="S", help="All chance comes from this (default 1).")
        add("--json", action="store_true", help="Print one JSON object and nothing else.")
        add("--plot", metavar="FILE", help="Write the throughput over time as FILE.svg or FILE.html.")

    def handle(self, **options: object) -> None:
        scenario = _scenario(options)
        plot = _plot_file(options["plot"])
        try:
            result = self._simulate(scenario, quiet=options["json"])
        except KeyboardInterrupt:
            self.stderr.write("Stopped. A simulation leaves nothing behind.")
            raise SystemExit(130) from None  # as a shell says of Ctrl-C
        if plot:
            _write(plot, report.picture(result, as_html=plot.suffix == ".html"))
        if options["json"]:
            self.stdout.write(json.dumps(report.as_json(result)))
        else:
            console = Console(file=self.stdout._out, width=WIDTH, highlight=False)
            console.print(report.summary(result))
            if plot:
                console.print(Text(f"Plot: {plot}"), soft_wrap=True)
        if not result.reconciles:
            raise SystemExit(1)

    def _simulate(self, scenario: Scenario, *, quiet: bool) -> Result:
        """Runs it, with a table that follows on the terminal, if there is one."""
        if quiet or not self.stderr.isatty():
            return simulate(scenario)
        drawn_at = 0.0
        with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as table:

            def watch(progress: Progress) -> None:
                nonlocal drawn_at
                if time.monotonic() - drawn_at > REDRAW:
                    drawn_at = time.monotonic()
                    table.update(report.live(progress, scenario.deliveries), refresh=True)

            return simulate(scenario, watch)


def _literally(text: str) -> str:
    """As argparse will show it: it puts values in place of what follows a percent sign."""
    return text.replace("%", "%%")


def _scenario(options: dict[str, object]) -> Scenario:
    for name, most in (("deliveries", MOST), ("workers", 64)):
        if not 1 <= options[name] <= most:
            raise _usage(f"--{name} must be between 1 and {most:,}, not {options[name]}.")
    if not 0 <= options["retries"] <= 100:
        raise _usage(f"--retries must be between 0 and 100, not {options['retries']}.")
    seed = str(options["seed"])
    if not seed.isprintable():
        raise _usage(f"--seed must be printable text, not {seed!a}.")
    return Scenario(
        deliveries=options["deliveries"],
        vendors=_vendors(options["vendor"] or VENDORS),
        policies=_policies(_middlewares(options["middlewares"]), options["retries"], Strategy(options["strategy"])),
        uncertain=UncertainPolicy(options["uncertain"]),
        workers=options["workers"],
        seed=seed,
    )


def _vendors(texts: list[str] | tuple[str, ...]) -> tuple[VendorScript, ...]:
    try:
        scripts = tuple(map(VendorScript.read, texts))
    except ScriptProblem as problem:
        raise _usage(f"--vendor: {problem}") from problem
    names = [script.name for script in scripts]
    if twice := {name for name in names if names.count(name) > 1}:
        raise _usage(f"--vendor: the name {min(twice)} comes twice; give each vendor its own.")
    return scripts


def _middlewares(text: str) -> frozenset[str]:
    wanted = frozenset(filter(None, (part.strip() for part in text.split(",")))) - {"none"}
    if unknown := wanted - set(MIDDLEWARES):
        raise _usage(f"--middlewares: there is no {min(unknown)}; there are {', '.join(MIDDLEWARES)}.")
    return wanted


def _policies(middlewares: frozenset[str], retries: int, strategy: Strategy) -> Policies:
    attempts = retries + 1 if "retry" in middlewares else 1
    return Policies(
        strategy=strategy,
        retry=RetryPolicy(RetryRule(attempts)),
        breaker=BreakerPolicy() if "circuit-breaker" in middlewares else BreakerPolicy(threshold=None),
        limited="rate-limiter" in middlewares,
    )


def _plot_file(name: str | None) -> Path | None:
    if name is None:
        return None
    path = Path(name)
    if path.suffix not in (".svg", ".html"):
        raise _usage(f"--plot: {name} must end in .svg or .html.")
    if not path.parent.is_dir():
        raise _usage(f"--plot: there is no directory {path.parent}; make it, or name another file.")
    if path.is_dir():
        raise _usage(f"--plot: {name} is a directory; name a file.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise _usage(f"--plot: {name} cannot be written; name another file.")
    return path


def _write(path: Path, picture: str) -> None:
    try:
        path.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise _usage(f"--plot: {path} could not be written: {error.strerror}. Name another file.") from error


def _usage(message: str) -> CommandError:
    return CommandError(message, returncode=2)
