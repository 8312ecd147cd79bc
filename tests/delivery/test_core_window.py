"""Sending windows: the clock on the wall decides, whatever summer time does to it."""

import json
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from delivery.core.window import DAYS, MIDNIGHT, Opening, Openings, Window, week_of, zone_named

pytestmark = pytest.mark.once

ZURICH = ZoneInfo("Europe/Zurich")
# North and south, half and quarter hours, a change of half an hour, at midnight, backwards in summer, and none at all.
ZONES = {
    name: ZoneInfo(name)
    for name in (
        "Europe/Zurich",
        "Europe/Dublin",
        "America/New_York",
        "America/St_Johns",
        "America/Santiago",
        "America/Havana",
        "Australia/Lord_Howe",
        "Pacific/Chatham",
        "Asia/Kathmandu",
        "Asia/Beirut",
        "Africa/Casablanca",
        "Pacific/Apia",
    )
}
BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def window(week, zone="Europe/Zurich", closed=(), **more):
    return Window.of({"week": week, "zone": zone, "closed": list(closed), **more})


def every_day(*spans):
    return {day: list(spans) for day in DAYS}


def at(text, zone=ZURICH, fold=0):
    """The instant at which the clock of a zone shows this."""
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


OFFICE = window({day: ["09:00-12:00", "13:00-17:30"] for day in DAYS[:5]} | {"sat": ["10:00-14:00"]})
# 1 August 2026 is a Saturday.


@pytest.mark.parametrize(
    ("now", "opens", "closes"),
    [
        ("2026-08-03T08:59:59", "2026-08-03T09:00", "2026-08-03T12:00"),
        ("2026-08-03T09:00", "2026-08-03T09:00", "2026-08-03T12:00"),
        ("2026-08-03T11:59:59.999999", "2026-08-03T11:59:59.999999", "2026-08-03T12:00"),
        ("2026-08-03T12:00", "2026-08-03T13:00", "2026-08-03T17:30"),
        ("2026-08-03T17:30", "2026-08-04T09:00", "2026-08-04T12:00"),
        ("2026-08-01T13:00", "2026-08-01T13:00", "2026-08-01T14:00"),
        ("2026-08-01T14:00", "2026-08-03T09:00", "2026-08-03T12:00"),
        ("2026-08-02T12:00", "2026-08-03T09:00", "2026-08-03T12:00"),
    ],
)
def test_it_is_open_from_the_first_instant_of_a_span_to_before_its_last(now, opens, closes):
    assert OFFICE.opening(at(now), ZURICH) == Opening(at(opens), at(closes))


def test_a_span_over_midnight_belongs_to_both_days():
    night = window({"fri": ["22:00-02:00"]})

    assert night.opening(at("2026-08-07T12:00"), ZURICH) == (at("2026-08-07T22:00"), at("2026-08-08T02:00"))
    assert night.opens(at("2026-08-08T01:59"), ZURICH) == at("2026-08-08T01:59")
    assert night.opens(at("2026-08-08T02:00"), ZURICH) == at("2026-08-14T22:00")


def test_sunday_night_goes_on_on_monday():
    night = window({"sun": ["23:00-01:00"]})

    assert night.opening(at("2026-08-02T20:00"), ZURICH) == (at("2026-08-02T23:00"), at("2026-08-03T01:00"))


def test_a_closed_date_is_closed_from_midnight_to_midnight():
    night = window({"thu": ["22:00-02:00"], "fri": ["22:00-02:00"]}, closed=["2026-08-07"])

    assert list_of(night, "2026-08-06T12:00", 3) == [
        ("2026-08-06T22:00", "2026-08-07T00:00"),
        ("2026-08-08T00:00", "2026-08-08T02:00"),
        ("2026-08-13T22:00", "2026-08-14T02:00"),
    ]


def list_of(found, now, count, zone=ZURICH):
    """The next openings as the clock shows them."""
    openings = islice(found.openings(at(now, zone), zone), count)
    return [tuple(f"{turn.astimezone(zone):%Y-%m-%dT%H:%M}" for turn in opening) for opening in openings]


