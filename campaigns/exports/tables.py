"""What can be exported, and how its rows are read: by stretches of the primary key.

A stretch is bounded whatever it is narrowed by, so that no statement reads a whole table to find the few rows of a
state; the end is the newest row at the beginning, so that an export of a growing table ends.
"""

from collections.abc import Iterator, Sequence

from django.db.models import Q, QuerySet, Sum

from campaigns.audiences.stored import attribute_names
from campaigns.exports.stream import Table
from campaigns.finish import ENDS
from campaigns.models import Contact, ContactImport, ContactList, Run
from delivery.models import NO_DEADLINE, Batch, Delivery, Engine, Message, Tally

AT_ONCE = 2000
# Ids in one stretch of a table of which only some rows are wanted.
STRETCH = 10_000

CONTACT_COLUMNS = ("email", "name", "attributes")
PROBLEM_COLUMNS = ("row", "reason", "detail", "content")
DELIVERY_COLUMNS = (
    "id",
    "run",
    "step",
    "email",
    "name",
    "state",
    "engine",
    "attempts",
    "code",
    "words",
    "provider_id",
    "tried_at",
    "settled_at",
    "deadline",
)
RUN_COLUMNS = (
    "id",
    "workflow",
    "state",
    "trigger",
    "triggered_by",
    "test_limit",
    "rows_read",
    "error",
    "created_at",
    "sending_at",
    "ended_at",
    "counts",
)

Rows = Iterator[Sequence[Sequence[object]]]


# ---- contacts ----


def contacts(of: ContactList) -> Table:
    """Everybody on a list, with all attributes."""

    def rows() -> Rows:
        found = Contact.objects.filter(contact_list=of)
        for piece in _by_key(found, "address", "name", "attributes"):
            yield [row[1:] for row in piece]

    def names() -> dict[str, str]:
        return {_beside_the_columns(name): name for name in attribute_names(of)}

    return Table(f"contacts-{of.slug}", CONTACT_COLUMNS, rows, names, {"contact_list": of.pk})


def _beside_the_columns(name: str) -> str:
    """No two columns have one name, whatever an attribute is called."""
    while name in CONTACT_COLUMNS:
        name += "_"
    return name


def problems(of: ContactImport) -> Table:
    """The rows of a file that became no contacts."""

    def rows() -> Rows:
        for piece in _by_key(of.problems.all(), "row", "reason", "detail", "raw"):
            yield [row[1:] for row in piece]

    return Table(f"import-{of.pk}-errors", PROBLEM_COLUMNS, rows, None, {"contact_import": of.pk})


# ---- deliveries ----


def deliveries(run: Run | None = None, state: str = "") -> Table:
    """Those of a run, those in a state, or all."""
    name = "deliveries" + (f"-run-{run.pk}" if run else "") + (f"-{state}" if state else "")
    about = {"run": run.pk if run else None, "state": state}
    return Table(name, DELIVERY_COLUMNS, lambda: _deliveries(run, state), None, about)


def _deliveries(run: Run | None, state: str) -> Rows:
    wanted, span = Q(), _span(run)
    if run:
        wanted &= Q(batch=run.batch_id)
    if state:
        wanted &= Q(state=state)
    names = _Names()
    for first in range(span[0], span[1] + 1, STRETCH):
        stretch = Delivery.objects.filter(wanted, pk__gte=first, pk__lte=min(first + STRETCH - 1, span[1]))
        found = stretch.order_by("pk").values_list(
            "pk",
            "batch_id",
            "message_id",
            "address",
            "name",
            "state",
            "engine_id",
            "attempts",
            "code",
            "words",
            "provider_id",
            "tried_at",
            "settled_at",
            "deadline",
        )
        rows = list(found)
        names.learn(rows)
        yield [names.shown(row) for row in rows]


def _span(run: Run | None) -> tuple[int, int]:
    """The first and the last id that there may be. A batch that is being filled says how far it is."""
    if run is None:
        ids = Delivery.objects.order_by("pk").values_list("pk", flat=True)
        return ids.first() or 0, ids.last() or -1
    first, last = Batch.objects.filter(pk=run.batch_id).values_list("first_id", "last_id").first() or (None, None)
    return (first, last) if first is not None and last is not None else (0, -1)


class _Names:
    """Runs, steps and engines by what a delivery points at, asked for once for each stretch."""

    def __init__(self) -> None:
        self._runs: dict[int, int] = {}
        self._steps: dict[int, int] = {}
        self._engines: dict[int, str] = {}

    def learn(self, rows: Sequence[Sequence[object]]) -> None:
        batches = {row[1] for row in rows} - self._runs.keys()
        if batches:
            self._runs = dict.fromkeys(batches) | dict(
                Run.objects.filter(batch__in=batches).order_by().values_list("batch_id", "pk")
            )
        messages = {row[2] for row in rows} - self._steps.keys()
        if messages:
            self._steps = dict(Message.objects.filter(pk__in=messages).values_list("pk", "position"))
        engines = {row[6] for row in rows} - self._engines.keys() - {None}
        if engines:
            self._engines |= dict(Engine.objects.filter(pk__in=engines).values_list("pk", "slug"))

    def shown(self, row: Sequence[object]) -> Sequence[object]:
        pk, batch, message, address, name, state, engine, *others, deadline = row
        return (
            pk,
            self._runs.get(batch),
            self._steps.get(message),
            address,
            name,
            state,
            self._engines.get(engine),
            *others,
            None if deadline == NO_DEADLINE else deadline,
        )


# ---- runs ----


def runs(workflow_id: int | None = None, state: str = "") -> Table:
    """All runs, those of a workflow, or those in a state, with what became of their deliveries."""
    found = Run.objects.all()
    if workflow_id is not None:
        found = found.filter(workflow=workflow_id)
    if state:
        found = found.filter(state=state)
    return Table(
        "runs",
        RUN_COLUMNS,
        lambda: _runs(found),
        lambda: {end: end for end in ENDS},
        {"workflow": workflow_id, "state": state},
    )


def _runs(found: QuerySet[Run]) -> Rows:
    fields = ("workflow__slug", "state", "trigger", "triggered_by", "test_limit", "rows_read", "error")
    times = ("created_at", "sending_at", "ended_at")
    for piece in _by_key(found, *fields, *times, "counts", "batch_id"):
        open_batches = [row[-1] for row in piece if not row[-2] and row[-1]]
        so_far = _so_far(open_batches)
        empty = dict.fromkeys(ENDS, 0)
        yield [(*row[:-2], empty | (row[-2] or so_far.get(row[-1], {}))) for row in piece]


def _so_far(batches: Sequence[int]) -> dict[int, dict[str, int]]:
    """The ends that deliveries of these batches have come to, one question for all."""
    counts: dict[int, dict[str, int]] = {}
    tallies = Tally.objects.filter(batch__in=batches, state__in=ENDS).order_by().values_list("batch_id", "state")
    for batch_id, state, count in tallies.annotate(n=Sum("count")):
        counts.setdefault(batch_id, {})[state] = count
    return counts


def _by_key(found: QuerySet, *fields: str) -> Rows:
    """The rows in the order of their ids, the id first."""
    last = 0
    while piece := list(found.filter(pk__gt=last).order_by("pk").values_list("pk", *fields)[:AT_ONCE]):
        yield piece
        last = piece[-1][0]
