"""What an operator writes for a step: what is understood, what is refused and how, and when "tuesday 9:00" is."""

import itertools
import json
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.exceptions import BadStep
from campaigns.sequence import (
    EXAMPLE_AFTER,
    EXAMPLE_CLOCK,
    EXAMPLE_DELAY,
    LONGEST_DELAY,
    After,
    StepLines,
    depths,
    parse_after,
    parse_delay,
    problems_between,
    problems_of,
)
from delivery.core.sequence import On, Rules
from delivery.core.window import DAYS, Window

pytestmark = pytest.mark.once

NINE = (9 * 60, 9 * 60 + 1)
ZONES = (
    "Europe/Zurich",
    "Europe/London",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Asia/Kathmandu",
)


def on(*days):
    """A week with nine o'clock on these days."""
    return tuple((NINE,) if name in days else () for name in DAYS)


def read(parse, line):
    """What a line means, or None and why it is refused."""
    try:
        return parse(line), ""
    except BadStep as refusal:
        return None, refusal.words


# ---- after ----


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("", []),
        (" , ;\n", []),
        ("1", [(1, On.ACCEPTED)]),
        ("step 1", [(1, On.ACCEPTED)]),
        ("001", [(1, On.ACCEPTED)]),
        ("1 accepted", [(1, On.ACCEPTED)]),
        ("1 was opened", [(1, On.OPENED)]),
        ("1 is  not   opened", [(1, On.NOT_OPENED)]),
        ("Step 2 Was Not Clicked", [(2, On.NOT_CLICKED)]),
        ("1 ended, 2 not accepted; 3 replied", [(1, On.ENDED), (2, On.NOT_ACCEPTED), (3, On.REPLIED)]),
        ("1\n2", [(1, On.ACCEPTED), (2, On.ACCEPTED)]),
        (EXAMPLE_AFTER, [(1, On.ACCEPTED), (2, On.OPENED)]),
    ],
)  # fmt: skip
def test_a_good_line_names_earlier_steps_and_what_has_to_become_of_them(line, meant):
    assert parse_after(line) == tuple(After(*each) for each in meant)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("one", '"one" is not the number of a step'),
        ("-1", '"-1" is not the number'),
        ("1.5", '"1.5" is not the number'),
        ("1 2", '"1 2" is not the number'),
        ("1 and 2", '"1 and 2" is not the number'),
        ("step", '"step" is not the number'),
        ("123456", '"123456" is not the number'),
        ("١", "is not the number"),
        ("2, 1 read", '"read" is nothing that can become of a step'),
        ("1 not ended", '"not ended" is nothing'),
        ("1 not not opened", '"not not opened" is nothing'),
        ("1 is", '"is" is nothing'),
        ("1 opened and clicked", '"opened and clicked" is nothing'),
        ("1, 1", "Step 1 is named twice"),
        ("1 opened, 2, 01 clicked", "Step 1 is named twice"),
    ],
)
def test_a_bad_line_is_refused_with_its_place_and_a_good_one(line, place):
    with pytest.raises(BadStep) as refusal:
        parse_after(line)

    assert refusal.value.field == "after"
    assert place in refusal.value.words
    assert f'A good one: "{EXAMPLE_AFTER}"' in refusal.value.words


@given(st.dictionaries(st.integers(0, 99_999), st.sampled_from(list(On)), max_size=5))
def test_what_is_meant_can_be_written_in_plain_words(meant):
    line = ", ".join(f"{position} {on.value}" for position, on in meant.items())

    assert parse_after(line) == tuple(After(*each) for each in meant.items())


@given(st.text("0123456789 ,;\nsteponacdlivrbukwh", max_size=30) | st.text(max_size=20))
def test_any_other_line_is_understood_or_refused_with_a_good_one(line):
    found, refusal = read(parse_after, line)

    if found is None:
        assert EXAMPLE_AFTER in refusal
    else:
        assert len({each.position for each in found}) == len(found)


# ---- delay ----


@pytest.mark.parametrize(
    ("line", "wait", "minutes", "theirs"),
    [
        ("", {}, None, False),
        ("0 days", {}, None, False),
        ("3 days", {"days": 3}, None, False),
        ("3 days,", {"days": 3}, None, False),
        ("1.5h", {"minutes": 90}, None, False),
        ("1 week 2 days, 3 hours and 4 min 5 s", {"days": 9, "hours": 3, "minutes": 4, "seconds": 5}, None, False),
        ("366 days", {"days": 366}, None, False),
        ("9:00", {}, on(*DAYS), False),
        ("every day 09:00", {}, on(*DAYS), False),
        ("next tuesday 9:00", {}, on("tue"), False),
        ("Next Tuesday 9:00 their time", {}, on("tue"), True),
        ("next tuesday at 9:00 in their time", {}, on("tue"), True),
        ("mon, wed 9:00", {}, on("mon", "wed"), False),
        ("sat-mon 9:00", {}, on("sat", "sun", "mon"), False),
        ("weekdays 9:00 their time", {}, on(*DAYS[:5]), True),
        ("2 days, then mon-fri 9:00", {"days": 2}, on(*DAYS[:5]), False),
        ("3 days 9:00", {"days": 3}, on(*DAYS), False),
        (EXAMPLE_DELAY, {"days": 3}, None, False),
        (EXAMPLE_CLOCK, {}, on("tue"), True),
    ],
)
def test_a_good_delay_is_a_wait_then_an_hour_of_a_week(line, wait, minutes, theirs):
    assert parse_delay(line) == (timedelta(**wait), minutes, theirs)


