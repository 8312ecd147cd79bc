"""The shared state of token buckets, in the database: one row each, on the database's clock.

Decides nothing: `delivery.core.throttle` does. All limits of an engine are drawn in one transaction, so a message that
one limit allows and another refuses costs neither a token.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db import transaction

from delivery.core.throttle import Rate, draw
from delivery.models import Bucket
from delivery.queue.dialect import database_now


@dataclass(frozen=True, slots=True)
class Drawn:
    """`tokens` messages may go; when there are none, ask again after `wait` nanoseconds."""

    tokens: int
    wait: int


def draw_all(rates: Mapping[str, Rate], wanted: int) -> Drawn:
    """As many of `wanted` tokens as every bucket can give now."""
    if not rates:
        return Drawn(wanted, 0)
    with transaction.atomic():
        buckets = {b.key: b for b in Bucket.objects.select_for_update().filter(key__in=rates).order_by("key")}
        for key in sorted(rates.keys() - buckets):
            Bucket.objects.bulk_create([Bucket(key=key)], ignore_conflicts=True)
            buckets[key] = Bucket.objects.select_for_update().get(pk=key)
        now = _nanoseconds()
        offers = [draw(rate, buckets[key].state, now, wanted) for key, rate in rates.items()]
        tokens = min(offer.tokens for offer in offers)
        if not tokens:
            return Drawn(0, max(offer.wait for offer in offers if not offer.tokens))
        for key, rate in rates.items():
            Bucket.objects.filter(pk=key).update(state=draw(rate, buckets[key].state, now, tokens).state)
    return Drawn(tokens, 0)


def _nanoseconds() -> int:
    now = database_now()
    return int(now.timestamp()) * 1_000_000_000 + now.microsecond * 1000
