"""What a load test came to, for a person and for a program."""

from collections import Counter
from collections.abc import Iterable

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from campaigns.loadtest.loading import Result
from campaigns.loadtest.measures import Sample, Spread, in_slices, length_of_slice, per_second, spread
from campaigns.loadtest.plan import ASYNC, Plan
from campaigns.loadtest.returned import Returned
from delivery.simulation import plot
from delivery.simulation.plot import Series

TERMINAL_SLICES = 60
STATUSES = {201: "its run was over", 202: "taken", 429: "too many"}


def in_words(plan: Plan, url: str) -> str:
    """What is asked for, before and after."""
    given = plan.payload.get("recipients") or plan.recipients
    whom = _recipients(plan.mails_each) if given else "the audience" if plan.real else "one of the audience"
    if not plan.real:
        whom += ", into the sandbox"
    how = "asynchronous" if plan.mode == ASYNC else f"synchronous (up to {plan.wait:g} s)"
    return f"{plan.count:,} {how} triggers of {plan.workflow} at {url}, {plan.at_once} at once: {whom}"


def _recipients(count: int) -> str:
    return "one recipient each" if count == 1 else f"{count:,} recipients each"


def summary(result: Result) -> Group:
    """The whole report."""
    samples = result.stormed.samples
    good = [sample for sample in samples if sample.good]
    rate = per_second(len(good), result.stormed.seconds)
    parts: list[object] = [Text(f"Load test: {in_words(result.plan, result.url)}", style="bold"), Text()]
    if result.stopped:
        parts.append(Text(f"Stopped after {len(samples):,} triggers.", style="yellow"))
    verdict = Text(f"{len(good):,} taken in {plot.shown_time(round(result.stormed.seconds, 1))}: ")
    parts.append(verdict.append(plot.shown_rate(rate), style="bold"))
    parts += [Text(), _latencies(result), Text(), *_answers(result)]
    if result.returned:
        parts += _callbacks(result.returned)
    if good:
        series, length = over_time(result)
        parts += [Text(), Text("Over time:"), *(Text(line) for line in plot.lines(series, length))]
    return Group(*parts)


def _latencies(result: Result) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("time until")
    for title in ("p50", "p95", "p99", "longest", "mean"):
        table.add_column(title, justify="right")
    _row(table, "the answer", spread(_seconds(result.stormed.samples)))
    if result.returned:
        _row(table, "the callback", spread(seconds for _, seconds in result.returned.back))
    return table


def _row(table: Table, title: str, found: Spread | None) -> None:
    if found:
        values = (found.p50, found.p95, found.p99, found.longest, found.mean)
        table.add_row(title, *map(shown, values))


def shown(seconds: float) -> str:
    """`8.4 ms`, `143 ms`, `2.31 s`."""
    if seconds >= 1:
        return f"{seconds:,.2f} s"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def _seconds(samples: Iterable[Sample]) -> list[float]:
    """Of those that were taken: an error may be quick, and a timeout says nothing of the server's speed."""
    return [sample.seconds for sample in samples if sample.good]


def said(samples: Iterable[Sample]) -> dict[int | str, int]:
    """How often each was said, the most frequent first."""
    return dict(Counter(sample.said for sample in samples).most_common())


def _answers(result: Result) -> list[Text]:
    lines = []
    for what, count in said(result.stormed.samples).items():
        words = result.words.get(what)
        if words is None:
            lines.append(Text(f"{count:>9,}  {what} {STATUSES.get(what, '')}".rstrip()))
        else:
            lines.append(Text.from_markup(f"[red]{count:>9,}  {escape(str(what))}[/red] {escape(words)}"))
    runs = ", ".join(f"{count:,} {state}" for state, count in result.runs.items())
    return [*lines, Text(f"Runs: {runs}")] if runs else lines


def _callbacks(found: Returned) -> list[Text]:
    words = f"Callbacks: {len(found.back):,} of {found.asked:,} came back"
    parts = [words, f"{found.missing:,} missing", f"{found.doubled:,} doubled"]
    if found.back:
        parts.append(f"{found.unsigned:,} wrongly signed" if found.unsigned else "all signed rightly")
    ends = ", ".join(f"{count:,} {name}" for name, count in found.ends.items())
    bad = found.missing or found.unsigned or found.ends.keys() - {"run.completed"}
    return [Text(), Text("; ".join(parts) + (f" ({ends})" if ends else ""), style="red" if bad else "")]


def over_time(result: Result, slices: int = TERMINAL_SLICES) -> tuple[list[Series], float]:
    """Triggers taken and callbacks received a second, in slices; and the length of a slice."""
    ended = [sample.ended for sample in result.stormed.samples if sample.good]
    back = [at for at, _ in result.returned.back] if result.returned else []
    length, count = slices_of(result, slices)
    found = [Series("triggers", in_slices(ended, length, count))]
    if result.returned:
        found.append(Series("callbacks", in_slices(back, length, count)))
    return found, length


def slices_of(result: Result, slices: int) -> tuple[float, int]:
    """How long a slice is, and how many there are, so that everything is in one."""
    back = max((at for at, _ in result.returned.back), default=0.0) if result.returned else 0.0
    seconds = max(result.stormed.seconds, back)
    length = length_of_slice(seconds, slices)
    return length, int(seconds // length) + 1


def as_json(result: Result) -> dict[str, object]:
    """Everything, as one JSON object. Times are in milliseconds."""
    plan, samples = result.plan, result.stormed.samples
    taken = sum(sample.good for sample in samples)
    series, length = over_time(result)
    found: dict[str, object] = {
        "mode": plan.mode,
        "url": result.url,
        "workflow": plan.workflow,
        "concurrency": plan.at_once,
        "count": plan.count,
        "recipients_each": plan.mails_each,
        "test": not plan.real,
        "stopped": result.stopped,
        "requests": len(samples),
        "taken": taken,
        "errors": result.errors,
        "said": {str(what): count for what, count in said(samples).items()},
        "seconds": round(result.stormed.seconds, 3),
        "per_second": round(per_second(taken, result.stormed.seconds), 1),
        "latency_ms": milliseconds(spread(_seconds(samples))),
        "runs": result.runs,
        "over_time": {
            "slice_seconds": length,
            "per_second": {each.name: [round(value, 2) for value in each.values] for each in series},
        },
        "ok": result.went_well,
    }
    if result.returned:
        back = result.returned
        found["callbacks"] = {
            "expected": back.asked,
            "received": len(back.back),
            "missing": back.missing,
            "doubled": back.doubled,
            "wrongly_signed": back.unsigned,
            "ends": back.ends,
            "latency_ms": milliseconds(spread(seconds for _, seconds in back.back)),
        }
    return found


def milliseconds(found: Spread | None) -> dict[str, float] | None:
    """A spread for programs."""
    if found is None:
        return None
    values = {"p50": found.p50, "p95": found.p95, "p99": found.p99, "max": found.longest, "mean": found.mean}
    return {name: round(value * 1000, 2) for name, value in values.items()}
