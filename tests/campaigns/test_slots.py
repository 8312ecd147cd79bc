"""Which instants a schedule has: over ten zones, both changes of the clock, and whatever hypothesis thinks of."""

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.cron import SHORT_FORMS, cron_line
from campaigns.exceptions import BadSchedule
from campaigns.slots import Every, Late, Once, Plan, Unit, between, in_words, judge, upcoming
from campaigns.wall_clock import zone_named

pytestmark = pytest.mark.once

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ZONES = (
    "Europe/Zurich",
    "America/New_York",
    "America/Sao_Paulo",  # until 2019 clocks were set at midnight: a day without a 00:00
    "America/St_Johns",  # -3:30
    "Australia/Sydney",  # summer in January
    "Australia/Lord_Howe",  # by half an hour
    "Africa/Casablanca",  # back in Ramadan
    "Asia/Kathmandu",  # +5:45, never set
    "Asia/Tokyo",
    "Pacific/Apia",  # 2011-12-30 did not exist
    "Pacific/Chatham",  # +12:45, +13:45
    "America/Caracas",  # by half an hour, for good
    "Antarctica/Troll",  # by two hours
    "UTC",
)


def cron(line: str, zone: str = "Europe/Zurich", **limits: datetime) -> Plan:
    return Plan(rhythm=cron_line(line), zone=ZoneInfo(zone), **limits)


def every(number: int, unit: Unit, anchor: datetime, zone: str = "Europe/Zurich", **limits: datetime) -> Plan:
    return Plan(rhythm=Every(number, unit, anchor), zone=ZoneInfo(zone), **limits)


def at(text: str, zone: str = "Europe/Zurich") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def days(plan: Plan, first: str, last: str) -> list[str]:
    """The slots of whole days in the plan's zone, as its clocks show them, with their offset from UTC."""
    begin = datetime.fromisoformat(first).replace(tzinfo=plan.zone) - timedelta(microseconds=1)
    end = datetime.fromisoformat(last).replace(tzinfo=plan.zone) + DAY - timedelta(microseconds=1)
    return [f"{slot.astimezone(plan.zone):%d %H:%M%z}" for slot in between(plan, begin, end)]


# ---- clocks that are set ----


