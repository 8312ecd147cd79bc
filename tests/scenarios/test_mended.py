"""What reviews of the sender found and nobody had thought of, each as a promise."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.db import DataError
from django.utils import timezone

from campaigns import filling
from campaigns.initialize import initialize
from campaigns.models import RenderErrorPolicy, Run, Start
from delivery import owner, queue
from delivery.core.throttle import SECOND, Period, Rate, draw
from delivery.models import Bucket, Delivery, EngineLimit
from delivery.queue import Filler, NewDelivery, work
from delivery.shared.database import DatabaseShared
from delivery.shared.memory import MemoryShared
from delivery.shared.redis import RedisShared
from tests import redis_server
from tests.campaigns import cast
from tests.delivery.pumping import FakeEngine, addresses_in, batch_in, pool_of, pumped, until
from tests.delivery.test_worker_hand import LEAST, Hand, batch, fill

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = 3600 * SECOND
TEN = Rate.of(10, Period.SECOND)


def test_a_bucket_is_not_shut_after_the_clock_was_set_back():
    state, now = draw(TEN, 0, 10**18, 3).state, 10**18 - HOUR
    got = 0
    for _ in range(20):
        grant = draw(TEN, state, now, 1)
        got, state, now = got + grant.tokens, grant.state, now + SECOND // 10
    assert 1 <= got <= 30


@pytest.mark.parametrize("kind", ["database", "memory", "redis"])
def test_no_store_shuts_a_bucket_when_its_clock_is_set_back(kind):
    # The clock set back an hour is the bucket set forward an hour.
    rates = {"a": TEN}
    if kind == "database":
        store = DatabaseShared()
        store.draw(rates, 3)
        bucket = Bucket.objects.get()
        Bucket.objects.update(state=bucket.state + HOUR)
        _within_two_seconds(store, rates)
    elif kind == "memory":
        store = MemoryShared(time.time_ns, lambda: datetime.now(UTC))
        store.draw(rates, 3)
        store._buckets["a"] += HOUR
        _within_two_seconds(store, rates)
    else:
        redis_server.needed()
        with redis_server.RedisServer() as server:
            store = RedisShared(server.url)
            store.draw(rates, 1)
            store._redis.set("{outreach}:since", 1)
            store.draw(rates, 3)
            state = int(store._redis.get("{outreach}:bucket:a") or 0)
            store._redis.set(
                "{outreach}:bucket:a", int(state or time.time_ns() // 100 - 17356896000000000) + HOUR // 100
            )
            _within_two_seconds(store, rates)
            store.close()


def _within_two_seconds(store, rates):
    begun, got, wait = time.monotonic(), 0, 0
    while time.monotonic() - begun < 2.5:
        drawn = store.draw(rates, 1)
        got, wait = got + drawn.tokens, drawn.wait
        time.sleep(0.02)
    assert 10 <= got <= 40
    assert wait <= SECOND


def test_a_refused_outcome_that_comes_alone_costs_those_in_flight_nothing():
    class Refuses:
        def __getattr__(self, name):
            return getattr(work, name)

        def settle(self, lease_id, settlements):
            bad = set(Delivery.objects.filter(address="person-0@example.test").values_list("pk", flat=True))
            if {s.id for s in settlements} & bad:
                raise DataError("never")
            work.settle(lease_id, settlements)

    class First(FakeEngine):
        async def send(self, envelopes):
            if envelopes[0].recipient.address == "person-0@example.test":
                return [self._take(envelope) for envelope in envelopes]
            return await super().send(envelopes)

    fake = First(concurrency=4)
    pool, engines = pool_of(fake)
    batch_in(pool, 5)
    fake.gate.clear()

    async def story(desk):
        await until(lambda: fake.under_way == 4 and "person-0@example.test" in fake.addresses)
        await asyncio.sleep(0.3)  # its outcome is alone in a commit
        fake.gate.set()
        await asyncio.sleep(0.3)
        desk.pump.stop.set()

    try:
        pumped(engines, story, queue=Refuses())
    except BaseException as error:
        print("the pump:", repr(error)[:300])
    assert addresses_in("sending") <= {"person-0@example.test"}


def test_proc_that_refuses_instead_of_hiding(monkeypatch):
    class Refusing:
        def read_text(self):
            raise PermissionError(1, "Operation not permitted")

    ours = owner.name()
    monkeypatch.setattr(owner, "Path", lambda path: Refusing())
    assert not owner.is_gone(ours)


def test_a_takeover_keeps_what_could_not_be_rendered_in_the_first_chunk(monkeypatch):
    monkeypatch.setattr(filling, "CHUNK", 10)
    people = [("early@example.test", "Early", {}), *cast.crowd(25)]
    run = cast.queued(
        cast.workflow(audience=cast.list_audience(people), start=Start.AT_ONCE, on_render_error=RenderErrorPolicy.SKIP)
    )

    class Died(BaseException):
        pass

    def die(rows):
        raise Died

    with pytest.raises(Died):
        initialize(run.pk, die)
    before = cast.fresh(run)
    assert (before.problem_counts, before.problems.count()) == ({"rendering": 1}, 1)
    Run.objects.filter(pk=run.pk).update(initializer_until=timezone.now() - timedelta(seconds=1))
    assert initialize(run.pk)
    after = cast.fresh(run)
    assert Delivery.objects.filter(state="skipped").count() == 1
    assert (after.problem_counts, after.problems.count()) == ({"rendering": 1}, 1)


def test_letting_go_of_the_urgent_rings_although_the_less_urgent_fill_the_hand():
    hand = Hand()
    fill(hand, batch(1, priority=5))
    fill(hand, batch(2, priority=-1))
    hand.room(batch(2, priority=-1))
    rings = [left for left in range(LEAST - 1, 0, -1) if hand.let_go(2)]
    assert rings == [LEAST - LEAST // 3]


def test_where_calls_carry_one_mail_no_more_than_one_is_marked_ahead():
    fake = FakeEngine(concurrency=2)
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=2, period="second", burst=1, counts="calls")
    the_batch = batch_in(pool, 60)
    handed = []

    def cancel():
        queue.cancel(the_batch.pk)
        return len(fake.addresses)

    async def story(desk):
        await until(lambda: len(fake.addresses) >= 3)
        handed.append(await desk.ask(cancel))

    pumped(engines, story)
    assert len(fake.addresses) - handed[0] <= 3


def test_a_batching_engine_with_a_slow_limit_of_messages_is_not_marked_far_ahead():
    fake = FakeEngine(concurrency=2, batch_size=100)
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=10, period="second", burst=1)
    the_batch = batch_in(pool, 150)
    handed = []

    def cancel():
        queue.cancel(the_batch.pk)
        return len(fake.addresses)

    async def story(desk):
        await until(lambda: len(fake.addresses) >= 3)
        handed.append(await desk.ask(cancel))

    pumped(engines, story)
    assert len(fake.addresses) - handed[0] <= 20


def test_two_writes_in_one_transaction_write_what_they_were_given():
    from django.db import transaction

    pool, _ = pool_of(FakeEngine())
    first, second = batch_in(pool, addresses=["x@example.test"]), batch_in(pool, addresses=["y@example.test"])
    new = lambda a: [NewDelivery(1, a, a, "", {})]  # noqa: E731
    with transaction.atomic():
        Filler(first.pk, first.messages.get().pk, 0).write(new("a@example.test"))
        Filler(second.pk, second.messages.get().pk, 0).write(new("b@example.test"))
    assert Delivery.objects.filter(batch=second).count() == 2


@pytest.mark.parametrize("how", ["cancel", "time limit"])
def test_a_run_whose_initialiser_has_stopped_can_be_ended(how):
    from campaigns import control, housekeeping
    from campaigns.initialize import Stopping

    run = cast.queued(cast.workflow())

    def stop():
        raise Stopping

    with pytest.raises(Stopping):
        initialize(run.pk, between=stop)
    if how == "cancel":
        control.cancel(run, "ada")
    else:
        Run.objects.filter(pk=run.pk).update(times_out_at=timezone.now())
        housekeeping.tick()
    assert cast.fresh(run).batch is None
    assert not Delivery.objects.exists()


def test_what_a_dead_initialiser_of_another_host_left_of_a_cancelled_run_is_thrown_away_some_day():
    from campaigns import control, housekeeping

    run = cast.queued(cast.workflow())

    class Died(BaseException):
        pass

    def die(rows):
        raise Died

    with pytest.raises(Died):
        initialize(run.pk, die)
    ago = timezone.now() - timedelta(hours=1)
    Run.objects.filter(pk=run.pk).update(initializer="another-host/b/1:1:1", initializer_until=ago)
    control.cancel(run, "ada")
    housekeeping.tick()
    assert cast.fresh(run).batch is None
    assert not Delivery.objects.exists()
