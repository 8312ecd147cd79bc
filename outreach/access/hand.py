"""Tokens of a bucket that this process has in hand, so that the store that all processes share is not asked for each
request.

A twentieth of what the bucket gives in a second is in each process's hand once a second without asking: who asks now
and then, as a person does, waits for no write. Whoever needs more draws it: 2, 4 and so on up to a twentieth. What is
in hand lapses after a second. So all processes together may pass the rate by what each has free; a rate of less than
twenty in a second has nothing free, and is held to the request.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from delivery.core.throttle import SECOND, Rate
from delivery.shared import Drawn

KEPT = SECOND
MOST_KEYS = 10_000  # hands that are remembered; beyond it those that have lapsed are dropped
Draw = Callable[[str, Rate, int], Drawn]


class Verdict(NamedTuple):
    """May it? And what is left: requests now, seconds until the next one may come, seconds until all may."""

    granted: bool
    limit: int
    remaining: int
    wait: float
    reset: float


@dataclass(slots=True)
class _Hand:
    tokens: int = 0
    size: int = 0  # of the last draw
    more: int = 0  # in the bucket, at that draw
    until: int = 0  # when it lapses; of an empty one, before when the store need not be asked
    free_at: int = 0  # when something is free again


class Hands:
    """All hands of a process. `draw` asks the store, and may block; `clock` is in nanoseconds. For threads."""

    def __init__(self, draw: Draw, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._draw = draw
        self._clock = clock
        self._lock = threading.Lock()
        self._hands: dict[str, _Hand] = {}

    def take(self, key: str, rate: Rate) -> Verdict:
        """One token. Raises what `draw` raises."""
        now = self._clock()
        with self._lock:
            hand = self._hand(key, now)
            if now < hand.until:
                if hand.tokens:
                    hand.tokens -= 1
                    return _granted(rate, hand)
                if not hand.size:
                    return _refused(rate, hand.until - now)
            if now >= hand.free_at and (free := _share(rate)):
                hand.tokens, hand.size, hand.more = free - 1, 1, rate.burst - free
                hand.until = hand.free_at = now + KEPT
                return _granted(rate, hand)
            wanted = min(max(hand.size, 1) * 2, max(_share(rate), 1)) if now < hand.until else 1
        drawn = self._draw(key, rate, wanted)
        with self._lock:
            hand = self._hand(key, now)
            if not drawn.tokens:
                hand.tokens, hand.size, hand.more, hand.until = 0, 0, 0, now + drawn.wait
                return _refused(rate, drawn.wait)
            in_hand = hand.tokens if now < hand.until else 0  # of another thread, which drew meanwhile
            hand.tokens, hand.size = in_hand + drawn.tokens - 1, drawn.tokens
            hand.more, hand.until = drawn.more, now + KEPT
            return _granted(rate, hand)

    def _hand(self, key: str, now: int) -> _Hand:
        hand = self._hands.get(key)
        if hand is None:
            if len(self._hands) >= MOST_KEYS:
                self._hands = {key: hand for key, hand in self._hands.items() if now < hand.until}
            hand = self._hands[key] = _Hand()
        return hand


def _share(rate: Rate) -> int:
    """What is free in a second, and the most of one draw: so little that what is passed or lapses is no great part."""
    return min(SECOND // rate.interval, rate.burst) // 20


def _granted(rate: Rate, hand: _Hand) -> Verdict:
    left = min(hand.tokens + hand.more, rate.burst)
    return Verdict(True, rate.burst, left, 0, (rate.burst - left) * rate.interval / SECOND)


def _refused(rate: Rate, wait: int) -> Verdict:
    return Verdict(False, rate.burst, 0, wait / SECOND, rate.burst * rate.interval / SECOND)
