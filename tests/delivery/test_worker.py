"""The pump on a real database, with engines in memory: what reaches an engine, when, and what becomes of it."""

import asyncio
import itertools
import logging
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from delivery import queue
from delivery.catalogue import StoredCatalogue
from delivery.core.dispatch import UncertainPolicy
from delivery.core.envelope import Kind, Outcome
from delivery.core.throttle import SECOND
from delivery.engine_desk import EngineDesk
from delivery.exceptions import EngineMisconfigured
from delivery.models import (
    Attempt,
    Counted,
    Delivery,
    Engine,
    EngineLimit,
    EngineState,
    Lease,
    Message,
    Pool,
    PoolMember,
    PoolState,
    Suppression,
)
from delivery.models.batch import Batch, BatchState
from delivery.queue import Filler, NewDelivery, leasing
from delivery.queue.outcomes import ENDED
from delivery.shared import shared
from delivery.signals import batch_done
from delivery.worker import Database, Pump, Surroundings

pytestmark = pytest.mark.django_db(transaction=True)

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


class FakeEngine:
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
    return Pump(Surroundings(database, desk=EngineDesk(FakeCatalogue(engines), shared()), **options), until_done=True)


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


@pytest.fixture
def heard():
    """What `batch_done` said: the counts, by batch."""
    news = []

    def hear(sender, *, batch_id, counts, **said):
        news.append((batch_id, counts))

    batch_done.connect(hear)
    yield news
    batch_done.disconnect(hear)


# ---- the plain way ----


def test_everybody_gets_the_mail_once_and_the_end_is_told_once(heard):
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 700)

    pumped(engines)

    assert_settled(batch, accepted=700)
    assert heard == [(batch.pk, {"accepted": 700})]
    assert Counter(fake.addresses) == Counter(f"person-{n}@example.test" for n in range(700))
    assert len({envelope.key for envelope in fake.envelopes}) == 700
    assert fake.closed == 1
    assert set(Delivery.objects.values_list("attempts", "code", "provider_id")) == {(1, "250", "id")}


def test_pumps_side_by_side_share_the_work_and_double_nothing(heard):
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 1500)

    pumped(engines, pumps=3)

    assert_settled(batch, accepted=1500)
    assert set(Counter(fake.addresses).values()) == {1}
    assert len(heard) == 1


def test_an_engine_that_takes_many_at_once_gets_many_at_once():
    fake = FakeEngine(batch_size=20, concurrency=2)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 100)

    pumped(engines)

    assert_settled(batch, accepted=100)
    assert set(Counter(fake.addresses).values()) == {1}


def test_an_engine_that_takes_many_gets_full_calls_however_the_marks_come():
    fake = FakeEngine(batch_size=100, concurrency=3)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 1000)

    pumped(engines)

    assert_settled(batch, accepted=1000)
    assert len(fake.calls) <= 14
    assert max(fake.calls) == 100


def test_a_call_that_one_mail_spoilt_is_made_again_in_halves_until_that_one_stands_alone():
    spoils = "person-13@example.test"
    whole = Outcome(Kind.MESSAGE, "400", "one of them is wrong", shared=True)

    class AllOrNothing(FakeEngine):
        async def send(self, envelopes):
            await super().send(envelopes)
            wrong = any(envelope.recipient.address == spoils for envelope in envelopes)
            return [whole if wrong else ACCEPTED] * len(envelopes)

    fake = AllOrNothing(batch_size=40, concurrency=1)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 40)

    pumped(engines)

    assert_settled(batch, accepted=39, rejected=1)
    assert addresses_in("rejected") == {spoils}
    assert fake.calls[-1] >= 1
    assert sorted(fake.calls)[0] == 1
    assert len(fake.calls) <= 13  # two for each halving of forty
    assert Attempt.objects.count() == 1


