"""Who has which deliveries: leases, their end, and the return of what a dead worker had.

A worker holds one Lease row and extends it; its deliveries point there. What it leased but did not mark goes back when
the lease ends. What it marked has no known outcome then, and follows the batch's policy for uncertain deliveries.
"""

from collections import Counter
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import connection, transaction
from django.db.models import F

from delivery import metrics
from delivery.core.dispatch import UncertainPolicy
from delivery.core.envelope import Kind
from delivery.models import Attempt, Batch, Delivery, DeliveryState, Lease
from delivery.owner import is_gone
from delivery.queue import links
from delivery.queue.dialect import database_now, instant, read_instant, skip_locked, table, while_it_stands
from delivery.queue.ends import Ended

PROMOTED_AT_ONCE = 5000
FORESIGHT = timedelta(minutes=5)  # who asks what is due wants to know about a minute
LOST = "The worker ended before the answer was known."


class Leased(NamedTuple):
    """A delivery in a worker's hands. `data` is JSON text. (A tuple: one is made for each mail.)"""

    id: int
    batch: int
    message: int
    address: str
    name: str
    data: str
    deadline: datetime
    engine: int | None
    pinned: bool
    attempts: int
    resends: int
    tried_at: datetime | None
    turn: int
    priority: int = 0
    thread: str = ""


COLUMNS = (
    "id, batch_id, message_id, address, name, data, deadline, engine_id, pinned, attempts, resends, tried_at, turn, "
    "priority, thread"
)


def acquire(owner: str, term: timedelta) -> int:
    """A new lease for this worker, good for `term`. Returns its id."""
    return Lease.objects.create(owner=owner, expires_at=database_now() + term).pk


def extend(lease_id: int, term: timedelta) -> bool:
    """Extends a lease that has not ended. False: it is lost, and so is all that was held under it."""
    now = database_now()
    return bool(Lease.objects.filter(pk=lease_id, expires_at__gt=now).update(expires_at=now + term))


def lease(lease_id: int, batch_id: int, limit: int) -> list[Leased]:
    """Up to `limit` ready deliveries of a batch, earliest deadline first, now in this worker's hands. None under a
    lease that was taken back: nobody would ever take back what hung on it."""
    with connection.cursor() as cursor:
        cursor.execute(
            # Chosen apart: PostgreSQL may carry a subquery out once for each row, and take others each time.
            f"WITH chosen AS (SELECT r.id FROM {table(Delivery)} AS r WHERE r.batch_id = %s AND r.state = 'ready' "
            f"AND EXISTS (SELECT 1 FROM {table(Lease)} WHERE id = %s {while_it_stands()}) "
            f"ORDER BY r.deadline, r.priority, r.id LIMIT %s {skip_locked('r')}) "
            f"UPDATE {table(Delivery)} SET state = 'leased', lease_id = %s, turn = turn + 1 "
            f"WHERE id IN (SELECT id FROM chosen) RETURNING {COLUMNS}",
            [batch_id, lease_id, limit, lease_id],
        )
        rows = cursor.fetchall()
    found = [
        Leased(*row[:6], read_instant(row[6]), row[7], bool(row[8]), *row[9:11], read_instant(row[11]), *row[12:])
        for row in rows
    ]
    # RETURNING promises no order.
    found.sort(key=lambda d: (d.deadline, d.priority, d.id))
    return found


def promote() -> int:
    """Makes ready what has waited for its time. Returns how many."""
    now = instant(database_now())
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH chosen AS (SELECT w.id FROM {table(Delivery)} AS w "
            "WHERE w.state = 'waiting' AND w.pending <= 0 AND w.not_before <= %s "
            f"ORDER BY w.not_before LIMIT %s {skip_locked('w')}) "
            f"UPDATE {table(Delivery)} SET state = 'ready', not_before = NULL WHERE id IN (SELECT id FROM chosen) "
            "RETURNING id",
            [now, PROMOTED_AT_ONCE],
        )
        return len(cursor.fetchall())  # SQLite counts no rows of a statement that begins with WITH


