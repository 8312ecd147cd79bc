"""What all workers share about engines: the same promises wherever it is kept."""

import itertools
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delivery.core.breaker import Breaker, BreakerPolicy, State
from delivery.core.condition import Condition, Health, News
from delivery.core.throttle import SECOND, Period, Rate
from delivery.models import Engine, Pool
from delivery.shared import SharedAway
from delivery.shared.database import DatabaseShared
from delivery.shared.memory import MemoryShared
from delivery.shared.redis import RedisShared
from tests import redis_server

pytestmark = pytest.mark.django_db(transaction=True)

HOURLY = Rate.of(10, Period.HOUR, 10)  # refills by nothing while a test runs
POLICY = BreakerPolicy(threshold=2)


@pytest.fixture(scope="module")
def redis_url():
    redis_server.needed()
    with redis_server.RedisServer() as server:
        yield server.url


@pytest.fixture(params=["database", "redis", "memory"])
def store(request):
    """Each kind of store in turn, empty."""
    match request.param:
        case "database":
            yield DatabaseShared()
        case "memory":
            yield MemoryShared(time.monotonic_ns, lambda: datetime.now(UTC))
        case "redis":
            url = request.getfixturevalue("redis_url")
            opened = RedisShared(url)
            opened._redis.flushdb()
            opened.draw({"warm": HOURLY}, 1)
            # A bucket that an emptied Redis does not know is empty from then on; these tests begin long after.
            opened._redis.set("{outreach}:since", 1)
            yield opened
            opened.close()


@pytest.fixture
def engine():
    return Engine.objects.create(name="one", slug="one", kind="sandbox").pk


# ---- buckets ----


def test_a_new_bucket_is_full_and_gives_its_burst_and_no_more(store):
    assert store.draw({"a": HOURLY}, 4).tokens == 4
    assert store.draw({"a": HOURLY}, 100).tokens == 6
    empty = store.draw({"a": HOURLY}, 1)

    assert empty.tokens == 0
    assert 0.9 * 360 * SECOND < empty.wait <= 360 * SECOND


def test_without_a_limit_everything_is_granted(store):
    assert store.draw({}, 7).tokens == 7


def test_buckets_do_not_know_of_each_other(store):
    store.draw({"a": HOURLY}, 10)

    assert store.draw({"b": HOURLY}, 10).tokens == 10


def test_several_buckets_give_what_the_narrowest_gives_and_of_the_others_nothing_is_lost(store):
    narrow = Rate.of(3, Period.HOUR, 3)

    assert store.draw({"wide": HOURLY, "narrow": narrow}, 10).tokens == 3
    assert store.draw({"wide": HOURLY, "narrow": narrow}, 1).tokens == 0
    assert store.draw({"wide": HOURLY}, 10).tokens == 7


def test_a_grant_says_how_many_more_the_narrowest_bucket_has(store):
    narrow = Rate.of(6, Period.HOUR, 6)

    told = [store.draw({"a": HOURLY, "b": narrow}, wanted).more for wanted in (1, 3, 2, 1)]

    assert told == [5, 2, 0, 0]


def test_an_empty_bucket_fills_again_at_its_rate(store):
    rate = Rate.of(200, Period.SECOND, 1)
    begun, granted = time.monotonic(), 0
    while time.monotonic() - begun < 0.5:
        granted += store.draw({"a": rate}, 10).tokens
    seconds = time.monotonic() - begun

    assert 1 < granted <= 200 * seconds + 1


def test_after_the_wait_it_names_there_is_a_token(store):
    rate = Rate.of(10, Period.SECOND, 1)
    store.draw({"a": rate}, 1)
    wait = store.draw({"a": rate}, 1).wait

    due = time.monotonic_ns() + wait
    while time.monotonic_ns() < due:
        pass

    assert store.draw({"a": rate}, 1).tokens == 1


def test_tokens_given_back_can_be_drawn_again_once(store):
    rates = {"a": HOURLY, "b": HOURLY}
    drawn = store.draw(rates, 10)

    store.give_back(rates, drawn.left, 4)
    store.give_back(rates, drawn.left, 4)  # the answer was lost, it was asked again

    assert store.draw(rates, 10).tokens == 4


