"""What the workers share about each engine, and its named transitions: the circuit, the pace, a pause.

The rules are the core's; here they meet the row. Every write is conditional on the version that was read, so that two
workers cannot both hold the one probe, nor undo each other's news.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import F

from delivery.core.breaker import Breaker, BreakerPolicy
from delivery.core.dispatch import Health
from delivery.core.failover import EngineView
from delivery.core.retry import RetryPolicy
from delivery.core.throttle import MAX_LATENESS, QUIET, SLOW_ONCE_IN, Rate, recovered, slower
from delivery.models import Engine, EngineState, Pool, PoolMember
from delivery.queue.dialect import database_now

POLICY = BreakerPolicy()


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as a worker sees it: its engines in order, and how hard it tries."""

    id: int
    engines: tuple[EngineView, ...]
    retry: RetryPolicy


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine may be asked for at most, by bucket, slowed by its pace. `lateness`: how long after its grant a
    token may be used, in nanoseconds."""

    rates: dict[str, Rate]
    lateness: int
    pace: float


def pool_view(pool_id: int) -> PoolView:
    """The engines of a pool, in the pool's order, as they are now."""
    members = PoolMember.objects.filter(pool=pool_id).select_related("engine", "engine__state")
    engines = tuple(_view(member.engine) for member in members)
    return PoolView(pool_id, engines, Pool.objects.get(pk=pool_id).retry_policy)


def _state(engine: Engine) -> EngineState:
    try:
        return engine.state
    except EngineState.DoesNotExist:
        return EngineState(engine=engine)


def _view(engine: Engine) -> EngineView:
    state = _state(engine)
    return EngineView(engine.pk, state.breaker, engine.enabled, engine.domains, state.paused_until)


def limits(engine_id: int) -> Limits:
    """The limits of an engine, guarded for late use (see `Rate.guarded`) and slowed by its pace."""
    engine = Engine.objects.select_related("state").prefetch_related("limits").get(pk=engine_id)
    pace = _state(engine).pace
    rates = {limit.bucket_key: limit.rate.slowed(pace) for limit in engine.limits.all()}
    lateness = min((rate.lateness for rate in rates.values()), default=MAX_LATENESS)
    return Limits({key: rate.guarded() for key, rate in rates.items()}, lateness, pace)


def claim_probe(engine_id: int) -> bool:
    """Takes the one probe of an open circuit; False when it is not due or another worker has it."""
    now = database_now()

    def probe(state: EngineState) -> bool:
        claimed = state.breaker.claim_probe(now, POLICY)
        if claimed:
            _set_breaker(state, claimed)
        return claimed is not None

    return _change(engine_id, probe)


@dataclass(frozen=True, slots=True)
class News:
    """What one outcome says of an engine. `pause`: it asked to be left alone that long."""

    health: Health
    words: str = ""
    pause: timedelta | None = None


def record(engine_id: int, news: Sequence[News]) -> None:
    """Takes in what outcomes say of an engine, in their order."""
    now = database_now()

    def take_in(state: EngineState) -> bool:
        changed = False
        for piece in news:
            changed |= _take_in(state, piece, now)
        return changed

    _change(engine_id, take_in)


def _take_in(state: EngineState, news: News, now: datetime) -> bool:
    health, words, pause = news.health, news.words, news.pause
    if health is Health.GOOD:
        before = state.breaker
        _set_breaker(state, before.record_success())
        return state.breaker != before
    state.last_error, state.last_error_at = words[:600], now
    if health is Health.SLOW_DOWN:
        state.paused_until = max(filter(None, (state.paused_until, now + pause if pause else None)), default=None)
        if state.pace_changed_at is None or now - state.pace_changed_at >= SLOW_ONCE_IN:
            state.pace, state.pace_changed_at = slower(state.pace), now
        return True
    _set_breaker(state, state.breaker.record_fault(now, POLICY, fatal=health is Health.FATAL))
    return True


def recover(engine_id: int) -> None:
    """Lets a slowed engine come back to its pace, a step for each quiet period."""
    now = database_now()

    def step(state: EngineState) -> bool:
        if state.pace >= 1 or state.pace_changed_at is None or now - state.pace_changed_at < QUIET:
            return False
        state.pace, state.pace_changed_at = recovered(state.pace, now - state.pace_changed_at), now
        return True

    _change(engine_id, step)


def _set_breaker(state: EngineState, breaker: Breaker) -> None:
    state.circuit, state.faults = breaker.state, breaker.faults
    state.cool_off_seconds, state.probe_at = breaker.cool_off.total_seconds(), breaker.probe_at


def _change(engine_id: int, change: Callable[[EngineState], bool]) -> bool:
    """Applies `change` to the state of an engine and writes it, if no one else wrote meanwhile; else anew on what they
    wrote. Returns what `change` said at last: False means there is nothing to write."""
    while True:
        state, _ = EngineState.objects.get_or_create(engine_id=engine_id)
        if not change(state):
            return False
        fields = {f.attname: getattr(state, f.attname) for f in EngineState._meta.concrete_fields}
        del fields["engine_id"], fields["version"]
        written = EngineState.objects.filter(engine_id=engine_id, version=state.version)
        if written.update(**fields, version=F("version") + 1):
            return True
