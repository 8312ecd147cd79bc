"""This worker's share of an engine's limits: drawn from the shared buckets in small advances, used soon or given back.

A token counts from its grant. One that is older than the limits' lateness is not used any more; another is drawn in its
place: then what reaches the engine in any window stays within the limit (see `Rate.guarded`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from delivery.clock import Clock
from delivery.core.throttle import Rate
from delivery.engine_desk import EngineDesk
from delivery.metrics import Count
from delivery.worker.bell import Bell
from delivery.worker.database import Database

LONGEST_NAP = 1.0  # then the limits are looked at again: an operator may have changed them
# Between two draws, when the first did not give all that was wanted: tokens gather meanwhile. Asking for each
# as it falls costs more than the mails.
GATHER = 100_000_000  # nanoseconds
# A store that takes longer to answer than tokens are good for would never let anything go: then they are good for
# longer, at a price (see `Rate.guarded`).
PATIENCE = 2  # times the longest answer of late
MOST_LATENESS = 1_000_000_000  # nanoseconds
FORGETTING = 0.7  # of the longest answer, with each draw


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """The right to hand messages over, drawn at these `rates` in a grant that `left` the buckets so. `good_until` is on
    the monotonic clock, in nanoseconds."""

    good_until: int
    rates: Mapping[str, Rate]
    left: Mapping[str, int]


FOREVER = Token(2**63 - 1, {}, {})
SPENT = Token(0, {}, {})


class Tokens:
    """Draws tokens of some buckets, all at once."""

    def __init__(
        self,
        database: Database,
        desk: EngineDesk,
        clock: Clock,
        rates: Mapping[str, Rate],
        waited: Count | None = None,
    ) -> None:
        """`waited` counts the seconds that takers wait for tokens, each for himself."""
        self._database = database
        self._desk = desk
        self._clock = clock
        self._waited = waited or Count()
        self._unused: dict[Token, int] = {}  # the oldest first
        self._stale: dict[Token, int] = {}
        self._not_before = 0  # of the next draw, on the monotonic clock
        self._longest = 0.0  # answer of late, in nanoseconds
        self.obey(rates)

    def obey(self, rates: Mapping[str, Rate]) -> None:
        """Keeps to these rates from now on."""
        self._rates = rates
        self.unlimited = not rates
        self._natural = min((rate.lateness for rate in rates.values()), default=0)
        self.lateness = max(self._natural, min(MOST_LATENESS, int(PATIENCE * self._longest)))
        self._guarded = {key: rate.guarded(self.lateness) for key, rate in rates.items()}

    async def take(self, wanted: int, stop: Bell) -> tuple[int, Token]:
        """Between 1 and `wanted` tokens, as soon as there are any; 0 when `stop` came first."""
        if self.unlimited and not stop.is_set():
            return wanted, FOREVER
        begun = self._clock.monotonic()
        try:
            return await self._drawn(wanted, stop)
        finally:
            self._waited.value += self._clock.monotonic() - begun

    async def _drawn(self, wanted: int, stop: Bell) -> tuple[int, Token]:
        while not stop.is_set():
            if self.unlimited:
                return wanted, FOREVER
            if kept := self.kept(wanted):
                return kept
            asked_at = self._clock.monotonic_ns()
            if asked_at < self._not_before:
                await _nap(self._not_before - asked_at, stop)
                continue
            rates, lateness = self._guarded, self.lateness
            drawn = await self._database.ask(self._desk.draw, rates, wanted)
            self._learn(self._clock.monotonic_ns() - asked_at)
            if drawn.tokens < wanted:
                self._not_before = asked_at + (self._gap() if drawn.tokens else drawn.wait)
            if not drawn.tokens:
                await _nap(drawn.wait, stop)
                continue
            token = Token(asked_at + lateness, rates, drawn.left)
            if self.good(token):
                return drawn.tokens, token
            self.give_back(drawn.tokens, token)  # the answer was too long in coming
            await self.return_unused()
        return 0, FOREVER

    def _learn(self, took: int) -> None:
        """Takes in how long the store took to answer."""
        before = self._longest
        self._longest = max(before * FORGETTING, float(took))
        if PATIENCE * max(before, self._longest) > self._natural:
            self.obey(self._rates)

    def good(self, token: Token) -> bool:
        """Whether a token may be used now."""
        return token is FOREVER or self._clock.monotonic_ns() <= token.good_until

    def give_back(self, count: int, token: Token) -> None:
        """Tokens that were not used: whoever takes next gets them while they are good, and then everybody."""
        if token.rates and count:
            self._unused[token] = self._unused.get(token, 0) + count

    def kept(self, wanted: int) -> tuple[int, Token] | None:
        """Up to `wanted` tokens that were given back and are still good; None when there are none."""
        while self._unused:
            token, count = next(iter(self._unused.items()))  # the oldest
            if not self.good(token):
                self._stale[token] = self._stale.get(token, 0) + self._unused.pop(token)
            elif count > wanted:
                self._unused[token] = count - wanted
                return wanted, token
            else:
                del self._unused[token]
                return count, token
        return None

    async def return_unused(self, *, also_good: bool = False) -> None:
        """Offers tokens that nobody used in time, or all of them, to the shared buckets; they may have lapsed."""
        for token in [token for token in self._unused if also_good or not self.good(token)]:
            self._stale[token] = self._stale.get(token, 0) + self._unused.pop(token)
        while self._stale:
            token, count = self._stale.popitem()
            # Once: repeated after a lost answer it could give back what somebody else has drawn since.
            await self._database.ask_once(self._desk.give_back, token.rates, token.left, count)

    def _gap(self) -> int:
        """How long tokens may gather without the bucket running over."""
        return min(GATHER, *(rate.interval * rate.burst * 3 // 4 for rate in self._guarded.values()))


async def _nap(nanoseconds: int, stop: Bell) -> None:
    await stop.wait(min(LONGEST_NAP, nanoseconds / 1e9))