def test_once_somebody_has_drawn_again_tokens_lapse(store):
    first = store.draw({"a": HOURLY}, 4)
    store.draw({"a": HOURLY}, 1)

    store.give_back({"a": HOURLY}, first.left, 4)

    assert store.draw({"a": HOURLY}, 10).tokens == 5


def test_a_limit_that_is_changed_holds_from_the_next_draw_on(store):
    store.draw({"a": HOURLY}, 10)

    assert store.draw({"a": Rate.of(3600 * 1000, Period.HOUR, 20)}, 1).tokens == 0
    assert store.draw({"b": HOURLY}, 1).tokens == 1


def in_threads(work, count=4):
    """What `work` returned in so many threads at once, each with its own connection."""
    results, failures = [], []

    def run(number):
        try:
            results.append(work(number))
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    return results


@pytest.fixture
def shared_by_threads(store):
    if isinstance(store, MemoryShared):
        pytest.skip("for one thread, as it says")
    return store


def test_many_who_draw_at_once_get_together_what_there_is(shared_by_threads):
    granted = in_threads(lambda number: sum(shared_by_threads.draw({"a": HOURLY}, 1).tokens for _ in range(20)))

    assert sum(granted) == 10


def test_draws_of_the_same_buckets_in_different_order_do_not_wait_for_each_other_for_ever(shared_by_threads):
    plenty = Rate.of(10_000, Period.SECOND, 10_000)
    orders = [{"a": plenty, "b": plenty}, {"b": plenty, "a": plenty}]

    granted = in_threads(lambda number: sum(shared_by_threads.draw(orders[number % 2], 1).tokens for _ in range(25)))

    assert sum(granted) == 100


# ---- conditions ----


def test_an_engine_of_which_nothing_is_known_is_as_new(store, engine):
    assert store.conditions([engine, 99]) == {engine: Condition(), 99: Condition()}
    assert store.conditions([]) == {}


def test_a_condition_comes_back_as_it_was_written_to_the_microsecond(store, engine):
    at = datetime(2026, 8, 1, 12, 0, 0, 123456, tzinfo=UTC)
    written = Condition(
        Breaker(State.HALF_OPEN, 7, timedelta(seconds=31.5), at), 0.325, at, at + timedelta(days=1), "429 no “more”", at
    )

    assert store.change(engine, lambda condition, now: written)

    assert store.conditions([engine]) == {engine: written}


def test_a_change_gets_the_present_condition_and_the_stores_time(store, engine):
    seen = []
    store.change(engine, lambda condition, now: Condition(last_error="first"))

    store.change(engine, lambda condition, now: seen.append((condition, now)))

    assert seen[0][0] == Condition(last_error="first")
    assert abs(seen[0][1] - datetime.now(UTC)) < timedelta(seconds=5)


def test_what_changes_nothing_says_so(store, engine):
    assert not store.change(engine, lambda condition, now: None)
    assert not store.change(engine, lambda condition, now: condition)


def test_of_many_who_want_the_probe_one_gets_it(shared_by_threads, engine):
    past = datetime(2026, 1, 1, tzinfo=UTC)
    opened = Condition(Breaker(State.OPEN, 5, timedelta(minutes=10), past))
    shared_by_threads.change(engine, lambda condition, now: opened)

    def claim(number):
        return [
            shared_by_threads.change(engine, lambda condition, now: condition.probing(now, POLICY)) for _ in range(5)
        ]

    claims = [claimed for results in in_threads(claim) for claimed in results]
    assert Counter(claims) == {True: 1, False: 19}


def test_no_news_is_undone_by_news_heard_at_the_same_time(shared_by_threads, engine):
    fault = News(Health.FAULT, "x")
    policy = BreakerPolicy(threshold=10_000)

    def hear(number):
        for _ in range(10):
            shared_by_threads.change(engine, lambda condition, now: condition.hearing([fault], now, policy))

    in_threads(hear)

    assert shared_by_threads.conditions([engine])[engine].breaker.faults == 40


# ---- where a sticky pool is ----


@pytest.fixture
def pool():
    return Pool.objects.create(name="pool", slug="pool").pk


