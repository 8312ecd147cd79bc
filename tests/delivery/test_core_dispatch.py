"""The two questions of every attempt: whose fault it was decides everything that follows."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core.breaker import Breaker, State
from delivery.core.condition import Health
from delivery.core.dispatch import (
    LONGEST_PAUSE,
    NOBODY_ABLE,
    OUTSIDE,
    SLOW_DOWN,
    Candidate,
    End,
    GiveUp,
    Send,
    UncertainPolicy,
    Verdict,
    Wait,
    conclude,
    decide,
)
from delivery.core.envelope import Kind, Outcome
from delivery.core.failover import EngineView, Roster, Strategy
from delivery.core.retry import Backoff, Growth, RetryPolicy, RetryRule, Trouble
from delivery.core.window import Opening

pytestmark = pytest.mark.once

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)
DOMAIN = "shop.example"
BASE = timedelta(minutes=1)
RETRY = RetryPolicy(RetryRule(3, Backoff(base=BASE)), max_age=timedelta(hours=24))
FRESH = Candidate(DOMAIN)
ONCE_TRIED = Candidate(DOMAIN, attempts=1, since=NOON, last_engine=1)
MAYBE_TAKEN = Candidate(DOMAIN, attempts=1, since=NOON, last_engine=1, pinned=True)
ABLE = [EngineView(1, Breaker()), EngineView(2, Breaker())]
FIRST_OPEN = [EngineView(1, Breaker(State.OPEN, 5, LATER - NOON, LATER)), EngineView(2, Breaker())]


class Longest(random.Random):
    """Draws the upper end of every range."""

    def uniform(self, low, high):
        return high


def concluded(outcome, candidate=FRESH, uncertain=UncertainPolicy.HOLD, now=NOON, **changes):
    return conclude(candidate, outcome, RETRY, uncertain, now, Longest(), **changes)


def decided(candidate, engines, now=NOON):
    return decide(candidate, Roster(tuple(engines)), RETRY, now, Longest())


NOBODY = "no engine of the pool is able now"

# ---- decide ----


def test_a_delivery_goes_to_the_first_able_engine_and_after_a_failure_to_the_next():
    assert decided(FRESH, ABLE) == Send(1)
    assert decided(FRESH, FIRST_OPEN) == Send(2)
    assert decided(ONCE_TRIED, ABLE) == Send(2)


def test_one_that_was_only_told_to_slow_down_is_not_kept_from_its_engine():
    throttled = Candidate(DOMAIN, attempts=0, since=NOON, last_engine=1)

    assert decided(throttled, ABLE) == Send(1)


def test_what_an_engine_may_have_taken_waits_for_that_engine_though_another_is_able():
    assert decided(MAYBE_TAKEN, ABLE) == Send(1)
    assert decided(MAYBE_TAKEN, FIRST_OPEN) == Wait(LATER, NOBODY)


def test_when_nobody_is_able_it_waits_until_one_may_be_or_for_a_person():
    assert decided(FRESH, FIRST_OPEN[:1]) == Wait(LATER, NOBODY)
    assert decided(FRESH, [EngineView(1, Breaker(), enabled=False)]) == Wait(NOON + NOBODY_ABLE, NOBODY)


def test_a_delivery_that_was_never_tried_waits_for_an_engine_however_long_it_takes():
    engines = [EngineView(1, Breaker(), enabled=False)]

    assert isinstance(decided(FRESH, engines, NOON + timedelta(days=365)), Wait)


def test_a_tried_one_is_given_up_when_no_engine_was_able_for_too_long():
    too_late = NOON + RETRY.max_age + timedelta(seconds=1)
    engines = [EngineView(1, Breaker(), enabled=False)]

    assert decided(ONCE_TRIED, engines, too_late).end is End.DEAD
    assert decided(MAYBE_TAKEN, engines, too_late).end is End.UNCERTAIN


def test_while_no_engine_may_send_for_the_senders_domain_it_waits_for_a_person():
    engines = [EngineView(1, Breaker(), domains=frozenset({"other.example"}))]

    decision = decided(FRESH, engines)

    assert decision == Wait(NOON + NOBODY_ABLE, f"no engine of the pool may send for {DOMAIN}")


def test_a_deadline_counts_to_its_last_instant():
    urgent = Candidate(DOMAIN, deadline=NOON)

    assert decided(urgent, ABLE) == Send(1)
    assert decided(urgent, ABLE, NOON + timedelta(microseconds=1)).end is End.EXPIRED


def test_what_may_have_been_taken_is_uncertain_after_its_deadline_and_not_expired():
    urgent = Candidate(DOMAIN, attempts=1, since=NOON, deadline=NOON, last_engine=1, pinned=True)

    assert decided(urgent, ABLE, LATER).end is End.UNCERTAIN


# ---- the sending window ----

OPEN_NOW = Opening(NOON - timedelta(hours=3), LATER)
OPENS_LATER = Opening(LATER, LATER + timedelta(hours=8))


def test_outside_its_window_a_delivery_waits_until_that_opens_whoever_is_able():
    assert decided(Candidate(DOMAIN, opening=OPEN_NOW), ABLE) == Send(1)
    assert decided(Candidate(DOMAIN, opening=OPENS_LATER), ABLE) == Wait(LATER, OUTSIDE)
    assert decided(Candidate(DOMAIN, opening=OPENS_LATER), ABLE, LATER) == Send(1)
    assert decided(Candidate(DOMAIN, opening=OPENS_LATER), FIRST_OPEN[:1]) == Wait(LATER, OUTSIDE)


def test_a_window_is_open_to_before_its_last_instant():
    candidate = Candidate(DOMAIN, opening=OPEN_NOW)

    assert candidate.in_time(LATER - timedelta(microseconds=1))
    assert not candidate.in_time(LATER)
    assert Candidate(DOMAIN, opening=Opening(NOON, None)).in_time(NOON + timedelta(days=999))
    assert not Candidate(DOMAIN, opening=Opening(None, None)).in_time(NOON)


def test_an_opening_that_is_over_lets_nothing_go_and_is_looked_up_again_at_once():
    assert decided(Candidate(DOMAIN, opening=OPEN_NOW), ABLE, LATER) == Wait(LATER, OUTSIDE)


def test_what_cannot_make_its_deadline_when_the_window_opens_expires_at_once():
    def until(deadline):
        return Candidate(DOMAIN, deadline=deadline, opening=OPENS_LATER)

    too_late = GiveUp(End.EXPIRED, "its deadline passes before its sending window opens")
    assert decided(until(LATER), ABLE) == Wait(LATER, OUTSIDE)
    assert decided(until(LATER - timedelta(microseconds=1)), ABLE) == too_late
    assert decided(until(NOON - timedelta(microseconds=1)), ABLE) == GiveUp(End.EXPIRED, "its deadline has passed")


def test_a_window_that_never_opens_again_is_an_end_and_no_waiting_for_ever():
    decision = decided(Candidate(DOMAIN, opening=Opening(None, None)), ABLE)

    assert decision == GiveUp(End.EXPIRED, "its sending window never opens again")


def test_what_may_have_been_taken_waits_for_its_window_too_and_never_expires():
    pinned = MAYBE_TAKEN._replace(opening=OPENS_LATER)

    assert decided(pinned, ABLE) == Wait(LATER, OUTSIDE)
    assert decided(pinned._replace(deadline=NOON), ABLE).end is End.UNCERTAIN
    assert decided(pinned._replace(opening=Opening(None, None)), ABLE).end is End.UNCERTAIN


@given(st.none() | st.integers(-90, 90), st.integers(-90, 90), st.none() | st.integers(1, 90), st.integers(-90, 90))
def test_a_delivery_is_in_time_just_when_it_would_be_sent(deadline, opens, length, now):
    def minute(n):
        return None if n is None else NOON + timedelta(minutes=n)

    opening = Opening(minute(opens), None if length is None else minute(opens + length))
    candidate = Candidate(DOMAIN, deadline=minute(deadline), opening=opening)

    assert candidate.in_time(minute(now)) == (decided(candidate, ABLE, minute(now)) == Send(1))


# ---- conclude: the recipient's fault, the engine's, the unknown, and none of them ----


def test_accepted_ends_it():
    assert concluded(Outcome(Kind.ACCEPTED), ONCE_TRIED) == Verdict(2, End.ACCEPTED)


@pytest.mark.parametrize("alternatives", [False, True])
@pytest.mark.parametrize(
    ("outcome", "suppress"),
    [
        (Outcome(Kind.RECIPIENT, hard=True), True),
        (Outcome(Kind.RECIPIENT), False),
        (Outcome(Kind.MESSAGE), False),
        (Outcome(Kind.MESSAGE, hard=True), False),
    ],
)
def test_the_recipients_or_the_contents_fault_ends_it_without_failover_or_blame(outcome, suppress, alternatives):
    verdict = concluded(outcome, alternatives=alternatives)

    assert verdict == Verdict(1, End.REJECTED, suppress=suppress, health=Health.GOOD)


@pytest.mark.parametrize("faults_engine", [True, False])
def test_a_transient_failure_is_tried_again_after_a_backoff(faults_engine):
    health = Health.FAULT if faults_engine else Health.GOOD

    verdict = concluded(Outcome(Kind.TRANSIENT, faults_engine=faults_engine))

    assert verdict == Verdict(1, again_at=NOON + BASE, health=health)


def test_when_it_was_the_engines_trouble_another_engine_is_asked_at_once():
    verdict = concluded(Outcome(Kind.TRANSIENT), alternatives=True)

    assert verdict == Verdict(1, again_at=NOON, health=Health.FAULT)


def test_a_full_mailbox_is_not_carried_to_the_next_engine_at_once():
    verdict = concluded(Outcome(Kind.TRANSIENT, faults_engine=False), alternatives=True)

    assert verdict == Verdict(1, again_at=NOON + BASE, health=Health.GOOD)


def test_what_only_one_engine_may_be_asked_about_keeps_its_backoff_though_others_are_able():
    verdict = concluded(Outcome(Kind.TRANSIENT), MAYBE_TAKEN, alternatives=True)

    assert verdict == Verdict(2, again_at=NOON + 4 * BASE, pinned=True, health=Health.FAULT)


def test_the_last_try_makes_a_dead_letter_also_when_another_engine_is_able():
    twice_tried = Candidate(DOMAIN, attempts=2, since=NOON, last_engine=1)

    for alternatives in (False, True):
        verdict = concluded(Outcome(Kind.TRANSIENT), twice_tried, alternatives=alternatives)
        assert verdict == Verdict(3, End.DEAD, health=Health.FAULT)


@pytest.mark.parametrize(
    ("asked", "pause"),
    [
        (None, SLOW_DOWN),
        (timedelta(minutes=7), timedelta(minutes=7)),
        (timedelta(days=400), LONGEST_PAUSE),
    ],
)
def test_slow_down_pauses_the_engine_and_is_no_attempt(asked, pause):
    verdict = concluded(Outcome(Kind.THROTTLED, retry_after=asked), ONCE_TRIED)

    assert verdict == Verdict(1, again_at=NOON, health=Health.SLOW_DOWN, pause=pause)


def test_an_engine_that_cannot_work_is_no_attempt_and_fatal_for_it():
    assert concluded(Outcome(Kind.ENGINE), ONCE_TRIED) == Verdict(1, again_at=NOON, health=Health.FATAL)


@pytest.mark.parametrize("kind", [Kind.THROTTLED, Kind.ENGINE])
def test_what_is_no_attempt_is_limited_in_time_all_the_same(kind):
    too_late = NOON + RETRY.max_age + timedelta(seconds=1)

    verdict = concluded(Outcome(kind), ONCE_TRIED, now=too_late)

    assert (verdict.attempts, verdict.end, verdict.again_at) == (1, End.DEAD, None)


def test_the_unknown_is_held_by_policy_and_counts_against_the_engine():
    assert concluded(Outcome(Kind.UNKNOWN)) == Verdict(1, End.UNCERTAIN, health=Health.FAULT)


def test_the_unknown_is_sent_again_by_policy_after_a_backoff_by_the_same_engine_alone():
    verdict = concluded(Outcome(Kind.UNKNOWN), uncertain=UncertainPolicy.RESEND, alternatives=True)

    assert verdict == Verdict(1, again_at=NOON + BASE, pinned=True, health=Health.FAULT)


def test_an_engine_that_refuses_the_same_key_twice_is_asked_again_under_either_policy():
    verdict = concluded(Outcome(Kind.UNKNOWN), honours_keys=True)

    assert verdict == Verdict(1, again_at=NOON + BASE, pinned=True, health=Health.FAULT)


@pytest.mark.parametrize("kind", [Kind.UNKNOWN, Kind.TRANSIENT, Kind.THROTTLED, Kind.ENGINE])
def test_what_may_have_been_taken_is_never_given_up_as_dead(kind):
    too_late = NOON + RETRY.max_age + timedelta(seconds=1)

    verdict = concluded(Outcome(kind), MAYBE_TAKEN, uncertain=UncertainPolicy.RESEND, now=too_late)

    assert verdict.end is End.UNCERTAIN


def test_each_class_of_trouble_is_retried_by_its_own_rule():
    rules = {
        Trouble.MAILBOX: RetryRule(2, Backoff(Growth.CONSTANT, base=timedelta(minutes=30))),
        Trouble.UNKNOWN: RetryRule(9, Backoff(Growth.IMMEDIATE)),
    }
    retry = RetryPolicy(RETRY.rule, RETRY.max_age, rules)

    def after(outcome, candidate=FRESH):
        return conclude(candidate, outcome, retry, UncertainPolicy.RESEND, NOON, Longest())

    assert after(Outcome(Kind.TRANSIENT)).again_at == NOON + BASE
    assert after(Outcome(Kind.TRANSIENT, faults_engine=False)).again_at == NOON + timedelta(minutes=30)
    assert after(Outcome(Kind.TRANSIENT, faults_engine=False), ONCE_TRIED).end is End.DEAD
    assert after(Outcome(Kind.TRANSIENT), ONCE_TRIED).end is None
    assert after(Outcome(Kind.UNKNOWN), ONCE_TRIED).again_at == NOON


# ---- both questions, over and over ----

KINDS = st.sampled_from([Kind.TRANSIENT, Kind.THROTTLED, Kind.ENGINE, Kind.UNKNOWN, Kind.RECIPIENT, Kind.ACCEPTED])
BREAKERS = st.sampled_from([Breaker(), Breaker(), Breaker(State.OPEN, 1, LATER - NOON, NOON)])


@st.composite
def lives(draw):
    """What the engines answer, whether each is able at that time, and how long each round takes."""
    rounds = st.tuples(KINDS, BREAKERS, BREAKERS, st.booleans(), st.integers(0, 7200))
    return draw(st.lists(rounds, min_size=1, max_size=60)), draw(st.sampled_from(UncertainPolicy)), draw(st.booleans())


@given(lives(), st.sampled_from(Strategy), st.integers())
def test_in_no_life_does_a_second_engine_get_what_the_first_may_have(life, strategy, seed):
    rounds, policy, honours_keys = life
    rng, now, candidate, maybe_with = random.Random(seed), NOON, FRESH, None
    for kind, first, second, faults_engine, seconds in rounds:
        now += timedelta(seconds=seconds)
        roster = Roster((EngineView(1, first), EngineView(2, second)), strategy, current=2)
        decision = decide(candidate, roster, RETRY, now, rng)
        if isinstance(decision, GiveUp):
            assert decision.end is (End.UNCERTAIN if maybe_with else End.DEAD)
            return
        if isinstance(decision, Wait):
            continue
        assert maybe_with in (None, decision.engine)
        outcome = Outcome(kind, faults_engine=faults_engine)
        verdict = conclude(candidate, outcome, RETRY, policy, now, rng, alternatives=True, honours_keys=honours_keys)
        assert verdict.attempts - candidate.attempts == (kind not in (Kind.THROTTLED, Kind.ENGINE))
        assert verdict.attempts <= RETRY.rule.max_attempts
        assert (verdict.end is None) != (verdict.again_at is None)
        if kind is Kind.UNKNOWN:
            maybe_with = decision.engine
        if verdict.end:
            if maybe_with and kind not in (Kind.ACCEPTED, Kind.RECIPIENT):
                assert verdict.end is End.UNCERTAIN
            return
        assert verdict.pinned == (maybe_with is not None)
        assert now <= verdict.again_at <= (candidate.since or now) + RETRY.max_age
        since = candidate.since or now
        candidate = Candidate(DOMAIN, verdict.attempts, since, None, decision.engine, verdict.pinned)
        now = verdict.again_at
