"""What a worker asks about its engines: what operators set up and what all workers share, put together.

Every method blocks, and is called in a thread that may. The rules are the core's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from delivery.catalogue import Catalogue, EngineSetup, PoolSetup
from delivery.core.breaker import State
from delivery.core.condition import Condition, News
from delivery.core.dispatch import NOBODY_ABLE
from delivery.core.failover import EngineView, Roster, Strategy
from delivery.core.retry import RetryPolicy
from delivery.core.throttle import Rate
from delivery.engines.base import Engine
from delivery.models import Engine as EngineRow
from delivery.shared.base import Drawn, Shared
from delivery.signals import engine_changed

# Told of an engine, by its id, that its circuit opened or closed, and what the engine said last.
Tell = Callable[[int, str, str], None]


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as a worker sees it: its engines as they are now, and how hard it tries."""

    id: int
    roster: Roster
    retry: RetryPolicy


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine may be asked for at most, by bucket: in messages and in calls, slowed by its pace. `version` is
    that of its settings, `name` its name."""

    messages: Mapping[str, Rate]
    calls: Mapping[str, Rate]
    version: str = ""
    name: str = ""


class EngineDesk:
    """See the module."""

    def __init__(self, catalogue: Catalogue, shared: Shared, tell: Tell | None = None) -> None:
        self._catalogue = catalogue
        self._shared = shared
        self._tell = tell

    def pool(self, pool_id: int, now: datetime) -> PoolView:
        """A pool as it is now. A sticky one moves on here when its engine does not work any more."""
        setup = self._catalogue.pool(pool_id)
        conditions = self._shared.conditions(member.engine.id for member in setup.members)
        views = tuple(_view(each.engine, conditions[each.engine.id], each.weight, now) for each in setup.members)
        roster = Roster(views, setup.strategy)
        if setup.strategy is Strategy.STICKY:
            roster = self._followed(setup, roster, now)
        return PoolView(pool_id, roster, setup.retry)

    def _followed(self, setup: PoolSetup, roster: Roster, now: datetime) -> Roster:
        before = self._shared.current(setup.id)
        roster = Roster(roster.engines, roster.strategy, before)
        after = roster.following(now)
        if after != before and not self._shared.move(setup.id, before, after):
            after = self._shared.current(setup.id)  # another worker was faster: where it went, all go
        return Roster(roster.engines, roster.strategy, after)

    def limits(self, engine_id: int, now: datetime) -> Limits:
        """The limits of an engine as they are now."""
        setup = self._catalogue.engine(engine_id)
        pace = self._shared.conditions([engine_id])[engine_id].pace
        rates = dict(setup.rates)
        if setup.ramp and (warmup := setup.ramp.rate_at(now)):
            rates[setup.ramp_key] = warmup
        rates = {key: rate.slowed(pace) for key, rate in rates.items()}
        calls = {key: rate.slowed(pace) for key, rate in setup.call_rates.items()}
        return Limits(rates, calls, setup.version, setup.name)

    def levels(self, engine_id: int, now: datetime) -> dict[str, int]:
        """How many tokens each bucket of an engine could give a worker now."""
        limits = self.limits(engine_id, now)
        rates = {key: rate.guarded() for key, rate in {**limits.messages, **limits.calls}.items()}
        return self._shared.levels(rates)

    def open(self, engine_id: int) -> Engine:
        """The working engine. Raises DeliveryError when its settings cannot work."""
        return self._catalogue.open(engine_id)

    def draw(self, rates: Mapping[str, Rate], wanted: int) -> Drawn:
        """Tokens, as many of `wanted` as all of these buckets can give now."""
        return self._shared.draw(rates, wanted)

    def give_back(self, rates: Mapping[str, Rate], left: Mapping[str, int], tokens: int) -> None:
        """Tokens of a grant that were not used; they lapse in buckets that were drawn from since."""
        self._shared.give_back(rates, left, tokens)

    def claim_probe(self, engine_id: int) -> bool:
        """Takes the one probe of an open circuit; False when it is not due or another worker has it."""
        policy = self._catalogue.engine(engine_id).breaker
        return self._shared.change(engine_id, lambda condition, now: condition.probing(now, policy))

    def record(self, engine_id: int, news: Sequence[News]) -> None:
        """Takes in what outcomes say of an engine, in their order."""
        policy = self._catalogue.engine(engine_id).breaker
        moved: list[Condition] = []

        def hear(condition: Condition, now: datetime) -> Condition:
            moved[:] = condition, condition.hearing(news, now, policy)
            return moved[1]

        if self._shared.change(engine_id, hear) and self._tell is not None:
            before, after = moved
            if what := _CIRCUIT.get((before.breaker.state, after.breaker.state)):
                self._tell(engine_id, what, after.last_error)

    def recover(self, engine_id: int) -> None:
        """Lets a slowed engine come back to its pace, a step for each quiet period."""
        self._shared.change(engine_id, lambda condition, now: condition.recovering(now))


# That a probe is out, or has failed, is nothing new.
_CIRCUIT = {
    (State.CLOSED, State.OPEN): "circuit_opened",
    (State.HALF_OPEN, State.CLOSED): "circuit_closed",
}


def tell_by_signal(engine_id: int, what: str, words: str) -> None:
    """Tells whoever asked for `engine_changed`."""
    engine_changed.send(EngineRow, engine_id=engine_id, what=what, by="", why=words, until=None)


def _view(setup: EngineSetup, condition: Condition, weight: int, now: datetime) -> EngineView:
    enabled, paused_until = setup.enabled, condition.paused_until
    if setup.held and setup.held_until is None:
        enabled = False
    elif setup.held:
        # A person may end a hold before its time: nothing is put off for longer than for an engine without any.
        until = min(setup.held_until, now + NOBODY_ABLE)
        paused_until = max(until, paused_until) if paused_until else until
    return EngineView(setup.id, condition.breaker, enabled, setup.domains, paused_until, weight)
