"""Percentiles, rates and slices of a load test, and which callbacks came back: exact, whatever the samples."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.loadtest.measures import (
    Sample,
    in_slices,
    length_of_slice,
    per_second,
    percentile,
    percentiles_in_slices,
    spread,
)
from campaigns.loadtest.receiver import Heard
from campaigns.loadtest.returned import all_back, returned
from campaigns.loadtest.storm import Stormed

pytestmark = pytest.mark.once

some_seconds = st.lists(st.floats(0, 1000), min_size=1, max_size=200)
shares = st.floats(0.01, 1)


@given(some_seconds, shares)
def test_a_percentile_is_the_least_sample_that_so_large_a_share_does_not_exceed(seconds, share):
    found = percentile(sorted(seconds), share)

    assert found in seconds
    assert sum(each <= found for each in seconds) >= share * len(seconds) - 1e-9
    assert sum(each < found for each in seconds) < share * len(seconds)


@given(some_seconds, st.randoms(use_true_random=False))
def test_a_spread_does_not_depend_on_the_order_of_the_samples_and_its_percentiles_rise(seconds, random):
    shuffled = random.sample(seconds, len(seconds))

    found = spread(seconds)

    assert found == spread(shuffled)
    assert found.count == len(seconds)
    assert min(seconds) <= found.p50 <= found.p95 <= found.p99 <= found.longest == max(seconds)
    assert math.isclose(found.mean, sum(seconds) / len(seconds), abs_tol=1e-6)


def test_percentiles_of_a_hundred_are_the_ones_that_anybody_would_count():
    found = spread(range(1, 101))

    assert (found.p50, found.p95, found.p99, found.longest) == (50, 95, 99, 100)


def test_nothing_has_no_spread_and_no_time_no_rate():
    assert spread([]) is None
    assert per_second(0, 0.0) == 0.0


@given(st.lists(st.floats(0, 600), max_size=200), st.integers(1, 150))
def test_slices_hold_everything_once_and_are_at_most_as_many_as_wanted(instants, slices):
    longest = max(instants, default=0.0)
    length = length_of_slice(longest, slices)
    count = int(longest // length) + 1

    found = in_slices(instants, length, count)

    assert round(sum(found) * length) == len(instants)
    assert count <= slices + 1


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), max_size=100), shares)
def test_percentiles_over_time_are_those_of_each_slice_alone(timed, share):
    found = percentiles_in_slices(timed, 1.0, 101, share)

    for number, value in enumerate(found):
        of_slice = sorted(seconds for at, seconds in timed if int(at) == number)
        assert value == (percentile(of_slice, share) if of_slice else 0.0)


# ---- callbacks ----


def stormed(*good: bool) -> Stormed:
    """Triggers a second apart, answered after a tenth; the storm began at 100 by the clock."""
    samples = tuple(
        Sample(number, float(number), 0.1, 202 if is_good else 503, is_good) for number, is_good in enumerate(good)
    )
    return Stormed(samples, 100.0, len(samples) - 0.9)


def heard(number: int, at: float, kind: str = "run.completed", *, signed: bool = True) -> Heard:
    return Heard(number, at, kind, signed)


def test_the_time_of_a_callback_counts_from_when_its_request_began():
    found = returned(stormed(True, True), [heard(1, 103.5), heard(0, 100.25)])

    assert found.back == ((3.5, 2.5), (0.25, 0.25))
    assert (found.asked, found.missing, found.doubled, found.unsigned) == (2, 0, 0, 0)
    assert found.ends == {"run.completed": 2}


def test_what_did_not_come_is_missing_and_what_comes_again_is_doubled_and_counts_once():
    found = returned(stormed(True, True, True), [heard(0, 101), heard(0, 102), heard(0, 103), heard(2, 103)])

    assert (found.missing, found.doubled) == (1, 2)
    assert [at for at, _ in found.back] == [1.0, 3.0]


def test_callbacks_of_the_warm_up_of_refused_triggers_and_of_pauses_are_left_out():
    found = returned(stormed(True, False), [heard(7, 101), heard(1, 101), heard(0, 101, "run.paused")])

    assert (found.asked, found.missing, found.back, found.ends) == (1, 1, (), {})


def test_a_callback_that_was_not_signed_here_is_counted_as_such():
    assert returned(stormed(True), [heard(0, 101, signed=False)]).unsigned == 1


def test_nobody_waits_for_more_than_the_end_of_each_run_that_was_taken():
    samples = stormed(True, False, True).samples

    assert not all_back(samples, [heard(0, 101), heard(2, 101, "run.paused")])
    assert all_back(samples, [heard(0, 101), heard(2, 101, "run.failed")])


@given(st.lists(st.booleans(), max_size=20), st.lists(st.integers(0, 25), max_size=60))
def test_of_all_triggers_that_were_taken_each_is_back_or_missing(good, numbers):
    found = returned(stormed(*good), [heard(number, 200) for number in numbers])

    taken = {number for number, is_good in enumerate(good) if is_good}
    assert len(found.back) + found.missing == found.asked == len(taken)
    assert len(found.back) + found.doubled == sum(number in taken for number in numbers)
