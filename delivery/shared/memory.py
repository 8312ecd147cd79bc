"""Shared state within one process, on a clock that is passed in: for tests and the simulator."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from delivery.core.condition import Condition
from delivery.core.throttle import Rate, draw, given_back
from delivery.shared.base import Change, Drawn

NEW = Condition()


class MemoryShared:
    """See `delivery.shared.base.Shared`. `nanoseconds` is the time for buckets, `now` the same for conditions. Not for
    threads."""

    def __init__(self, nanoseconds: Callable[[], int], now: Callable[[], datetime]) -> None:
        self._nanoseconds = nanoseconds
        self._now = now
        self._buckets: dict[str, int] = {}
        self._conditions: dict[int, Condition] = {}
        self._current: dict[int, int | None] = {}

    def draw(self, rates: Mapping[str, Rate], wanted: int) -> Drawn:
        if not rates:
            return Drawn(wanted)
        now = self._nanoseconds()
        offers = [draw(rate, self._buckets.get(key, 0), now, wanted) for key, rate in rates.items()]
        tokens = min(offer.tokens for offer in offers)
        if not tokens:
            for key, offer in zip(rates, offers, strict=True):
                if not offer.tokens and key in self._buckets:
                    self._buckets[key] = offer.state
            return Drawn(0, max(offer.wait for offer in offers if not offer.tokens))
        left = {}
        for (key, rate), offer in zip(rates.items(), offers, strict=True):
            if offer.tokens != tokens:
                offer = draw(rate, self._buckets.get(key, 0), now, tokens)
            left[key] = self._buckets[key] = offer.state
        more = min(draw(rate, left[key], now, rate.burst).tokens for key, rate in rates.items())
        return Drawn(tokens, 0, left, more)

    def levels(self, rates: Mapping[str, Rate]) -> dict[str, int]:
        now = self._nanoseconds()
        return {key: draw(rate, self._buckets.get(key, 0), now, rate.burst).tokens for key, rate in rates.items()}

    def give_back(self, rates: Mapping[str, Rate], left: Mapping[str, int], tokens: int) -> None:
        for key, rate in rates.items():
            if key in self._buckets:
                self._buckets[key] = given_back(rate, self._buckets[key], left[key], tokens)

    def conditions(self, engine_ids: Iterable[int]) -> dict[int, Condition]:
        return {engine_id: self._conditions.get(engine_id, NEW) for engine_id in engine_ids}

    def change(self, engine_id: int, change: Change) -> bool:
        before = self._conditions.get(engine_id, NEW)
        after = change(before, self._now())
        if after is None or after == before:
            return False
        self._conditions[engine_id] = after
        return True

    def current(self, pool_id: int) -> int | None:
        return self._current.get(pool_id)

    def move(self, pool_id: int, before: int | None, after: int | None) -> bool:
        if self._current.get(pool_id) != before:
            return False
        self._current[pool_id] = after
        return True