@pytest.mark.parametrize(
    ("zone", "line", "first", "last", "slots"),
    [
        # A wall time that is skipped has its slot at the change.
        ("Europe/Zurich", "30 2 * * *", "2027-03-27", "2027-03-29", ["27 02:30+0100", "28 03:00+0200", "29 02:30+0200"]),  # noqa: E501
        ("America/New_York", "30 2 * * *", "2027-03-14", "2027-03-14", ["14 03:00-0400"]),
        ("Australia/Sydney", "15 2 * * *", "2027-10-03", "2027-10-03", ["03 03:00+1100"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2027-10-03", "2027-10-03", ["03 02:30+1100"]),
        ("Pacific/Chatham", "0 3 * * *", "2027-09-26", "2027-09-26", ["26 03:45+1345"]),
        ("America/Sao_Paulo", "0 0 * * *", "2018-11-03", "2018-11-05", ["03 00:00-0300", "04 01:00-0200", "05 00:00-0200"]),  # noqa: E501
        ("Pacific/Apia", "0 9 30 12 *", "2011-12-29", "2011-12-31", ["31 00:00+1400"]),
        ("Antarctica/Troll", "30 1,2 * * *", "2027-03-28", "2027-03-28", ["28 03:00+0200"]),
        ("America/Caracas", "45 2 * * *", "2016-05-01", "2016-05-01", ["01 03:00-0400"]),
        # One that comes twice has it the first time.
        ("Europe/Zurich", "30 2 * * *", "2027-10-30", "2027-11-01", ["30 02:30+0200", "31 02:30+0200", "01 02:30+0100"]),  # noqa: E501
        ("America/New_York", "30 1 * * *", "2027-11-07", "2027-11-07", ["07 01:30-0400"]),
        ("Australia/Sydney", "0 2 * * *", "2027-04-04", "2027-04-04", ["04 02:00+1100"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2027-04-04", "2027-04-04", ["04 01:45+1100"]),
        ("Pacific/Chatham", "0 3 * * *", "2027-04-04", "2027-04-04", ["04 03:00+1345"]),
        ("America/Sao_Paulo", "30 23 * * *", "2018-02-17", "2018-02-17", ["17 23:30-0200"]),
        ("Antarctica/Troll", "30 1 * * *", "2027-10-31", "2027-10-31", ["31 01:30+0200"]),
        # Several slots that fall together are one, and an hour that is named is gone through once.
        ("Europe/Zurich", "*/20 2 * * *", "2027-03-28", "2027-03-28", ["28 03:00+0200"]),
        ("Europe/Zurich", "0,30 2,3 * * *", "2027-03-28", "2027-03-28", ["28 03:00+0200", "28 03:30+0200"]),
        (
            "Europe/Zurich",
            "*/20 2 * * *",
            "2027-10-31",
            "2027-10-31",
            ["31 02:00+0200", "31 02:20+0200", "31 02:40+0200"],
        ),
        (
            "Europe/Zurich",
            "0 */2 * * *",
            "2027-10-31",
            "2027-10-31",
            ["31 00:00+0200", "31 02:00+0200", *(f"31 {hour:02}:00+0100" for hour in range(4, 24, 2))],
        ),
        # A line of every hour is a rhythm, and goes on as if nobody had touched the clock.
        (
            "Europe/Zurich",
            "30 * * * *",
            "2027-03-28",
            "2027-03-28",
            ["28 00:30+0100", "28 01:30+0100", *(f"28 {hour:02}:30+0200" for hour in range(3, 24))],
        ),
        (
            "Europe/Zurich",
            "30 * * * *",
            "2027-10-31",
            "2027-10-31",
            [*(f"31 {hour:02}:30+0200" for hour in range(3)), *(f"31 {hour:02}:30+0100" for hour in range(2, 24))],
        ),
        # Unless it does notice: by half an hour, on the hour is another minute.
        (
            "Australia/Lord_Howe",
            "30 * * * *",
            "2027-04-04",
            "2027-04-04",
            ["04 00:30+1100", "04 01:30+1100", *(f"04 {hour:02}:30+1030" for hour in range(2, 24))],
        ),
        (
            "Australia/Lord_Howe",
            "0 * * * *",
            "2027-10-03",
            "2027-10-03",
            ["03 00:00+1030", "03 01:00+1030", "03 02:30+1100", *(f"03 {hour:02}:00+1100" for hour in range(3, 24))],
        ),
    ],
)  # fmt: skip
def test_the_change_of_the_clock_neither_doubles_nor_drops_a_slot(zone, line, first, last, slots):
    assert days(cron(line, zone), first, last) == slots


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("time", ["0 0", "30 1", "15 2", "45 2", "0 3", "30 23"])
def test_a_time_of_the_day_has_one_slot_for_each_date_of_the_calendar(zone, time):
    minute, hour = map(int, time.split())
    plan = cron(f"{minute} {hour} * * *", zone)

    walls = [datetime(2010, 1, 1, hour, minute) + n * DAY for n in range(20 * 365)]
    begin, end = (wall.replace(tzinfo=plan.zone) for wall in (walls[0] - HOUR, walls[-1] + HOUR))

    slots = list(between(plan, begin, end))

    assert slots == sorted({first_shown(wall, plan.zone) for wall in walls})


def first_shown(wall: datetime, zone: ZoneInfo) -> datetime:
    """By trial: the first instant at which the zone's clock shows this, or the first later minute that it does show."""
    while True:
        instant = wall.replace(tzinfo=zone).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None) == wall:
            return instant
        wall += MINUTE


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("line", ["*/15 * * * *", "* * * * *", "0,30 * * * *"])
def test_a_rhythm_of_minutes_is_even_whatever_the_clocks_do(zone, line):
    plan = cron(line, zone)
    step = {"*": 1, "0": 30, "*/15": 15}[line.split(",")[0].split()[0]] * MINUTE

    for begin in ("2027-03-27", "2027-04-03", "2027-09-25", "2027-10-02", "2027-10-30", "2011-12-29"):
        slots = list(between(plan, at(begin, "UTC"), at(begin, "UTC") + 3 * DAY))

        assert {later - earlier for earlier, later in itertools.pairwise(slots)} == {step}


@pytest.mark.parametrize("zone", ZONES)
def test_days_are_the_walls_and_hours_are_the_stopwatchs(zone):
    anchor = at("2027-01-01T02:30", zone)
    by_days, by_hours = every(1, Unit.DAYS, anchor, zone), every(24, Unit.HOURS, anchor, zone)

    daily, hourly = upcoming(by_days, anchor - MINUTE, 366), upcoming(by_hours, anchor - MINUTE, 366)

    assert daily[0] == hourly[0] == anchor
    assert {later - earlier for earlier, later in itertools.pairwise(hourly)} == {DAY}
    times = Counter(f"{slot.astimezone(ZoneInfo(zone)):%H:%M}" for slot in daily)
    assert times["02:30"] >= 365
    assert [f"{slot.astimezone(ZoneInfo(zone)):%m-%d}" for slot in daily[::365]] == ["01-01", "01-01"]


def test_a_change_has_its_slot_where_days_are_counted_too():
    plan = every(2, Unit.DAYS, at("2027-03-26T02:30"))

    assert days(plan, "2027-03-26", "2027-03-30") == ["26 02:30+0100", "28 03:00+0200", "30 02:30+0200"]


def test_an_interval_that_begins_in_the_second_of_two_equal_hours_begins_there():
    anchor = at("2027-10-31T02:30").replace(fold=1)

    assert days(every(1, Unit.DAYS, anchor), "2027-10-31", "2027-11-01") == ["31 02:30+0100", "01 02:30+0100"]


def test_who_looks_in_the_first_of_two_equal_hours_finds_what_comes_in_the_second():
    first, second = (at("2027-10-31T02:30").replace(fold=fold) for fold in (0, 1))
    between_them = first + 15 * MINUTE

    assert upcoming(cron("30 * * * *"), between_them.astimezone(UTC), 1) == [second.astimezone(UTC)]
    assert upcoming(every(1, Unit.DAYS, second), between_them.astimezone(UTC), 1) == [second.astimezone(UTC)]


# ---- the kinds ----


def test_weeks_keep_their_day_and_their_time():
    plan = every(2, Unit.WEEKS, at("2027-03-15T09:00"))

    assert days(plan, "2027-03-01", "2027-04-30") == [
        "15 09:00+0100",
        "29 09:00+0200",
        "12 09:00+0200",
        "26 09:00+0200",
    ]


def test_nothing_comes_before_the_anchor_the_start_or_after_the_end_and_both_count():
    anchor = at("2027-05-01T00:00")
    plan = every(15, Unit.MINUTES, anchor, starts_at=anchor + HOUR, ends_at=anchor + HOUR + 30 * MINUTE)

    assert upcoming(plan, anchor - DAY) == [anchor + HOUR + n * 15 * MINUTE for n in range(3)]
    assert upcoming(every(15, Unit.MINUTES, anchor), anchor - DAY, 1) == [anchor]


def test_once_is_once():
    plan = Plan(rhythm=Once(at("2027-05-01T09:00")), zone=ZoneInfo("Europe/Zurich"))

    assert upcoming(plan, at("2027-01-01T00:00")) == [at("2027-05-01T09:00")]
    assert upcoming(plan, at("2027-05-01T09:00")) == []


def test_slots_are_instants_in_utc():
    assert [slot.tzinfo for slot in upcoming(cron("0 9 * * *"), at("2027-01-01T00:00"), 2)] == [UTC, UTC]


@pytest.mark.parametrize("short", SHORT_FORMS)
def test_a_short_form_is_its_line(short):
    after = at("2027-01-01T00:00")

    assert upcoming(cron(short), after) == upcoming(cron(SHORT_FORMS[short]), after) != []
    assert upcoming(cron(f" {short.upper()} "), after) == upcoming(cron(short), after)


# ---- whatever one thinks of ----

MOMENTS = st.datetimes(datetime(2009, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
NUMBERS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> str:
    kind = draw(st.sampled_from(("*", "step", "one", "range", "two")))
    one, two = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
    step = draw(st.integers(1, high - low))
    return {"*": "*", "step": f"*/{step}", "one": f"{one}", "range": f"{one}-{two}", "two": f"{one},{two}"}[kind]


@st.composite
def lines(draw: st.DrawFn) -> str:
    minute, hour = draw(fields(*NUMBERS["minute"])), draw(fields(*NUMBERS["hour"]))
    return f"{minute} {hour} * * {draw(fields(*NUMBERS['weekday']))}"


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    zone = ZoneInfo(draw(st.sampled_from(ZONES)))
    starts, ends = draw(st.tuples(st.none() | MOMENTS, st.none() | MOMENTS))
    if starts and ends and ends < starts:
        starts, ends = ends, starts
    rhythm = draw(
        st.one_of(
            st.builds(Once, MOMENTS),
            st.builds(Every, st.integers(1, 40), st.sampled_from(Unit), MOMENTS),
            lines().map(cron_line),
        )
    )
    return Plan(rhythm=rhythm, zone=zone, starts_at=starts, ends_at=ends)


@st.composite
def moments_near_changes(draw: st.DrawFn) -> datetime:
    """Anywhere, or within hours of a change of the clock."""
    changes = (
        datetime(2027, 3, 28, 1), datetime(2027, 10, 31, 1), datetime(2027, 4, 3, 15), datetime(2027, 10, 2, 15, 30),
        datetime(2011, 12, 30, 10), datetime(2018, 2, 18, 2), datetime(2018, 11, 4, 3), datetime(2016, 5, 1, 7),
    )  # fmt: skip
    near = draw(st.sampled_from(changes)).replace(tzinfo=UTC)
    return draw(MOMENTS | st.timedeltas(-4 * HOUR, 4 * HOUR).map(lambda off: near + off))


@given(plans(), moments_near_changes(), st.lists(st.timedeltas(timedelta(0), 9 * HOUR), min_size=2, max_size=4))
@settings(max_examples=400, deadline=None)
def test_slots_increase_and_do_not_depend_on_how_often_one_looks(plan, begin, spans):
    looks = list(itertools.accumulate(spans, initial=begin))

    whole = list(between(plan, looks[0], looks[-1]))
    pieces = [slot for after, until in itertools.pairwise(looks) for slot in between(plan, after, until)]

    assert whole == pieces
    assert all(earlier < later for earlier, later in itertools.pairwise(whole))
    assert all(looks[0] < slot <= looks[-1] for slot in whole)
    assert all((plan.starts_at or slot) <= slot <= (plan.ends_at or slot) for slot in whole)


@given(lines(), st.sampled_from(ZONES), moments_near_changes())
@settings(max_examples=300, deadline=None)
def test_the_next_slot_is_found_from_any_moment_before_it(line, zone, begin):
    plan = cron(line, zone)
    slots = upcoming(plan, begin, 4)

    for earlier, later in itertools.pairwise([begin, *slots]):
        moment = earlier + (later - earlier) / 2
        assert upcoming(plan, moment, 1) == [later]
        assert upcoming(plan, later - timedelta(microseconds=1), 1) == [later]


@given(lines(), st.sampled_from(ZONES), moments_near_changes())
@settings(max_examples=300, deadline=None)
def test_every_slot_is_a_time_that_the_line_names_or_a_change_that_swallowed_one(line, zone, begin):
    plan = cron(line, zone)

    for slot in upcoming(plan, begin, 5):
        wall = slot.astimezone(plan.zone).replace(tzinfo=None)
        before = (slot - MINUTE).astimezone(plan.zone).replace(tzinfo=None)
        named = next(plan.rhythm.walls(before.replace(fold=0)))
        assert named == wall or before + MINUTE <= named < wall


# ---- what makes no sense ----


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "Write the cron line."),
        ("   ", "Write the cron line."),
        ("0 9 * *", "five fields (minute, hour, day of the month, month, day of the week), not 4."),
        ("0 0 9 * * 1-5", "not 6. Seconds cannot be said."),
        ("60 9 * * *", "The minute '60' makes no sense: 0 to 59"),
        ("0 24 * * *", "The hour '24' makes no sense: 0 to 23"),
        ("0 9 0 * *", "The day of the month '0' makes no sense: 1 to 31"),
        ("0 9 * 13 *", "The month '13' makes no sense: 1 to 12 or JAN to DEC"),
        ("0 9 * * 8", "The day of the week '8' makes no sense: 0 to 7 or SUN to SAT"),
        ("0 9 * * FUN", "The day of the week 'FUN' makes no sense"),
        ("0 17-9 * * *", "The hour '17-9' makes no sense"),
        ("*/0 * * * *", "The minute '*/0' makes no sense"),
        ("*/90 * * * *", "The minute '*/90' has a step that is never taken"),
        ("-5 9 * * *", "The minute '-5' makes no sense"),
        ("0 9 , * *", "The day of the month ',' makes no sense"),
        ("٣ 9 * * *", "The minute '٣' makes no sense"),
        ("0 9 30 2 *", "The day that '0 9 30 2 *' names never comes"),
        ("0 9 */30 2 MON#5", "The day that '0 9 */30 2 MON#5' names never comes"),
        ("@reboot", "The short forms are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually."),
        ("@", "There is no '@'."),
        ("0 9 * * 1-5 " + "9" * 300, "at most 200 characters"),
        ("every day", "five fields"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_with_its_place_and_a_good_one(line, words):
    with pytest.raises(BadSchedule) as refusal:
        cron_line(line)

    assert words in str(refusal.value)
    assert refusal.value.field == "cron"
    assert '"0 9 * * 1-5", every weekday at 09:00' in str(refusal.value)


@given(st.text(max_size=30) | st.text("0123456789*/-,#LWMONSUJA @", max_size=30))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_line_with_slots_or_refused(text):
    try:
        line = cron_line(text)
    except BadSchedule:
        return
    plan = Plan(rhythm=line, zone=ZoneInfo("Europe/Zurich"))
    assert upcoming(plan, at("2027-01-01T00:00"), 1) != []
    assert in_words(plan)


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("europe/zurich", "Did you mean Europe/Zurich?"),
        ("Europe/Zürich", "Did you mean Europe/Zurich?"),
        ("America/New York", "Did you mean America/New_York?"),
        ("../../etc/passwd", "A good one: Europe/Zurich."),
        ("", "A good one: Europe/Zurich."),
        ("+02:00", "A good one: Europe/Zurich."),
        ("x\0y", "A good one: Europe/Zurich."),
    ],
)
def test_a_zone_that_is_none_is_refused_with_a_good_one(name, guess):
    with pytest.raises(BadSchedule, match="There is no time zone") as refusal:
        zone_named(name)

    assert (refusal.value.field, guess in str(refusal.value)) == ("time_zone", True)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Every(0, Unit.MINUTES, at("2027-01-01")), "every"),
        (lambda: Every(10**12, Unit.WEEKS, at("2027-01-01")), "every"),
        (lambda: Every(1, Unit.DAYS, at("9999-12-30")), "anchor"),
        (lambda: Once(at("1970-01-01")), "at"),
        (lambda: cron("0 9 * * *", starts_at=at("2027-01-02"), ends_at=at("2027-01-01")), "ends_at"),
        (lambda: cron("0 9 * * *", starts_at=at("2100-01-02")), "starts_at"),
    ],
)
def test_times_that_make_no_sense_are_refused_at_their_field(make, field):
    with pytest.raises(BadSchedule) as refusal:
        make()

    assert refusal.value.field == field


