"""Random loads of mails with deadlines, the order in which they should go, and what the worker's own code makes of them
in virtual time.

A load is made from a schedule: some order in which everything goes at the engine's pace, drawn by chance, says how
early each deadline may be. So the earliest deadline first meets them all, for no order loses less than that one as long
as all mails cost the same; and it is tight, because many deadlines leave no time beyond what `Load.blocking` grants.
What is overtaken at a time fits into a worker's hand (`OVERTAKEN`): beyond that, what is most urgent may wait for room.
"""

import asyncio
import random
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NamedTuple

from delivery.core.script import VendorScript
from delivery.core.throttle import SECOND, Period, Rate, draw
from delivery.engine_desk import EngineDesk
from delivery.metrics import Meter
from delivery.shared.memory import MemoryShared
from delivery.simulation.loop import EPOCH, VirtualClock, VirtualLoop
from delivery.simulation.queue import MemoryQueue
from delivery.simulation.vendors import Policies, ScriptedCatalogue
from delivery.worker import Pump, Surroundings, Until
from delivery.worker.lane import AHEAD, LEAST_AHEAD, SHORT_LATENESS
from delivery.worker.tokens import GATHER, PATIENCE

SPAN = 100_000  # ids of one batch
TERM = timedelta(seconds=30)
WRITING = SECOND // 20  # from a token to the hand-over: what is marked is durable some 20 ms later
# A second, and how many at once.
PACES = [(200, 40), (200, 20), (50, 10), (20, 5), (10, 4), (5, 3), (100, 1), (20, 1), (3, 1)]


class Job(NamedTuple):
    """A mail: when it may go and until when it should be gone, in nanoseconds; without a deadline it is ballast."""

    batch: int
    due: int
    deadline: int | None