def test_a_sticky_pool_moves_from_where_it_is_and_not_from_elsewhere(store, pool, engine):
    other = Engine.objects.create(name="two", slug="two", kind="sandbox").pk
    assert store.current(pool) is None

    assert store.move(pool, None, engine)
    assert not store.move(pool, None, other)
    assert store.current(pool) == engine
    assert store.move(pool, engine, other)

    assert store.current(pool) == other


# ---- all stores are one algorithm ----


# So slow that the time between two steps, real for the one store and none for the other, makes no difference.
slow_rates = st.builds(Rate, st.integers(10**11, 10**13), st.integers(1, 40), st.just(0) | st.integers(10**11, 10**12))


@st.composite
def stories(draw_from):
    """Draws and returns on two buckets of the same rates, one after the other."""
    rates = draw_from(st.fixed_dictionaries(dict.fromkeys("ab", slow_rates)))
    steps = st.tuples(st.sampled_from(["a", "b", "ab"]), st.integers(1, 30), st.integers(0, 30))
    return rates, draw_from(st.lists(steps, max_size=8))


fresh = itertools.count()


@given(stories())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_store_grants_what_the_one_in_memory_grants(shared_by_threads, story):
    rates, steps = story
    own = next(fresh)
    memory = MemoryShared(lambda: 10**18, lambda: datetime.now(UTC))
    granted, expected = [], []
    for keys, wanted, unused in steps:
        ours = {f"{own}{key}": rates[key] for key in keys}
        for shared, grants in ((shared_by_threads, granted), (memory, expected)):
            drawn = shared.draw(ours, wanted)
            grants.append(drawn.tokens)
            if drawn.tokens:
                shared.give_back(ours, drawn.left, min(unused, drawn.tokens))

    assert granted == expected


# ---- a Redis that goes away, and one that forgets ----


@pytest.fixture
def own_redis():
    redis_server.needed()
    with redis_server.RedisServer() as server:
        yield server


def test_a_redis_that_is_away_says_so_and_comes_back(own_redis):
    store = RedisShared(own_redis.url)
    store.draw({"a": HOURLY}, 1)
    own_redis.stop()

    for question in (
        lambda: store.draw({"a": HOURLY}, 1),
        lambda: store.give_back({"a": HOURLY}, {"a": 0}, 1),
        lambda: store.conditions([1]),
        lambda: store.change(1, lambda condition, now: Condition(last_error="x")),
        lambda: store.current(1),
        lambda: store.move(1, None, 2),
    ):
        with pytest.raises(SharedAway, match="Redis"):
            question()
    own_redis.start()

    assert store.change(1, lambda condition, now: Condition(last_error="x"))


def test_a_redis_that_lost_its_memory_does_not_grant_the_burst_again(own_redis):
    store = RedisShared(own_redis.url)
    rate = Rate.of(20, Period.SECOND, 20)
    store.draw({"a": rate}, 1)
    store._redis.set("{outreach}:since", 1)
    store._redis.delete("{outreach}:bucket:a")
    begun = time.monotonic()
    before = store.draw({"a": rate}, 100).tokens

    own_redis.stop()
    own_redis.start()
    after = 0
    while time.monotonic() - begun < 1:
        with_connection_again = RedisShared(own_redis.url) if not after else store
        after += with_connection_again.draw({"a": rate}, 100).tokens

    assert before == 20
    assert 0 < before + after <= 20 + 20 * (time.monotonic() - begun)


def test_keys_go_when_they_have_nothing_to_say_any_more(own_redis):
    store = RedisShared(own_redis.url)
    store.draw({"warm": HOURLY}, 1)
    store._redis.set("{outreach}:since", 1)
    store.draw({"quick": Rate.of(1000, Period.SECOND, 10)}, 5)

    lives = store._redis.pttl("{outreach}:bucket:quick")

    assert 0 < lives <= 7


def test_how_much_a_bucket_could_give_is_told_and_nothing_is_taken(store):
    rates = {"drawn": HOURLY, "full": Rate.of(5, Period.HOUR, 5)}
    store.draw({"drawn": HOURLY}, 7)

    assert store.levels(rates) == store.levels(rates) == {"drawn": 3, "full": 5}
    assert store.levels({}) == {}