def test_over_a_long_row_of_closed_dates_the_next_opening_is_found():
    closed = [(date(2026, 8, 1) + timedelta(days=n)).isoformat() for n in range(700)]

    found = window({"mon": ["09:00-10:00"]}, closed=closed)

    assert found.opens(at("2026-08-01T00:00"), ZURICH) == at("2028-07-03T09:00")


def test_what_is_open_day_and_night_closes_on_the_next_closed_date_or_never():
    always = every_day("00:00-24:00")
    now = at("2026-08-03T10:00")

    assert window(always).opening(now, ZURICH) == Opening(now, None)
    assert window(always, closed=["2027-12-25"]).opening(now, ZURICH) == Opening(now, at("2027-12-25T00:00"))


def test_without_any_span_it_never_opens_and_is_closed_now():
    never = Window(week_of([]), "Europe/Zurich")
    now = at("2026-08-03T10:00")

    assert (never.opening(now, ZURICH), never.closes(now, ZURICH)) == (Opening(None, None), now)
    assert list(never.openings(now, ZURICH)) == []
    assert not never.opening(now, ZURICH).admits(now)


# ---- summer time ----


def test_what_begins_in_the_hour_that_is_skipped_opens_at_the_change():
    found = window(every_day("02:30-04:00"))

    # 29 March 2026, 02:00 CET is 03:00 CEST.
    assert found.opening(at("2026-03-29T00:00"), ZURICH) == (utc("2026-03-29T01:00"), utc("2026-03-29T02:00"))


def test_what_lies_in_the_hour_that_is_skipped_opens_on_the_next_day():
    found = window(every_day("02:00-02:30"))

    assert found.opens(at("2026-03-29T00:00"), ZURICH) == at("2026-03-30T02:00")
    assert window({"sun": ["02:00-02:30"]}).opens(at("2026-03-28T12:00"), ZURICH) == at("2026-04-05T02:00")


def test_an_hour_that_comes_twice_is_open_twice():
    found = window(every_day("02:15-02:45"))

    # 25 October 2026, 03:00 CEST is 02:00 CET.
    assert list(islice(found.openings(at("2026-10-25T00:00"), ZURICH), 3)) == [
        (utc("2026-10-25T00:15"), utc("2026-10-25T00:45")),
        (utc("2026-10-25T01:15"), utc("2026-10-25T01:45")),
        (utc("2026-10-26T01:15"), utc("2026-10-26T01:45")),
    ]


def test_a_span_that_ends_in_the_hour_that_comes_twice_opens_again_at_the_change():
    found = window(every_day("00:30-02:30"))

    assert list(islice(found.openings(at("2026-10-25T00:00"), ZURICH), 2)) == [
        (utc("2026-10-24T22:30"), utc("2026-10-25T00:30")),
        (utc("2026-10-25T01:00"), utc("2026-10-25T01:30")),
    ]


def test_half_an_hour_may_be_skipped_too():
    howe = ZONES["Australia/Lord_Howe"]

    # 4 October 2026, 02:00 is 02:30: from UTC+10:30 to UTC+11.
    found = window(every_day("02:10-03:00"))

    opening = found.opening(datetime(2026, 10, 3, 12, tzinfo=UTC), howe)
    assert opening == (utc("2026-10-03T15:30"), utc("2026-10-03T16:00"))


def test_where_summer_begins_at_midnight_the_day_opens_an_hour_later():
    santiago = ZONES["America/Santiago"]

    # 6 September 2026, 00:00 is 01:00.
    opening = window(every_day("00:00-06:00")).opening(utc("2026-09-06T03:30"), santiago)

    assert opening == (utc("2026-09-06T04:00"), utc("2026-09-06T09:00"))