@dataclass(frozen=True)
class Load:
    """Mails for one engine. `database` is how long that takes to answer a question, at most, in seconds."""

    rate: Rate
    latency: timedelta
    database: float
    jobs: Sequence[Job]

    @property
    def urgent(self) -> list[Job]:
        """Those with a deadline."""
        return [job for job in self.jobs if job.deadline is not None]

    @property
    def answers(self) -> int:
        """How long the database takes to answer a question that has to wait for two others, at most."""
        return int(3 * self.database * SECOND)

    @property
    def paced(self) -> Rate:
        """The pace at which tokens are drawn, without a burst: that may have gone to ballast just before. Where each
        mail asks for its own, the time of the question is lost."""
        rate = self.rate.guarded(max(self.rate.lateness, PATIENCE * self.answers))
        one_by_one = self.rate.lateness < SHORT_LATENESS
        return Rate(rate.interval + rate.toll + (self.answers if one_by_one else 0), 1)

    @property
    def seen(self) -> int:
        """How long after it is due the worker has a mail in its hands, at most."""
        return WRITING + 2 * self.answers

    @property
    def blocking(self) -> int:
        """How long what is marked already keeps the most urgent one from going: where tokens are drawn before the mark,
        they gather for a moment; where they are drawn after it, so many wait for theirs."""
        if self.rate.lateness >= SHORT_LATENESS:
            waits = GATHER
        else:
            waits = max(LEAST_AHEAD * self.paced.interval, int(AHEAD * SECOND))
        return waits + 2 * self.paced.interval + WRITING + 2 * self.answers

    @classmethod
    def by_chance(cls, rng: random.Random) -> "Load":
        """A load that this generator draws."""
        pace, burst = rng.choice(PACES)
        seconds = rng.uniform(3, 20)
        batches = rng.randint(1, 4)
        load = cls(
            Rate.of(pace, Period.SECOND, burst),
            timedelta(milliseconds=rng.choice([0, 5, 50])),
            rng.choice([0, 0, 0.002, 0.005]),
            [],
        )
        ballast = [Job(rng.randint(1, batches), 0, None) for _ in range(rng.choice([0, 30, 150]))]
        dues = sorted(_dues(rng, min(600, int(pace * seconds * rng.choice([0.3, 0.7, 1]))), seconds))
        choose = rng.choice([_newest, _oldest, rng.choice])
        ends = schedule(load, dues, choose)
        easy = rng.choice([0, 0, 0.3, 0.9])  # share of deadlines that leave time
        jobs = []
        for due, end in zip(dues, ends, strict=True):
            slack = rng.expovariate(0.3) if rng.random() < easy else 0
            jobs.append(Job(rng.randint(1, batches), due, end + load.blocking + int(slack * SECOND)))
        return replace(load, jobs=[*ballast, *jobs])

    @classmethod
    def each_more_urgent(cls, count: int) -> "Load":
        """Twice as many in a second as the engine takes, each with an earlier deadline than all that are there, and
        before them as many without any."""
        load = cls(Rate.of(10, Period.SECOND, 4), timedelta(), 0, [])
        dues = [(n + 1) * SECOND // 20 for n in range(count)]
        ends = schedule(load, dues, _newest)
        timed = [Job(1, due, end + load.blocking) for due, end in zip(dues, ends, strict=True)]
        return replace(load, jobs=[*[Job(1, 0, None)] * count, *timed])


def _dues(rng: random.Random, count: int, seconds: float) -> Iterable[int]:
    """Instants at which mails become due: all at once, one by one, or in waves."""
    match rng.choice(["at once", "one by one", "waves"]):
        case "at once":
            begin = rng.choice([0, 1])
            return [begin * SECOND] * count
        case "one by one":
            return [int(rng.uniform(0, seconds) * SECOND) for _ in range(count)]
        case _:
            waves = [rng.uniform(0, seconds) for _ in range(rng.randint(2, 12))]
            return [int((rng.choice(waves) + rng.uniform(0, 0.05)) * SECOND) for _ in range(count)]


def _newest(ready: Sequence[int]) -> int:
    return ready[-1]


def _oldest(ready: Sequence[int]) -> int:
    return ready[0]


def schedule(load: Load, dues: Sequence[int], choose: Callable[[Sequence[int]], int]) -> list[int]:
    """When each goes, at the engine's pace: whenever one may go, `choose` picks it from the places in `dues` of those
    whose time has come."""
    order = sorted(range(len(dues)), key=dues.__getitem__)
    ends = [0] * len(dues)
    ready: list[int] = []
    now = state = position = 0
    while position < len(order) or ready:
        if not ready:
            now = max(now, dues[order[position]] + load.seen)
        while position < len(order) and dues[order[position]] + load.seen <= now:
            insort(ready, order[position])
            position += 1
        grant = draw(load.paced, state, now, 1)
        state = grant.state
        if not grant.tokens:
            now += grant.wait
            continue
        chosen = choose(ready)
        ready.remove(chosen)
        ends[chosen] = now
    return ends


def earliest_first(load: Load) -> list[int]:
    """When each of the urgent ones goes by the reference: one at a time, and of those that are due always the one with
    the earliest deadline."""
    return schedule(load, [job.due for job in load.urgent], _by_deadline(load.urgent))


def in_order_of_coming(load: Load) -> list[int]:
    """When each of the urgent ones would go if deadlines counted for nothing."""
    return schedule(load, [job.due for job in load.urgent], _oldest)


def _by_deadline(jobs: Sequence[Job]) -> Callable[[Sequence[int]], int]:
    return lambda ready: min(ready, key=lambda place: (jobs[place].deadline, place))


def missed(load: Load, ends: Sequence[int], spare: int = 0) -> list[Job]:
    """The urgent ones that went later than their deadline, or with less than so much time to spare."""
    return [job for job, end in zip(load.urgent, ends, strict=True) if end + spare > job.deadline]


class Batches:
    """Several batches of one pool, each a queue in memory, as one queue (see `delivery.queue.work.Queue`)."""

    def __init__(self, queues: dict[int, MemoryQueue]):
        self._queues = queues

    def __getattr__(self, name):
        """What is asked of each of them and added up: the leases of all have the same numbers."""

        def of_all(*args):
            answers = [getattr(queue, name)(*args) for queue in self._queues.values()]
            return sum(answers[1:], answers[0]) if answers[0] is not None else None

        return of_all

    def open_batches(self, only=None):
        return [replace(view, id=n) for n, queue in self._queues.items() for view in queue.open_batches()]

    def acquire(self, owner, term):
        (lease_id,) = {queue.acquire(owner, term) for queue in self._queues.values()}
        return lease_id

    def extend(self, lease_id, term):
        return all(queue.extend(lease_id, term) for queue in self._queues.values())

    def lease(self, lease_id, batch_id, limit):
        rows = self._queues[batch_id].lease(lease_id, batch_id, limit)
        return [row._replace(id=batch_id * SPAN + row.id, batch=batch_id) for row in rows]

    def next_due(self):
        return min(filter(None, (queue.next_due() for queue in self._queues.values())), default=None)

    def due(self, batch_id):
        return self._queues[batch_id].due(batch_id)

    def unmet(self, delivery_ids, message_id):
        return {}

    def texts(self, delivery_ids):
        return {}

    def mark(self, lease_id, marks, now):
        allowed = set()
        for n, queue in self._queues.items():
            own = [mark._replace(id=mark.id - n * SPAN) for mark in marks if mark.id // SPAN == n]
            allowed |= {n * SPAN + i for i in queue.mark(lease_id, own, now)}
        return allowed

    def refused(self, lease_id, refused_ids):
        found = []
        for n, queue in self._queues.items():
            own = [i - n * SPAN for i in refused_ids if i // SPAN == n]
            found += [(n * SPAN + i, state, words) for i, state, words in queue.refused(lease_id, own)]
        return found

    def settle(self, lease_id, settlements):
        for n, queue in self._queues.items():
            queue.settle(lease_id, [s._replace(id=s.id - n * SPAN) for s in settlements if s.id // SPAN == n])
        return 0

    def finish_cancelled(self):
        pass  # nothing is cancelled here

    def finish_if_done(self, batch_id):
        return self._queues[batch_id].finish_if_done(batch_id)

    def compiled(self, message_id):
        return self._queues[min(self._queues)].compiled(message_id)


class SlowDatabase:
    """A worker's database: two threads, each of which does one thing after the other and takes its time."""

    def __init__(self, slowest: float, rng: random.Random):
        self._slowest = slowest
        self._rng = rng
        self._ledger, self._desk = asyncio.Lock(), asyncio.Lock()

    async def commit(self, function, *args, **kwargs):
        return await self._do(self._ledger, function, *args, **kwargs)

    async def ask(self, function, *args, **kwargs):
        return await self._do(self._desk, function, *args, **kwargs)

    ask_once = ask

    async def _do(self, thread, function, *args, **kwargs):
        async with thread:
            if self._slowest:
                await asyncio.sleep(self._rng.uniform(0, self._slowest))
            return function(*args, **kwargs)


class Seen(NamedTuple):
    """What came of a load: when each of the urgent ones reached the vendor, or None, and all ends by name."""

    ends: list[int | None]
    states: Counter[str]


def carried_out(load: Load, seed: str) -> Seen:
    """What the worker makes of a load."""
    loop = VirtualLoop()
    clock = VirtualClock(loop)
    by_batch: dict[int, list[Job]] = {}
    for job in load.jobs:
        by_batch.setdefault(job.batch, []).append(job)
    queues = {}
    for n, jobs in by_batch.items():
        queues[n] = MemoryQueue(
            len(jobs),
            clock.now,
            deadlines={i: _instant(job.deadline) for i, job in enumerate(jobs, 1) if job.deadline is not None},
            not_before={i: _instant(job.due) for i, job in enumerate(jobs, 1) if job.due},
        )
    arrived: dict[int, int] = {}
    script = VendorScript("vendor", rate=load.rate, latency=load.latency)
    note = [lambda key, at: arrived.setdefault(int(key, 16), at)]
    catalogue = ScriptedCatalogue([script], Policies(), clock, seed, note)
    surroundings = Surroundings(
        composes=False,
        database=SlowDatabase(load.database, random.Random(f"{seed} database")),
        queue=Batches(queues),
        desk=EngineDesk(catalogue, MemoryShared(clock.monotonic_ns, clock.now)),
        clock=clock,
        rng=random.Random(f"{seed} worker"),
        name="worker",
        term=TERM,
        meter=Meter(),
    )
    try:
        loop.run_until_complete(Pump(surroundings, until=Until.DONE).run())
    finally:
        loop.abandon()
    numbers = Counter()
    ends = []
    for job in load.jobs:
        numbers[job.batch] += 1
        if job.deadline is not None:
            ends.append(arrived.get(job.batch * SPAN + numbers[job.batch]))
    return Seen(ends, sum((queue.counts() for queue in queues.values()), Counter()))


def _instant(nanoseconds: int):
    return EPOCH + timedelta(microseconds=nanoseconds // 1000)
