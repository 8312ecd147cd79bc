"""How much is in the queue, at a cost that does not grow with it: asked every few seconds by whoever watches.

Counts no ready row: what is ready is what is left of the totals when everything else is taken off. The questions are
asked one after the other while workers go on, so that the numbers of a busy queue may differ by what moved meanwhile.
"""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, OuterRef, Subquery, Sum

from delivery.models import Batch, Delivery, DeliveryState, Lease, Tally
from delivery.models.batch import FOLLOWED, BatchState

# What waits is counted row by row, in an index of its own; beyond this nobody needs the number.
MOST_WAITING = 100_000
# A batch that is being written counts for nothing yet; one that was cancelled may still have mails under way.
UNFINISHED = (BatchState.OPEN, BatchState.HELD, BatchState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Depth:
    """Deliveries without an end. `waiting` is exact up to MOST_WAITING; what is beyond counts as `ready`. `held`: those
    among all of these that belong to a batch that is held."""

    ready: int
    waiting: int
    leased: int
    sending: int
    held: int


def depth() -> Depth:
    """The queue's depth now."""
    left = {state: _left(state) for state in UNFINISHED}
    # By the leases there are, and not by "has a lease": a table that was just filled has no statistics, and PostgreSQL
    # would rather read it as a whole.
    leases = list(Lease.objects.values_list("pk", flat=True))
    hands = dict(Delivery.objects.filter(lease__in=leases).values_list("state").annotate(Count("id")))
    leased, sending = hands.get(DeliveryState.LEASED, 0), hands.get(DeliveryState.SENDING, 0)
    waiting = Delivery.objects.filter(state=DeliveryState.WAITING).values("not_before")[:MOST_WAITING].count()
    ready = max(0, sum(left.values()) - leased - sending - waiting)
    return Depth(ready, waiting, leased, sending, held=left[BatchState.HELD])


def _left(state: BatchState) -> int:
    """Deliveries without an end of all batches in this state: totals less tallies."""
    total = Batch.objects.filter(state=state).aggregate(n=Sum("total"))["n"] or 0
    tallies = Tally.objects.filter(batch__state=state)
    followed = tallies.filter(state=FOLLOWED).aggregate(n=Sum("count"))["n"] or 0
    ended = tallies.filter(state__in=DeliveryState.values).aggregate(n=Sum("count"))["n"] or 0
    return max(0, total + followed - ended)


def with_ready() -> dict[int, datetime]:
    """The open batches in which a delivery is ready, and when each was made: one look into an index for each."""
    ready = Delivery.objects.filter(batch=OuterRef("pk"), state=DeliveryState.READY)
    # Not EXISTS: without fresh statistics PostgreSQL makes a join of it, and reads every ready row.
    first = Subquery(ready.order_by("deadline", "priority", "pk").values("pk")[:1])
    batches = Batch.objects.filter(state=BatchState.OPEN).annotate(first=first).values_list("pk", "created_at", "first")
    return {pk: made for pk, made, delivery in batches if delivery is not None}
