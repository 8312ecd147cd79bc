"""Scripted vendors as the engines of one pool: what an operator would have set up, by script."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from delivery.catalogue import EngineSetup, Member, PoolSetup
from delivery.clock import Clock
from delivery.core.breaker import BreakerPolicy
from delivery.core.failover import Strategy
from delivery.core.retry import RetryPolicy
from delivery.core.script import Vendor, VendorScript
from delivery.engines.scripted import ScriptedEngine, Taken
from delivery.simulation.queue import POOL


@dataclass(frozen=True, slots=True)
class Policies:
    """How the pool is worked. `limited`: whether our own limits keep to the vendors'."""

    strategy: Strategy = Strategy.PRIORITY
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    limited: bool = True


class ScriptedCatalogue:
    """See `delivery.catalogue.Catalogue`. Engines are numbered from 1, in the vendors' order; every worker has engines
    of its own, and all of them the same vendors behind."""

    def __init__(
        self,
        scripts: Sequence[VendorScript],
        policies: Policies,
        clock: Clock,
        seed: str,
        taken: Sequence[Taken] | None = None,
    ) -> None:
        self.vendors = [Vendor(script, random.Random(f"{seed} {script.name}")) for script in scripts]  # noqa: S311
        self._clock = clock
        self._taken = taken
        self._setups = {n: _setup(n, script, policies) for n, script in enumerate(scripts, 1)}
        members = tuple(Member(self._setups[n], script.weight) for n, script in enumerate(scripts, 1))
        self._pool = PoolSetup(POOL, members, policies.strategy, policies.retry)

    def pool(self, pool_id: int) -> PoolSetup:
        return self._pool

    def engine(self, engine_id: int) -> EngineSetup:
        return self._setups[engine_id]

    def open(self, engine_id: int) -> ScriptedEngine:
        taken = self._taken[engine_id - 1] if self._taken else None
        return ScriptedEngine(self.vendors[engine_id - 1], self._clock, taken)


def _setup(number: int, script: VendorScript, policies: Policies) -> EngineSetup:
    rates = {f"vendor {number}": script.rate} if script.rate and policies.limited else {}
    return EngineSetup(number, script.name, breaker=policies.breaker, rates=rates)
