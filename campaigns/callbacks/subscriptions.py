"""Who asks for what, remembered by each process for FRESH seconds, so that what nobody asks for costs next to nothing.

A webhook that is added hears of everything from FRESH seconds later on, at the latest. What is remembered only says
whether it is worth looking: who is told stands in the database, and is read in the transaction that tells.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass

from campaigns.callbacks import names
from campaigns.models import Webhook

FRESH = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Subscription:
    """A webhook, where it leads, and the names of what it is told."""

    webhook: int
    url: str
    wanted: frozenset[str]


_wanted: frozenset[str] = frozenset()
_read_at: float | None = None


def wanting(told: Collection[str]) -> list[Subscription]:
    """The webhooks that are to be told of any of these names."""
    if _remembered().isdisjoint(told):
        return []
    return [each for each in _read() if not each.wanted.isdisjoint(told)]


def forget() -> None:
    """This process looks again."""
    global _read_at
    _read_at = None


def _remembered() -> frozenset[str]:
    """What anybody asks for, as far as is known."""
    global _wanted, _read_at
    now = time.monotonic()
    if _read_at is None or now - _read_at > FRESH:
        _wanted = frozenset().union(*(each.wanted for each in _read()))
        _read_at = now
    return _wanted


def _read() -> list[Subscription]:
    rows = Webhook.objects.filter(enabled=True).order_by("pk").values_list("pk", "url", "events")
    return [Subscription(pk, url, names.meant(events)) for pk, url, events in rows]
