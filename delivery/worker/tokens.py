"""This worker's share of an engine's limits: drawn from the shared buckets in small advances, used soon or lost.

A token counts from its grant. One that is older than the engine's lateness is thrown away and drawn anew: then what
reaches the engine in any window stays within the limit (see `Rate.guarded`).
"""

import asyncio
import time
from dataclasses import dataclass

from delivery.buckets import draw_all
from delivery.engine_state import Limits
from delivery.worker.database import Database

LONGEST_NAP = 1.0  # then the limits are looked at again: an operator may have changed them
# Between two draws, when the first did not give all that was wanted: tokens gather meanwhile. Asking for each
# as it falls costs more than the mails.
GATHER = 25_000_000  # nanoseconds


@dataclass(frozen=True, slots=True)
class Token:
    """The right to hand one message over. `good_until` is on the monotonic clock, in nanoseconds."""

    good_until: int

    def is_good(self) -> bool:
        return time.monotonic_ns() <= self.good_until


FOREVER = Token(2**63 - 1)


class Tokens:
    """Draws tokens for one engine."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self.limits = limits
        self._database = database
        self._unused = 0
        self._token = Token(0)
        self._not_before = 0  # of the next draw, on the monotonic clock

    @property
    def unlimited(self) -> bool:
        return not self.limits.rates

    async def take(self, wanted: int, stop: asyncio.Event) -> tuple[int, Token]:
        """Between 1 and `wanted` tokens, as soon as there are any; 0 when `stop` came first."""
        while not stop.is_set():
            if self.unlimited:
                return wanted, FOREVER
            if self._unused and self._token.is_good():
                count = min(wanted, self._unused)
                self._unused -= count
                return count, self._token
            asked_at = time.monotonic_ns()
            if asked_at < self._not_before:
                await _nap(self._not_before - asked_at, stop)
                continue
            drawn = await self._database.ask(draw_all, self.limits.rates, wanted)
            if drawn.tokens < wanted:
                self._not_before = asked_at + self._gap()
            if drawn.tokens:
                return drawn.tokens, Token(asked_at + self.limits.lateness)
            await _nap(drawn.wait, stop)
        return 0, FOREVER

    def _gap(self) -> int:
        """How long tokens may gather without the bucket running over."""
        return min(GATHER, *(rate.interval * rate.burst // 2 for rate in self.limits.rates.values()))

    def give_back(self, count: int, token: Token) -> None:
        """Tokens that were not used; they may be until they lapse."""
        if token is FOREVER or not token.is_good():
            return
        self._unused = count + (self._unused if self._token is token else 0)
        self._token = token


async def _nap(nanoseconds: int, stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(min(LONGEST_NAP, nanoseconds / 1e9)):
            await stop.wait()
    except TimeoutError:
        return
