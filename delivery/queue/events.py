"""What is heard of deliveries after they were accepted: written down once, and a reason to stop where a batch says so.

A stop is a suppression that counts for the mails of one batch: the gate at the mark asks for it, as for any other.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from delivery.core.sequence import Rules
from delivery.models import Delivery, Event, EventKind, Message, Suppression, SuppressionReason
from delivery.queue.dialect import ids, table
from delivery.signals import deliveries_heard

_REASONS = {EventKind.REPLIED: SuppressionReason.REPLIED, EventKind.BOUNCED: SuppressionReason.BOUNCED}
STOPPING = tuple(_REASONS)  # the kinds of events that a batch may stop on


@dataclass(frozen=True, slots=True)
class Heard:
    """Something that was heard of a delivery, when it happened, and from where it is known."""

    delivery: int
    kind: EventKind
    at: datetime
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", EventKind(self.kind))


def record(heard: Sequence[Heard]) -> None:
    """Writes events down. The same one is kept once. What is heard of a delivery that is not there is left out."""
    about = {
        delivery.pk: delivery
        for delivery in Delivery.objects.filter(pk__in={each.delivery for each in heard}).select_related("batch")
    }
    known = [each for each in heard if each.delivery in about]
    with transaction.atomic():
        Event.objects.bulk_create(
            [Event(delivery_id=e.delivery, kind=e.kind, at=e.at, source=e.source[:200]) for e in known],
            ignore_conflicts=True,
        )
        Suppression.objects.bulk_create(
            [
                Suppression(
                    address=about[each.delivery].address,
                    identity=about[each.delivery].identity,
                    scope=about[each.delivery].batch.reference,
                    reason=_REASONS[each.kind],
                    source=f"delivery {each.delivery}: {each.kind.label}. {each.source}"[:200],
                )
                for each in known
                if each.kind in about[each.delivery].batch.stops_on
            ],
            ignore_conflicts=True,
        )
        if known:
            deliveries_heard.send(Event, heard=known)


def unmet(delivery_ids: Collection[int], message_id: int) -> dict[int, str]:
    """Those of these deliveries of one message for which what was heard of their predecessors is not what they want,
    with the reason."""
    wanted = [edge for edge in Rules.of(Message.objects.get(pk=message_id).rules).after if edge.on.event]
    found: dict[int, str] = {}
    for edge in wanted:
        kind, has_to_come = edge.on.event
        came = set(_with_event(delivery_ids, edge.message, kind))
        position = Message.objects.values_list("position", flat=True).get(pk=edge.message)
        for delivery_id in delivery_ids:
            if (delivery_id in came) is not has_to_come:
                found.setdefault(delivery_id, f"message {position} to this recipient was {_said(kind, has_to_come)}")
    return found


def _said(kind: str, has_to_come: bool) -> str:
    return f"not {EventKind(kind).label}" if has_to_come else EventKind(kind).label


def _with_event(delivery_ids: Iterable[int], predecessor: int, kind: str) -> list[int]:
    """Those of these whose mail of an earlier message had such an event, or, of bounces, was refused at once."""
    condition, parameters = ids("d.id", delivery_ids)
    at_once = "OR p.state = 'rejected'" if kind == EventKind.BOUNCED else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT d.id FROM {table(Delivery)} AS d JOIN {table(Delivery)} AS p "
            "ON p.identity = d.identity AND p.key = d.key AND p.message_id = %s "
            f"WHERE {condition} AND (EXISTS (SELECT 1 FROM {table(Event)} AS e "
            f"WHERE e.delivery_id = p.id AND e.kind = %s) {at_once})",
            [predecessor, *parameters, kind],
        )
        return [delivery_id for (delivery_id,) in cursor.fetchall()]
