"""What operators have set up: engines and pools as plain values, read from the tables.

Decides nothing; a worker and the simulator see their engines through the same values, from different catalogues.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from delivery.core.breaker import BreakerPolicy
from delivery.core.failover import Strategy
from delivery.core.retry import RetryPolicy
from delivery.core.throttle import Rate
from delivery.core.warmup import Ramp
from delivery.engines import base, open_engine
from delivery.models import Counted, Engine, Pool, PoolMember


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """One engine. `rates` limit its messages and `call_rates` its calls, by bucket; `ramp` is its warm-up, whose bucket
    is `ramp_key`. `held`: a person has stopped it, until `held_until` or until it is released."""

    id: int
    name: str
    enabled: bool = True
    held: bool = False
    held_until: datetime | None = None
    domains: frozenset[str] = frozenset()
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    rates: Mapping[str, Rate] = field(default_factory=dict)
    call_rates: Mapping[str, Rate] = field(default_factory=dict)
    ramp: Ramp | None = None
    ramp_key: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """An engine's place in a pool."""

    engine: EngineSetup
    weight: int = 1


@dataclass(frozen=True, slots=True)
class PoolSetup:
    """A pool: its engines in order, how one is chosen, how hard it tries."""

    id: int
    members: tuple[Member, ...]
    strategy: Strategy = Strategy.PRIORITY
    retry: RetryPolicy = field(default_factory=RetryPolicy)


class Catalogue(Protocol):
    """Where setups come from."""

    def pool(self, pool_id: int) -> PoolSetup: ...

    def engine(self, engine_id: int) -> EngineSetup: ...

    def open(self, engine_id: int) -> base.Engine:
        """The working engine. Raises DeliveryError when its settings cannot work."""
        ...


class StoredCatalogue:
    """The operators' own tables."""

    def pool(self, pool_id: int) -> PoolSetup:
        pool = Pool.objects.prefetch_related("special_rules").get(pk=pool_id)
        members = PoolMember.objects.filter(pool=pool_id).select_related("engine").prefetch_related("engine__limits")
        return PoolSetup(
            pool_id,
            tuple(Member(_setup(member.engine), member.weight) for member in members),
            Strategy(pool.strategy),
            pool.retry_policy,
        )

    def engine(self, engine_id: int) -> EngineSetup:
        return _setup(Engine.objects.prefetch_related("limits").get(pk=engine_id))

    def open(self, engine_id: int) -> base.Engine:
        return open_engine(Engine.objects.get(pk=engine_id))


def _setup(engine: Engine) -> EngineSetup:
    limits = engine.limits.all()
    return EngineSetup(
        id=engine.pk,
        name=engine.name,
        enabled=engine.enabled,
        held=engine.held,
        held_until=engine.held_until,
        domains=engine.domains,
        breaker=engine.breaker_policy,
        rates={limit.bucket_key: limit.rate for limit in limits if limit.counts == Counted.MESSAGES},
        call_rates={limit.bucket_key: limit.rate for limit in limits if limit.counts == Counted.CALLS},
        ramp=engine.ramp,
        ramp_key=engine.warmup_key,
        version=engine.version,
    )
