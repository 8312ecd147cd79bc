"""What follows from the end of a delivery for others of its batch, in the transaction that wrote the end.

Two kinds of link: a message may follow others (`follow_ups`), and a delivery may wait for others by their names
(`dependents`). What is skipped has ended, too, and so on down the line. Whoever locks several deliveries that others
might lock does so in the order of their ids.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from django.db import connection, transaction

from delivery.models import Batch, Delivery
from delivery.models.batch import BatchState
from delivery.queue import dependents, follow_ups
from delivery.queue.dialect import database_now, ids, table
from delivery.queue.ends import Consequences, Ended
from delivery.queue.plan import plan_of

AT_ONCE = 5000  # of what is made up


def consequences(ended: Iterable[Ended], *, done_too: bool = False) -> Consequences:
    """Carries out what follows from these ends; the caller has it written, last of all. To a batch that is cancelled
    nothing is added, nor to one that is done, unless the caller opens that again (`done_too`)."""
    return _carry_out(Consequences(), ended, done_too)


def _carry_out(found: Consequences, ended: Iterable[Ended], done_too: bool = False) -> Consequences:
    by_batch: dict[int, list[Ended]] = defaultdict(list)
    for each in ended:
        by_batch[each.batch].append(each)
    if not by_batch:
        return found
    over = [BatchState.CANCELLED] if done_too else [BatchState.CANCELLED, BatchState.DONE]
    for batch_id, reference, sequenced, ordered in _linked(by_batch, over):
        plan, now = plan_of(batch_id, reference), database_now()
        line = by_batch[batch_id]
        while line:
            further = follow_ups.follow(batch_id, plan, line, now, found) if sequenced else []
            if ordered:
                further += dependents.release(batch_id, plan, line, now, found)
            line = further
    return found


def _linked(batch_ids: Collection[int], over: Sequence[str]) -> list[tuple[int, str, bool, bool]]:
    condition, parameters = ids("id", sorted(batch_ids))
    gone = ", ".join(f"'{state}'" for state in over)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, reference, sequenced, ordered FROM {table(Batch)} "
            f"WHERE {condition} AND (sequenced OR ordered) AND state NOT IN ({gone}) ORDER BY id",
            parameters,
        )
        return cursor.fetchall()


# ---- what nobody carried out ----


def make_up(batch_id: int) -> bool:
    """Carries out what follows from ends and was not: they may have been written by a worker of a version that knew of
    no links. For a batch in which nothing goes on any more: it is read as a whole. Whether there was anything."""
    for _, reference, sequenced, ordered in _linked([batch_id], [BatchState.CANCELLED, BatchState.DONE]):
        ended = follow_ups.unfollowed(batch_id, plan_of(batch_id, reference), AT_ONCE) if sequenced else []
        ended += dependents.unheard(batch_id, AT_ONCE) if ordered else []
        if ended:
            with transaction.atomic():
                consequences(ended).write()
            return True
    return False


# ---- for whoever makes deliveries wait for something else ----


def lower(batch_id: int, delivery_ids: Iterable[int], found: Consequences) -> None:
    """One thing less to wait for, for each time that a delivery of the batch is named."""
    now = database_now()
    dependents.lower(batch_id, Counter(delivery_ids), now, now, found)


def satisfied(delivery_ids: Sequence[int], now: datetime) -> int:
    """One thing less that each of these waits for. Part of the caller's transaction. Returns how many wait for nothing
    more but their time."""
    found = Consequences()
    for batch_id, some in _by_batch(delivery_ids).items():
        # What was skipped because of a predecessor does not come back for its words.
        dependents.lower(batch_id, dict.fromkeys(some, 1), now, now, found, revives=False)
    found.write()
    return found.released


def skip(delivery_ids: Sequence[int], words: str, now: datetime) -> int:
    """Ends those of these that wait, with the reason. Part of the caller's transaction. Returns how many."""
    found = Consequences()
    skipped: list[Ended] = []
    for batch_id, some in _by_batch(delivery_ids).items():
        skipped += dependents.skip(batch_id, dict.fromkeys(some, words), "", now, found)
    _carry_out(found, skipped)
    found.write()
    return len(skipped)


def _by_batch(delivery_ids: Sequence[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for delivery_id, batch_id in Delivery.objects.filter(pk__in=list(delivery_ids)).values_list("pk", "batch_id"):
        found[batch_id].append(delivery_id)
    return found
