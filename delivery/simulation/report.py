"""What a simulation came to, for a person and for a program. Nothing here depends on how long the simulating took."""

from collections.abc import Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from delivery.core.envelope import Kind
from delivery.simulation import plot
from delivery.simulation.run import Progress, Result

COLUMNS = {
    Kind.ACCEPTED: "accepted",
    Kind.RECIPIENT: "recipient's fault",
    Kind.TRANSIENT: "trouble",
    Kind.ENGINE: "locked",
    Kind.THROTTLED: "slow down",
    Kind.UNKNOWN: "silence",
}
TERMINAL_SLICES = 60
PICTURE_SLICES = 300
# The plot ends when so many have been taken: the last few, with their long waits, would leave no room for the others.
SHOWN = 0.995


def live(progress: Progress, total: int) -> Group:
    """The table while it runs."""
    ended = sum(progress.ends.values())
    share = ended / total
    head = Text(f"{plot.shown_time(round(progress.seconds))}   {ended:,} of {total:,} deliveries ended ({share:.0%})")
    return Group(head, _table(dict(progress.vendors)))


def summary(result: Result) -> Group:
    """The tables and the plot at the end."""
    shown = result.taken_within(SHOWN)
    series, length = plot.sliced(_per_second(result), shown, TERMINAL_SLICES)
    return Group(
        _table({vendor.name: vendor.answers for vendor in result.vendors}),
        Text(),
        Text("Mails taken per second:"),
        *(Text(line) for line in plot.lines(series, length)),
        Text(),
        Text(_finish(result)),
        Text(equation(result)),
    )


def _finish(result: Result) -> str:
    """How long it took, and how much of that the last few took, which were tried again and again."""
    half, most = (plot.shown_time(min(result.taken_within(share), result.seconds)) for share in (0.5, 0.99))
    return f"Time to finish: {plot.shown_time(result.seconds)} (half of the mails taken in {half}, 99 % in {most})"


def equation(result: Result) -> str:
    """The total and what it is made of."""
    parts = " + ".join(f"{n:,} {state}" for state, n in result.tally.items())
    verdict = "" if result.reconciles else f"  DOES NOT RECONCILE: counted {result.states}"
    return f"Reconciled: {result.scenario.deliveries:,} = {parts}{verdict}"


def picture(result: Result, *, as_html: bool) -> str:
    """The throughput over time as an SVG, or as a page with it."""
    series, length = plot.sliced(_per_second(result), result.taken_within(SHOWN), PICTURE_SLICES)
    title = f"Mails taken per second: {result.scenario.deliveries:,} deliveries, seed {result.scenario.seed}"
    drawn = plot.svg(series, length, title)
    return plot.html(drawn, title) if as_html else drawn


def as_json(result: Result) -> dict[str, object]:
    """Everything, as one JSON object."""
    series, length = plot.sliced(_per_second(result), result.seconds, TERMINAL_SLICES)
    throughput = {each.name: [round(value, 3) for value in each.values] for each in series}
    return {
        "deliveries": result.scenario.deliveries,
        "seed": result.scenario.seed,
        "strategy": result.scenario.policies.strategy,
        "workers": result.scenario.workers,
        "seconds": round(result.seconds, 6),
        "seconds_to_half": result.taken_within(0.5),
        "seconds_to_99_percent": result.taken_within(0.99),
        "counts": result.tally,
        "reconciles": result.reconciles,
        "vendors": [
            {
                "name": vendor.name,
                "answers": {kind.value: vendor.answers[kind] for kind in Kind},
                "taken": vendor.per_second.total(),
            }
            for vendor in result.vendors
        ],
        "throughput": {"slice_seconds": length, "per_second": throughput},
    }


def _per_second(result: Result) -> dict[str, Mapping[int, int]]:
    return {vendor.name: vendor.per_second for vendor in result.vendors}


def _table(answers: Mapping[str, Mapping[Kind, int]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("vendor")
    for title in ("calls for mails", *COLUMNS.values()):
        table.add_column(title, justify="right")
    for name, counts in answers.items():
        cells = [f"{counts[kind]:,}" if counts[kind] else "-" for kind in COLUMNS]
        table.add_row(name, f"{sum(counts.values()):,}", *cells)
    return table
