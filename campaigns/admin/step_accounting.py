"""Where the mails of each step of a run are, and how many of a run wait for others or were late.

The tally knows a run's ends and not those of its steps, so these are counted row by row, by the slice of the primary
key that the batch lies in. Of a small run that is done with every look. A large one is counted for a part of the page
that nothing waits for, and what was found is shown for a while: a million rows take a second or two.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.core.cache import cache
from django.db.models import Count
from django.db.models.expressions import RawSQL
from django.utils.timezone import now

from campaigns.models import Run
from delivery.admin.deliveries import STATE_COLOURS, deliveries_url
from delivery.models import Batch, Delivery, DeliveryState, Message
from delivery.models.batch import BatchState
from delivery.queue import late

COUNTED_AT_ONCE = 20_000  # deliveries: some hundredths of a second
KEPT_FOR = 30  # seconds, of a run that goes on
KEPT_WHEN_OVER = 3600
MOST_PENDING = 10_000  # counted with every look; beyond, it is "more than"

IN_WORK = "in work"
_GROUPS = {
    DeliveryState.WAITING: "waiting",
    DeliveryState.READY: IN_WORK,
    DeliveryState.LEASED: IN_WORK,
    DeliveryState.SENDING: IN_WORK,
}
ALWAYS = ("accepted", "skipped", "waiting", IN_WORK)

Counts = Mapping[int, Mapping[str, int]]  # by message and state


@dataclass(frozen=True, slots=True)
class Cell:
    """So many mails of a step in one state; `url` lists them, "" where no list shows just these."""

    count: int
    colour: str
    url: str

    @property
    def text(self) -> str:
        return f"{self.count:,}"


@dataclass(frozen=True, slots=True)
class StepLine:
    """One step: its number, its template, all of its mails, and a cell for each column of the table."""

    position: int
    template: str
    total: Cell
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class StepTable:
    """The steps of a run, as counted at an instant."""

    columns: tuple[str, ...]
    lines: tuple[StepLine, ...]
    counted_at: datetime


def has_steps(run: Run) -> bool:
    """Whether there is a table of its steps to show."""
    return _is_going(run.batch) and len(run.frozen.get("steps", ())) > 1


def is_small(run: Run) -> bool:
    return run.batch.size <= COUNTED_AT_ONCE


def steps_of(run: Run) -> StepTable:
    """The table of a run that `has_steps`."""
    batch = run.batch
    counts, counted_at = (_counted(batch), now()) if is_small(run) else _kept(batch)
    names = {step["position"]: step["template"]["name"] for step in run.frozen["steps"]}
    columns = _columns(counts)
    messages = Message.objects.filter(batch=batch).order_by("position").values_list("pk", "position")
    lines = (_line(batch, position, names.get(position, "-"), counts.get(pk, {}), columns) for pk, position in messages)
    return StepTable(columns, tuple(lines), counted_at)


def asides_of(run: Run) -> list[str]:
    """What else is to be said of how a run's mails follow each other; [] for the plainest of runs."""
    batch = run.batch
    if not _is_going(batch):
        return []
    said = []
    if (batch.ordered or batch.sequenced) and not run.is_over and (pending := _pending(batch)):
        many = f"More than {MOST_PENDING:,}" if pending > MOST_PENDING else f"{pending:,}"
        said.append(f"{many} {'waits' if pending == 1 else 'wait'} for others, or for their text.")
    if missed := late(batch.pk):
        said.append(f"{missed:,} went after {'its' if missed == 1 else 'their'} deadline.")
    return said


def _is_going(batch: Batch | None) -> bool:
    return batch is not None and batch.state != BatchState.FILLING


def _pending(batch: Batch) -> int:
    """How many wait for something beside their time. The 0 is written out: SQLite uses the index only then."""
    return Delivery.objects.filter(batch=batch, pending__gt=RawSQL("0", []))[: MOST_PENDING + 1].count()


def _counted(batch: Batch) -> Counts:
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for message, state, count in batch.rows().order_by().values_list("message", "state").annotate(Count("pk")):
        found[message][state] = count
    return found


def _kept(batch: Batch) -> tuple[Counts, datetime]:
    over = batch.state in (BatchState.DONE, BatchState.CANCELLED)
    key = f"steps:{batch.reference}:{batch.state}:{batch.done_at and batch.done_at.timestamp()}"
    if (found := cache.get(key)) is None:
        found = _counted(batch), now()
        cache.set(key, found, KEPT_WHEN_OVER if over and batch.done_at else KEPT_FOR)
    return found


def _columns(counts: Counts) -> tuple[str, ...]:
    """The usual ones, and whatever else has happened."""
    there = {state for of_step in counts.values() for state in of_step}
    others = (state.label for state in DeliveryState if state in there and state not in _GROUPS)
    return tuple(dict.fromkeys((*ALWAYS, *others)))


def _line(batch: Batch, position: int, template: str, counts: Mapping[str, int], columns: tuple[str, ...]) -> StepLine:
    grouped: dict[str, int] = defaultdict(int)
    for state, count in counts.items():
        grouped[_GROUPS.get(state, DeliveryState(state).label)] += count
    listed = {state.label: state.value for state in DeliveryState}

    def cell(column: str) -> Cell:
        count, state = grouped[column], listed.get(column)
        url = deliveries_url(batch.pk, state, position) if count and state else ""
        return Cell(count, STATE_COLOURS.get(column, "neutral"), url)

    total = sum(counts.values())
    everything = Cell(total, "", deliveries_url(batch.pk, step=position) if total else "")
    return StepLine(position, template, everything, tuple(cell(column) for column in columns))