@pytest.mark.parametrize("line", ["at 9:00", "3 days at 9:00", "3 days, then at 9:00"])
def test_at_may_stand_before_an_hour_of_any_day(line):
    assert parse_delay(line).minutes == on(*DAYS)


def test_the_last_minute_of_a_day_is_one():
    assert parse_delay("tue 23:59").minutes == ((), ((1439, 1440),), (), (), (), (), ())


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("3", '"3" is no delay'),
        ("tomorrow", '"tomorrow" is no delay'),
        ("-1 days", '"-1 days" is no delay'),
        ("3 months", '"months" is no unit of time'),
        ("1 day 2 fortnights", '"fortnights" is no unit of time'),
        ("tomorrow 9:00", '"tomorrow" are no days of the week'),
        ("next week 9:00", '"week" are no days of the week'),
        ("mon-xyz 9:00", '"mon-xyz" are no days of the week'),
        ("tue 24:00", "24:00 is not on a clock"),
        ("tue 9:60", "9:60 is not on a clock"),
        ("tue 9", "is no delay"),
        ("tue 9:00 local time", "is no delay"),
        ("tue 9:00 3 days", "is no delay"),
        ("366 days 1 s", "a step waits for 366 days at most"),
        ("53 weeks", "a step waits for 366 days at most"),
        ("99999999999 days", "a step waits for 366 days at most"),
        ("999999999 days 999999999 days", "a step waits for 366 days at most"),
        ("9" * 400 + " s", "a step waits for 366 days at most"),
    ],
)
def test_a_bad_delay_is_refused_with_its_place_and_good_ones(line, place):
    with pytest.raises(BadStep) as refusal:
        parse_delay(line)

    assert refusal.value.field == "delay"
    assert place.lower() in refusal.value.words.lower()
    assert f'Good ones: "{EXAMPLE_DELAY}", "{EXAMPLE_CLOCK}"' in refusal.value.words


PIECES = "3|0.5|999999999999999999999|days|h|weeks|and|,|then|next|at|tuesday|mon-fri|9:00|24:00|their time|every day|-"
words = st.sampled_from(PIECES.split("|"))


@given(st.lists(words, max_size=8).map(" ".join) | st.text(max_size=20))
def test_what_is_understood_waits_within_bounds_and_comes_and_all_else_is_refused_with_good_ones(line):
    delay, refusal = read(parse_delay, line)

    if delay is None:
        assert EXAMPLE_CLOCK in refusal
        return
    assert timedelta() <= delay.wait <= LONGEST_DELAY
    if delay.minutes is not None:
        spans = [span for day in delay.minutes for span in day]
        assert spans
        assert all(0 <= start < end <= 1440 and end - start == 1 for start, end in spans)


# ---- condition, and a step by itself ----


@pytest.mark.parametrize(
    ("step", "fields"),
    [
        (StepLines(1), []),
        (StepLines(1, "2 opened", "3 days", "plan == 'gold'"), []),
        (StepLines(1, condition="  "), []),
        (StepLines(1, condition="plan =="), ["condition"]),
        (StepLines(1, condition="plan == 'gold' }}"), ["condition"]),
        (StepLines(1, "x", "y", "=="), ["after", "delay", "condition"]),
    ],
)
def test_each_field_of_a_step_is_judged_by_itself(step, fields):
    found = list(problems_of(step))

    assert [(problem.position, problem.field) for problem in found] == [(1, field) for field in fields]
    assert all(problem.words for problem in found)


# ---- steps together ----

graphs = st.integers(1, 7).flatmap(
    lambda size: st.lists(
        st.sets(st.integers(1, size), max_size=3), min_size=size, max_size=size
    ).map(lambda edges: {position: sorted(after) for position, after in enumerate(edges, 1)})
)  # fmt: skip


def steps_of(graph):
    return [StepLines(position, ", ".join(map(str, after))) for position, after in graph.items()]


def has_circle(graph):
    """By taking away, again and again, what waits for nothing that is left."""
    left = set(graph)
    while free := {position for position in left if not left & set(graph[position])}:
        left -= free
    return bool(left)


