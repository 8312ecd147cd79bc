"""How a delivery hangs together with others: what it depends on, what depends on it, what else its recipient gets, what
it answers, and what was heard of it.

Only looks, and never at more than `MOST` + 1 rows of a kind: the last one says that there are more.
"""

from delivery.models import Batch, Delivery, Dependency, Event, Message

MOST = 50
# Who was waiting for a delivery and does so no longer is found by reading the dependencies of its batch.
SMALL_BATCH = 50_000


def depends_on(delivery: Delivery) -> list[Dependency]:
    """What has to be accepted before it, with its predecessors where they are known."""
    return list(delivery.dependencies.select_related("predecessor").order_by("pk")[: MOST + 1])


def depended_on_by(delivery: Delivery, batch: Batch | None) -> list[Delivery]:
    """What waits for it; of a small batch also what does so no longer."""
    rows = Dependency.objects.filter(predecessor=delivery.pk).select_related("delivery").order_by("pk")
    if batch is not None and batch.last_id is not None and batch.size <= SMALL_BATCH:
        rows = rows.filter(delivery__gte=batch.first_id, delivery__lte=batch.last_id)
    else:
        rows = rows.filter(met=False)
    return [each.delivery for each in rows[: MOST + 1]]


def other_steps(delivery: Delivery) -> list[tuple[int, Delivery]]:
    """What the same recipient gets of the other messages of its batch, with their positions and in their order."""
    positions = dict(Message.objects.filter(batch=delivery.batch_id).values_list("pk", "position")[: MOST + 1])
    rows = Delivery.objects.filter(identity=delivery.identity, message__in=positions, key=delivery.key)
    others = ((positions[each.message_id], each) for each in rows.exclude(pk=delivery.pk)[: MOST + 1])
    return sorted(others, key=lambda pair: pair[0])


def conversation(delivery: Delivery) -> list[int]:
    """The ids of the mails that it answers, the first one first."""
    # Their keys end with their ids, in hexadecimal digits.
    return [int(key.rpartition(".")[2], 16) for key in delivery.thread.split()]


def events_of(delivery: Delivery) -> list[Event]:
    """What was heard of it after it was sent."""
    return list(delivery.event_set.order_by("at", "pk")[: MOST + 1])