def test_mails_that_may_not_share_a_call_go_apart():
    class ByParity(FakeEngine):
        def groups(self, envelopes):
            by = {0: [], 1: []}
            for envelope in envelopes:
                by[envelope.data["n"] % 2].append(envelope)
            return [group for group in by.values() if group]

    fake = ByParity(batch_size=50, concurrency=1)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 50)

    pumped(engines)

    assert_settled(batch, accepted=50)
    numbers = [envelope.data["n"] for envelope in fake.envelopes]
    begin = 0
    for size in fake.calls:
        assert len({number % 2 for number in numbers[begin : begin + size]}) == 1
        begin += size


# ---- which engine ----


def test_a_weighted_pool_spreads_its_mails_and_a_sticky_one_stays_where_it_went():
    light, heavy = FakeEngine(), FakeEngine()
    pool, engines = pool_of(light, heavy, strategy="weighted")
    PoolMember.objects.filter(engine_id=list(engines)[1]).update(weight=4)
    weighted = batch_in(pool, 500)
    pumped(engines, rng=random.Random(7))
    first, second = FakeEngine(lambda address, n: BROKEN), FakeEngine()
    sticky_pool, sticky_engines = pool_of(first, second, strategy="sticky")
    sticky = batch_in(sticky_pool, 50)
    pumped(sticky_engines)
    EngineState.objects.update(circuit="closed", probe_at=None)
    first._answer = lambda address, n: ACCEPTED
    tried = len(first.addresses)
    later = batch_in(sticky_pool, 50)

    pumped(sticky_engines)

    assert_settled(weighted, accepted=500)
    assert 3 < len(heavy.addresses) / len(light.addresses) < 5
    assert_settled(sticky, accepted=50)
    assert_settled(later, accepted=50)
    assert len(first.addresses) == tried
    assert PoolState.objects.get(pool=sticky_pool).current_id == list(sticky_engines)[1]


def test_while_no_engine_may_send_for_its_domain_a_mail_waits_and_says_so():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 3)
    Engine.objects.update(sender_domains="other.example")

    async def story(desk):
        await desk.until(lambda: Delivery.objects.filter(state="waiting").count() == 3)
        words = await desk.ask(lambda: set(Delivery.objects.values_list("words", flat=True)))
        assert words == {"no engine of the pool may send for shop.example"}
        await desk.ask(lambda: Engine.objects.update(sender_domains="shop.example"))
        await desk.ask(lambda: Delivery.objects.update(not_before=timezone.now()))

    pumped(engines, story)

    assert_settled(batch, accepted=3)


def test_what_cannot_be_rendered_is_a_dead_letter_and_the_others_go_out():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 4, text="{{ 1 / n }}")

    pumped(engines)

    assert_settled(batch, accepted=3, dead=1)
    assert Delivery.objects.get(state="dead").words.startswith("cannot be rendered")


def test_a_delivery_past_its_deadline_is_expired_and_not_sent():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 3)
    Delivery.objects.filter(address="person-1@example.test").update(deadline=timezone.now() - timedelta(seconds=1))

    pumped(engines)

    assert_settled(batch, accepted=2, expired=1)
    assert "person-1@example.test" not in fake.addresses


# ---- three kinds of failure, and none ----


def test_a_dead_address_ends_its_delivery_and_is_suppressed_and_no_other_engine_is_asked():
    refuses = FakeEngine(lambda address, n: Outcome(Kind.RECIPIENT, "550 5.1.1", "no such user", hard=True))
    other = FakeEngine()
    pool, engines = pool_of(refuses, other)
    first = batch_in(pool, addresses=["gone@example.test"])
    pumped(engines)
    second = batch_in(pool, addresses=["gone@example.test"])

    pumped(engines)

    assert_settled(first, rejected=1)
    assert_settled(second, suppressed=1)
    assert (refuses.addresses, other.addresses) == (["gone@example.test"], [])
    assert Suppression.objects.values_list("identity", "scope", "reason").get() == (
        "gone@example.test",
        "",
        "hard_bounce",
    )
    assert not EngineState.objects.exclude(circuit="closed", faults=0).exists()


def test_many_refused_recipients_in_a_row_never_open_the_circuit():
    fake = FakeEngine(lambda address, n: Outcome(Kind.RECIPIENT, "550", "unwilling"))
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 50)

    pumped(engines)

    assert_settled(batch, rejected=50)
    assert not EngineState.objects.exclude(circuit="closed").exists()
    assert not Suppression.objects.exists()


