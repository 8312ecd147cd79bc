"""The pump on a real database, with engines in memory: what the tests of the worker have in common."""

import asyncio
import itertools
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.db import connection

from delivery import queue
from delivery.catalogue import StoredCatalogue
from delivery.core.dispatch import UncertainPolicy
from delivery.core.envelope import Kind, Outcome
from delivery.engine_desk import EngineDesk
from delivery.engines.base import Connectionless
from delivery.exceptions import EngineMisconfigured
from delivery.models import (
    Delivery,
    Engine,
    Lease,
    Message,
    Pool,
    PoolMember,
)
from delivery.models.batch import Batch, BatchState
from delivery.queue import Filler, NewDelivery
from delivery.shared import shared
from delivery.worker import Database, Pump, Surroundings, Until

# What a lane may mark beyond what its senders have in hand: the price of a crash.
MARKED_AHEAD = 256
TIMEOUT = 20  # seconds for a whole scenario; none of them is meant to come near
CLOCK = 2_000  # nanoseconds: the database's clock counts microseconds, and a window has two ends
ACCEPTED = Outcome(Kind.ACCEPTED, "250", "taken", provider_id="id")
BROKEN = Outcome(Kind.ENGINE, "535", "wrong password")
TROUBLE = Outcome(Kind.TRANSIENT, "451", "not now")
SILENCE = Outcome(Kind.UNKNOWN, "", "connection lost")

serials = itertools.count(1)


class Longest(random.Random):
    """Draws the upper end of every range."""

    def uniform(self, low, high):
        return high


class FakeEngine(Connectionless):
    """An engine in memory: notes what it is handed, holds it while its gate is shut, answers as it is told."""

    def __init__(self, answer=lambda address, time: ACCEPTED, *, concurrency=4, batch_size=1, honours_keys=False):
        self.concurrency = concurrency
        self.batch_size = batch_size
        self.honours_keys = honours_keys
        self.gate = asyncio.Event()
        self.gate.set()
        self.instants: list[int] = []
        self.instants_of_calls: list[int] = []
        self.calls: list[int] = []  # how many mails each carried
        self.addresses: list[str] = []
        self.envelopes = []
        self.under_way = 0
        self.closed = 0
        self._answer = answer
        self._times = Counter()

    def groups(self, envelopes):
        return [envelopes]

    async def send(self, envelopes):
        self.under_way += 1
        self.calls.append(len(envelopes))
        self.instants_of_calls.append(time.monotonic_ns())
        try:
            outcomes = [self._take(envelope) for envelope in envelopes]
            await self.gate.wait()
            await asyncio.sleep(0)  # an answer never comes in the same turn
            return outcomes
        finally:
            self.under_way -= 1

    def _take(self, envelope):
        address = envelope.recipient.address
        self.instants.append(time.monotonic_ns())
        self.addresses.append(address)
        self.envelopes.append(envelope)
        self._times[address] += 1
        return self._answer(address, self._times[address])

    async def check(self, domains):
        return []

    async def close(self):
        assert self.under_way == 0
        self.closed += 1


class FakeCatalogue(StoredCatalogue):
    """The stored engines, with a fake behind each; None stands for settings that cannot work."""

    def __init__(self, engines):
        self._engines = engines

    def open(self, engine_id):
        if self._engines[engine_id] is None:
            raise EngineMisconfigured("The host is missing.")
        return self._engines[engine_id]


def pump_on(database, engines, **options):
    return Pump(Surroundings(database, desk=EngineDesk(FakeCatalogue(engines), shared()), **options), until=Until.DONE)


def pool_of(*fakes, **settings):
    """A pool of so many stored engines, and which fake stands for which."""
    serial = next(serials)
    pool = Pool.objects.create(name=f"pool {serial}", slug=f"pool-{serial}", **{"first_wait_seconds": 0} | settings)
    engines = {}
    for position, fake in enumerate(fakes):
        name = f"engine-{serial}-{position}"
        stored = Engine.objects.create(name=name, slug=name, kind="sandbox")
        PoolMember.objects.create(pool=pool, engine=stored, position=position)
        engines[stored.pk] = fake
    return pool, engines


def batch_in(pool, size=1, policy=UncertainPolicy.HOLD, text="Hi {{ n }}", addresses=None):
    serial = next(serials)
    batch = Batch.objects.create(
        label=f"batch {serial}", reference=f"reference {serial}", pool=pool, uncertain_policy=policy
    )
    message = Message.objects.create(
        batch=batch,
        token=f"token{serial}",
        subject="Hi",
        text=text,
        from_address="a@shop.example",
        return_path="b@shop.example",
    )
    addresses = addresses or [f"person-{n}@example.test" for n in range(size)]
    Filler(batch.pk, message.pk, 0).write([NewDelivery(n, a, a, "", {"n": n}) for n, a in enumerate(addresses)])
    queue.open_for_sending(batch.pk)
    return batch


