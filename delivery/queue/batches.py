"""A batch from its first row to its last end: the named transitions of batches, and of all their deliveries at once."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce, Greatest, Least

from delivery import metrics
from delivery.core.dispatch import UncertainPolicy
from delivery.exceptions import IllegalTransition
from delivery.models import NO_DEADLINE, OPEN_STATES, Batch, Delivery, DeliveryState
from delivery.models.batch import BatchState
from delivery.queue import links, tallies
from delivery.queue.dialect import database_now
from delivery.signals import batch_cut, batch_done


@dataclass(frozen=True, slots=True)
class BatchView:
    """What a worker needs to know of a batch."""

    id: int
    pool: int
    priority: int
    scope: str
    uncertain: UncertainPolicy
    growing: bool = False
    reference: str = ""
    deadline: datetime = NO_DEADLINE
    linked: bool = False  # deliveries of it follow others, or wait for them


def open_batches(only: int | None = None) -> list[BatchView]:
    """The batches with work, most urgent first; `only` one of them if given. Their deadline is the earliest of what is
    ready in them, or their own."""
    rows = Batch.objects.filter(state=BatchState.OPEN).order_by("priority", "id")
    if only is not None:
        rows = rows.filter(pk=only)
    ready = Delivery.objects.filter(batch=OuterRef("pk"), state=DeliveryState.READY)
    first = Subquery(ready.order_by("deadline", "priority", "pk").values("deadline")[:1])
    fields = rows.annotate(first=first).values_list(
        "id", "pool_id", "priority", "scope", "uncertain_policy", "growing", "reference",
        "deadline", "first", "sequenced", "ordered",
    )  # fmt: skip
    return [
        BatchView(
            *row[:4],
            UncertainPolicy(row[4]),
            *row[5:7],
            min(row[7] or NO_DEADLINE, row[8] or NO_DEADLINE),
            any(row[9:]),
        )
        for row in fields
    ]


def _move(batch_id: int, sources: tuple[str, ...], target: str, **fields: object) -> None:
    if not Batch.objects.filter(pk=batch_id, state__in=sources).update(state=target, **fields):
        state = Batch.objects.filter(pk=batch_id).values_list("state", flat=True).first()
        raise IllegalTransition(
            f"Batch {batch_id} is {state or 'not there'}; only {' or '.join(sources)} can be {target}."
        )


def grew(batch_id: int, ids: Collection[int]) -> None:
    """Takes the rows that were just written into the total. Part of the transaction that wrote them."""
    if ids:
        Batch.objects.filter(pk=batch_id).update(
            total=F("total") + len(ids),
            first_id=Least(Coalesce("first_id", min(ids)), min(ids)),
            last_id=Greatest(Coalesce("last_id", max(ids)), max(ids)),
        )


def open_for_sending(batch_id: int, *, growing: bool = False) -> None:
    """Workers may begin. With `growing` more rows follow, until `filled`; else all of them are there."""
    _move(batch_id, (BatchState.FILLING,), BatchState.OPEN, growing=growing)


def filled(batch_id: int) -> None:
    """The last row of a growing batch is there."""
    Batch.objects.filter(pk=batch_id).update(growing=False)


def lock(batch_id: int) -> None:
    """Nobody else moves the batch before the transaction ends. Whoever moves a batch and what belongs to it begins with
    this: else two that do so from both ends wait for each other in a circle."""
    Batch.objects.select_for_update(no_key=True).filter(pk=batch_id).first()


def hold(batch_id: int, reason: str) -> None:
    """Nothing that is not yet handed over goes out: from now on every mark is refused."""
    _move(batch_id, (BatchState.OPEN,), BatchState.HELD, hold_reason=reason[:200])


def release(batch_id: int) -> None:
    """Ends a hold."""
    _move(batch_id, (BatchState.HELD,), BatchState.OPEN, hold_reason="")


def cancel(
    batch_id: int, reason: str = "the run was cancelled", left_as: DeliveryState = DeliveryState.CANCELLED
) -> int:
    """Nothing more goes out. What no worker has ends as `left_as` here and now; what one has, when it asks to mark."""
    with transaction.atomic():
        _move(
            batch_id,
            (BatchState.FILLING, BatchState.OPEN, BatchState.HELD),
            BatchState.CANCELLED,
            hold_reason=reason[:200],
            left_as=left_as,
            growing=False,
        )
        return _cancel_deliveries(batch_id)


def _cancel_deliveries(batch_id: int) -> int:
    """Ends what nobody has. What an engine may have taken already is not cancelled: that is uncertain."""
    batch = Batch.objects.get(pk=batch_id)
    now = database_now()
    ended = Counter()
    waiting = Q(state=DeliveryState.WAITING)
    # One at a time: each has an index, all together have none.
    pending = waiting & Q(pending__gt=0)
    if batch.ordered or batch.sequenced:  # whoever ends what these wait for locks them in this order, too
        list(batch.rows().filter(pending).order_by("pk").select_for_update().values_list("pk"))
    for free in (pending, waiting & Q(pending__lte=0), Q(state=DeliveryState.READY)):
        rows = batch.rows().filter(free)
        for pinned, state in ((False, batch.left_as), (True, DeliveryState.UNCERTAIN.value)):
            ended[batch_id, state] += rows.filter(pinned=pinned).update(
                state=state, settled_at=now, words=batch.hold_reason
            )
    by_state = {state: n for (_, state), n in ended.items() if n}
    if by_state:
        batch_cut.send(Batch, batch_id=batch_id, at=now, counts=by_state)
    tallies.add(ended)
    metrics.settled({state: n for (_, state), n in ended.items()})
    return ended.total()


def finish_cancelled() -> None:
    """Ends what workers gave back after its batch was cancelled, and finishes the batches of which they have nothing
    left."""
    for batch_id in Batch.objects.filter(state=BatchState.CANCELLED).values_list("pk", flat=True):
        with transaction.atomic():
            _cancel_deliveries(batch_id)
        finish_if_done(batch_id)


def unblock() -> None:
    """Sees to batches in which some wait for others that have ended long since, and nothing else goes on."""
    for batch_id in Batch.objects.filter(state=BatchState.OPEN, ordered=True, growing=False).values_list(
        "pk", flat=True
    ):
        rows = Delivery.objects.filter(batch=batch_id)
        # Each has an index, both together have none.
        if not rows.filter(state=DeliveryState.READY).exists() and not rows.filter(lease__isnull=False).exists():
            links.make_up(batch_id)


def finish_if_done(batch_id: int) -> bool:
    """Moves an open or cancelled batch whose every delivery has an end state to done, once, and says so by
    `batch_done`. Counts the rows themselves: a batch is done by the truth, not by the tally."""
    batch = Batch.objects.get(pk=batch_id)
    if batch.growing or batch.standing or batch.state not in (BatchState.OPEN, BatchState.CANCELLED):
        return False
    ended, size = tallies.progress(batch_id), batch.size
    if sum(ended.values()) < size:
        return False
    counts = tallies.counts_by_state(batch_id)
    if any(counts.get(state) for state in OPEN_STATES):
        return False
    if batch.state == BatchState.OPEN and links.make_up(batch_id):
        return False
    with transaction.atomic():
        moved = Batch.objects.filter(pk=batch_id, state=batch.state).update(
            state=BatchState.DONE, done_at=database_now()
        )
        if moved and (tallies.progress(batch_id) != ended or batch.size != size):
            # A replay or a late answer came between the count and this: what was counted is no longer true.
            transaction.set_rollback(True)
            return False
        if moved:
            batch_done.send(Batch, batch_id=batch_id, reference=batch.reference, counts=counts)
    return bool(moved)
