"""The way back from an end: what was given up on goes out again, in its place, and what a person knows becomes true.

Every statement is conditional on the state it leaves, and counts what it really changed: of two that replay the same
dead letter, one does.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from django.db import transaction
from django.db.models import F, QuerySet

from delivery.core.dispatch import NONE_ABLE
from delivery.core.envelope import MAX_WORDS
from delivery.exceptions import IllegalTransition
from delivery.models import OPEN_STATES, Batch, Delivery, DeliveryState
from delivery.models.batch import BatchState
from delivery.queue import links, tallies
from delivery.queue.dialect import database_now
from delivery.queue.ends import Ended
from delivery.signals import engine_back

REPLAYED = (DeliveryState.DEAD, DeliveryState.REJECTED, DeliveryState.EXPIRED, DeliveryState.UNCERTAIN)
IDS_AT_ONCE = 5000


def replay(batch_id: int, *, states: Collection[str], ids: Iterable[int] | None = None) -> int:
    """Makes deliveries of a batch ready again that ended in one of `states`, all or those of `ids`, as if they had
    never been tried. Returns how many. A batch that was done is open again if there are any.

    One that is uncertain may be with its engine already: only that one is asked again, under the same key. Suppressed
    addresses stay so, and a deadline that has passed has passed. Raises IllegalTransition for a batch that is cancelled
    or not filled yet, and ValueError for a state that nothing is replayed from.
    """
    if unknown := set(states) - set(REPLAYED):
        raise ValueError(f"Nothing is replayed from {', '.join(sorted(unknown))}, only from {', '.join(REPLAYED)}.")
    with transaction.atomic():
        # Whoever wants to call the batch done waits for this, and then looks again.
        batch = Batch.objects.select_for_update(no_key=True).get(pk=batch_id)
        if batch.state in (BatchState.CANCELLED, BatchState.FILLING):
            raise IllegalTransition(f"Batch {batch_id} is {batch.state}: nothing of it can be sent again.")
        changes: Counter[tuple[int, str]] = Counter()
        for rows in _slices(batch_id, ids):
            for state in map(DeliveryState, sorted(states)):
                changes[batch_id, state.value] -= _make_ready(rows, state)
        tallies.add(changes)
        count = -changes.total()
        if count:
            _reopen(batch_id)
    return count


def _slices(batch_id: int, ids: Iterable[int] | None) -> Iterator[QuerySet[Delivery]]:
    rows = Delivery.objects.filter(batch=batch_id)
    if ids is None:
        yield rows
        return
    left = iter(sorted(ids))
    while some := list(islice(left, IDS_AT_ONCE)):
        yield rows.filter(pk__in=some)


def _make_ready(rows: QuerySet[Delivery], state: DeliveryState) -> int:
    fresh = {"attempts": 0, "not_before": None, "lease": None, "tried_at": None, "settled_at": None}
    if state is DeliveryState.UNCERTAIN:
        fresh |= {"pinned": True, "resends": F("resends") + 1}
    return rows.filter(state=state).update(state=DeliveryState.READY, code="", words="", **fresh)


def consider_accepted(batch_id: int, ids: Iterable[int], by: str) -> int:
    """Ends uncertain deliveries as accepted, because somebody knows that they have arrived; `by` says who, and is kept
    with them. Returns how many."""
    now, words = database_now(), f"taken as accepted: {by}"[:MAX_WORDS]
    with transaction.atomic():
        batch = Batch.objects.select_for_update(no_key=True).get(pk=batch_id)
        accepted: list[int] = []
        for rows in _slices(batch_id, ids):
            uncertain = rows.filter(state=DeliveryState.UNCERTAIN)
            some = list(uncertain.order_by("pk").select_for_update().values_list("pk", flat=True))
            rows.filter(pk__in=some).update(state=DeliveryState.ACCEPTED, settled_at=now, words=words, pinned=False)
            accepted += some
        # One that is done and has this reason was cancelled before: nothing more goes out of it.
        was_cancelled = bool(batch.hold_reason)
        ended = [Ended(i, batch_id, DeliveryState.ACCEPTED.value) for i in accepted]
        found = links.consequences(ended, done_too=not was_cancelled)
        found.ended += ended
        found.changes[batch_id, DeliveryState.UNCERTAIN.value] -= len(accepted)
        found.changes[batch_id, DeliveryState.ACCEPTED.value] += len(accepted)
        found.write()
        batch.refresh_from_db()  # its range of ids may have grown
        if batch.state == BatchState.DONE and batch.rows().filter(state__in=OPEN_STATES).exists():
            _reopen(batch_id)
    return len(accepted)


def _reopen(batch_id: int) -> None:
    Batch.objects.filter(pk=batch_id, state=BatchState.DONE).update(state=BatchState.OPEN, done_at=None, hold_reason="")


def hasten(pools: Iterable[int]) -> int:
    """Makes ready what waits for nothing but an able engine of these pools, because a person has brought one back; says
    so by `engine_back`. Returns how many."""
    transaction.on_commit(lambda: engine_back.send(Delivery))
    batches = Batch.objects.filter(pool__in=list(pools), state__in=[BatchState.OPEN, BatchState.HELD])
    waiting = Delivery.objects.filter(state=DeliveryState.WAITING, words=NONE_ABLE, batch__in=list(batches))
    return waiting.update(state=DeliveryState.READY, not_before=None)
