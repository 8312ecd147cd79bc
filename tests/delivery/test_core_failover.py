"""Which engine of a pool gets a delivery, and when to ask again if none can have it."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from delivery.core.breaker import Breaker, State
from delivery.core.failover import Choice, EngineView, choose

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)
MUCH_LATER = NOON + timedelta(hours=1)
DOMAIN = "shop.example"


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
    assert choose([able(1)], DOMAIN, NOON, pinned=2) == Choice(None, None)


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
    assert choose(engines, "not" + DOMAIN, NOON) == Choice(None, None)


views = st.builds(
    EngineView,
    id=st.integers(1, 5),
    breaker=st.sampled_from([Breaker(), Breaker(State.OPEN, 1, LATER - NOON, LATER), Breaker(State.OPEN)]),
    enabled=st.booleans(),
    domains=st.sampled_from([frozenset(), frozenset({DOMAIN}), frozenset({"other.example"})]),
    paused_until=st.sampled_from([None, NOON, LATER]),
)


@given(
    st.lists(views, max_size=5, unique_by=lambda view: view.id),
    st.none() | st.integers(1, 5),
    st.none() | st.integers(1, 5),
)
def test_no_choice_breaks_a_rule_and_none_is_missed(engines, avoid, pinned):
    choice = choose(engines, DOMAIN, NOON, avoid=avoid, pinned=pinned)

    allowed = {
        e.id for e in engines if e.able_at(NOON) == NOON and e.sends_for(DOMAIN) and (pinned is None or e.id == pinned)
    }
    assert (choice.engine is None) == (not allowed)
    assert choice.engine is None or choice.engine in allowed
    assert choice.engine != avoid or allowed == {avoid} or avoid is None
    assert choice.at is None or choice.at > NOON
