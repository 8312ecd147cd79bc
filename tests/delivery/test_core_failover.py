"""Which engine of a pool gets a delivery, and when to ask again if none can have it."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core import failover
from delivery.core.breaker import Breaker, State
from delivery.core.failover import STICKY_PATIENCE, Choice, EngineView, Roster, Strategy

pytestmark = pytest.mark.once

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)
MUCH_LATER = NOON + timedelta(hours=1)
DOMAIN = "shop.example"


def choose(engines, domain, now, strategy=Strategy.PRIORITY, current=None, rng=None, **asked):
    roster = Roster(tuple(engines), strategy, current)
    return failover.choose(roster, domain, now, rng or random.Random(1), **asked)


def able(number, **changes):
    return EngineView(number, Breaker(), **changes)


def tripped(number, until=LATER):
    return EngineView(number, Breaker(State.OPEN, 5, LATER - NOON, until))


def test_the_first_able_engine_in_the_pools_order_is_taken():
    assert choose([able(3), able(1), able(2)], DOMAIN, NOON) == Choice(3)
    assert choose([tripped(3), able(1), able(2)], DOMAIN, NOON) == Choice(1)


def test_the_engine_that_failed_last_is_taken_only_when_no_other_is_able():
    assert choose([able(1), able(2)], DOMAIN, NOON, avoid=1) == Choice(2)
    assert choose([able(1), tripped(2)], DOMAIN, NOON, avoid=1) == Choice(1)
    assert choose([able(1)], DOMAIN, NOON, avoid=1) == Choice(1)


def test_one_that_may_have_the_mail_already_is_the_only_one_asked():
    assert choose([able(1), able(2)], DOMAIN, NOON, pinned=2) == Choice(2)
    assert choose([able(1), tripped(2)], DOMAIN, NOON, pinned=2) == Choice(None, LATER)
    assert choose([able(1)], DOMAIN, NOON, pinned=2) == Choice(None, None, fits=False)


def test_when_none_is_able_the_soonest_instant_is_named():
    engines = [tripped(1, MUCH_LATER), able(2, paused_until=LATER), able(3, enabled=False)]

    assert choose(engines, DOMAIN, NOON) == Choice(None, LATER)


def test_when_only_a_person_can_help_no_instant_is_named():
    assert choose([able(1, enabled=False), EngineView(2, Breaker(State.OPEN))], DOMAIN, NOON) == Choice(None, None)


def test_a_pause_counts_until_its_very_end():
    engine = able(1, paused_until=LATER)

    assert engine.able_at(LATER - timedelta(microseconds=1)) == LATER
    assert engine.able_at(LATER) == LATER
    assert engine.able_at(MUCH_LATER) == MUCH_LATER


def test_the_later_of_pause_and_circuit_holds():
    engine = EngineView(1, Breaker(State.OPEN, 5, LATER - NOON, LATER), paused_until=MUCH_LATER)

    assert engine.able_at(NOON) == MUCH_LATER


def test_an_engine_is_not_asked_to_send_for_a_foreign_domain():
    engines = [able(1, domains=frozenset({"other.example"})), able(2, domains=frozenset({DOMAIN}))]

    assert choose(engines, DOMAIN, NOON) == Choice(2)
    assert choose(engines, "news." + DOMAIN, NOON) == Choice(2)
    assert choose(engines, "not" + DOMAIN, NOON) == Choice(None, None, fits=False)


# ---- sticky ----


def stuck_with(number, engines, now=NOON, **asked):
    return choose(engines, DOMAIN, now, Strategy.STICKY, number, **asked)


def test_a_sticky_pool_stays_with_its_engine_though_an_earlier_one_is_able_again():
    assert stuck_with(2, [able(1), able(2), able(3)]) == Choice(2)
    assert stuck_with(None, [able(1), able(2)]) == Choice(1)


def test_it_leaves_one_that_failed_for_the_first_that_is_able():
    assert stuck_with(2, [able(1), tripped(2), able(3)]) == Choice(1)
    assert stuck_with(2, [tripped(1), tripped(2), able(3)]) == Choice(3)
    assert stuck_with(2, [able(1), able(2, enabled=False)]) == Choice(1)


def test_it_waits_for_its_engine_through_a_short_pause_and_not_through_a_long_one():
    short, long = NOON + STICKY_PATIENCE, NOON + STICKY_PATIENCE + timedelta(seconds=1)

    assert stuck_with(2, [able(1), able(2, paused_until=short)]) == Choice(None, short)
    assert stuck_with(2, [able(1), able(2, paused_until=long)]) == Choice(1)


def test_a_delivery_that_its_engine_just_failed_does_not_wait_for_it():
    assert stuck_with(2, [able(1), able(2, paused_until=NOON + STICKY_PATIENCE)], avoid=2) == Choice(1)


def test_where_a_sticky_pool_goes_it_stays():
    engines = (able(1), tripped(2), able(3))
    moved = Roster(engines, Strategy.STICKY, 2).following(NOON)
    recovered = Roster((able(1), able(2), able(3)), Strategy.STICKY, moved)

    assert moved == 1
    assert recovered.following(NOON) == 1


def test_a_sticky_pool_with_no_able_engine_stays_where_it_is_and_a_new_one_begins_with_the_first():
    assert Roster((tripped(1), tripped(2)), Strategy.STICKY, 2).following(NOON) == 2
    assert Roster((able(1), able(2)), Strategy.STICKY).following(NOON) == 1
    assert Roster((able(1),), Strategy.STICKY, current=9).following(NOON) == 1


# ---- weighted ----


def spread(engines, rng, count=4000, **asked):
    return Counter(choose(engines, DOMAIN, NOON, Strategy.WEIGHTED, rng=rng, **asked).engine for _ in range(count))


def test_weights_are_shares_of_the_mails(rng):
    counts = spread([able(1, weight=1), able(2, weight=3)], rng)

    assert counts[2] / counts[1] == pytest.approx(3, rel=0.2)
    assert set(counts) == {1, 2}


def test_the_able_ones_share_what_one_that_failed_would_have_had(rng):
    counts = spread([able(1, weight=1), tripped(2), able(3, weight=1)], rng)

    assert counts[1] / counts[3] == pytest.approx(1, rel=0.2)
    assert set(counts) == {1, 3}


def test_an_engine_without_weight_is_taken_only_when_no_other_is_able(rng):
    assert spread([able(1, weight=0), able(2)], rng) == {2: 4000}
    assert spread([able(1, weight=0), tripped(2)], rng) == {1: 4000}
    assert spread([able(1, weight=0), able(2, weight=0)], rng) == {1: 4000}


def test_after_a_failure_the_others_are_drawn_from(rng):
    assert set(spread([able(1), able(2), able(3)], rng, avoid=2)) == {1, 3}


views = st.builds(
    EngineView,
    id=st.integers(1, 5),
    breaker=st.sampled_from([Breaker(), Breaker(State.OPEN, 1, LATER - NOON, LATER), Breaker(State.OPEN)]),
    enabled=st.booleans(),
    domains=st.sampled_from([frozenset(), frozenset({DOMAIN}), frozenset({"other.example"})]),
    paused_until=st.sampled_from([None, NOON, LATER]),
    weight=st.integers(0, 3),
)


@given(
    st.lists(views, max_size=5, unique_by=lambda view: view.id),
    st.none() | st.integers(1, 5),
    st.none() | st.integers(1, 5),
    st.sampled_from(Strategy),
    st.none() | st.integers(1, 5),
)
def test_no_choice_breaks_a_rule_and_none_is_missed(engines, avoid, pinned, strategy, current):
    choice = choose(engines, DOMAIN, NOON, strategy, current, avoid=avoid, pinned=pinned)

    allowed = {
        e.id for e in engines if e.able_at(NOON) == NOON and e.sends_for(DOMAIN) and (pinned is None or e.id == pinned)
    }
    waits_for_its_own = strategy is Strategy.STICKY and current not in allowed and choice.at == LATER
    assert (choice.engine is None) == (not allowed) or (choice.engine is None and waits_for_its_own)
    assert choice.engine is None or choice.engine in allowed
    assert choice.engine != avoid or allowed == {avoid} or avoid is None
    assert choice.at is None or choice.at > NOON