def test_a_day_that_a_zone_left_out_has_no_opening():
    apia = ZONES["Pacific/Apia"]

    # Samoa went to the other side of the date line: after Thursday, 29 December 2011, came Saturday, the 31st.
    found = window({"fri": ["09:00-17:00"]})

    assert found.opens(datetime(2011, 12, 29, 12, tzinfo=apia), apia) == datetime(2012, 1, 6, 9, tzinfo=apia)


# ---- over and over, in many zones ----

MINUTES = st.integers(0, MIDNIGHT)
SPANS = st.tuples(st.integers(0, 6), st.integers(0, MIDNIGHT - 1), MINUTES).filter(lambda span: span[1] != span[2])
WEEKS = st.lists(SPANS, min_size=1, max_size=6)
CLOSED = st.frozensets(st.dates(date(2026, 1, 1), date(2027, 12, 31)), max_size=6)
INSTANTS = st.datetimes(BEGIN.replace(tzinfo=None), END.replace(tzinfo=None)).map(lambda at: at.replace(tzinfo=UTC))


def changes(zone):
    """When the offset of a zone changes, to the hour before."""
    hours = [BEGIN + timedelta(hours=n) for n in range(int((END - BEGIN).total_seconds() // 3600))]
    return [
        before
        for before, after in pairwise(hours)
        if before.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset()
    ]


CHANGES = {name: changes(zone) for name, zone in ZONES.items()}


@st.composite
def moments(draw):
    """A zone, and an instant: mostly within two days of a change of its clock."""
    name = draw(st.sampled_from(sorted(ZONES)))
    if CHANGES[name] and draw(st.integers(0, 3)):
        around = st.integers(-48 * 3600, 48 * 3600).map(lambda seconds: timedelta(seconds=seconds))
        return ZONES[name], draw(st.sampled_from(CHANGES[name])) + draw(around)
    return ZONES[name], draw(INSTANTS)


def shows_open(spans, closed, now, zone):
    """The rule itself, by the clock on the wall."""
    wall = now.astimezone(zone)
    minute = wall.hour * 60 + wall.minute
    today, yesterday = wall.weekday(), (wall.weekday() - 1) % 7
    return wall.date() not in closed and any(
        (day == today and start <= minute < (end if end > start else MIDNIGHT))
        or (day == yesterday and end < start and minute < end)
        for day, start, end in spans
    )


def test_these_zones_do_change_their_clocks():
    assert {name for name, found in CHANGES.items() if not found} == {"Asia/Kathmandu", "Pacific/Apia"}


@given(WEEKS, CLOSED, moments())
@example([(6, 150, 240)], frozenset(), (ZURICH, utc("2026-03-28T23:00")))
def test_the_next_opening_is_the_first_minute_that_the_clock_shows_as_open(spans, closed, moment):
    zone, now = moment
    found = Window(week_of(spans), "UTC", closed)
    a_day = [now, *(now.replace(second=0, microsecond=0) + n * MINUTE for n in range(1, 1500))]

    first_open = next((each for each in a_day if shows_open(spans, closed, each, zone)), None)
    first_closed = next((each for each in a_day if not shows_open(spans, closed, each, zone)), None)

    for first, answer in ((first_open, found.opens(now, zone)), (first_closed, found.closes(now, zone))):
        if first is None:
            assert answer is None or answer > a_day[-1]
        else:
            assert answer == first


@given(WEEKS, CLOSED, moments(), st.timedeltas(timedelta(0), timedelta(days=20)))
def test_openings_stay_are_open_and_never_go_back(spans, closed, moment, later):
    zone, now = moment
    found = Window(week_of(spans), "UTC", closed)

    opens, closes = found.opening(now, zone)

    assert opens is not None
    assert opens >= now
    assert found.opens(opens, zone) == opens
    assert shows_open(spans, closed, opens, zone)
    assert found.opens(now + later, zone) >= opens
    if closes is not None:
        assert closes > opens
        assert found.closes(closes, zone) == closes
        assert not shows_open(spans, closed, closes, zone)
        later_closes = found.closes(opens + later, zone)
        assert later_closes is None or later_closes >= closes


@given(WEEKS, CLOSED, moments(), st.lists(st.timedeltas(timedelta(hours=-3), timedelta(days=3)), max_size=12))
def test_what_is_remembered_is_what_would_be_found_anew_also_when_the_clock_goes_back(spans, closed, moment, steps):
    zone, now = moment
    found = Window(week_of(spans), str(zone), closed)
    remembering = Openings(found)

    for step in (timedelta(0), *steps):
        now += step
        remembered, anew = remembering.opening("{}", now), found.opening(now, zone)
        assert remembered.admits(now) == anew.admits(now)
        assert remembered.until == anew.until
        assert anew.admits(now) or remembered.at == anew.at


@given(WEEKS, CLOSED, moments(), st.integers(0, 6000))
def test_closed_for_counts_the_closed_minutes(spans, closed, moment, minutes):
    zone, now = moment
    now = now.replace(second=0, microsecond=0)
    found = Window(week_of(spans), "UTC", closed)

    counted = sum(not shows_open(spans, closed, now + n * MINUTE, zone) for n in range(minutes))

    assert found.closed_for(now, now + minutes * MINUTE, zone) == counted * MINUTE


# ---- the recipient's zone ----


def own_hours(**more):
    return Openings(window(every_day("09:00-17:00"), per_recipient=True, **more))


@pytest.mark.parametrize(
    ("data", "opens"),
    [
        ({"time_zone": "Asia/Kathmandu"}, "2026-08-04T03:15"),
        ({"time_zone": " America/New_York "}, "2026-08-04T13:00"),
        ({"time_zone": "Mars/Olympus"}, "2026-08-04T07:00"),
        ({"time_zone": "../../etc/passwd"}, "2026-08-04T07:00"),
        ({"time_zone": "America"}, "2026-08-04T07:00"),
        ({"time_zone": ""}, "2026-08-04T07:00"),
        ({"time_zone": None}, "2026-08-04T07:00"),
        ({"time_zone": 7}, "2026-08-04T07:00"),
        ({"time_zone": "x" * 100_000}, "2026-08-04T07:00"),
        ({}, "2026-08-04T07:00"),
    ],
)
def test_a_recipient_has_his_own_zone_and_the_windows_when_that_is_missing_or_unknown(data, opens):
    # 23:30 in Zurich and New York's afternoon are over; everywhere the next morning counts.
    assert own_hours().opening(json.dumps(data), utc("2026-08-03T21:30")).at == utc(opens)


def test_the_field_of_the_zone_has_the_name_that_the_window_gives():
    data = '{"time_zone": "Asia/Kathmandu", "tz": "America/New_York"}'

    assert own_hours(zone_field="tz").opening(data, utc("2026-08-03T21:30")).at == utc("2026-08-04T13:00")


def test_a_window_of_one_zone_does_not_read_the_recipients_data():
    openings = Openings(window(every_day("09:00-17:00")))

    assert openings.opening("this is not JSON", utc("2026-08-03T21:30")).at == utc("2026-08-04T07:00")
    assert openings.closed_for("nor this", utc("2026-08-03T14:00"), utc("2026-08-03T16:00")) == timedelta(hours=1)


@pytest.mark.parametrize(
    "name", ["", "America", "/etc/passwd", "../../etc/passwd", "a\0b", "zone.tab", "Ü", "x" * 5000]
)
def test_what_is_no_zone_is_none(name):
    assert zone_named(name) is None


# ---- as JSON ----


def test_it_writes_and_reads_itself():
    written = {
        "week": {"mon": ["00:00-02:00", "09:00-12:00"], "sun": ["22:00-24:00"]},
        "zone": "Asia/Kathmandu",
        "closed": ["2026-12-25", "2027-01-01"],
        "per_recipient": True,
        "zone_field": "tz",
    }
    loose = written | {"week": {"sun": ["22:00-02:00"], "mon": ["10:00-12:00", "9:00-11:00"]}}

    assert Window.of(written).as_json() == written
    assert Window.of(loose) == Window.of(written)
    assert Window.of({"week": {"mon": ["09:00-12:00"]}, "zone": "UTC"}).as_json() == {
        "week": {"mon": ["09:00-12:00"]},
        "zone": "UTC",
        "closed": [],
        "per_recipient": False,
        "zone_field": "time_zone",
    }


@given(WEEKS, CLOSED, st.sampled_from(sorted(ZONES)), st.booleans(), st.text(min_size=1))
def test_every_window_can_be_written_and_read_again(spans, closed, zone, per_recipient, field):
    written = Window(week_of(spans), zone, closed, per_recipient, field)

    assert Window.of(json.loads(json.dumps(written.as_json()))) == written


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (None, "a window: None"),
        ([], "a window: []"),
        ({"zone": "UTC"}, "week: None"),
        ({"week": {}, "zone": "UTC"}, "week: it never opens"),
        ({"week": {"mon": []}, "zone": "UTC"}, "week: it never opens"),
        ({"week": {"monday": ["09:00-12:00"]}, "zone": "UTC"}, "week.monday: the days are mon"),
        ({"week": {"mon": "09:00-12:00"}, "zone": "UTC"}, "week.mon: "),
        ({"week": {"mon": ["09:00-12:00", "9-25"]}, "zone": "UTC"}, "week.mon[1]: '9-25'"),
        ({"week": {"tue": ["09:00-24:01"]}, "zone": "UTC"}, "week.tue[0]: '09:00-24:01'"),
        ({"week": {"tue": ["24:00-09:00"]}, "zone": "UTC"}, "week.tue[0]: '24:00-09:00'"),
        ({"week": {"tue": ["08:60-09:00"]}, "zone": "UTC"}, "week.tue[0]: '08:60-09:00'"),
        ({"week": {"tue": ["09:00-09:00"]}, "zone": "UTC"}, "week.tue[0]: '09:00-09:00'"),
        ({"week": {"tue": [9]}, "zone": "UTC"}, "week.tue[0]: 9"),
        ({"week": {"tue": ["09:00-12:00"]}}, "zone: None"),
        ({"week": {"tue": ["09:00-12:00"]}, "zone": "Mars/Olympus"}, "zone: 'Mars/Olympus'"),
        ({"week": {"tue": ["09:00-12:00"]}, "zone": "UTC", "closed": ["2026-02-30"]}, "closed[0]: '2026-02-30'"),
        ({"week": {"tue": ["09:00-12:00"]}, "zone": "UTC", "closed": ["1.1.2026"]}, "closed[0]: '1.1.2026'"),
        ({"week": {"tue": ["09:00-12:00"]}, "zone": "UTC", "closed": ["9999-12-31"]}, "closed[0]: '9999-12-31'"),
        ({"week": {"tue": ["09:00-12:00"]}, "zone": "UTC", "closed": "2026-01-01"}, "closed: '2026-01-01'"),
        ({"week": {"tue": ["09:00-12:00"]}, "zone": "UTC", "per_recipient": "yes"}, "per_recipient: 'yes'"),
        ({"week": {"tue": ["09:00-12:00"]}, "zone": "UTC", "zone_field": ""}, "zone_field: ''"),
        ({"week": {"tue": ["09:00-12:00"]}, "zone": "UTC", "holidays": []}, "holidays: a window has no such part"),
    ],
)
def test_what_is_no_window_is_refused_with_its_place_and_a_good_one(wrong, place):
    with pytest.raises(ValueError) as refused:
        Window.of(wrong)

    assert str(refused.value).startswith(place)
    example_of_a_good_one = str(refused.value).partition("A good one: ")[2]
    assert Window.of(json.loads(example_of_a_good_one)).zone == "Europe/Zurich"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.sampled_from(["09:00-12:00", "UTC"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["week", "zone", "closed", "mon", "zone_field"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_other_json_is_refused_and_nothing_else_happens(value):
    refused = None
    try:
        read = Window.of(value)
    except ValueError as error:
        refused = error

    assert "A good one: " in str(refused) if refused else any(read.week)
