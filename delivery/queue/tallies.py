"""How many deliveries of a batch have ended, and how: kept as they end, so that nobody scans to see progress."""

import os
from collections import Counter
from collections.abc import Collection

from django.db import connection
from django.db.models import Count, Sum

from delivery.models import Batch, DeliveryState, Tally
from delivery.models.batch import LATE
from delivery.queue.dialect import table

SHARDS = 16


def add(changes: Counter[tuple[int, str]]) -> None:
    """Adds to the counts of (batch id, state). Part of the caller's transaction, which makes it exact."""
    shard = os.getpid() % SHARDS
    # In a fixed order, so that two transactions on the same shard cannot wait for each other in a circle.
    rows = [(batch, state, shard, n) for (batch, state), n in sorted(changes.items()) if n]
    if not rows:
        return
    cells = ", ".join(["(%s, %s, %s, %s)"] * len(rows))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table(Tally)} (batch_id, state, shard, count) VALUES {cells} "
            f"ON CONFLICT (batch_id, state, shard) DO UPDATE SET count = {table(Tally)}.count + excluded.count",
            [cell for row in rows for cell in row],
        )


def progress(batch_id: int) -> dict[str, int]:
    """Deliveries by end state, from the tally: a few rows, however large the batch."""
    sums = Tally.objects.filter(batch=batch_id, state__in=DeliveryState.values).values_list("state")
    return {state: n for state, n in sums.annotate(Sum("count")) if n}


def tallies_of(batch_ids: Collection[int]) -> dict[int, dict[str, int]]:
    """What is counted of each of these batches, in one question: end states, and follow-ups under FOLLOWED."""
    found: dict[int, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
    if found:
        sums = Tally.objects.filter(batch__in=found).values_list("batch", "state").annotate(Sum("count"))
        for batch_id, state, n in sums:
            found[batch_id][state] = n
    return found


def late(batch_id: int) -> int:
    """How many of the accepted ones went after their deadline."""
    return Tally.objects.filter(batch=batch_id, state=LATE).aggregate(n=Sum("count"))["n"] or 0


def counts_by_state(batch_id: int) -> dict[str, int]:
    """Deliveries by state, counted row by row: the truth against which the tally must agree. Reads the whole batch."""
    batch = Batch.objects.get(pk=batch_id)
    return dict(batch.rows().values_list("state").annotate(Count("id")))