def test_a_schedule_ends_with_the_century_and_not_with_an_error():
    assert upcoming(every(1, Unit.WEEKS, at("2099-12-20T09:00")), at("2099-12-25")) == [at("2099-12-27T09:00")]
    assert upcoming(cron("0 9 * * *"), at("2099-12-31T10:00")) == []


# ---- slots that were missed ----

NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)
HOURLY = [NOON - n * HOUR for n in (3, 2, 1, 0)]


def fate(policy: Late, due: list[datetime], now: datetime, **how: object) -> list[bool]:
    return [verdict.runs for verdict in judge(due, now, policy, 2 * MINUTE, **how)]


def test_who_skips_runs_only_what_is_not_too_late():
    assert fate(Late.SKIP, HOURLY, NOON + MINUTE) == [False, False, False, True]
    assert fate(Late.SKIP, HOURLY, NOON + 2 * MINUTE) == [False, False, False, True]
    assert fate(Late.SKIP, HOURLY, NOON + 3 * MINUTE) == [False, False, False, False]


def test_who_runs_once_runs_the_latest_for_all_that_were_missed():
    assert fate(Late.RUN_ONCE, HOURLY, NOON + MINUTE) == [False, False, False, True]
    assert fate(Late.RUN_ONCE, HOURLY, NOON + 30 * MINUTE) == [False, False, False, True]
    assert fate(Late.RUN_ONCE, HOURLY, NOON + 30 * MINUTE, more=True) == [False, False, False, False]


