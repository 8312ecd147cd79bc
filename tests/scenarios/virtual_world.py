"""A world of scripted trouble around the worker's own code, in virtual time: what happens in it is written down.

Workers die between any two awaits, and others begin; the database is away, or does what it was asked and its answer is
lost; a worker is cut off from it for longer than its lease; vendors are down, slow, silent after the final dot;
operators hold, release, cancel, suppress. The pump, the lanes, the ledger and the policies are those of production.
"""

import asyncio
import contextvars
import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from delivery.core.breaker import BreakerPolicy
from delivery.core.dispatch import UncertainPolicy
from delivery.core.envelope import Kind
from delivery.core.failover import Strategy
from delivery.core.retry import Backoff, Growth, RetryPolicy, RetryRule, Trouble
from delivery.core.script import Span, VendorScript
from delivery.core.throttle import Rate
from delivery.engine_desk import EngineDesk
from delivery.engines.scripted import ScriptedEngine
from delivery.metrics import Meter
from delivery.models.batch import BatchState
from delivery.shared.memory import MemoryShared
from delivery.simulation.loop import EPOCH, SECOND, Handle, VirtualClock, VirtualLoop
from delivery.simulation.queue import MemoryQueue, address_of
from delivery.simulation.vendors import Policies, ScriptedCatalogue
from delivery.worker import Pump, Surroundings, Until

WORKER = contextvars.ContextVar("worker", default="")
TERM = timedelta(seconds=5)
TOO_LONG = timedelta(days=40)  # of virtual time: by then every policy has long given up


class Arrival(NamedTuple):
    """A mail that reached a vendor. `marked_at` is when its intent was last recorded, before; `lease_until` is until
    when the lease of the worker that sent it was good."""

    delivery: int
    at: int
    engine: int
    kind: Kind
    taken: bool
    marked_at: int
    lease_until: datetime


class Turn(NamedTuple):
    """A change of an engine's condition."""

    at: int
    engine: int
    before: object
    after: object


@dataclass(frozen=True)
class Script:
    """What happens. Times are seconds of virtual time."""

    seed: str
    deliveries: int
    vendors: tuple[VendorScript, ...]
    policies: Policies
    uncertain: UncertainPolicy
    workers: int
    deadlines: dict[int, datetime]
    outages: tuple[tuple[float, float], ...]  # the database is away
    cuts: tuple[tuple[int, float, float], ...]  # one worker is cut off from it
    kills: tuple[tuple[int, int], ...]  # worker, and after how many of its steps
    lost_answers: float  # share of the database's answers
    latency: float  # of the database, at most
    suppressions: tuple[tuple[float, int], ...]
    deeds: tuple[tuple[float, str], ...]  # hold, release, cancel

    @classmethod
    def by_chance(cls, seed: str) -> "Script":
        """A script that this seed stands for."""
        rng = random.Random(f"script {seed}")
        total = rng.choice([20, 60, 150, 300])
        workers = rng.choice([1, 1, 2, 3])
        return cls(
            seed=seed,
            deliveries=total,
            vendors=tuple(_vendor(rng, f"v{n}") for n in range(rng.choice([1, 2, 2, 3]))),
            policies=_policies(rng),
            uncertain=rng.choice(list(UncertainPolicy)),
            workers=workers,
            deadlines={
                rng.randint(1, total): EPOCH + timedelta(seconds=rng.uniform(0, 60))
                for _ in range(rng.choice([0, 0, 10, 40]))
            },
            outages=_spans(rng, rng.choice([0, 0, 1, 2])),
            cuts=tuple(
                (rng.randrange(workers), *span) for span in _spans(rng, rng.choice([0, 0, 1]), shortest=6, longest=30)
            ),
            kills=tuple(
                (rng.randrange(workers), int(rng.expovariate(1 / 400)) + 1) for _ in range(rng.choice([0, 0, 1, 2, 4]))
            ),
            lost_answers=rng.choice([0, 0, 0.02, 0.2]),
            latency=rng.choice([0, 0.001, 0.02]),
            suppressions=tuple((rng.uniform(0, 20), rng.randint(1, total)) for _ in range(rng.choice([0, 0, 5, 20]))),
            deeds=_deeds(rng),
        )