@given(graphs)
def test_a_circle_is_always_found_and_what_is_named_is_truly_one(graph):
    problems = list(problems_between(steps_of(graph)))

    assert bool(problems) is has_circle(graph)
    for problem in problems:
        circle = [int(n) for n in re.search(r": ([0-9 →]+)\.", problem.words)[1].split("→")]
        assert circle[0] == circle[-1] == problem.position
        assert len(set(circle)) == len(circle) - 1
        assert all(later in graph[earlier] for earlier, later in itertools.pairwise(circle))


@given(graphs)
def test_without_a_circle_each_step_is_deeper_than_what_it_follows(graph):
    if has_circle(graph):
        return
    found = depths(steps_of(graph))

    assert found == {n: max((found[each] + 1 for each in after), default=0) for n, after in graph.items()}


def test_a_step_that_is_not_there_is_named_with_those_that_are():
    (problem,) = problems_between([StepLines(1), StepLines(3, "2")])

    assert problem == (3, "after", "There is no step 2 to wait for; there is 1.")


@pytest.mark.parametrize(
    ("line", "found"), [("1 replied", True), ("1 not replied", False), ("1 opened", False), ("1 bounced", False)]
)
def test_to_wait_for_what_stops_the_run_is_a_problem(line, found):
    problems = list(problems_between([StepLines(1), StepLines(2, line)], ["replied"]))

    assert [(problem.position, problem.field) for problem in problems] == [(2, "after")] * found


# ---- the hour of a clock ----


def planned(line, since, zone, home="UTC"):
    """When a mail with this delay goes whose predecessor ended at `since`, to somebody in this zone."""
    delay = parse_delay(line)
    clock = Window(delay.minutes, home, frozenset(), delay.theirs)
    data = json.dumps({clock.zone_field: zone})
    return Rules(delay=delay.wait, clock=clock).planned(since, data)


def changes(zone, year=2026):
    """Around which instants of a year the zone's offset changes; of one without any, two days of the year."""
    hours = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(365 * 24)]
    offsets = [at.astimezone(ZoneInfo(zone)).utcoffset() for at in hours]
    found = [hours[n] for n in range(1, len(hours)) if offsets[n] != offsets[n - 1]]
    return found or [datetime(year, 3, 29, 1, tzinfo=UTC), datetime(year, 10, 25, 1, tzinfo=UTC)]


@pytest.mark.parametrize("zone", ZONES)
def test_next_tuesday_at_nine_is_that_by_their_clock_before_and_after_it_is_changed(zone):
    there = ZoneInfo(zone)
    moments = changes(zone)
    assert len(moments) == 2

    for change, hours in itertools.product(moments, range(-8 * 24, 8 * 24, 5)):
        since = change + timedelta(hours=hours, minutes=17)
        at = planned("next tuesday 9:00 their time", since, zone).astimezone(there)

        assert (at.weekday(), at.hour, at.minute, at.second) == (1, 9, 0, 0)
        assert since <= at
        wall = since.astimezone(there).replace(tzinfo=None)
        assert (at.replace(tzinfo=None).date() - wall.date()).days <= 7
        earlier = at.replace(tzinfo=None) - timedelta(days=7)
        assert earlier < wall, "not the one after the next"


@pytest.mark.parametrize("zone", ZONES)
def test_without_their_time_the_workflows_own_clock_counts(zone):
    at = planned("next tuesday 9:00", datetime(2026, 3, 25, tzinfo=UTC), zone, home="Europe/Zurich")

    assert at == datetime(2026, 3, 31, 7, tzinfo=UTC)


def test_an_hour_that_a_change_leaves_out_comes_the_next_time_and_one_that_comes_twice_comes_first():
    spring, autumn = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)

    assert planned("2:30 their time", spring, "Europe/Zurich") == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)
    assert planned("sunday 2:30 their time", spring, "Europe/Zurich") == datetime(2026, 4, 5, 0, 30, tzinfo=UTC)
    assert planned("2:30 their time", autumn, "Europe/Zurich") == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", None, 7])
def test_who_has_no_zone_that_is_known_has_the_workflows(zone):
    at = planned("tuesday 9:00 their time", datetime(2026, 3, 25, tzinfo=UTC), zone, home="Europe/Zurich")

    assert at == datetime(2026, 3, 31, 7, tzinfo=UTC)


def test_a_mail_is_never_due_before_its_delay_is_over_whatever_was_planned_before():
    delay = parse_delay("3 days, then 9:00")
    rules = Rules(delay=delay.wait, clock=Window(delay.minutes, "UTC"))
    within_the_minute = datetime(2026, 3, 3, 9, 0, 30, tzinfo=UTC)
    rules.planned(within_the_minute - timedelta(hours=5))

    assert rules.planned(within_the_minute) == within_the_minute + delay.wait
