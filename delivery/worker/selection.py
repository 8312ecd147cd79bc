"""Who of those that were leased is to get the mail after all: by what was heard of earlier mails, and by a condition.

Asked when a worker has the deliveries in hand, so that the last word counts. Also brings what was composed for them.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from delivery.models import DeliveryState
from delivery.queue.work import Queue
from delivery.templating import TemplateProblem
from delivery.worker.database import Database
from delivery.worker.lane import Item

NOT_WANTED = "its condition does not hold"


class LeftOut(NamedTuple):
    """A delivery that ends here and now, and why."""

    item: Item
    end: DeliveryState
    words: str


async def select(items: Sequence[Item], database: Database, queue: Queue) -> tuple[list[Item], list[LeftOut]]:
    """Those to be sent, with their words, and those that are not."""
    unheard: dict[int, str] = {}
    for message_id, of_message in _by_message(items).items():
        composer = of_message[0].message
        ids = [item.leased.id for item in of_message]
        if composer.asks_events:
            unheard |= await database.ask(queue.unmet, ids, message_id)
        if composer.is_composed:
            words = await database.ask(queue.texts, ids)
            for item in of_message:
                item.words = words.get(item.leased.id)
    wanted, left_out = [], []
    for item in items:
        if why := unheard.get(item.leased.id):
            left_out.append(LeftOut(item, DeliveryState.SKIPPED, why))
        elif item.message.conditional and (unfit := _unfit(item)):
            left_out.append(unfit)
        else:
            wanted.append(item)
    return wanted, left_out


def _by_message(items: Sequence[Item]) -> dict[int, list[Item]]:
    found: dict[int, list[Item]] = {}
    for item in items:
        found.setdefault(item.leased.message, []).append(item)
    return found


def _unfit(item: Item) -> LeftOut | None:
    """None when the condition holds of the recipient."""
    try:
        if item.message.wants(json.loads(item.leased.data)):
            return None
        return LeftOut(item, DeliveryState.SKIPPED, NOT_WANTED)
    except TemplateProblem as problem:
        return LeftOut(item, DeliveryState.DEAD, f"whether to send it cannot be told: {problem}")
