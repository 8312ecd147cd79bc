"""The circuit breaker: when it trips, who may probe, and how it closes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core.breaker import PROBE_HEARD, Breaker, BreakerPolicy, State

pytestmark = pytest.mark.once

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
COOL_OFF = timedelta(seconds=15)
POLICY = BreakerPolicy(threshold=3, cool_off=COOL_OFF, longest=timedelta(seconds=100))
TICK = timedelta(microseconds=1)


def tripped(at=NOON):
    return Breaker().record_fault(at, POLICY, fatal=True)


def probing(at=NOON + COOL_OFF):
    return tripped().claim_probe(at, POLICY)


def test_so_many_faults_in_a_row_open_the_circuit():
    breaker = Breaker()
    states = []
    for _ in range(POLICY.threshold):
        breaker = breaker.record_fault(NOON, POLICY)
        states.append(breaker.state)

    assert states == [State.CLOSED, State.CLOSED, State.OPEN]
    assert breaker == Breaker(State.OPEN, 3, COOL_OFF, NOON + COOL_OFF)


def test_a_success_between_faults_begins_the_count_anew():
    breaker = Breaker()
    for _ in range(10):
        breaker = breaker.record_fault(NOON, POLICY).record_fault(NOON, POLICY).record_success()

    assert breaker == Breaker()


def test_a_fatal_fault_opens_at_once():
    assert Breaker().record_fault(NOON, POLICY, fatal=True) == Breaker(State.OPEN, 1, COOL_OFF, NOON + COOL_OFF)


def test_an_open_circuit_lets_nothing_pass_before_its_cool_off_is_over():
    breaker = tripped()

    assert breaker.able_at(NOON) == NOON + COOL_OFF
    assert breaker.claim_probe(NOON + COOL_OFF - TICK, POLICY) is None


def test_a_circuit_that_only_a_person_can_close_names_no_instant():
    assert Breaker(State.OPEN).able_at(NOON) is None
    assert Breaker(State.OPEN).claim_probe(NOON, POLICY) is None


def test_one_probe_passes_and_no_second_beside_it():
    first = tripped().claim_probe(NOON + COOL_OFF, POLICY)

    assert first.state is State.HALF_OPEN
    assert first.claim_probe(NOON + COOL_OFF, POLICY) is None


def test_while_a_probe_is_out_the_others_ask_again_soon_and_at_the_latest_when_the_next_may_go():
    probing = tripped().claim_probe(NOON + COOL_OFF, POLICY)
    next_probe = NOON + 2 * COOL_OFF

    assert probing.able_at(NOON + COOL_OFF) == NOON + COOL_OFF + PROBE_HEARD
    assert probing.able_at(next_probe - TICK) == next_probe
    assert probing.able_at(next_probe) == next_probe


def test_a_closed_circuit_has_no_probe_to_claim():
    assert Breaker().claim_probe(NOON, POLICY) is None


def test_when_nothing_is_heard_of_a_probe_the_next_may_go_after_another_cool_off():
    silent = probing(at=NOON + COOL_OFF)

    assert silent.claim_probe(NOON + 2 * COOL_OFF - TICK, POLICY) is None
    assert silent.claim_probe(NOON + 2 * COOL_OFF, POLICY).state is State.HALF_OPEN


def test_a_probe_that_succeeds_closes_the_circuit_and_forgets_the_past():
    assert probing().record_success() == Breaker()


def test_failed_probes_open_it_again_each_time_for_twice_as_long_up_to_the_longest():
    breaker, now, waits = tripped(), NOON, []
    for _ in range(5):
        waits.append(breaker.probe_at - now)
        now = breaker.probe_at
        breaker = breaker.claim_probe(now, POLICY).record_fault(now, POLICY)
        assert breaker.state is State.OPEN

    assert [wait.total_seconds() for wait in waits] == [15, 30, 60, 100, 100]


def test_answers_to_what_was_in_flight_when_it_tripped_change_nothing():
    breaker = tripped()

    assert breaker.record_success() == breaker
    assert breaker.record_fault(NOON + TICK, POLICY, fatal=True) == breaker


def test_a_circuit_that_is_switched_off_never_opens():
    breaker = Breaker()
    for _ in range(100):
        breaker = breaker.record_fault(NOON, BreakerPolicy(threshold=None), fatal=True)

    assert breaker == Breaker()


EVENTS = st.lists(
    st.tuples(st.sampled_from(["success", "fault", "fatal", "probe"]), st.integers(0, 40)), min_size=1, max_size=60
)


@given(EVENTS)
def test_in_no_history_do_two_probes_pass_within_one_cool_off(events):
    breaker, now, probed_at = Breaker(), NOON, None
    for event, seconds in events:
        now += timedelta(seconds=seconds)
        before = breaker
        match event:
            case "success":
                breaker = breaker.record_success()
            case "fault" | "fatal":
                breaker = breaker.record_fault(now, POLICY, fatal=event == "fatal")
            case "probe":
                breaker = breaker.claim_probe(now, POLICY) or breaker
        if breaker.state is State.CLOSED:
            probed_at = None
        if event == "probe" and breaker != before:
            assert probed_at is None or now - probed_at >= COOL_OFF
            probed_at = now

        # Whatever happened: open and half-open have an instant at which they end, and closed lets everything pass.
        assert (breaker.state is State.CLOSED) == (breaker.probe_at is None)
        assert COOL_OFF <= breaker.cool_off <= POLICY.longest or breaker.state is State.CLOSED


@pytest.mark.parametrize("fatal", [True, False])
def test_a_half_open_circuit_opens_on_any_fault(fatal):
    assert probing().record_fault(NOON + COOL_OFF, POLICY, fatal=fatal).state is State.OPEN