def test_after_an_engines_trouble_the_next_engine_is_asked_at_once():
    first, second = FakeEngine(lambda address, n: TROUBLE), FakeEngine()
    pool, engines = pool_of(first, second, first_wait_seconds=3600)
    batch = batch_in(pool, 3)

    pumped(engines)

    assert_settled(batch, accepted=3)
    assert sorted(first.addresses) == sorted(second.addresses)
    assert {e.key for e in first.envelopes} == {e.key for e in second.envelopes}
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {2}
    assert Attempt.objects.filter(kind="transient", engine_id=next(iter(engines))).count() == 3


def test_an_engine_alone_is_asked_again_after_the_backoff():
    fake = FakeEngine(lambda address, n: TROUBLE if n == 1 else ACCEPTED)
    pool, engines = pool_of(fake, first_wait_seconds=1)
    batch = batch_in(pool)

    pumped(engines, rng=Longest())

    assert_settled(batch, accepted=1)
    first, second = fake.instants
    assert second - first >= SECOND


def test_tries_are_limited_and_the_last_one_makes_a_dead_letter():
    fake = FakeEngine(lambda address, n: Outcome(Kind.TRANSIENT, "452", "mailbox full", faults_engine=False))
    pool, engines = pool_of(fake, max_attempts=3)
    batch = batch_in(pool, 10)

    pumped(engines)

    assert_settled(batch, dead=10)
    assert set(Counter(fake.addresses).values()) == {3}
    assert set(Delivery.objects.values_list("attempts", "code", "words")) == {(3, "452", "mailbox full")}
    assert Attempt.objects.count() == 30


def test_an_engine_that_cannot_work_opens_its_circuit_and_the_rest_goes_through_the_second():
    broken, able = FakeEngine(lambda address, n: BROKEN), FakeEngine()
    pool, engines = pool_of(broken, able)
    batch = batch_in(pool, 1500)

    pumped(engines)
    tried = len(broken.addresses)
    # What its senders had in hand, and not one of those that were marked behind them: providers lock accounts.
    assert 0 < tried <= 2 * broken.concurrency
    while_open = batch_in(pool, 10)
    pumped(engines)

    assert_settled(batch, accepted=1500)
    assert_settled(while_open, accepted=10)
    assert len(broken.addresses) == tried
    assert len(able.addresses) == len({envelope.key for envelope in able.envelopes}) == 1510
    state = EngineState.objects.get(engine_id=next(iter(engines)))
    assert (state.circuit, state.last_error) == ("open", "535 wrong password")
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}


def test_an_engine_that_cannot_be_opened_is_passed_over():
    able = FakeEngine()
    pool, engines = pool_of(None, able)
    misconfigured = next(iter(engines))
    batch = batch_in(pool, 5)

    pumped(engines)

    assert_settled(batch, accepted=5)
    assert EngineState.objects.get(engine_id=misconfigured).last_error == "The host is missing."


def test_slow_down_pauses_the_engine_for_as_long_as_it_asked_and_is_no_attempt():
    slow = Outcome(Kind.THROTTLED, "421", "slow down", retry_after=timedelta(seconds=1))
    fake = FakeEngine(lambda address, n: slow if n == 1 else ACCEPTED)
    pool, engines = pool_of(fake, max_attempts=1)
    batch = batch_in(pool, 3)

    pumped(engines)

    assert_settled(batch, accepted=3)
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}
    firsts, again = fake.instants[:3], fake.instants[3:]
    assert len(again) == 3
    assert min(again) - min(firsts) >= SECOND
    state = EngineState.objects.get()
    assert (state.circuit, state.pace) == ("closed", 0.5)


def test_while_one_engine_is_told_to_slow_down_the_next_goes_on():
    slow = Outcome(Kind.THROTTLED, "421", "slow down", retry_after=timedelta(hours=1))
    throttled, able = FakeEngine(lambda address, n: slow), FakeEngine()
    pool, engines = pool_of(throttled, able)
    batch = batch_in(pool, 1500)

    pumped(engines)

    assert_settled(batch, accepted=1500)
    assert 0 < len(throttled.addresses) <= 2 * throttled.concurrency
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}


