"""The token bucket: no window ever holds more than burst + rate * t, and no token is withheld without need."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from delivery.core.throttle import (
    MAX_LATENESS,
    PACE_FLOOR,
    PACE_STEP,
    QUIET,
    SECOND,
    Period,
    Rate,
    draw,
    given_back,
    recovered,
    slower,
)

pytestmark = pytest.mark.once

START = 1_767_225_600 * SECOND
PACES = (1.0, 0.95, 0.5, 0.25, 0.1, PACE_FLOOR)


@st.composite
def rates(draw_from):
    """From 100,000 a second to one an hour, with bursts from 1 to 50."""
    interval = draw_from(st.one_of(st.integers(10_000, 10_000_000), st.integers(10_000_000, 3600 * SECOND)))
    return Rate(interval, draw_from(st.integers(1, 50)))


@st.composite
def histories(draw_from):
    """A rate, and what its users do: (gap since the last draw, tokens wanted, how late each is used, pace)."""
    rate = draw_from(rates())
    # The edges, where an off-by-one hides, as often as what lies between them.
    gap = st.one_of(
        st.sampled_from([0, rate.lateness, rate.interval, rate.burst * rate.interval]),
        st.integers(0, 2 * rate.interval),
        st.integers(0, 60).map(lambda n: n * rate.interval),
    )
    late = st.lists(st.sampled_from([0.0, 1.0]) | st.floats(0, 1), min_size=1, max_size=3)
    step = st.tuples(gap, st.just(60) | st.integers(1, 60), late, st.just(1.0) | st.sampled_from(PACES))
    return rate, draw_from(st.lists(step, min_size=1, max_size=12))


def crowded(rate, instants):
    """The windows, from one use to another, that hold more than the rate allows."""
    instants = sorted(instants)
    return [
        (last - first + 1, instants[last] - instants[first])
        for first in range(len(instants))
        for last in range(first + 1, len(instants))
        if (last - first + 1 - rate.burst) * rate.interval > instants[last] - instants[first]
    ]


def uses(rate, steps, *, with_pace):
    """When the tokens of a history are used: each up to its rate's `lateness` after its grant."""
    state, now, instants = 0, START, []
    for gap, wanted, late, pace in steps:
        now += gap
        current = rate.slowed(pace) if with_pace else rate
        grant = draw(current.guarded(), state, now, wanted)
        state = grant.state
        instants += [now + int(late[i % len(late)] * current.lateness) for i in range(grant.tokens)]
    return instants


