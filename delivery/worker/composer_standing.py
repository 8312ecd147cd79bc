"""How the composers stand, as this worker knows: read from what the workers share, and at once from its own outcomes.

As `delivery.worker.standing`, for engines that are in no pool. Two things are asked here that nobody asks of an engine
that sends, for a composer has a stand-in, the template: whether a person switched it off, and whether it has been
failing for so long that the template is better than more waiting.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.core.exceptions import ObjectDoesNotExist

from delivery.clock import Clock
from delivery.core.breaker import Breaker, State
from delivery.core.condition import Health, News
from delivery.core.dispatch import Verdict
from delivery.core.envelope import Outcome
from delivery.core.failover import EngineView
from delivery.engine_desk import EngineDesk
from delivery.worker.database import Database
from delivery.worker.hearsay import Hearsay

# A circuit whose cool-off has grown to this was opened again and again: with the usual 15 s, for some two minutes.
FAILING = timedelta(minutes=2)
REFRESH = 1.0  # seconds between looks at a composer


@dataclass(frozen=True, slots=True)
class ComposerView:
    """A composer at one instant. `off` says in words why it will not compose until a person acts who meant it so, or
    will hardly: then the template is used. A hold is no such thing: that is waited for."""

    engine: EngineView
    off: str = ""

    def able_at(self, now: datetime) -> datetime | None:
        """`now` when it may be asked, a later instant, or None when only a person can change that."""
        return None if self.off else self.engine.able_at(now)


class ComposerDesk(EngineDesk):
    """The engine desk, asked about one composer."""

    @classmethod
    def beside(cls, desk: EngineDesk) -> "ComposerDesk":
        """One that knows what that desk knows."""
        return cls(desk._catalogue, desk._shared, desk._tell)

    def composer(self, engine_id: int, now: datetime) -> ComposerView:
        """How it is now."""
        try:
            setup = self._catalogue.engine(engine_id)
        except ObjectDoesNotExist:
            return ComposerView(EngineView(engine_id, Breaker(), enabled=False), "the composer is gone")
        condition = self._shared.conditions([engine_id])[engine_id]
        breaker = condition.breaker
        if not setup.enabled:
            return ComposerView(EngineView(engine_id, breaker, enabled=False), f"{setup.name} is switched off")
        held_for_ever = setup.held and setup.held_until is None
        pauses = [condition.paused_until, setup.held_until if setup.held else None]
        paused_until = max(filter(None, pauses), default=None)
        view = EngineView(engine_id, breaker, enabled=not held_for_ever, paused_until=paused_until)
        if breaker.state is State.OPEN and breaker.cool_off >= FAILING and breaker.able_at(now) != now:
            return ComposerView(view, f"{setup.name} keeps failing: {condition.last_error}")
        return ComposerView(view)


class ComposerStanding:
    """The composers this worker has to do with."""

    def __init__(self, database: Database, desk: ComposerDesk, clock: Clock) -> None:
        self._database = database
        self._desk = desk
        self._clock = clock
        self._views: dict[int, ComposerView] = {}
        self._looked_at: dict[int, float] = {}
        self._hearsay = Hearsay(database, desk, self._these_again)

    async def of(self, engine_id: int) -> ComposerView:
        """How a composer is, as of a look that is not long ago."""
        if self._clock.monotonic() - self._looked_at.get(engine_id, float("-inf")) >= REFRESH:
            await self.look_at(engine_id)
        return self._views[engine_id]

    def may_go(self, engine_id: int) -> bool:
        """Whether it may be asked now, for a probe or for everything, as far as is known."""
        now = self._clock.now()
        return not self._hearsay.refuses(engine_id) and self._views[engine_id].able_at(now) == now

    async def admit(self, engine_id: int) -> bool:
        """Whether it may be asked for one text now. Of an open circuit this takes the probe."""
        await self._hearsay.passed_on(engine_id)
        if not self.may_go(engine_id):
            return False
        if self._views[engine_id].engine.breaker.state is State.CLOSED:
            return True
        claimed = await self._database.ask(self._desk.claim_probe, engine_id)
        await self.look_at(engine_id)
        return claimed

    def hear(self, engine_id: int, verdict: Verdict, outcome: Outcome) -> None:
        """Takes in what an outcome says of its composer."""
        if verdict.health is Health.GOOD and not self._hearsay.is_about(engine_id):
            breaker = self._views[engine_id].engine.breaker
            if breaker.state is State.CLOSED and not breaker.faults:
                return  # the usual case, which costs no write
        self._hearsay.hear(engine_id, verdict, outcome)

    async def fail(self, engine_id: int, words: str) -> None:
        """Its settings cannot work. Of an open circuit that is what its probe has found."""
        if self._views[engine_id].engine.breaker.state is not State.CLOSED:
            await self._database.ask(self._desk.claim_probe, engine_id)
        await self._database.ask(self._desk.record, engine_id, [News(Health.FATAL, words)])
        await self.look_at(engine_id)

    async def pass_on_for_ever(self) -> None:
        """See `Hearsay`."""
        await self._hearsay.pass_on_for_ever()

    async def pass_on(self) -> None:
        """Writes the news there is."""
        await self._hearsay.pass_on()

    async def _these_again(self, engine_ids: Collection[int]) -> None:
        for engine_id in engine_ids:
            await self.look_at(engine_id)

    async def look_at(self, engine_id: int) -> None:
        """Reads how a composer is now."""
        begun = self._clock.monotonic()
        self._views[engine_id] = await self._database.ask(self._desk.composer, engine_id, self._clock.now())
        self._looked_at[engine_id] = begun