def test_who_runs_once_loses_nothing_that_is_in_time():
    due = [NOON - HOUR, NOON, NOON + MINUTE]

    assert fate(Late.RUN_ONCE, due, NOON + MINUTE) == [False, True, True]


def test_who_runs_all_runs_all_in_order():
    assert fate(Late.RUN_ALL, HOURLY, NOON + 30 * DAY) == [True, True, True, True]
    assert [verdict.at for verdict in judge(HOURLY, NOON, Late.RUN_ALL, MINUTE)] == HOURLY


def test_what_is_skipped_says_by_how_much_it_was_missed_and_what_follows():
    skipped, _ = judge(HOURLY[2:], NOON + MINUTE + timedelta(seconds=5), Late.RUN_ONCE, MINUTE)
    (left,) = judge(HOURLY[:1], NOON + DAY, Late.SKIP, MINUTE)

    assert skipped.reason == "Missed by 1 h 1 min 5 s, the slot at 2027-06-01 12:00 UTC stands for it."
    assert left.reason == "Missed by 1 d 3 h, and missed slots are skipped."


# ---- in words ----


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (cron("0 9 * * 1-5"), "every weekday at 09:00, Europe/Zurich"),
        (cron("@daily", "UTC"), "every day at 00:00, UTC"),
        (cron("30 17 * * 5"), "every Friday at 17:30, Europe/Zurich"),
        (cron("*/15 * * * *"), "every 15 minutes, Europe/Zurich"),
        (cron("*/45 * * * *"), "every 45th minute of every hour, Europe/Zurich"),
        (cron("0 9 1 * *"), "at 09:00 on the first day of every month, Europe/Zurich"),
        (
            every(15, Unit.MINUTES, at("2027-01-04T09:00")),
            "every 15 minutes, counted from 2027-01-04 09:00, Europe/Zurich",
        ),
        (
            every(1, Unit.DAYS, at("2027-01-04T09:00"), ends_at=at("2027-02-01T00:00")),
            "every day, counted from 2027-01-04 09:00, Europe/Zurich, not after 2027-02-01 00:00",
        ),
        (Plan(rhythm=Once(at("2027-03-01T09:00")), zone=ZoneInfo("Asia/Tokyo")), "once, 2027-03-01 17:00, Asia/Tokyo"),
    ],
)
def test_a_schedule_is_said_in_words(plan, words):
    assert in_words(plan) == words
