"""The messages of a batch and their order, as they were frozen."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from delivery.core.sequence import On, Rules
from delivery.models import Message


class PlannedMessage(NamedTuple):
    """A message of a batch, as far as order is concerned."""

    id: int
    position: int
    rules: Rules
    is_composed: bool


class Plan(NamedTuple):
    """The messages of a batch, and which follow each of them."""

    messages: Mapping[int, PlannedMessage]
    followers: Mapping[int, Sequence[tuple[PlannedMessage, On]]]
    needs_data: bool


@lru_cache(maxsize=64)
def plan_of(batch_id: int, reference: str) -> Plan:
    """Messages never change; the reference is part of the key because databases use ids again, in tests at least."""
    messages = {
        message.pk: PlannedMessage(message.pk, message.position, Rules.of(message.rules), message.composing is not None)
        for message in Message.objects.filter(batch=batch_id)
    }
    followers: dict[int, list[tuple[PlannedMessage, On]]] = defaultdict(list)
    for message in messages.values():
        for edge in message.rules.after:
            followers[edge.message].append((message, edge.on))
    return Plan(messages, followers, any(message.rules.per_recipient for message in messages.values()))
