"""What outcomes change in the condition that all workers share of an engine."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core.breaker import Breaker, BreakerPolicy, State
from delivery.core.condition import KEPT_ERROR, Condition, Health, News
from delivery.core.throttle import PACE_STEP, QUIET, SLOW_ONCE_IN

pytestmark = pytest.mark.once

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
POLICY = BreakerPolicy(threshold=3)
FAULT = News(Health.FAULT, "451 not now")
SLOW = News(Health.SLOW_DOWN, "429 slow down", timedelta(seconds=30))


def after(*news, condition=Condition(), now=NOON):  # noqa: B008  (frozen)
    return condition.hearing(news, now, POLICY)


def test_so_many_faults_open_the_circuit_and_a_good_answer_between_them_does_not_let_them_add_up():
    assert after(FAULT, FAULT).breaker == Breaker(faults=2)
    assert after(FAULT, FAULT, FAULT).breaker.state is State.OPEN
    assert after(FAULT, FAULT, News(Health.GOOD), FAULT).breaker == Breaker(faults=1)


def test_a_fatal_fault_opens_it_at_once_and_leaves_its_words():
    condition = after(News(Health.FATAL, "401 no such key"))

    assert condition.breaker.state is State.OPEN
    assert (condition.last_error, condition.last_error_at) == ("401 no such key", NOON)


def test_a_good_answer_leaves_the_last_error_to_be_seen():
    condition = after(FAULT, News(Health.GOOD))

    assert condition == Condition(last_error="451 not now", last_error_at=NOON)


def test_slow_down_pauses_and_halves_the_pace_and_is_no_fault():
    condition = after(SLOW)

    assert condition.breaker == Breaker()
    assert (condition.pace, condition.paused_until) == (0.5, NOON + timedelta(seconds=30))


def test_the_same_slow_down_heard_from_many_halves_the_pace_once():
    together = after(SLOW, SLOW, SLOW)
    later = after(SLOW, condition=together, now=NOON + SLOW_ONCE_IN)

    assert together.pace == 0.5
    assert later.pace == 0.25


def test_a_longer_pause_is_not_shortened_by_a_shorter_one():
    condition = after(SLOW, News(Health.SLOW_DOWN, "", timedelta(seconds=1)))

    assert condition.paused_until == NOON + timedelta(seconds=30)


def test_a_probe_that_is_told_to_slow_down_closes_the_circuit_and_pauses():
    opened = after(News(Health.FATAL))
    probing = opened.probing(opened.breaker.probe_at, POLICY)

    condition = after(SLOW, condition=probing)

    assert condition.breaker == Breaker()
    assert condition.paused_until == NOON + timedelta(seconds=30)
    assert after(SLOW, condition=opened).breaker == opened.breaker  # of what was in flight when it tripped


def test_words_without_end_are_cut():
    assert len(after(News(Health.FAULT, "x" * 10_000)).last_error) == KEPT_ERROR


def test_the_pace_comes_back_a_step_for_each_quiet_period_and_stays_at_the_whole():
    slowed = after(SLOW)

    assert slowed.recovering(NOON + QUIET / 2) == slowed
    assert slowed.recovering(NOON + QUIET).pace == 0.5 + PACE_STEP
    assert slowed.recovering(NOON + 1000 * QUIET).pace == 1
    assert Condition().recovering(NOON) == Condition()


def test_a_probe_is_claimed_when_it_is_due_and_by_one_alone():
    opened = after(News(Health.FATAL))
    due = opened.breaker.probe_at

    assert opened.probing(NOON, POLICY) is None
    claimed = opened.probing(due, POLICY)
    assert claimed.breaker.state is State.HALF_OPEN
    assert claimed.probing(due, POLICY) is None


pieces = st.builds(
    News,
    st.sampled_from(Health),
    st.text(max_size=3),
    st.none() | st.integers(0, 90).map(lambda n: timedelta(seconds=n)),
)


@given(st.lists(st.tuples(pieces, st.integers(0, 30)), max_size=30))
def test_news_heard_together_or_one_by_one_at_the_same_time_say_the_same(told):
    news = [piece for piece, _ in told]
    one_by_one = Condition()
    for piece in news:
        one_by_one = one_by_one.hearing([piece], NOON, POLICY)

    assert Condition().hearing(news, NOON, POLICY) == one_by_one


@given(st.lists(st.tuples(pieces, st.integers(0, 30)), max_size=30))
def test_in_no_history_does_a_pause_get_shorter_or_the_pace_leave_its_range(told):
    condition, now = Condition(), NOON
    for piece, seconds in told:
        now += timedelta(seconds=seconds)
        before, condition = condition, condition.hearing([piece], now, POLICY).recovering(now)
        assert 0 < condition.pace <= 1
        assert before.paused_until is None or condition.paused_until >= before.paused_until
