"""What a message waits for: the rules as they travel, and the instants that they come to."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core.sequence import PLAIN, Edge, On, Rules
from delivery.core.window import Window, week_of
from delivery.models import DeliveryState
from delivery.queue.outcomes import ENDED

pytestmark = pytest.mark.once

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)  # a Wednesday
HOUR = timedelta(hours=1)
TUESDAY_NINE = week_of([(1, 9 * 60, 9 * 60 + 1)])

whiles = st.timedeltas(timedelta(), timedelta(days=366)).map(lambda each: each - each % timedelta(milliseconds=1))
rules = st.builds(
    Rules,
    after=st.lists(st.builds(Edge, st.integers(1, 9), st.sampled_from(On)), max_size=3).map(tuple),
    delay=whiles,
    clock=st.none() | st.just(Window(TUESDAY_NINE, "Europe/Zurich", frozenset(), True, "tz")),
    condition=st.sampled_from(["", "a > 1"]),
    within=st.none() | whiles,
    late=st.booleans(),
    lead=st.none() | whiles,
    gap=st.integers(0, 10**9).map(lambda each: timedelta(microseconds=each)),
    release=st.booleans(),
    thread=st.booleans(),
    rank=st.integers(-20, 0),
)


@given(rules)
def test_rules_are_the_same_after_their_way_through_json(given_rules):
    assert Rules.of(json.loads(json.dumps(given_rules.as_json()))) == given_rules


def test_the_plainest_rules_are_an_empty_object():
    assert PLAIN.as_json() == {}
    assert Rules.of({}) == PLAIN


@pytest.mark.parametrize("end", sorted(ENDED))
def test_only_an_accepted_mail_is_accepted_and_an_uncertain_one_is_neither(end):
    assert On.ACCEPTED.fulfilled_by(end) is (end == DeliveryState.ACCEPTED)
    assert On.ENDED.fulfilled_by(end) is True
    assert On.NOT_ACCEPTED.fulfilled_by(end) is (end not in (DeliveryState.ACCEPTED, DeliveryState.UNCERTAIN))


@pytest.mark.parametrize("on", [on for on in On if on.event])
def test_what_is_heard_is_asked_later_of_an_accepted_mail_and_never_of_one_that_did_not_go(on):
    assert on.fulfilled_by("accepted") is None
    assert on.fulfilled_by("suppressed") is False
    assert on.fulfilled_by("rejected") is (on is On.BOUNCED)  # refused at once is bounced


@pytest.mark.parametrize(
    ("zone", "due"),
    [
        (None, datetime(2026, 12, 1, 8, tzinfo=UTC)),  # the workflow's own: Zurich
        ("Asia/Tokyo", datetime(2026, 12, 1, 0, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 12, 1, 14, tzinfo=UTC)),
        ("Nowhere/Land", datetime(2026, 12, 1, 8, tzinfo=UTC)),
    ],
)
def test_next_tuesday_at_nine_is_by_the_recipients_clock(zone, due):
    clock = Window(TUESDAY_NINE, "Europe/Zurich", frozenset(), True, "tz")
    waits = Rules(delay=timedelta(days=1), clock=clock)

    assert waits.planned(NOON, json.dumps({"tz": zone})) == due


def test_a_deadline_is_the_earlier_of_the_mails_own_and_that_of_the_rules():
    within = Rules(within=2 * HOUR)

    assert within.deadline(NOON) == NOON + 2 * HOUR
    assert within.deadline(NOON, NOON + HOUR) == NOON + HOUR
    assert within.deadline(NOON, NOON + 3 * HOUR) == NOON + 2 * HOUR
    assert PLAIN.deadline(NOON) is None


def test_with_a_lead_a_mail_goes_just_before_its_deadline_and_never_before_it_is_due():
    lead = Rules(lead=HOUR)

    assert lead.not_before(NOON, NOON + 5 * HOUR) == NOON + 4 * HOUR
    assert lead.not_before(NOON, NOON + HOUR / 2) == NOON
    assert lead.not_before(NOON, None) == NOON
    assert PLAIN.not_before(NOON, NOON + HOUR) == NOON
