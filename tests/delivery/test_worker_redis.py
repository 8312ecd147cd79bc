"""The pump with its shared state in Redis, which goes away and comes back empty."""

import time

import pytest

from delivery.core.throttle import SECOND
from delivery.engine_desk import EngineDesk
from delivery.models import EngineLimit
from delivery.shared.redis import RedisShared
from delivery.worker import Pump, Surroundings, Until
from tests import redis_server
from tests.delivery.pumping import (
    BROKEN,
    FakeCatalogue,
    FakeEngine,
    assert_settled,
    batch_in,
    crowded,
    pool_of,
    pumped,
    until,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def redis():
    redis_server.needed()
    with redis_server.RedisServer() as server:
        yield server


@pytest.fixture
def settle_in(redis):
    """A shared store on which buckets are full, as if Redis had known this installation for long."""
    shared = RedisShared(redis.url)
    shared._redis.set("{outreach}:since", 1)
    yield shared
    shared.close()


def pump_over(shared):
    def make(database, engines, **options):
        desk = EngineDesk(FakeCatalogue(engines), shared)
        return Pump(Surroundings(database, desk=desk, **options), until=Until.DONE)

    return make


@pytest.mark.parametrize("pumps", [1, 3])
def test_limits_hold_over_all_pumps(settle_in, pumps):
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=50, period="second", burst=10)
    batch = batch_in(pool, 100)

    pumped(engines, pumps=pumps, make=pump_over(settle_in))

    assert_settled(batch, accepted=100)
    assert crowded(fake.instants, SECOND // 50, 10) == []
    assert max(fake.instants) - min(fake.instants) < 4 * SECOND


def test_a_circuit_that_opens_is_known_to_all(settle_in):
    broken, able = FakeEngine(lambda address, n: BROKEN), FakeEngine()
    pool, engines = pool_of(broken, able)
    batch = batch_in(pool, 600)

    pumped(engines, pumps=2, make=pump_over(settle_in))

    assert_settled(batch, accepted=600)
    [condition] = settle_in.conditions([next(iter(engines))]).values()
    assert (condition.breaker.state, condition.last_error) == ("open", "535 wrong password")


@pytest.mark.parametrize("trouble", ["killed", "frozen"])
def test_while_redis_is_away_sending_pauses_and_goes_on_by_itself_with_its_limits_kept(redis, settle_in, trouble):
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=50, period="second", burst=10)
    batch = batch_in(pool, 150)
    gone = []

    async def story(desk):
        await until(lambda: len(fake.addresses) >= 40)
        redis.stop() if trouble == "killed" else redis.freeze()
        gone.append(time.monotonic_ns())
        await until(lambda: time.monotonic_ns() - gone[0] > 3 * SECOND)
        gone.append(time.monotonic_ns())
        redis.start() if trouble == "killed" else redis.thaw()

    pumped(engines, story, make=pump_over(settle_in))

    assert_settled(batch, accepted=150)
    assert crowded(fake.instants, SECOND // 50, 10) == []
    away, back = gone
    assert not [at for at in fake.instants if away + SECOND < at < back]