async def until(question):
    """Returns once the question is answered with yes. The scenario's timeout bounds the wait."""
    while not question():  # noqa: ASYNC110  (what is waited for happens in other threads and processes)
        await asyncio.sleep(0.005)


class WatchedDatabase(Database):
    """A worker's database, of which one can see whether a group commit is under way."""

    committing = 0

    async def commit(self, *args):
        self.committing += 1
        try:
            return await super().commit(*args)
        finally:
            self.committing -= 1


class RepeatingDatabase(WatchedDatabase):
    """A database whose answer gets lost now and then: what was asked was done, and is asked again."""

    def __init__(self, rng):
        super().__init__()
        self._rng = rng

    async def commit(self, *args):
        if self._rng.random() < 0.3:
            await super().commit(*args)
        return await super().commit(*args)

    async def ask(self, *args, **kwargs):
        if self._rng.random() < 0.3:
            await super().ask(*args, **kwargs)
        return await super().ask(*args, **kwargs)


class Desk:
    """What a test asks the database while a pump runs, from a thread of its own."""

    def __init__(self, pump, worked_on):
        self.pump = pump
        self._worked_on = worked_on
        self._database = Database()

    async def ask(self, question, *args):
        return await self._database.ask(question, *args)

    async def until(self, question, *args):
        while not await self.ask(question, *args):  # noqa: ASYNC110  (as above)
            await asyncio.sleep(0.005)

    async def until_full(self, fake):
        """Who is marked, once the engine's gate has stopped everything: its senders are busy and no mark comes."""
        quiet, before = 0, None
        while quiet < 20:
            marked = await self.ask(addresses_in, "sending")
            full = fake.under_way == fake.concurrency and not self._worked_on.committing and marked == before
            quiet, before = (quiet + 1 if full else 0), marked
            await asyncio.sleep(0.005)
        assert fake.concurrency < len(marked) <= fake.concurrency * fake.batch_size + MARKED_AHEAD
        return marked

    async def close(self):
        await self._database.close()


def pumped(engines, story=None, pumps=1, database=WatchedDatabase, make=pump_on, **options):
    """Runs pumps until nothing is open, and `story` beside them."""

    async def run(worked_on, pump):
        try:
            await pump.run()
        finally:
            await worked_on.close()

    async def scenario():
        databases = [database() for _ in range(pumps)]
        workers = [make(worked_on, engines, **options) for worked_on in databases]
        desk = Desk(workers[0], databases[0])
        try:
            async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
                for worked_on, pump in zip(databases, workers, strict=True):
                    group.create_task(run(worked_on, pump))
                if story:
                    await story(desk)
        finally:
            await desk.close()

    asyncio.run(scenario())


def states(batch):
    return queue.counts_by_state(batch.pk)


def addresses_in(*wanted):
    return set(Delivery.objects.filter(state__in=wanted).values_list("address", flat=True))


def assert_settled(batch, **ends):
    """Everybody has an end, the tally agrees, the batch is done, and no worker has anything any more."""
    assert states(batch) == queue.progress(batch.pk) == ends
    assert Batch.objects.get(pk=batch.pk).state == BatchState.DONE
    assert not Lease.objects.exists()
    assert not Delivery.objects.filter(lease__isnull=False).exists()


def crowded(instants, interval, burst):
    """The windows that hold more than `burst + t / interval`: how many messages in how many nanoseconds."""
    instants = sorted(instants)
    return [
        (last - first + 1, instants[last] - instants[first])
        for first in range(len(instants))
        for last in range(first + 1, len(instants))
        if (last - first + 1 - burst) * interval - CLOCK > instants[last] - instants[first]
    ]


@contextmanager
def database_away() -> Iterator[None]:
    """Nobody can use the database: PostgreSQL ends every session and lets nobody in, SQLite's writer is busy."""
    if connection.vendor == "postgresql":
        settings = connection.settings_dict
        url = f"postgres://{settings['USER']}@{settings['HOST']}:{settings['PORT']}/postgres"
        with psycopg.connect(url, autocommit=True) as maintenance:
            maintenance.execute(f'ALTER DATABASE "{settings["NAME"]}" ALLOW_CONNECTIONS false')
            maintenance.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [settings["NAME"]]
            )
            try:
                yield
            finally:
                maintenance.execute(f'ALTER DATABASE "{settings["NAME"]}" ALLOW_CONNECTIONS true')
    else:
        writer = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            writer.execute("ROLLBACK")
            writer.close()
