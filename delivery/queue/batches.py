"""A batch from its first row to its last end: the named transitions of batches, and of all their deliveries at once."""

from collections import Counter
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Max, Min

from delivery.core.dispatch import UncertainPolicy
from delivery.exceptions import IllegalTransition
from delivery.models import OPEN_STATES, Batch, Delivery, DeliveryState
from delivery.models.batch import BatchState
from delivery.queue import tallies
from delivery.queue.dialect import database_now
from delivery.signals import batch_done


@dataclass(frozen=True, slots=True)
class BatchView:
    """What a worker needs to know of a batch."""

    id: int
    pool: int
    priority: int
    scope: str
    uncertain: UncertainPolicy


def open_batches(only: int | None = None) -> list[BatchView]:
    """The batches with work, most urgent first; `only` one of them if given."""
    rows = Batch.objects.filter(state=BatchState.OPEN).order_by("priority", "id")
    if only is not None:
        rows = rows.filter(pk=only)
    fields = rows.values_list("id", "pool_id", "priority", "scope", "uncertain_policy")
    return [BatchView(i, pool, priority, scope, UncertainPolicy(u)) for i, pool, priority, scope, u in fields]


def _move(batch_id: int, sources: tuple[str, ...], target: str, **fields: object) -> None:
    if not Batch.objects.filter(pk=batch_id, state__in=sources).update(state=target, **fields):
        state = Batch.objects.filter(pk=batch_id).values_list("state", flat=True).first()
        raise IllegalTransition(
            f"Batch {batch_id} is {state or 'not there'}; only {' or '.join(sources)} can be {target}."
        )


def open_for_sending(batch_id: int) -> int:
    """All rows are there: workers may begin. Returns the total."""
    span = Delivery.objects.filter(batch=batch_id).aggregate(first=Min("id"), last=Max("id"))
    total = Delivery.objects.filter(batch=batch_id).count()
    _move(batch_id, (BatchState.FILLING,), BatchState.OPEN, total=total, first_id=span["first"], last_id=span["last"])
    return total


def hold(batch_id: int, reason: str) -> None:
    """Nothing that is not yet handed over goes out: from now on every mark is refused."""
    _move(batch_id, (BatchState.OPEN,), BatchState.HELD, hold_reason=reason[:200])


def release(batch_id: int) -> None:
    """Ends a hold."""
    _move(batch_id, (BatchState.HELD,), BatchState.OPEN, hold_reason="")


def cancel(batch_id: int) -> int:
    """Nothing more goes out. What no worker has ends as cancelled here and now; what one has, when it asks to mark."""
    with transaction.atomic():
        _move(batch_id, (BatchState.FILLING, BatchState.OPEN, BatchState.HELD), BatchState.CANCELLED)
        return _cancel_deliveries(batch_id)


def _cancel_deliveries(batch_id: int) -> int:
    """Ends what nobody has. What an engine may have taken already is not cancelled: that is uncertain."""
    free = Delivery.objects.filter(batch=batch_id, state__in=[DeliveryState.WAITING, DeliveryState.READY])
    now = database_now()
    ended = Counter()
    for pinned, state in ((False, DeliveryState.CANCELLED), (True, DeliveryState.UNCERTAIN)):
        count = free.filter(pinned=pinned).update(state=state, settled_at=now)
        ended[batch_id, state.value] = count
    tallies.add(ended)
    return ended.total()


def finish_cancelled() -> None:
    """Ends what workers gave back after its batch was cancelled, and finishes the batches of which they have nothing
    left."""
    for batch_id in Batch.objects.filter(state=BatchState.CANCELLED).values_list("pk", flat=True):
        with transaction.atomic():
            _cancel_deliveries(batch_id)
        finish_if_done(batch_id)


def finish_if_done(batch_id: int) -> bool:
    """Moves an open or cancelled batch whose every delivery has an end state to done, once, and says so by
    `batch_done`. Counts the rows themselves: a batch is done by the truth, not by the tally."""
    batch = Batch.objects.get(pk=batch_id)
    if batch.state not in (BatchState.OPEN, BatchState.CANCELLED):
        return False
    if sum(tallies.progress(batch_id).values()) < batch.total:
        return False
    counts = tallies.counts_by_state(batch_id)
    if any(counts.get(state) for state in OPEN_STATES):
        return False
    with transaction.atomic():
        moved = Batch.objects.filter(pk=batch_id, state=batch.state).update(
            state=BatchState.DONE, done_at=database_now()
        )
        if moved:
            batch_done.send(Batch, batch_id=batch_id, reference=batch.reference, counts=counts)
    return bool(moved)
