"""The warm-up: so many mails on the first days, spread over each, until the ramp is over."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core.throttle import SECOND, Period, draw
from delivery.core.warmup import DAY, Ramp

pytestmark = pytest.mark.once

START = datetime(2026, 8, 1, tzinfo=UTC)
TABLE = (150, 250, 400)


def caps(ramp, days):
    return [ramp.cap_at(START + n * DAY) for n in range(days)]


def test_each_day_has_its_cap_and_after_the_last_the_ramp_is_over():
    assert caps(Ramp(START, TABLE), 5) == [150, 250, 400, None, None]


def test_with_a_target_the_cap_grows_on_from_the_last_until_it_would_reach_it():
    assert caps(Ramp(START, TABLE, growth=2, target=3000), 7) == [150, 250, 400, 800, 1600, None, None]


def test_a_listed_cap_beyond_the_target_ends_the_ramp():
    assert caps(Ramp(START, (100, 500), target=300), 2) == [100, None]


def test_a_ramp_that_cannot_grow_by_a_whole_mail_stays_at_its_cap():
    ramp = Ramp(START, (1,), growth=1.4, target=100)

    assert caps(ramp, 50)[-1] == 1
    assert not ramp.ends
    assert Ramp(START, (3,), growth=1.4, target=100).ends
    assert Ramp(START, (1,)).ends


def test_a_day_ends_at_its_last_instant_and_before_the_first_the_first_holds():
    ramp = Ramp(START, TABLE)

    assert ramp.cap_at(START + DAY - timedelta(microseconds=1)) == 150
    assert ramp.cap_at(START + DAY) == 250
    assert ramp.cap_at(START - 10 * DAY) == 150


def test_after_the_ramp_there_is_no_limit():
    assert Ramp(START, TABLE).rate_at(START + 3 * DAY) is None


@given(st.integers(1, 100_000), st.integers(0, 48))
def test_a_greedy_user_gets_no_more_than_the_cap_in_a_day_and_an_hours_worth_at_once(cap, offset):
    rate = Ramp(START, (cap,)).rate_at(START)
    begun = offset * 3600 * SECOND
    state, granted, most, now = 0, 0, 0, begun
    while now < begun + Period.DAY.nanoseconds:
        grant = draw(rate, state, now, cap)
        state, granted, most = grant.state, granted + grant.tokens, max(most, grant.tokens)
        now += Period.HOUR.nanoseconds // 2

    assert granted <= cap
    assert most <= max(1, cap // 24)
