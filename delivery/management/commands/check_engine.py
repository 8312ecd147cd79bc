"""`manage.py check_engine NAME …`: asks the providers whether engines could work, without sending a mail."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from django.core.management.base import BaseCommand, CommandError, CommandParser, SystemCheckError
from django.db import DatabaseError
from rich.console import Console
from rich.markup import escape

from delivery.checking import PATIENCE, check
from delivery.engines.base import Finding
from delivery.models import Engine

AT_ONCE = 8
LISTED = 20


class Command(BaseCommand):
    help = (
        "Asks providers whether engines could work: settings, credentials, region, sender domains. Sends no mail and "
        f"changes nothing; each engine takes {PATIENCE:g} seconds at most. A problem is certain; a warning is "
        "what could not be found out, or deserves a look. "
        "Exit code: 0 no problem, 1 problems found, 2 usage or configuration error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="The slug or the name of an engine.")
        parser.add_argument("--all", action="store_true", help="Every engine, also those that are switched off.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object and nothing else.")

    def check(self, **kwargs: object) -> None:
        """The system checks: what they find is a configuration error."""
        try:
            super().check(**kwargs)
        except SystemCheckError as error:
            error.returncode = 2
            raise

    def handle(self, **options: object) -> None:
        engines = _wanted(options["names"], everyone=options["all"])
        console = Console(quiet=options["json"], no_color=options["no_color"], file=self.stdout)
        reports = []
        with ThreadPoolExecutor(min(AT_ONCE, len(engines))) as threads:
            for engine, findings in zip(engines, threads.map(check, engines), strict=True):
                _show(console, engine, findings)
                reports.append(_report(engine, findings))
        ok = all(report["ok"] for report in reports)
        if options["json"]:
            self.stdout.write(json.dumps({"ok": ok, "engines": reports}))
        if not ok:
            raise SystemExit(1)


def _wanted(names: Iterable[str], *, everyone: bool) -> list[Engine]:
    """The engines that were asked for, each once. Raises CommandError when there is a name that none has."""
    try:
        engines = list(Engine.objects.all())
    except DatabaseError as error:
        raise CommandError(
            f"The database cannot be used: {str(error).strip()}. Check DATABASE_URL; a new database needs "
            "`manage.py migrate` first.",
            returncode=2,
        ) from error
    if not engines:
        raise CommandError("There is no engine yet: add one in the admin.", returncode=2)
    known = {engine.name: engine for engine in engines} | {engine.slug: engine for engine in engines}
    if everyone == bool(names):
        raise CommandError(f"Name the engines to check, or give --all alone. {_there_is(engines)}", returncode=2)
    if unknown := [name for name in names if name not in known]:
        missing = " and ".join(repr(name) for name in unknown)
        raise CommandError(f"There is no engine {missing}. {_there_is(engines)}", returncode=2)
    return engines if everyone else list(dict.fromkeys(known[name] for name in names))


def _there_is(engines: list[Engine]) -> str:
    more = f" and {len(engines) - LISTED} more" if len(engines) > LISTED else ""
    return f"There is: {', '.join(engine.slug for engine in engines[:LISTED])}{more}."


def _report(engine: Engine, findings: Iterable[Finding]) -> dict[str, object]:
    problems = [finding.words for finding in findings if finding.certain]
    warnings = [finding.words for finding in findings if not finding.certain]
    return {
        "slug": engine.slug,
        "name": engine.name,
        "kind": engine.kind,
        "enabled": engine.enabled,
        "ok": not problems,
        "problems": problems,
        "warnings": warnings,
    }


def _show(console: Console, engine: Engine, findings: list[Finding]) -> None:
    off = "" if engine.enabled else ", switched off"
    title = f"[bold]{escape(engine.name)}[/bold] [dim]({escape(engine.slug)}, {escape(engine.kind)}{off})[/dim]"
    verdict = "" if findings else ": [green]ok[/green]"
    console.print(f"{title}{verdict}", soft_wrap=True, highlight=False)
    for finding in findings:
        mark = "[red]problem[/red]" if finding.certain else "[yellow]warning[/yellow]"
        console.print(f"  {mark}  {escape(finding.words)}", soft_wrap=True, highlight=False)