def test_the_unknown_is_held_for_a_person_by_policy():
    silent, other = FakeEngine(lambda address, n: SILENCE), FakeEngine()
    pool, engines = pool_of(silent, other)
    batch = batch_in(pool, 2, UncertainPolicy.HOLD)

    pumped(engines)

    assert_settled(batch, uncertain=2)
    assert set(Counter(silent.addresses).values()) == {1}
    assert other.addresses == []
    assert set(Attempt.objects.values_list("kind", "words")) == {("unknown", "connection lost")}


@pytest.mark.parametrize(
    ("policy", "honours_keys"), [(UncertainPolicy.RESEND, False), (UncertainPolicy.HOLD, True)], ids=str
)
def test_the_unknown_is_sent_again_by_the_same_engine_with_the_same_key(policy, honours_keys):
    silent = FakeEngine(lambda address, n: SILENCE if n == 1 else ACCEPTED, honours_keys=honours_keys)
    other = FakeEngine()
    pool, engines = pool_of(silent, other)
    batch = batch_in(pool, 2, policy)

    pumped(engines)

    assert_settled(batch, accepted=2)
    assert other.addresses == []
    assert sorted(Counter(envelope.message_id for envelope in silent.envelopes).values()) == [2, 2]
    assert len({envelope.key for envelope in silent.envelopes}) == 2
    assert set(Delivery.objects.values_list("attempts", "resends")) == {(2, 1)}


# ---- engines that come and go ----


def test_an_open_circuit_gets_one_probe_after_its_cool_off_and_then_everything():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 50)
    opens = time.monotonic_ns() + SECOND // 2
    EngineState.objects.create(
        engine_id=next(iter(engines)),
        circuit="open",
        faults=5,
        cool_off_seconds=1,
        probe_at=timezone.now() + timedelta(seconds=0.5),
    )
    fake.gate.clear()

    async def story(desk):
        await until(lambda: fake.addresses)
        # The rest was leased for this engine too, and must be turned away from it while the probe is out.
        await desk.until(lambda: Delivery.objects.filter(state="waiting").exists())
        assert len(fake.addresses) == 1
        fake.gate.set()

    pumped(engines, story)

    assert_settled(batch, accepted=50)
    assert fake.instants[0] >= opens
    assert set(Counter(fake.addresses).values()) == {1}
    assert EngineState.objects.get().circuit == "closed"


def test_a_pool_without_an_able_engine_waits_and_goes_on_by_itself():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 20)
    Engine.objects.update(enabled=False)

    async def story(desk):
        await desk.until(Lease.objects.exists)
        assert await desk.ask(lambda: states(batch)) == {"ready": 20}
        await desk.ask(lambda: Engine.objects.update(enabled=True))

    pumped(engines, story)

    assert_settled(batch, accepted=20)


# ---- what a person does meanwhile ----


def test_a_suppression_entered_after_the_lease_is_honoured():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 600)
    fake.gate.clear()
    late = set()

    def suppress_what_is_leased():
        late.update(addresses_in("leased"))
        Suppression.objects.bulk_create(Suppression(address=a, identity=a) for a in late)

    async def story(desk):
        await desk.until_full(fake)
        await desk.ask(suppress_what_is_leased)
        fake.gate.set()

    pumped(engines, story)

    assert late
    assert not late & set(fake.addresses)
    assert addresses_in("suppressed") == late
    assert_settled(batch, accepted=600 - len(late), suppressed=len(late))