@given(histories())
@example((Rate(20_000_000, 10), [(0, 60, [1.0], 1.0), (100_000_000, 60, [0.0], 1.0)]))
@example((Rate(SECOND, 1), [(0, 1, [1.0], 1.0), (SECOND + SECOND // 10, 1, [0.0], 1.0)]))
def test_no_window_holds_more_than_burst_and_rate_allow_however_late_tokens_are_used(history):
    rate, steps = history

    assert crowded(rate, uses(rate, steps, with_pace=False)) == []


@given(histories())
def test_no_window_holds_more_than_allowed_while_the_pace_falls_and_recovers(history):
    rate, steps = history

    assert crowded(rate, uses(rate, steps, with_pace=True)) == []


@given(rates(), st.integers(0, 200))
def test_an_idle_bucket_never_holds_more_than_its_burst(rate, idle_intervals):
    emptied = draw(rate, 0, START, rate.burst)

    refilled = draw(rate, emptied.state, START + idle_intervals * rate.interval, 1_000)

    assert emptied.tokens == rate.burst
    assert refilled.tokens == min(rate.burst, idle_intervals)


@given(histories())
def test_after_the_wait_it_names_there_is_a_token_and_a_nanosecond_before_there_is_none(history):
    rate, steps = history
    state, now = 0, START
    for gap, wanted, _, _ in steps:
        now += gap
        grant = draw(rate, state, now, wanted)
        state = grant.state

    assert draw(rate, state, now + grant.wait, 1).tokens == 1
    assert grant.wait == 0 or draw(rate, state, now + grant.wait - 1, 1).tokens == 0


@given(histories())
def test_a_grant_is_never_more_than_wanted_and_an_empty_one_costs_nothing(history):
    rate, steps = history
    state, now = 0, START
    for gap, wanted, _, _ in steps:
        now += gap
        grant = draw(rate, state, now, wanted)

        assert 0 <= grant.tokens <= wanted
        assert grant.tokens or grant.state == state
        state = grant.state


@given(rates(), st.integers(1, 20))
def test_tokens_drawn_one_by_one_are_as_many_as_drawn_together(rate, wanted):
    together = draw(rate, 0, START, wanted)

    state, alone = 0, 0
    for _ in range(wanted):
        grant = draw(rate, state, START, 1)
        state, alone = grant.state, alone + grant.tokens

    assert (alone, state) == (together.tokens, together.state)


@given(histories(), st.integers(1, 50), st.integers(0, 50))
def test_tokens_given_back_before_anybody_drew_again_are_as_if_they_had_never_been_drawn(history, drawn, used):
    rate, steps = history
    state, now = 0, START
    for gap, wanted, _, _ in steps:
        now += gap
        state = draw(rate, state, now, wanted).state
    grant = draw(rate, state, now, drawn)
    kept = min(used, grant.tokens)

    returned = given_back(rate, grant.state, grant.state, grant.tokens - kept)

    assert draw(rate, returned, now, 100).tokens == draw(rate, draw(rate, state, now, kept).state, now, 100).tokens


def test_tokens_given_back_twice_come_back_once():
    rate = Rate(SECOND, 5)
    grant = draw(rate, 0, START, 5)
    once = given_back(rate, grant.state, grant.state, 2)

    assert draw(rate, once, START, 5).tokens == 2
    assert given_back(rate, once, grant.state, 2) == once


@given(histories(), st.data())
@example((Rate(SECOND, 2), [(0, 2, [0.0], 1.0), (3 * SECOND // 2, 1, [0.0], 1.0), (0, 2, [0.0], 1.0)]), None)
def test_no_window_holds_more_than_allowed_when_unused_tokens_come_back_late(history, data):
    rate, steps = history
    state, now, instants, owed = 0, START, [], []
    for number, (gap, wanted, _, _) in enumerate(steps):
        now += gap
        if owed and ((data is None and number == 2) or (data is not None and data.draw(st.booleans()))):
            for left, tokens in owed:
                state = given_back(rate, state, left, tokens)
            owed = []
        grant = draw(rate, state, now, wanted)
        state = grant.state
        used = (0 if number == 0 else grant.tokens) if data is None else data.draw(st.integers(0, grant.tokens))
        instants += [now] * used
        owed.append((grant.state, grant.tokens - used))

    assert crowded(rate, instants) == []


@given(st.integers(1, 100_000), st.integers(1, 1000), st.sampled_from([Period.HOUR, Period.DAY]))
def test_a_quota_with_its_burst_in_it_holds_in_every_window_shorter_than_its_period(quantity, burst, period):
    rate = Rate.within(quantity, period, burst)
    at_once = draw(rate, 0, START, quantity + 1)
    # The last instant at which a greedy user draws, one token at a time being the most it can get by then.
    last = draw(rate, at_once.state, START + period.nanoseconds - 1, quantity + 1)
    refilled = (period.nanoseconds - 1) // rate.interval

    assert at_once.tokens == min(burst, quantity)
    assert last.tokens == min(refilled, rate.burst)
    assert at_once.tokens + refilled <= quantity


def test_a_greedy_user_reaches_the_rate_it_is_allowed():
    rate = Rate.of(50, Period.SECOND, 10)
    state, granted = 0, 0
    for tick in range(0, 20 * SECOND, SECOND // 1000):
        grant = draw(rate.guarded(), state, START + tick, 100)
        state, granted = grant.state, granted + grant.tokens

    assert 50 * 20 - 1 <= granted <= 50 * 20 + 10


@pytest.mark.parametrize(
    ("quantity", "period", "interval", "burst"),
    [
        (50, Period.SECOND, 20_000_000, 50),
        (3, Period.SECOND, 333_333_334, 2),
        (30, Period.MINUTE, 2 * SECOND, 1),
        (10_000, Period.HOUR, 360_000_000, 2),
        (2_000, Period.DAY, 43_200_000_000, 1),
    ],
)
def test_a_published_limit_becomes_an_interval_rounded_up_and_one_seconds_burst(quantity, period, interval, burst):
    assert Rate.of(quantity, period) == Rate(interval, burst)


@given(st.integers(1, 100_000_000), st.sampled_from(Period))
def test_a_whole_quantity_takes_at_least_its_period(quantity, period):
    assert Rate.of(quantity, period).interval * quantity >= period.nanoseconds


@given(rates())
def test_the_guard_leaves_every_rate_at_least_half_its_burst_and_nine_tenths_of_its_pace(rate):
    guarded = rate.guarded()

    assert 0 < rate.lateness <= MAX_LATENESS
    assert guarded.burst >= rate.burst // 2
    assert guarded.interval * 10 <= rate.interval * 11


@given(rates(), st.sampled_from(PACES))
def test_a_slowed_rate_is_in_no_part_faster(rate, pace):
    slowed = rate.slowed(pace)

    assert slowed.interval >= rate.interval
    assert slowed.burst <= rate.burst


def test_the_pace_halves_down_to_its_floor_and_comes_back_a_step_for_each_quiet_period():
    falling = [1.0]
    while falling[-1] > PACE_FLOOR:
        falling.append(slower(falling[-1]))

    assert falling == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]
    assert slower(PACE_FLOOR) == PACE_FLOOR
    assert recovered(0.5, QUIET * 0.99) == 0.5
    assert recovered(0.5, QUIET * 2) == 0.5 + 2 * PACE_STEP
    assert recovered(0.5, QUIET * 1_000) == 1.0
