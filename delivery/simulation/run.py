"""One simulation: deliveries, vendors and policies in, what came of it out. The same seed gives the same result."""

import asyncio
import gc
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from delivery.core.dispatch import UncertainPolicy
from delivery.core.envelope import Kind
from delivery.core.script import VendorScript
from delivery.engine_desk import EngineDesk
from delivery.metrics import Meter
from delivery.shared.memory import MemoryShared
from delivery.simulation.database import InstantDatabase
from delivery.simulation.loop import EPOCH, SECOND, VirtualClock, VirtualLoop
from delivery.simulation.queue import MemoryQueue
from delivery.simulation.vendors import Policies, ScriptedCatalogue
from delivery.worker import Pump, Surroundings, Until

TERM = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated."""

    deliveries: int
    vendors: tuple[VendorScript, ...]
    policies: Policies = field(default_factory=Policies)
    uncertain: UncertainPolicy = UncertainPolicy.HOLD
    workers: int = 1
    seed: str = "1"


@dataclass(frozen=True, slots=True)
class VendorResult:
    """What one vendor answered, by kind, and how many mails it took in each second of the simulation."""

    name: str
    answers: dict[Kind, int]
    per_second: Counter[int]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a simulation has come: virtual seconds, deliveries by end state, answers of each vendor by kind."""

    seconds: float
    ends: dict[str, int]
    vendors: tuple[tuple[str, dict[Kind, int]], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a scenario. `seconds` is virtual time to the last end state. `states` counts every delivery, one by
    one; `tally` is what was counted as they ended: both must be the same."""

    scenario: Scenario
    seconds: float
    states: dict[str, int]
    tally: dict[str, int]
    vendors: tuple[VendorResult, ...]

    @property
    def reconciles(self) -> bool:
        """Whether every delivery has one end, and both ways of counting agree."""
        return self.states == self.tally and sum(self.tally.values()) == self.scenario.deliveries

    def taken_within(self, share: float) -> int:
        """After how many whole seconds that share of all mails that were ever taken had been."""
        per_second: Counter[int] = Counter()
        for vendor in self.vendors:
            per_second.update(vendor.per_second)
        wanted, sofar = share * per_second.total(), 0
        for second in sorted(per_second):
            sofar += per_second[second]
            if sofar >= wanted:
                return second + 1
        return 0


class Simulation:
    """A scenario under way. `watch` hears of the progress once in each virtual second; `meter` counts what its workers
    do, for nobody else."""

    def __init__(
        self, scenario: Scenario, watch: Callable[[Progress], None] | None = None, meter: Meter | None = None
    ) -> None:
        self._scenario = scenario
        self._watch = watch
        if not scenario.deliveries:
            raise ValueError("there is nothing to deliver")
        self._loop = VirtualLoop()
        self._clock = VirtualClock(self._loop)
        self._per_second = [Counter() for _ in scenario.vendors]
        self.queue = MemoryQueue(scenario.deliveries, self._clock.now, uncertain=scenario.uncertain)
        self._catalogue = ScriptedCatalogue(
            scenario.vendors,
            scenario.policies,
            self._clock,
            scenario.seed,
            [self._counting(counter) for counter in self._per_second],
        )
        self._meter = meter or Meter()
        self._shared = MemoryShared(self._clock.monotonic_ns, self._clock.now)

    @staticmethod
    def _counting(counter: Counter[int]) -> Callable[[str, int], None]:
        def taken(key: str, at: int) -> None:
            counter[at // SECOND] += 1

        return taken

    def run(self) -> Result:
        """Runs to the end of the last delivery."""
        # A million deliveries make some hundred million objects that go as they come; looking for circles among them
        # takes a third of the time and finds none.
        collecting = gc.isenabled()
        gc.disable()
        try:
            with _no_news_of_attempts():
                self._loop.run_until_complete(self._work())
        finally:
            self._loop.abandon()
            if collecting:
                gc.enable()
        results = zip(self._catalogue.vendors, self._per_second, strict=True)
        return Result(
            scenario=self._scenario,
            seconds=(self.queue.done_at - EPOCH).total_seconds(),
            states=dict(sorted(self.queue.counts().items())),
            tally={state: n for state, n in sorted(self.queue.ends.items()) if n},
            vendors=tuple(VendorResult(v.script.name, dict(v.counts), seconds) for v, seconds in results),
        )

    async def _work(self) -> None:
        pumps = [self._pump(number) for number in range(self._scenario.workers)]
        watching = self._loop.create_task(self._look_on()) if self._watch else None
        await asyncio.gather(*(pump.run() for pump in pumps))
        if watching:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _pump(self, number: int) -> Pump:
        surroundings = Surroundings(
            composes=False,
            database=InstantDatabase(),
            queue=self.queue,
            desk=EngineDesk(self._catalogue, self._shared),
            clock=self._clock,
            rng=random.Random(f"{self._scenario.seed} worker {number}"),  # noqa: S311
            name=f"worker {number}",
            term=TERM,
            meter=self._meter,
        )
        return Pump(surroundings, until=Until.DONE)

    async def _look_on(self) -> None:
        while True:
            self._watch(self.progress())
            await asyncio.sleep(1)

    def progress(self) -> Progress:
        """How far it has come."""
        vendors = tuple((v.script.name, dict(v.counts)) for v in self._catalogue.vendors)
        return Progress(self._loop.time(), dict(self.queue.ends), vendors)


def simulate(scenario: Scenario, watch: Callable[[Progress], None] | None = None) -> Result:
    """What comes of a scenario."""
    return Simulation(scenario, watch).run()


@contextmanager
def _no_news_of_attempts() -> Iterator[None]:
    """What an engine said is a vendor's script here."""
    attempts = logging.getLogger("delivery.attempts")
    before = attempts.level
    attempts.setLevel(logging.WARNING)
    try:
        yield
    finally:
        attempts.setLevel(before)