def test_after_a_hold_nothing_is_handed_over_that_was_not_marked_before_and_after_the_release_all_the_rest():
    fake, idle = FakeEngine(), FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 600)
    # A pump ends when nothing is open, and a held batch is not: this one keeps it going.
    other_pool, other_engines = pool_of(idle)
    other = batch_in(other_pool)
    Engine.objects.filter(pk__in=other_engines).update(enabled=False)
    fake.gate.clear()

    async def story(desk):
        in_flight = await desk.until_full(fake)
        await desk.ask(queue.hold, batch.pk, "the offer was wrong")
        fake.gate.set()
        await desk.until(lambda: states(batch) == {"accepted": len(in_flight), "ready": 600 - len(in_flight)})
        assert set(fake.addresses) == in_flight
        await desk.ask(queue.release, batch.pk)
        await desk.ask(lambda: Engine.objects.update(enabled=True))

    pumped(engines | other_engines, story)

    assert_settled(batch, accepted=600)
    assert_settled(other, accepted=1)
    assert set(Counter(fake.addresses).values()) == {1}


def test_a_batch_that_is_cancelled_on_its_way_sends_nothing_more_and_is_done(heard):
    fake = FakeEngine(lambda address, n: TROUBLE if address == "person-0@example.test" else ACCEPTED)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 600)
    fake.gate.clear()
    in_flight = set()

    async def story(desk):
        in_flight.update(await desk.until_full(fake))
        await desk.ask(queue.cancel, batch.pk)
        fake.gate.set()

    pumped(engines, story)

    accepted = len(in_flight) - 1  # the one that was to be tried again comes back to a cancelled batch
    assert_settled(batch, accepted=accepted, cancelled=600 - accepted)
    assert set(fake.addresses) == in_flight
    assert heard == [(batch.pk, {"accepted": accepted, "cancelled": 600 - accepted})]


def test_a_stop_gives_everything_back_with_nothing_in_doubt_and_the_next_pump_does_the_rest():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 600)
    fake.gate.clear()

    async def story(desk):
        await desk.until_full(fake)
        desk.pump.stop.set()
        fake.gate.set()

    pumped(engines, story)

    # What the engine had in its hands was waited for; what was only marked went back. A sender that is faster than the
    # news of the stop may begin another one.
    handed = len(fake.addresses)
    assert fake.concurrency <= handed <= 3 * fake.concurrency
    assert states(batch) == {"accepted": handed, "ready": 600 - handed}
    assert not Lease.objects.exists()
    assert set(Delivery.objects.filter(state="ready").values_list("attempts", flat=True)) == {0}

    pumped(engines)

    assert_settled(batch, accepted=600)
    assert set(Counter(fake.addresses).values()) == {1}


# ---- never faster than allowed ----


def crowded(instants, interval, burst):
    """The windows that hold more than `burst + t / interval`: how many messages in how many nanoseconds."""
    instants = sorted(instants)
    return [
        (last - first + 1, instants[last] - instants[first])
        for first in range(len(instants))
        for last in range(first + 1, len(instants))
        if (last - first + 1 - burst) * interval - CLOCK > instants[last] - instants[first]
    ]


