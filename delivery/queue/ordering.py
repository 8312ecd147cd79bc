"""Deliveries of a batch that wait for each other by name: from names to deliveries, before anything is sent.

A name that nobody bears and a circle in which all wait for each other are found here; afterwards `links` does the rest.
"""

from graphlib import CycleError, TopologicalSorter

from django.db import connection

from delivery.models import Batch, Delivery, DeliveryState, Dependency
from delivery.queue import links
from delivery.queue.dialect import is_postgres, table
from delivery.queue.ends import Consequences, Ended

READ_AT_ONCE = 10_000
MOST_NAMED = 20  # of a circle: a longer one is told by its beginning


class Unknown(ValueError):
    """Names that nobody bears: `names` has the first of them with who waits for them, `count` is how many there are."""

    def __init__(self, count: int, names: list[tuple[str, str]]) -> None:
        super().__init__(f"{count} dependencies name nobody")
        self.count = count
        self.names = names


class Circle(ValueError):
    """Deliveries that wait for each other: `keys` in the order in which each waits for the next, the first one again at
    the end."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(" → ".join(keys))
        self.keys = keys


def resolve(batch_id: int, *, drop_unknown: bool = False, listed: int = 20) -> None:
    """Finds who is meant by each name, and what follows from those that will never be sent. Part of the caller's
    transaction. Raises Unknown and Circle. `drop_unknown`: what names nobody is waited for no longer: where only a part
    of an audience was read."""
    with connection.cursor() as cursor:
        if is_postgres():
            # Both tables were just filled, and the planner takes them for empty: it would compare all with all.
            cursor.execute(f"ANALYZE {table(Dependency)}, {table(Delivery)}")
        cursor.execute(
            f"UPDATE {table(Dependency)} SET predecessor_id = p.id FROM {table(Delivery)} AS d, {table(Delivery)} AS p "
            f"WHERE {table(Dependency)}.batch_id = %s AND {table(Dependency)}.predecessor_id IS NULL "
            f"AND d.id = {table(Dependency)}.delivery_id AND p.message_id = d.message_id "
            # The last condition is for the planner: the index of the names leaves the empty one out.
            f"AND p.key = {table(Dependency)}.on_key AND p.key <> ''",
            [batch_id],
        )
    unknown = Dependency.objects.filter(batch=batch_id, predecessor=None)
    if drop_unknown:
        _drop(batch_id)
    elif count := unknown.count():
        raise Unknown(count, list(unknown.order_by("pk").values_list("delivery__key", "on_key")[:listed]))
    _refuse_circles(batch_id)
    skipped = Delivery.objects.filter(batch=batch_id, state=DeliveryState.SKIPPED, dependents__met=False)
    ended = [Ended(pk, batch_id, DeliveryState.SKIPPED.value) for pk in skipped.values_list("pk", flat=True)]
    links.consequences(set(ended)).write()


def _drop(batch_id: int) -> None:
    rows = Dependency.objects.filter(batch=batch_id, predecessor=None)
    found = Consequences()
    links.lower(batch_id, rows.values_list("delivery", flat=True), found)
    rows.delete()
    found.write()


def _refuse_circles(batch_id: int) -> None:
    """Edges are numbers only: some hundred octets for each, and a batch that is ordered has to be looked at whole."""
    edges: TopologicalSorter[int] = TopologicalSorter()
    first, last = Batch.objects.values_list("first_id", "last_id").get(pk=batch_id)
    # By its range of ids: an index begins with the delivery, none with the batch.
    edges_of = Dependency.objects.filter(batch=batch_id, delivery__gte=first or 0, delivery__lte=last or 0)
    rows = edges_of.values_list("delivery_id", "predecessor_id")
    for delivery_id, predecessor_id in rows.iterator(READ_AT_ONCE):
        edges.add(delivery_id, predecessor_id)
    try:
        edges.prepare()
    except CycleError as error:
        circle = error.args[1][::-1]  # graphlib: each one is a predecessor of the next
        if len(circle) > MOST_NAMED:
            circle = [*circle[: MOST_NAMED - 1], circle[-1]]
        keys = dict(Delivery.objects.filter(pk__in=circle).values_list("pk", "key"))
        raise Circle([keys[delivery_id] for delivery_id in circle]) from None
