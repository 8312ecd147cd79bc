"""The pump among several batches, and over a change of its engines: who goes first, what is reopened, when it ends."""

from collections import Counter
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from delivery import queue
from delivery.models import Batch, Delivery, Engine, EngineLimit
from delivery.queue import leasing, work
from delivery.worker import Until
from delivery.worker import pump as pump_module
from delivery.worker.lane import LEAST_AHEAD
from tests.delivery.pumping import (
    ACCEPTED,
    TROUBLE,
    FakeEngine,
    Longest,
    addresses_in,
    assert_settled,
    batch_in,
    pool_of,
    pump_on,
    pumped,
    states,
    until,
)

pytestmark = pytest.mark.django_db(transaction=True)

FAR = timedelta(days=1)


def people(name, count):
    return [f"{name}-{n}@example.test" for n in range(count)]


def batch_of(pool, addresses, *, priority=0, deadlines=None):
    """A batch to these people that is there, urgent or not and with its deadlines, in one instant."""
    with transaction.atomic():
        batch = batch_in(pool, addresses=addresses)
        Batch.objects.filter(pk=batch.pk).update(priority=priority)
        Delivery.objects.filter(batch=batch).update(priority=priority)
        for address, deadline in zip(addresses, deadlines or (), strict=False):
            Delivery.objects.filter(address=address).update(deadline=deadline)
    return batch


def in_state(*wanted):
    return Delivery.objects.filter(state__in=wanted).count()


def in_hand(batch):
    return Delivery.objects.filter(batch=batch, state__in=("leased", "sending")).count()


class Looks:
    """The stored queue, which counts how often a pump has looked for work: each look comes after what was leased
    before is in its lanes."""

    def __init__(self):
        self.count = 0

    def __getattr__(self, name):
        return getattr(work, name)

    def open_batches(self, only=None):
        self.count += 1
        return work.open_batches(only)

    async def next(self):
        before = self.count
        await until(lambda: self.count > before)


# ---- who goes first ----


def test_an_urgent_batch_overtakes_all_that_is_in_hand_and_not_yet_marked(monkeypatch):
    # So much is in hand for a fast pool; here without a second of real work before.
    monkeypatch.setattr(pump_module, "LEAST", 600)
    fake = FakeEngine(concurrency=2)
    pool, engines = pool_of(fake)
    mass = batch_of(pool, people("mass", 700), priority=5)
    fake.gate.clear()
    batches = [mass]
    looks = Looks()

    async def story(desk):
        await desk.until(lambda: in_hand(mass) == 600)
        marked = await desk.until_full(fake)
        urgent = await desk.ask(lambda: batch_of(pool, people("urgent", 50), priority=-1))
        await desk.until(lambda: in_hand(urgent) == 50)
        await looks.next()
        batches.extend((urgent, marked))
        fake.gate.set()

    pumped(engines, story, queue=looks)

    _, urgent, marked = batches
    assert_settled(mass, accepted=700)
    assert_settled(urgent, accepted=50)
    assert len(marked) <= 2 + LEAST_AHEAD
    assert set(fake.addresses[: len(marked)]) == marked
    assert set(fake.addresses[len(marked) : len(marked) + 50]) == set(people("urgent", 50))


def test_in_hand_the_earliest_deadline_goes_first_over_batches_of_one_urgency(rng):
    fake = FakeEngine(concurrency=1)
    pool, engines = pool_of(fake)
    fake.gate.clear()
    first = batch_of(pool, people("blocker", 20), priority=-5)
    soon = timezone.now() + FAR
    deadlines = [soon + timedelta(minutes=n) for n in range(60)]
    rng.shuffle(deadlines)
    looks = Looks()
    by_address = dict(zip(people("left", 30) + people("right", 30), deadlines, strict=True))

    async def story(desk):
        await desk.until(lambda: in_hand(first) == 20)
        await desk.until_full(fake)
        await desk.ask(make_both)
        await desk.until(lambda: in_state("leased", "sending") == 80)
        await looks.next()
        fake.gate.set()

    def make_both():
        batch_of(pool, people("left", 30), deadlines=deadlines[:30])
        batch_of(pool, people("right", 30), deadlines=deadlines[30:])

    pumped(engines, story, queue=looks)

    assert fake.addresses[20:] == sorted(by_address, key=by_address.get)
    assert set(fake.addresses[:20]) == set(people("blocker", 20))


