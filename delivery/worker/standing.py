"""How the engines stand, as this worker knows: read from what the workers share, and at once from its own outcomes.

What outcomes say is passed on to the shared state in batches; until the answer is back, an engine that wants no more is
taken at its word here. The rules are the core's; the engine desk writes.
"""

from collections.abc import Collection
from datetime import datetime

from delivery.clock import Clock
from delivery.core.breaker import Breaker, State
from delivery.core.condition import Health
from delivery.core.dispatch import Verdict
from delivery.core.envelope import Outcome
from delivery.core.failover import EngineView
from delivery.engine_desk import EngineDesk, PoolView
from delivery.models import NO_DEADLINE
from delivery.worker.database import Database
from delivery.worker.hearsay import Hearsay

ANY_NUMBER = 1_000_000
CLEAN = Breaker()  # a success changes nothing here: the usual case, which costs no write


class Standing:
    """The pools this worker has to do with, and their engines."""

    def __init__(self, database: Database, desk: EngineDesk, clock: Clock) -> None:
        self._database = database
        self._desk = desk
        self._clock = clock
        self._pools: dict[int, PoolView] = {}
        self._engines: dict[int, EngineView] = {}  # of all those pools
        self._hearsay = Hearsay(database, desk, self._all_again)

    def __getitem__(self, pool_id: int) -> PoolView:
        """A pool that was looked at before."""
        return self._pools[pool_id]

    async def able(self, pool_id: int) -> bool:
        """True when any engine of the pool may be asked now."""
        if pool_id not in self._pools:
            await self._look_at(pool_id)
        now = self._clock.now()
        return any(engine.able_at(now) == now for engine in self._pools[pool_id].roster.engines)

    async def able_at(self, pool_id: int) -> datetime:
        """The earliest instant at which an engine of the pool may be asked, as far as is known."""
        if pool_id not in self._pools:
            await self._look_at(pool_id)
        now = self._clock.now()
        instants = [engine.able_at(now) for engine in self._pools[pool_id].roster.engines]
        return min((at for at in instants if at is not None), default=NO_DEADLINE)

    def able_engines(self) -> frozenset[tuple[int, State]]:
        """Those that may be asked now, for a probe or for everything."""
        now = self._clock.now()
        return frozenset((n, view.breaker.state) for n, view in self._engines.items() if view.able_at(now) == now)

    def has_other(self, pool_id: int, engine_id: int, domain: str, now: datetime) -> bool:
        """True when another engine of the pool could take a delivery from `domain` at once."""
        engines = self._pools[pool_id].roster.engines
        return any(e.id != engine_id and e.sends_for(domain) and e.able_at(now) == now for e in engines)

    def wants_more(self, engine_id: int) -> bool:
        """False for an engine that said to stop or slow down, or that a person switched off or holds: what is marked
        for it goes back, before a provider locks us out. A half-open circuit does want its probe."""
        if self._hearsay.refuses(engine_id):
            return False
        view = self._engines.get(engine_id)
        if view is None:
            return True
        paused = view.paused_until is not None and view.paused_until > self._clock.now()
        return view.enabled and view.breaker.state is not State.OPEN and not paused

    async def admit(self, engine_id: int) -> int:
        """How many deliveries the engine may be asked to take now: 0 when its circuit is open or it is paused, 1 for
        the probe, else any number."""
        await self._hearsay.passed_on(engine_id)
        view = self._engines.get(engine_id)
        now = self._clock.now()
        if view is None or view.able_at(now) != now:
            return 0
        if view.breaker.state is State.CLOSED:
            return ANY_NUMBER
        claimed = await self._database.ask(self._desk.claim_probe, engine_id)
        await self.look_again()
        return 1 if claimed else 0

    def hear(self, engine_id: int, verdict: Verdict, outcome: Outcome) -> None:
        """Takes in what an outcome says of its engine."""
        if verdict.health is Health.GOOD:
            view = self._engines.get(engine_id)
            # Between faults that are still to be passed on, a success counts: they are not in a row.
            if not self._hearsay.is_about(engine_id) and (view is None or view.breaker == CLEAN):
                return
        self._hearsay.hear(engine_id, verdict, outcome)

    async def pass_on_for_ever(self) -> None:
        """See `Hearsay`."""
        await self._hearsay.pass_on_for_ever()

    async def pass_on(self) -> None:
        """Writes the news there is."""
        await self._hearsay.pass_on()

    async def _all_again(self, engine_ids: Collection[int]) -> None:
        await self.look_again()

    async def look_again(self) -> None:
        """Reads how all the engines stand."""
        for pool_id in list(self._pools):
            await self._look_at(pool_id)

    async def _look_at(self, pool_id: int) -> None:
        pool = self._pools[pool_id] = await self._database.ask(self._desk.pool, pool_id, self._clock.now())
        self._engines.update((engine.id, engine) for engine in pool.roster.engines)