@pytest.mark.parametrize("pumps", [1, 3])
def test_no_window_holds_more_than_the_limit_allows_with_any_number_of_pumps(pumps):
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=50, period="second", burst=10)
    batch = batch_in(pool, 120)

    pumped(engines, pumps=pumps)

    assert_settled(batch, accepted=120)
    assert crowded(fake.instants, SECOND // 50, 10) == []
    # And not much slower either: most of the time there was work.
    assert max(fake.instants) - min(fake.instants) < 4 * SECOND


def test_no_window_holds_more_than_the_limit_allows_over_a_restart():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=50, period="second", burst=10)
    batch = batch_in(pool, 80)

    async def stop_half_way(desk):
        await until(lambda: len(fake.addresses) >= 30)
        desk.pump.stop.set()

    pumped(engines, stop_half_way)
    pumped(engines)

    assert_settled(batch, accepted=80)
    assert crowded(fake.instants, SECOND // 50, 10) == []


@pytest.mark.parametrize(("quantity", "burst"), [(50, 10), (20, 1)])
def test_an_engine_that_takes_many_at_once_gets_no_more_than_the_limit_allows(quantity, burst):
    fake = FakeEngine(batch_size=25, concurrency=2)
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=quantity, period="second", burst=burst)
    batch = batch_in(pool, 40)

    pumped(engines)

    assert_settled(batch, accepted=40)
    # A batch is handed over at one instant; the tokens of a limit without a burst are drawn at the hand-over, and how
    # long that takes is the database's affair.
    slack = SECOND // 50 if burst == 1 else 0
    assert crowded(fake.instants, SECOND // quantity - slack, burst) == []


def test_a_limit_of_calls_bounds_calls_and_not_the_mails_in_them():
    fake = FakeEngine(batch_size=25, concurrency=4)
    pool, engines = pool_of(fake)
    limit = {"quantity": 20, "period": "second", "burst": 2, "counts": Counted.CALLS}
    EngineLimit.objects.create(engine_id=next(iter(engines)), **limit)
    batch = batch_in(pool, 400)

    pumped(engines)

    assert_settled(batch, accepted=400)
    calls = sorted(set(fake.instants_of_calls))
    assert crowded(calls, SECOND // 20, 2) == []
    # While a call waits for its turn, more gathers for it.
    assert len(calls) <= 24


def test_messages_and_calls_are_limited_together():
    fake = FakeEngine(batch_size=10, concurrency=2)
    pool, engines = pool_of(fake)
    for limit in (
        {"quantity": 100, "burst": 20, "counts": Counted.MESSAGES},
        {"quantity": 15, "burst": 3, "counts": Counted.CALLS},
    ):
        EngineLimit.objects.create(engine_id=next(iter(engines)), period="second", **limit)
    batch = batch_in(pool, 120)

    pumped(engines)

    assert_settled(batch, accepted=120)
    assert crowded(fake.instants, SECOND // 100, 20) == []
    assert crowded(fake.instants_of_calls, SECOND // 15, 3) == []


def test_a_warm_up_lets_so_many_go_and_no_more():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    Engine.objects.update(warmup_from=timezone.localdate(), warmup_caps="480, 2000")
    batch = batch_in(pool, 60)
    # An hour's worth of a day's 480 at once, and one of them is kept for what may be late; the next is due in minutes.
    at_once = 480 // 24 - 1

    async def story(desk):
        await until(lambda: len(fake.addresses) >= at_once)
        await desk.until(lambda: Delivery.objects.filter(state="accepted").count() == at_once)
        desk.pump.stop.set()

    pumped(engines, story)

    assert len(fake.addresses) == at_once
    assert states(batch) == {"accepted": at_once, "ready": 60 - at_once}


def test_tokens_that_a_stop_leaves_unused_are_there_for_the_next():
    fake = FakeEngine(concurrency=1)
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=40, period="hour", burst=80)
    batch_in(pool, 60)
    fake.gate.clear()

    async def story(desk):
        await until(lambda: fake.addresses)
        desk.pump.stop.set()
        fake.gate.set()

    pumped(engines, story)
    handed = len(fake.addresses)
    pumped(engines)

    assert handed < 5
    assert len(fake.addresses) == 60


def test_of_several_limits_the_narrowest_holds():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    for quantity, period, burst in ((1000, "second", 100), (40, "second", 5), (100_000, "day", 1000)):
        EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=quantity, period=period, burst=burst)
    batch = batch_in(pool, 50)

    pumped(engines)

    assert_settled(batch, accepted=50)
    assert crowded(fake.instants, SECOND // 40, 5) == []


# ---- a database that goes away, a lease that is lost, an engine that breaks its word ----


@pytest.fixture
def warnings(caplog) -> Iterator[Callable[[str], int]]:
    """How many lines of the worker's log begin with some words."""
    # It does not propagate to where pytest listens.
    logger = logging.getLogger("delivery")
    logger.addHandler(caplog.handler)
    yield lambda words: sum(message.startswith(words) for message in caplog.messages)
    logger.removeHandler(caplog.handler)


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


def test_the_pump_goes_on_where_it_was_when_the_database_comes_back(warnings, monkeypatch, rng):
    # SQLite would wait for the writer for 20 s before it says that it is busy.
    if connection.vendor == "sqlite":
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.1)
    connection.close()
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 1500)
    moment = rng.randrange(1, 1000)
    connection.close()

    async def story(desk):
        await until(lambda: len(fake.addresses) >= moment)
        with database_away():
            await until(lambda: warnings("The database is away") >= 3)

    pumped(engines, story)

    assert_settled(batch, accepted=1500)
    assert set(Counter(fake.addresses).values()) == {1}


def test_no_window_holds_more_than_the_limit_allows_while_the_database_goes_and_comes(warnings, monkeypatch):
    if connection.vendor == "sqlite":
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.1)
    connection.close()
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=50, period="second", burst=10)
    batch = batch_in(pool, 120)
    connection.close()

    async def story(desk):
        await until(lambda: len(fake.addresses) >= 40)
        with database_away():
            await until(lambda: warnings("The database is away") >= 5)

    pumped(engines, story)

    assert_settled(batch, accepted=120)
    assert crowded(fake.instants, SECOND // 50, 10) == []


@pytest.mark.parametrize("policy", UncertainPolicy)
def test_whatever_answer_of_the_database_gets_lost_nothing_is_lost_or_doubled(rng, seed, policy):
    outcomes = [ACCEPTED] * 6 + [TROUBLE, SILENCE, Outcome(Kind.RECIPIENT, "550", "no", hard=True)]
    answers = {f"person-{n}@example.test": rng.choice(outcomes) for n in range(600)}
    fake = FakeEngine(lambda address, n: answers[address] if n == 1 else ACCEPTED)
    pool, engines = pool_of(fake, first_wait_seconds=1)
    # So many silences would open the circuit, and what may have been taken would wait for it to close.
    Engine.objects.update(fault_threshold=10_000)
    batch = batch_in(pool, 600, policy)

    pumped(engines, database=lambda: RepeatingDatabase(rng))

    ends, handed = states(batch), Counter(fake.addresses)
    assert ends == queue.progress(batch.pk)
    assert sum(ends.values()) == len(handed) == 600
    assert addresses_in("rejected") == {a for a, o in answers.items() if o.kind is Kind.RECIPIENT}
    assert addresses_in("uncertain") == {a for a, o in answers.items() if o is SILENCE and policy == "hold"}
    again = {a for a, o in answers.items() if o is TROUBLE or (o is SILENCE and policy == "resend")}
    assert handed == Counter([*answers, *again])
    assert Attempt.objects.count() == sum(outcome is not ACCEPTED for outcome in answers.values())


def test_a_lease_that_is_lost_while_sending_is_followed_by_a_new_one_and_nothing_is_lost_or_doubled(
    settings, warnings, heard
):
    settings.OUTREACH = {**settings.OUTREACH, "LEASE_SECONDS": 3}
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 900)
    fake.gate.clear()

    async def story(desk):
        in_flight = await desk.until_full(fake)
        await desk.ask(lambda: Lease.objects.update(expires_at=datetime(2020, 1, 1, tzinfo=UTC)))
        await desk.until(lambda: addresses_in("uncertain") == in_flight)
        fake.gate.set()

    pumped(engines, story)

    assert_settled(batch, accepted=900)
    assert heard == [(batch.pk, {"accepted": 900})]
    assert set(Counter(fake.addresses).values()) == {1}
    assert warnings("The lease was lost") == 1


def test_an_engine_that_raises_ends_the_pump_and_leaves_only_its_own_delivery_in_doubt():
    def breaks_its_word(address, n):
        if address == "person-7@example.test":
            raise ZeroDivisionError
        return ACCEPTED

    fake = FakeEngine(breaks_its_word)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 20)

    with pytest.raises(ExceptionGroup) as failed:
        pumped(engines)

    assert failed.group_contains(ZeroDivisionError)
    assert addresses_in("sending") == {"person-7@example.test"}
    assert set(states(batch)) == {"accepted", "ready", "sending"}
    Lease.objects.update(expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert leasing.reap() == Counter(uncertain=1)


def test_every_end_is_one_of_the_ends_that_a_run_accounts_for():
    assert {state.value for state in ENDED} == {
        "accepted",
        "rejected",
        "suppressed",
        "expired",
        "skipped",
        "cancelled",
        "dead",
        "uncertain",
    }