def _spans(rng, count, shortest=0.2, longest=12.0):
    return tuple((begin := rng.uniform(0, 30), begin + rng.uniform(shortest, longest)) for _ in range(count))


def _vendor(rng, name):
    rate = rng.choice([None, Rate(SECOND // 50, 10), Rate(SECOND // 200, 40), Rate(SECOND // 20, 1), Rate(SECOND, 5)])

    def spans(chance):
        return tuple(
            Span(int(begin * SECOND), int(end * SECOND))
            for begin, end in _spans(rng, 1 if rng.random() < chance else 0, 1, 60)
        )

    return VendorScript(
        name=name,
        rate=rate,
        latency=timedelta(milliseconds=rng.choice([0, 5, 80, 700])),
        spread=rng.choice([0, 0.5]),
        errors=rng.choice([0, 0, 0.05, 0.25]),
        rejects=rng.choice([0, 0, 0.1]),
        slow=rng.choice([0, 0, 0.02]),
        drops=rng.choice([0, 0, 0.05, 0.3]),
        down=spans(0.4),
        locked=spans(0.2),
        batch=rng.choice([1, 1, 1, 7, 50]),
        concurrency=rng.choice([1, 4, 20]),
        weight=rng.choice([1, 3]),
        keys=rng.random() < 0.2,
    )


def _policies(rng):
    def rule():
        return RetryRule(
            rng.choice([1, 2, 5]),
            Backoff(rng.choice(list(Growth)), timedelta(seconds=rng.choice([0, 2, 30])), longest=timedelta(minutes=5)),
        )

    special = {trouble: rule() for trouble in Trouble if rng.random() < 0.3}
    max_age = timedelta(seconds=rng.choice([20, 3600]))
    cool_off = timedelta(seconds=rng.choice([1, 5, 15]))
    breaker = BreakerPolicy(rng.choice([1, 3, 5]), cool_off, timedelta(seconds=30))
    return Policies(rng.choice(list(Strategy)), RetryPolicy(rule(), max_age, special), breaker)


def _deeds(rng):
    deeds = []
    if rng.random() < 0.3:
        begin = rng.uniform(0, 10)
        deeds += [(begin, "hold"), (begin + rng.uniform(0.5, 10), "release")]
    if rng.random() < 0.15:
        deeds.append((rng.uniform(0, 25), "cancel"))
    return tuple(sorted(deeds))


class ObservedQueue(MemoryQueue):
    """Notes when each delivery was marked, what was lost with a lease, and how many leases were taken back."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, detailed=True, **kwargs)
        self.marked_at: dict[int, int] = defaultdict(lambda: -1)
        self.lost: list[int] = []
        self.reaped = 0
        self.good_until: dict[str, datetime] = {}  # by worker
        self.nanoseconds = lambda: 0

    def mark(self, lease_id, marks, now):
        allowed = super().mark(lease_id, marks, now)
        for delivery_id in allowed:
            self.marked_at[delivery_id] = self.nanoseconds()
        return allowed

    def acquire(self, owner, term):
        lease_id = super().acquire(owner, term)
        self.good_until[owner] = self._leases[lease_id].expires_at
        return lease_id

    def extend(self, lease_id, term):
        extended = super().extend(lease_id, term)
        if extended:
            held = self._leases[lease_id]
            self.good_until[held.owner] = held.expires_at
        return extended

    def reap(self):
        before = len(self._leases)
        taken = super().reap()
        self.reaped += before - len(self._leases)
        return taken

    def _lose(self, delivery_id, now):
        self.lost.append(delivery_id)
        return super()._lose(delivery_id, now)


class ObservedShared(MemoryShared):
    """Notes every change of an engine's condition."""

    def __init__(self, nanoseconds, now):
        super().__init__(nanoseconds, now)
        self.turns: list[Turn] = []

    def change(self, engine_id, change):
        before = self.conditions([engine_id])[engine_id]
        changed = super().change(engine_id, change)
        if changed:
            self.turns.append(Turn(self._nanoseconds(), engine_id, before, self.conditions([engine_id])[engine_id]))
        return changed


class ObservedEngine(ScriptedEngine):
    """Notes every mail that arrives at its vendor."""

    def __init__(self, world, engine_id, vendor):
        super().__init__(vendor, world.clock)
        self._world = world
        self._id = engine_id

    def _arrive(self, key, now):
        outcome, taken = self._vendor.answer(key, now)
        delivery = int(key, 16)
        queue = self._world.queue
        marked_at, until = queue.marked_at[delivery], queue.good_until[WORKER.get()]
        self._world.arrivals.append(Arrival(delivery, now, self._id, outcome.kind, taken, marked_at, until))
        return outcome


class ObservedCatalogue(ScriptedCatalogue):
    def __init__(self, world, script):
        super().__init__(script.vendors, script.policies, world.clock, script.seed)
        self._world = world

    def open(self, engine_id):
        return ObservedEngine(self._world, engine_id, self.vendors[engine_id - 1])


class TroubledDatabase:
    """A worker's database: two threads, each of which does one thing after the other, and all that can go wrong."""

    def __init__(self, world, number, rng):
        self._world = world
        self._number = number
        self._rng = rng
        self._ledger, self._desk = asyncio.Lock(), asyncio.Lock()

    async def commit(self, function, *args, **kwargs):
        return await self._do(self._ledger, function, *args, **kwargs)

    async def ask(self, function, *args, **kwargs):
        return await self._do(self._desk, function, *args, **kwargs)

    async def ask_once(self, function, *args, **kwargs):
        """Not patient: while the database is away, nothing; and its answer may get lost."""
        if self._is_away():
            return None
        async with self._desk:
            answer = function(*args, **kwargs)
            return None if self._rng.random() < self._world.script.lost_answers else answer

    async def close(self):
        pass

    async def _do(self, thread, function, *args, **kwargs):
        script = self._world.script
        async with thread:
            await self._reach()
            answer = function(*args, **kwargs)
            while self._rng.random() < script.lost_answers:
                # It was done, and the worker does not know: it asks again.
                await asyncio.sleep(self._rng.uniform(0, 2))
                await self._reach()
                answer = function(*args, **kwargs)
            if script.latency:
                await asyncio.sleep(self._rng.uniform(0, script.latency))
            return answer

    async def _reach(self):
        script = self._world.script
        if script.latency:
            await asyncio.sleep(self._rng.uniform(0, script.latency))
        while self._is_away():  # noqa: ASYNC110  (it is the clock that changes)
            await asyncio.sleep(0.25)

    def _is_away(self):
        script = self._world.script
        away = [*script.outages, *((begin, end) for number, begin, end in script.cuts if number == self._number)]
        return any(begin <= self._world.clock.monotonic() < end for begin, end in away)


@dataclass
class World:
    """A script as it happens, and everything that was seen of it."""

    script: Script
    arrivals: list[Arrival] = field(default_factory=list)
    killed: list[tuple[int, str]] = field(default_factory=list)
    deeds: list[tuple[int, str]] = field(default_factory=list)
    suppressed: dict[int, int] = field(default_factory=dict)  # delivery -> when

    def __post_init__(self):
        self.loop = VirtualLoop()
        self.clock = VirtualClock(self.loop)
        self.queue = ObservedQueue(
            self.script.deliveries,
            self.clock.now,
            uncertain=self.script.uncertain,
            deadlines=self.script.deadlines or None,
        )
        self.queue.nanoseconds = self.clock.monotonic_ns
        self.shared = ObservedShared(self.clock.monotonic_ns, self.clock.now)
        self.catalogue = ObservedCatalogue(self, self.script)
        self._dead: set[str] = set()
        self._steps: dict[str, int] = defaultdict(int)
        self._kills = defaultdict(list)
        for number, steps in self.script.kills:
            self._kills[number].append(steps)
        self._started = 0
        self._graves = []  # what the dead held: were it collected, its `finally` blocks would run

    def run(self):
        """Everything to its end. Returns itself."""
        self.loop.before_each = self._lives
        self.loop.run_until_complete(self._live())
        return self

    def _lives(self, handle):
        """Whether the worker whose step this is still lives; it may die of just this one."""
        worker = handle.context.get(WORKER) if handle.context else ""
        if not worker:
            return True
        if worker in self._dead:
            self._graves.append(handle)
            return False
        number = int(worker.partition(" ")[0])
        self._steps[worker] += 1
        if self._kills[number] and self._steps[worker] >= self._kills[number][0]:
            self._kills[number].pop(0)
            self._dead.add(worker)
            self.killed.append((self.loop.now_ns, worker))
            self._graves.append(handle)
            return False
        return True

    async def _live(self):
        keepers = [asyncio.create_task(self._keep(number)) for number in range(self.script.workers)]
        others = [asyncio.create_task(self._act()), asyncio.create_task(self._suppress())]
        while self.queue.state is not BatchState.DONE:
            for task in (*keepers, *others):
                if task.done() and task.exception():
                    raise task.exception()
            if self.clock.now() - EPOCH > TOO_LONG:
                raise AssertionError(f"not done after {TOO_LONG}: {self.queue.counts()}")
            await asyncio.sleep(0.5)
        for task in (*keepers, *others):
            task.cancel()
        await asyncio.gather(*keepers, *others, return_exceptions=True)

    def bury(self):
        """Lets the dead come to their end, now that nobody looks any more: else they would complain when they are
        collected."""
        self.loop._ready.extend(handle for handle in self._graves if isinstance(handle, Handle))
        self.loop.abandon()

    async def _keep(self, number):
        """Keeps a worker going: when it has died or ended, the next one begins."""
        rng = random.Random(f"{self.script.seed} keeper {number}")
        while True:
            self._started += 1
            name = f"{number} {self._started}"
            task = self._start(name, number)
            while not task.done() and name not in self._dead:  # noqa: ASYNC110  (in virtual time)
                await asyncio.sleep(0.3)
            if task.done():
                task.result()
            else:
                self._graves.append(task)
            await asyncio.sleep(rng.uniform(0.1, 8) if name in self._dead else 1)

    def _start(self, name, number):
        rng = random.Random(f"{self.script.seed} {name}")
        surroundings = Surroundings(
            composes=False,
            database=TroubledDatabase(self, number, rng),
            queue=self.queue,
            desk=EngineDesk(self.catalogue, self.shared),
            clock=self.clock,
            rng=rng,
            name=name,
            term=TERM,
            meter=Meter(),
        )
        context = contextvars.copy_context()
        context.run(WORKER.set, name)
        pump = context.run(Pump, surroundings, until=Until.DONE)
        return self.loop.create_task(pump.run(), context=context)

    async def _act(self):
        for at, deed in self.script.deeds:
            await asyncio.sleep(at - self.clock.monotonic())
            if deed == "hold" and self.queue.state is BatchState.OPEN:
                self.queue.hold()
            elif deed == "release" and self.queue.state is BatchState.HELD:
                self.queue.release()
            elif deed == "cancel" and self.queue.state in (BatchState.OPEN, BatchState.HELD):
                self.queue.cancel()
            else:
                continue
            self.deeds.append((self.loop.now_ns, deed))

    async def _suppress(self):
        for at, delivery in sorted(self.script.suppressions):
            await asyncio.sleep(at - self.clock.monotonic())
            self.queue.suppressed.add(address_of(delivery))
            self.suppressed.setdefault(delivery, self.loop.now_ns)