def test_equally_urgent_batches_go_forward_side_by_side():
    fake = FakeEngine(concurrency=1)
    pool, engines = pool_of(fake)
    # With the same deadline for all, they would go in the order in which they came into the lane.
    batches = [batch_of(pool, people(name, 300)) for name in ("a", "b")]

    pumped(engines)

    for batch in batches:
        assert_settled(batch, accepted=300)
    half = Counter(address[0] for address in fake.addresses[:300])
    # Without turns the first would keep the hand full: a third of a hand, at most, would be the other's.
    assert min(half["a"], half["b"]) >= 50


# ---- an engine that is set up differently meanwhile ----


def change_options(host):
    engine = Engine.objects.get()
    engine.options = {"host": host}
    engine.save()


def waiting():
    return in_state("waiting") > 0


def test_an_engine_whose_options_change_is_reopened_after_its_last_answer():
    old, new = FakeEngine(concurrency=2), FakeEngine(concurrency=2)
    pool, engines = pool_of(old)
    batch = batch_in(pool, 200)
    old.gate.clear()

    async def story(desk):
        await desk.until_full(old)
        engines[next(iter(engines))] = new
        await desk.ask(change_options, "new.example")
        await desk.until(waiting)  # nothing is put into a lane that ends
        assert (new.addresses, old.closed) == ([], 0)
        old.gate.set()

    pumped(engines, story)

    assert_settled(batch, accepted=200)
    assert len(old.addresses) == 2
    assert set(Counter(old.addresses + new.addresses).values()) == {1}
    assert (old.closed, new.closed) == (1, 1)
    assert set(Delivery.objects.values_list("attempts", "resends")) == {(1, 0)}


def test_an_engine_that_is_slower_with_its_last_answer_than_anybody_waits_does_not_keep_the_others(monkeypatch):
    monkeypatch.setattr(pump_module, "GRACE", 0.2)
    old, new = FakeEngine(concurrency=2), FakeEngine(concurrency=2)
    pool, engines = pool_of(old)
    batch = batch_in(pool, 200)
    old.gate.clear()
    kept = set()

    async def story(desk):
        kept.update(await desk.until_full(old))
        engines[next(iter(engines))] = new
        await desk.ask(change_options, "new.example")
        await desk.until(lambda: in_state("accepted") == 200 - len(kept))
        assert old.closed == 0
        assert await desk.ask(addresses_in, "sending") == kept
        old.gate.set()

    pumped(engines, story)

    assert_settled(batch, accepted=200)
    assert len(old.addresses) == 2
    assert set(old.addresses) <= kept
    assert set(Counter(old.addresses + new.addresses).values()) == {1}
    assert (old.closed, new.closed) == (1, 1)
    assert set(Delivery.objects.values_list("attempts", "resends")) == {(1, 0)}


def test_an_engine_whose_options_change_twice_ends_with_the_last_ones(monkeypatch):
    monkeypatch.setattr(pump_module, "GRACE", 0.2)
    fakes = [FakeEngine(concurrency=2) for _ in range(3)]
    pool, engines = pool_of(fakes[0])
    batch = batch_in(pool, 200)
    for fake in fakes[:2]:
        fake.gate.clear()

    async def story(desk):
        for number, fake in enumerate(fakes[:2]):
            await until(lambda fake=fake: fake.under_way == 2)
            engines[next(iter(engines))] = fakes[number + 1]
            await desk.ask(change_options, f"{number}.example")
        await until(lambda: fakes[2].addresses)
        for fake in fakes[:2]:
            fake.gate.set()

    pumped(engines, story)

    assert_settled(batch, accepted=200)
    assert [len(fake.addresses) for fake in fakes[:2]] == [2, 2]
    assert set(Counter(address for fake in fakes for address in fake.addresses).values()) == {1}
    assert [fake.closed for fake in fakes] == [1, 1, 1]


def test_a_stop_while_an_engine_is_reopened_leaves_nothing_in_doubt(monkeypatch):
    monkeypatch.setattr(pump_module, "GRACE", 0.2)
    old, new = FakeEngine(concurrency=2), FakeEngine(concurrency=2)
    pool, engines = pool_of(old)
    batch = batch_in(pool, 200)
    old.gate.clear()

    async def story(desk):
        await desk.until_full(old)
        engines[next(iter(engines))] = new
        await desk.ask(change_options, "new.example")
        await desk.until(waiting)
        desk.pump.stop.set()
        old.gate.set()

    pumped(engines, story)

    assert set(states(batch)) <= {"accepted", "ready", "waiting"}
    assert states(batch)["accepted"] == len(old.addresses + new.addresses)
    assert old.closed == 1


