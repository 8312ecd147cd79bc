"""The pump and limits: in no window does more reach an engine than it may get."""

import pytest
from django.utils import timezone

from delivery.core.throttle import SECOND
from delivery.models import (
    Counted,
    Delivery,
    Engine,
    EngineLimit,
)
from tests.delivery.pumping import (
    FakeEngine,
    assert_settled,
    batch_in,
    crowded,
    pool_of,
    pumped,
    states,
    until,
)

pytestmark = pytest.mark.django_db(transaction=True)


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
