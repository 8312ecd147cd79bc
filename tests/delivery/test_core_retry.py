"""When a deferred delivery is tried again, and when it is given up: by attempts and by time, whichever comes first."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core.retry import FULL, NONE, Backoff, Growth, Jitter, RetryPolicy, RetryRule, Trouble

pytestmark = pytest.mark.once

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SECONDS = st.integers(0, 100_000).map(lambda n: timedelta(seconds=n))


class Longest(random.Random):
    """Draws the upper end of every range."""

    def uniform(self, low, high):
        return high


def policy_of(max_attempts=5, max_age=timedelta(hours=24), **backoff):
    return RetryPolicy(RetryRule(max_attempts, Backoff(**backoff)), max_age)


def waits(policy, tries, rng=None):
    """The waits in seconds after each of the first tries."""
    rng = rng or Longest()
    ats = [policy.next_at(Trouble.ENGINE, n, NOON, NOON, rng) for n in range(1, tries + 1)]
    return [(at - NOON).total_seconds() for at in ats]


backoffs = st.builds(
    Backoff,
    growth=st.sampled_from(Growth),
    base=SECONDS,
    factor=st.floats(1, 10),
    longest=SECONDS,
    jitter=st.sampled_from([FULL, NONE, Jitter(0.8, 1.2)]),
)
rules = st.builds(RetryRule, max_attempts=st.integers(1, 20), backoff=backoffs)
policies = st.builds(RetryPolicy, rule=rules, max_age=SECONDS, special=st.dictionaries(st.sampled_from(Trouble), rules))


def test_the_longest_wait_grows_by_the_factor_up_to_its_limit():
    assert waits(policy_of(max_attempts=6), 5) == [60, 240, 960, 3600, 3600]


def test_a_constant_wait_stays_as_it_is_and_an_immediate_try_waits_for_nothing():
    assert waits(policy_of(growth=Growth.CONSTANT, base=MINUTE), 4) == [60, 60, 60, 60]
    assert waits(policy_of(growth=Growth.IMMEDIATE, base=MINUTE), 4) == [0, 0, 0, 0]


def test_full_jitter_draws_from_the_whole_range_so_that_neighbours_do_not_come_back_together(rng):
    drawn = [waits(policy_of(), 2, rng)[1] for _ in range(400)]

    assert min(drawn) < 24
    assert max(drawn) > 216
    assert len(set(drawn)) == 400


def test_a_narrow_jitter_stays_around_the_wait_and_none_is_exact(rng):
    narrow = policy_of(growth=Growth.CONSTANT, base=100 * MINUTE, longest=MINUTE * 1000, jitter=Jitter(0.8, 1.2))
    exact = policy_of(growth=Growth.CONSTANT, base=MINUTE, jitter=NONE)

    drawn = [waits(narrow, 1, rng)[0] for _ in range(400)]

    assert 4800 <= min(drawn) < 4900
    assert 7100 < max(drawn) <= 7200
    assert waits(exact, 4, rng) == [60, 60, 60, 60]


def test_the_last_attempt_is_not_followed_by_another():
    policy = policy_of(max_attempts=3)

    assert policy.next_at(Trouble.ENGINE, 2, NOON, NOON, Longest()) is not None
    assert policy.next_at(Trouble.ENGINE, 3, NOON, NOON, Longest()) is None


def test_a_try_that_would_come_after_the_age_limit_is_not_promised():
    policy = policy_of(max_age=timedelta(hours=1))
    edge = NOON + timedelta(minutes=59)

    assert policy.next_at(Trouble.ENGINE, 1, NOON, edge, Longest()) == NOON + timedelta(hours=1)
    assert policy.next_at(Trouble.ENGINE, 1, NOON, edge + timedelta(microseconds=1), Longest()) is None


@pytest.mark.parametrize("trouble", Trouble)
def test_a_trouble_with_a_rule_of_its_own_follows_that_one_and_the_others_the_pools(trouble):
    special = {trouble: RetryRule(2, Backoff(Growth.CONSTANT, base=timedelta(minutes=7)))}
    policy = RetryPolicy(RetryRule(5, Backoff()), special=special)

    for each in Trouble:
        at = policy.next_at(each, 1, NOON, NOON, Longest())
        assert at == NOON + (timedelta(minutes=7) if each is trouble else MINUTE)
        assert (policy.next_at(each, 2, NOON, NOON, Longest()) is None) == (each is trouble)


@given(policies, st.sampled_from(Trouble), st.integers(0, 30).map(lambda n: n + 1), SECONDS, st.integers())
def test_a_next_try_lies_between_now_and_every_limit(policy, trouble, attempts, age, seed):
    now = NOON + age
    rule = policy.special.get(trouble, policy.rule)

    at = policy.next_at(trouble, attempts, NOON, now, random.Random(seed))

    if attempts >= rule.max_attempts or age > policy.max_age:
        assert at is None
    if at is not None:
        assert now <= at <= min(now + rule.backoff.longest, NOON + policy.max_age)


@given(policies, st.integers())
def test_whatever_the_policy_a_delivery_that_always_fails_is_given_up_in_time(policy, seed):
    rng, now, tries = random.Random(seed), NOON, 0
    while now is not None:
        tries += 1
        last_try, now = now, policy.next_at(rng.choice(list(Trouble)), tries, NOON, now, rng)

    assert tries <= max(rule.max_attempts for rule in (policy.rule, *policy.special.values()))
    assert last_try - NOON <= policy.max_age