def test_a_limit_that_changes_alone_does_not_reopen_the_engine():
    fake = FakeEngine(concurrency=2)
    pool, engines = pool_of(fake)
    limit = EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=2, period="second", burst=1)
    batch = batch_in(pool, 50)

    async def story(desk):
        await until(lambda: fake.addresses)
        await desk.ask(lambda: EngineLimit.objects.filter(pk=limit.pk).update(quantity=1000, period="second", burst=50))

    pumped(engines, story)

    assert_settled(batch, accepted=50)
    assert fake.closed == 1


# ---- how far ahead is marked ----


def test_ahead_of_an_engine_that_stands_still_no_more_are_marked_than_the_least():
    fake = FakeEngine(concurrency=3)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 300)
    fake.gate.clear()
    marked = []

    async def story(desk):
        marked.extend(await desk.until_full(fake))
        fake.gate.set()

    pumped(engines, story)

    assert len(marked) <= 3 + LEAST_AHEAD
    assert_settled(batch, accepted=300)


def test_where_calls_are_limited_a_cancelled_batch_sends_no_more_than_the_calls_that_were_marked():
    fake = FakeEngine(concurrency=2, batch_size=10)
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=5, period="second", burst=1, counts="calls")
    batch = batch_in(pool, 200)
    handed = []

    async def story(desk):
        await until(lambda: len(fake.calls) >= 3)
        handed.append(await desk.ask(cancel_now))

    def cancel_now():
        queue.cancel(batch.pk)
        return len(fake.addresses)

    pumped(engines, story)

    # One call's worth was marked, and another may have been on its way.
    assert len(fake.addresses) - handed[0] <= 20
    assert_settled(batch, accepted=len(fake.addresses), cancelled=200 - len(fake.addresses))


# ---- when it ends by itself ----


def idle_pump(database, engines, **options):
    pump = pump_on(database, engines, **options)
    pump._until = Until.IDLE
    return pump


def test_an_idle_pump_ends_when_everything_has_its_end():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 30)

    pumped(engines, make=idle_pump)

    assert_settled(batch, accepted=30)


def test_an_idle_pump_ends_while_a_retry_is_due_only_after_its_horizon_and_leaves_it_to_others():
    fake = FakeEngine(lambda address, n: TROUBLE if address == "person-3@example.test" else ACCEPTED)
    pool, engines = pool_of(fake, first_wait_seconds=300)
    batch = batch_in(pool, 30)

    pumped(engines, make=idle_pump, rng=Longest())

    assert states(batch) == {"accepted": 29, "waiting": 1}
    assert not in_state("leased", "sending")


def test_an_idle_pump_stays_for_a_retry_that_is_due_soon():
    fake = FakeEngine(lambda address, n: TROUBLE if address == "person-3@example.test" and n == 1 else ACCEPTED)
    pool, engines = pool_of(fake, first_wait_seconds=2)
    batch = batch_in(pool, 30)

    pumped(engines, make=idle_pump, rng=Longest())

    assert_settled(batch, accepted=30)
    assert len(fake.addresses) == 31


def test_an_idle_pump_stays_while_a_batch_is_growing_and_sends_what_is_added():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 5)
    Batch.objects.filter(pk=batch.pk).update(growing=True)

    async def story(desk):
        await desk.until(lambda: states(batch) == {"accepted": 5})
        await desk.ask(add_two)
        await desk.until(lambda: states(batch) == {"accepted": 7})
        assert await desk.ask(lambda: Batch.objects.get().state) == "open"
        await desk.ask(queue.filled, batch.pk)

    def add_two():
        message = batch.messages.get()
        more = [queue.NewDelivery(n, f"late-{n}@example.test", f"late-{n}@example.test", "", {"n": n}) for n in (1, 2)]
        queue.Filler(batch.pk, message.pk, 0).write(more)

    pumped(engines, story, make=idle_pump)

    assert_settled(batch, accepted=7)


def test_an_idle_pump_ends_while_its_engine_may_not_be_asked_within_the_horizon():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 5)
    Engine.objects.update(enabled=False)

    pumped(engines, make=idle_pump)

    assert states(batch) == {"ready": 5}
    assert fake.addresses == []


def test_an_idle_pump_leaves_what_another_worker_has_in_hand():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 3)
    elsewhere = leasing.acquire("another-host/boot/1:1:1", timedelta(minutes=5))
    leasing.lease(elsewhere, batch.pk, 3)

    pumped(engines, make=idle_pump)

    assert states(batch) == {"leased": 3}
