"""When a deferred delivery is tried again, and when it is given up: by attempts and by time, whichever comes first."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from delivery.core.retry import RetryPolicy

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
SECONDS = st.integers(0, 100_000).map(lambda n: timedelta(seconds=n))


class Longest(random.Random):
    """Draws the upper end of every range."""

    def uniform(self, low, high):
        return high


policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 20),
    base=SECONDS,
    factor=st.floats(1, 10),
    longest=SECONDS,
    max_age=SECONDS,
)


def test_the_longest_wait_grows_by_the_factor_up_to_its_limit():
    policy = RetryPolicy(max_attempts=6)

    waits = [policy.next_at(tries, NOON, NOON, Longest()) - NOON for tries in range(1, 6)]

    assert [wait.total_seconds() for wait in waits] == [60, 240, 960, 3600, 3600]


def test_the_wait_is_drawn_from_the_whole_range_so_that_neighbours_do_not_come_back_together(rng):
    policy = RetryPolicy()

    waits = [(policy.next_at(2, NOON, NOON, rng) - NOON).total_seconds() for _ in range(400)]

    assert min(waits) < 24
    assert max(waits) > 216
    assert len(set(waits)) == 400


def test_the_last_attempt_is_not_followed_by_another():
    policy = RetryPolicy(max_attempts=3)

    assert policy.next_at(2, NOON, NOON, Longest()) is not None
    assert policy.next_at(3, NOON, NOON, Longest()) is None


def test_a_try_that_would_come_after_the_age_limit_is_not_promised():
    policy = RetryPolicy(base=timedelta(minutes=1), max_age=timedelta(hours=1))
    edge = NOON + timedelta(minutes=59)

    assert policy.next_at(1, NOON, edge, Longest()) == NOON + timedelta(hours=1)
    assert policy.next_at(1, NOON, edge + timedelta(microseconds=1), Longest()) is None


@given(policies, st.integers(0, 30), SECONDS, st.integers())
def test_a_next_try_lies_between_now_and_every_limit(policy, attempts, age, seed):
    now = NOON + age

    at = policy.next_at(attempts, NOON, now, random.Random(seed))

    if attempts >= policy.max_attempts or age > policy.max_age:
        assert at is None
    if at is not None:
        assert now <= at <= min(now + policy.longest, NOON + policy.max_age)


@given(policies, st.integers())
def test_whatever_the_policy_a_delivery_that_always_fails_is_given_up_in_time(policy, seed):
    rng, now, tries = random.Random(seed), NOON, 0
    while now is not None:
        tries += 1
        last_try, now = now, policy.next_at(tries, NOON, now, rng)

    assert tries <= policy.max_attempts
    assert last_try - NOON <= policy.max_age
