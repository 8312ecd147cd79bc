"""How a delivery hangs together with others: what it waits for, what waits for it, and what else its recipient gets.

Only looks, and never at more than `MOST` rows of a kind.
"""

from collections.abc import Iterable
from datetime import datetime

from django.db.models import QuerySet
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from delivery import related
from delivery.admin.instants import shown_instant
from delivery.core.sequence import Rules
from delivery.models import Batch, Composition, CompositionState, Delivery, DeliveryState, Dependency, Message
from delivery.models.batch import BatchState
from delivery.related import MOST

NONE = "none"

_FOR_WORDS = {
    CompositionState.WANTED: "for its text to be composed",
    CompositionState.CLAIMED: "for its text, which is being composed",
    CompositionState.REVIEW: "for a person to review its text",
}


def lines(items: Iterable[SafeString | str]) -> SafeString:
    """A line each."""
    return format_html_join(SafeString("<br>"), "{}", ([item] for item in items))


def link_to(delivery: Delivery, label: str) -> SafeString:
    url = reverse("admin:delivery_delivery_change", args=[delivery.pk])
    return format_html('<a class="text-link" href="{}">{}</a>', url, label)


def waits_for(delivery: Delivery, batch: Batch | None, now: datetime) -> str:
    """What keeps it from going at this moment, as far as that is known before a worker has looked at it."""
    reasons = []
    if batch is not None and batch.state == BatchState.HELD:
        reasons.append(f"for its batch to be resumed ({batch.hold_reason or 'it is held'})")
    if delivery.state == DeliveryState.READY:
        reasons.append("for its turn")
    if delivery.state == DeliveryState.WAITING:
        reasons += _for_others(delivery) if delivery.pending > 0 else []
        if delivery.not_before is not None and delivery.not_before > now:
            reasons.append(f"for its time, until {shown_instant(delivery.not_before)}")
    return "; ".join(reasons) or "for nothing"


def _for_others(delivery: Delivery) -> list[str]:
    unmet = delivery.dependencies.filter(met=False)[: MOST + 1].count()
    state = Composition.objects.filter(pk=delivery.pk).values_list("state", flat=True).first()
    reasons = []
    if unmet:
        reasons.append(f"for {_many(unmet)} other{'' if unmet == 1 else 's'} that it depends on")
    if state in _FOR_WORDS:
        reasons.append(_FOR_WORDS[state])
    # One that follows several is there from the end of the first of them on.
    return reasons or [f"for the earlier steps ({len(_rules(delivery).after)} of them) to end as wanted"]


def _many(count: int) -> str:
    return f"more than {MOST}" if count > MOST else str(count)


def depends_on(delivery: Delivery) -> SafeString | str:
    """The deliveries that have to be accepted before it."""
    return _listed(_on(each) for each in related.depends_on(delivery))


def _on(dependency: Dependency) -> SafeString | str:
    predecessor = dependency.predecessor
    if predecessor is None:
        return f"{dependency.on_key}: not found so far"
    end = "waited for no longer" if dependency.met else "still waited for"
    label = link_to(predecessor, f"{dependency.on_key} ({predecessor.address})")
    return format_html("{}: {}, {}", label, predecessor.get_state_display(), end)


def depended_on_by(delivery: Delivery, batch: Batch | None) -> SafeString | str:
    """The deliveries that wait for it; of a small batch also those that do so no longer."""
    return _listed(
        format_html("{}: {}", link_to(d, f"{d.key} ({d.address})"), d.get_state_display())
        for d in related.depended_on_by(delivery, batch)
    )


def other_steps(delivery: Delivery) -> SafeString | str:
    """What the same recipient gets of the other messages of its batch."""
    return _listed(
        format_html(
            "{}: {}{}",
            link_to(each, f"step {position}"),
            each.get_state_display(),
            f", {each.words}" if each.words and each.state == DeliveryState.SKIPPED else "",
        )
        for position, each in related.other_steps(delivery)
    )


def conversation(delivery: Delivery) -> SafeString | str:
    """The mails that it answers, the first one first."""
    ids = related.conversation(delivery)
    found = Delivery.objects.in_bulk(ids[: MOST + 1])
    return _listed(link_to(found[pk], f"delivery {pk}") if pk in found else f"delivery {pk}, gone" for pk in ids)


def events_of(delivery: Delivery) -> SafeString | str:
    """What was heard of it after it was sent."""
    return _listed(
        f"{shown_instant(each.at)}: {each.get_kind_display()}" + (f" ({each.source})" if each.source else "")
        for each in related.events_of(delivery)
    )


def _listed(items: Iterable[SafeString | str]) -> SafeString | str:
    found = list(items)
    return lines(found[:MOST] + (["and more"] if len(found) > MOST else [])) if found else NONE


def _rules(delivery: Delivery) -> Rules:
    message: QuerySet = Message.objects.filter(pk=delivery.message_id)
    return Rules.of(message.values_list("rules", flat=True).first() or {})
