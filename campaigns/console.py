"""How a run looks in a terminal: the bars while it goes, the summary when it is over. Decides nothing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from campaigns.conf import conf
from campaigns.finish import ENDS
from campaigns.models import Run

# What each end means, for somebody who sees these words for the first time.
MEANING = {
    "accepted": "taken by a mail server",
    "rejected": "refused for good: the address or the content",
    "suppressed": "on the suppression list, not mailed",
    "expired": "too late to be of use",
    "skipped": "left out by a condition, a failed predecessor, or because the mail cannot be made",
    "cancelled": "called off before they went out",
    "dead": "dead letters: given up on, kept to be looked at",
    "uncertain": "handed over, answer lost: kept for a person to decide",
}


@contextmanager
def few_lines() -> Iterator[None]:
    """While a command shows how far it is, it logs nothing below WARNING: who runs it by hand sees the bars, and who
    runs it by cron gets no mail when all is well. Unless OUTREACH_LOG_LEVEL says what is wanted."""
    loggers = [logging.getLogger(name) for name in ("campaigns", "delivery")] if not conf().log_level_chosen else []
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def bars(console: Console) -> Progress:
    """A progress display for preparing and sending."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(compact=True),
        console=console,
    )


def summary(console: Console, run: Run, seconds: float) -> None:
    """What became of everybody."""
    total = run.batch.size if run.batch else 0
    console.print()
    style = {"completed": "green", "failed": "red"}.get(run.state, "yellow")
    rate = f", {total / seconds:,.0f}/s" if seconds and run.state == "completed" else ""
    console.print(
        f"[bold]Run {run.pk} of {escape(run.workflow.name)}: [{style}]{run.state}[/{style}][/bold]"
        f" in {seconds:,.1f} s{rate}"
    )
    if run.error:
        console.print(f"[red]{escape(run.error)}[/red]")
    if run.problem_counts:
        listed = ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in sorted(run.problem_counts.items()))
        console.print(f"Audience: {run.rows_read:,} rows read; not usable: {listed}")
    if run.counts:
        _reconciled(console, run.counts, total)


def _reconciled(console: Console, counts: dict[str, int], total: int) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(style="dim")
    for end in ENDS:
        if counts.get(end):
            table.add_row(f"{counts[end]:,}", end, MEANING[end])
    table.add_row("─" * len(f"{total:,}"), "", "")
    ended = sum(counts.values())
    verdict = "every recipient is accounted for" if ended == total else f"{total - ended:,} are not accounted for"
    table.add_row(f"{total:,}", "in all", verdict)
    console.print(table)