def due(batch_id: int) -> datetime | None:
    """When a batch next has something to do: now, when the first waiting delivery's time comes, or None: not within
    FORESIGHT, or not before somebody else's work is done."""
    rows = Delivery.objects.filter(batch=batch_id)
    if rows.filter(state=DeliveryState.READY).exists():
        return database_now()
    now = database_now()
    # Not beyond that: the index is one for all batches, and millions may wait in it for days.
    waiting = rows.filter(state=DeliveryState.WAITING, pending__lte=0, not_before__lte=now + FORESIGHT)
    return waiting.order_by("not_before").values_list("not_before", flat=True).first()


def next_due() -> datetime | None:
    """When the time of the next waiting delivery comes, of whichever batch."""
    waiting = Delivery.objects.filter(state=DeliveryState.WAITING, pending__lte=0, not_before__isnull=False)
    return waiting.order_by("not_before").values_list("not_before", flat=True).first()


def give_back(lease_id: int) -> int:
    """What this worker leased and never marked is ready again. Returns how many."""
    return Delivery.objects.filter(lease=lease_id, state=DeliveryState.LEASED).update(
        state=DeliveryState.READY, lease=None
    )


def end(lease_id: int) -> None:
    """The worker stops in order: nothing of what it held is lost, nothing is in doubt."""
    with transaction.atomic():
        give_back(lease_id)
        if not Delivery.objects.filter(lease=lease_id).exists():
            Lease.objects.filter(pk=lease_id).delete()


def oldest_expired() -> int | None:
    """The oldest lease whose time is over, if there is one: somebody has to `reap`."""
    expired = Lease.objects.filter(expires_at__lte=database_now())
    return expired.order_by("pk").values_list("pk", flat=True).first()


def reap() -> Counter[str]:
    """Takes back what workers held that are silent for too long, or whose process is gone from this host.

    Returns how many deliveries became ready and uncertain.
    """
    taken: Counter[str] = Counter()
    now = database_now()
    for candidate in Lease.objects.all():
        if candidate.expires_at <= now or is_gone(candidate.owner):
            with transaction.atomic():
                taken += _take_back(candidate, now)
    return taken


def _take_back(candidate: Lease, now: datetime) -> Counter[str]:
    # Whoever deletes the row has the right to what hung on it; one that was extended meanwhile is left alone.
    deleted, _ = Lease.objects.filter(pk=candidate.pk, expires_at=candidate.expires_at).delete()
    if not deleted:
        return Counter()
    taken = Counter({"ready": give_back(candidate.pk)})
    marked = Delivery.objects.filter(lease=candidate.pk, state=DeliveryState.SENDING)
    lost = list(marked.values_list("id", "batch_id", "engine_id"))
    Attempt.objects.bulk_create(
        Attempt(delivery_id=i, engine_id=engine, kind=Kind.UNKNOWN, words=LOST, seconds=0, at=now)
        for i, _, engine in lost
    )
    held = {batch_id for batch_id in {batch for _, batch, _ in lost} if _settle_lost(candidate.pk, batch_id, now)}
    uncertain = [Ended(i, batch, DeliveryState.UNCERTAIN.value) for i, batch, _ in lost if batch in held]
    found = links.consequences(uncertain)
    found.ended += uncertain
    found.changes.update((each.batch, each.state) for each in uncertain)
    taken["uncertain"] += len(uncertain)
    taken["ready"] += len(lost) - len(uncertain)
    # Last, and once: who else adds to these rows has all other locks by then.
    found.write()
    metrics.settled({DeliveryState.UNCERTAIN: taken["uncertain"]})
    return taken


def _settle_lost(lease_id: int, batch_id: int, now: datetime) -> bool:
    """Gives marked deliveries of one batch back, or ends them as uncertain: whether it ended them."""
    rows = Delivery.objects.filter(lease=lease_id, batch=batch_id, state=DeliveryState.SENDING)
    policy = Batch.objects.values_list("uncertain_policy", flat=True).get(pk=batch_id)
    if policy == UncertainPolicy.RESEND:
        rows.update(state=DeliveryState.READY, lease=None, pinned=True, resends=F("resends") + 1)
        return False
    rows.update(state=DeliveryState.UNCERTAIN, lease=None, settled_at=now, words=LOST)
    return True
