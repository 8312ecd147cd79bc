"""Sending windows as operators set them: hours in words, holidays by country, nonsense refused, what a run keeps."""

import html
import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from campaigns import hours
from campaigns.admin.window_words import AT_ANY_HOUR, window_in_words
from campaigns.exceptions import BadWindow
from campaigns.models import RunState, Template, Workflow
from campaigns.windows import WindowSettings
from campaigns.work import pump
from delivery.core.window import MIDNIGHT, Window, week_of
from delivery.models import Delivery, Message
from delivery.worker import Until
from tests.campaigns import cast

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)  # a Tuesday
ZURICH = ZoneInfo("Europe/Zurich")
OFFICE = "mon-fri 09:00-12:00, 13:00-17:30; sat 10:00-14:00"

once = pytest.mark.once


def minutes(begin, end):
    return begin * 60, end * 60


NINE_TO_FIVE = (minutes(9, 17),)
NIGHT = ((0, 120), (22 * 60, MIDNIGHT))

# ---- hours in words ----


@once
@pytest.mark.parametrize(
    ("text", "week"),
    [
        ("mon 9-17", (NINE_TO_FIVE, (), (), (), (), (), ())),
        ("mon-wed 09:00-17:00", (NINE_TO_FIVE,) * 3 + ((),) * 4),
        ("Monday - Wednesday: 9:00 - 17:00", (NINE_TO_FIVE,) * 3 + ((),) * 4),
        ("mon\N{EN DASH}wed 09:00\N{EN DASH}17:00", (NINE_TO_FIVE,) * 3 + ((),) * 4),
        ("mon, tue and wed 9-17", (NINE_TO_FIVE,) * 3 + ((),) * 4),
        ("mon tue wed 9-17", (NINE_TO_FIVE,) * 3 + ((),) * 4),
        ("sat-mon 9-17", (NINE_TO_FIVE,) + ((),) * 4 + (NINE_TO_FIVE,) * 2),
        ("weekdays 9-17; weekend 10-12", (NINE_TO_FIVE,) * 5 + ((minutes(10, 12),),) * 2),
        ("weekdays 9-17\nweekend 10-12\n", (NINE_TO_FIVE,) * 5 + ((minutes(10, 12),),) * 2),
        ("daily 22-2", (NIGHT,) * 7),
        ("sun 22:00-02:00", (((0, 120),),) + ((),) * 5 + (((22 * 60, MIDNIGHT),),)),
        ("every day 00:00-24:00", (((0, MIDNIGHT),),) * 7),
        ("mon 9-12, 11-13; mon 13-14", ((minutes(9, 14),), (), (), (), (), (), ())),
        ("fri 8-9 and 10-11", ((), (), (), (), (minutes(8, 9), minutes(10, 11)), (), ())),
    ],
)
def test_hours_are_read_as_people_write_them(text, week):
    assert hours.week(text) == week


@once
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OFFICE, "Monday-Friday 09:00-12:00, 13:00-17:30; Saturday 10:00-14:00"),
        ("sat-mon 9-17", "Monday 09:00-17:00; Saturday-Sunday 09:00-17:00"),
        ("daily 22-6", "every day 22:00-06:00"),
        ("fri-sat 22-2", "Friday-Saturday 22:00-02:00"),
        ("daily 0-24", "every day 00:00-24:00"),
        ("mon 12-24; tue 0-24; wed 0-8", "Monday 12:00-24:00; Tuesday 00:00-24:00; Wednesday 00:00-08:00"),
    ],
)
def test_hours_are_said_as_people_would_read_them(text, words):
    assert hours.in_words(hours.week(text)) == words


@once
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, MIDNIGHT - 1), st.integers(0, MIDNIGHT)).filter(
            lambda span: span[1] != span[2]
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_said_can_be_read_again(spans):
    week = week_of(spans)

    assert hours.week(hours.in_words(week)) == week


@once
@pytest.mark.parametrize(
    ("text", "place"),
    [
        (" ", '" " names no hours'),
        ("mon-fri", '"mon-fri" has no hours after the days'),
        ("9-17", '"9-17" has no days before the hours'),
        (", 9-17", '", 9-17" has no days before the hours'),
        ("mon 9-17; fry 9-12", 'In "fry 9-12": "fry" is no day of the week'),
        ("mon-tue-wed 9-17", 'In "mon-tue-wed 9-17": "tue-wed" is no day'),
        ("mon 9", 'In "mon 9": "9" is not from one time to another'),
        ("mon 9-12,", 'In "mon 9-12,": "" is not from one time to another'),
        ("mon 9am-5pm", 'In "mon 9am-5pm": "9am-5pm" is not from one time to another'),
        ("sat 25:00-26:00", 'In "sat 25:00-26:00": "25:00" is no time of a day'),
        ("sat 10:00-12:75", 'In "sat 10:00-12:75": "12:75" is no time of a day'),
        ("sat 24:01-24:00", 'In "sat 24:01-24:00": "24:01" is no time of a day'),
        ("sat 10:00-10:00", 'In "sat 10:00-10:00": "10:00-10:00" is no time at all'),
        ("sat 24:00-02:00", 'In "sat 24:00-02:00": "24:00-02:00" is no time at all'),
    ],
)
def test_hours_that_make_no_sense_are_refused_with_the_place_and_a_good_line(text, place):
    with pytest.raises(BadWindow) as refused:
        hours.week(text)

    assert refused.value.field == "window_hours"
    assert str(refused.value).startswith(place)
    assert any(hours.week(re.search(r'A good one: "(.+)"\.$', str(refused.value))[1]))


@once
@given(st.text(alphabet="monfritusa0123456789:-,; \n", max_size=40))
def test_any_other_text_is_refused_and_nothing_else_happens(text):
    try:
        week = hours.week(text)
    except BadWindow:
        return
    assert any(week)


# ---- closed dates ----


@once
def test_dates_are_listed_singly_or_from_the_first_to_the_last():
    assert hours.dates("2026-12-24, 2026-12-30 to 2027-01-02; 2027-04-01 2027-04-02\n") == {
        date(2026, 12, 24),
        date(2026, 12, 30),
        date(2026, 12, 31),
        date(2027, 1, 1),
        date(2027, 1, 2),
        date(2027, 4, 1),
        date(2027, 4, 2),
    }
    assert hours.dates(" ") == frozenset()


@once
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("24.12.2026", '"24.12.2026" is no date'),
        ("2026-02-30", '"2026-02-30" is no date'),
        ("9999-12-31", '"9999-12-31" is no date'),
        ("2026-12-24, tomorrow", '"tomorrow" is no date'),
        ("2026-12-24 to Easter", '"Easter" is no date'),
        ("2026-12-24 to", '"to" is no date'),
        ("2026-12-24 to 2026-12-20", '"2026-12-24 to 2026-12-20" does not end'),
        ("2026-12-24 to 2199-12-24", '"2026-12-24 to 2199-12-24" does not end'),
    ],
)
def test_dates_that_make_no_sense_are_refused_with_the_place_and_good_ones(text, place):
    with pytest.raises(BadWindow) as refused:
        hours.dates(text)

    assert refused.value.field == "closed_dates"
    assert str(refused.value).startswith(place)
    assert hours.dates(re.search(r'A good one: "(.+)"\.$', str(refused.value))[1])


# ---- the settings together ----


def settings_of(text=OFFICE, zone="Europe/Zurich", own=False, field="time_zone", country="", part="", closed=""):
    return WindowSettings(text, zone, own, field, country, part, closed)


@once
def test_without_hours_holidays_and_dates_there_is_no_window():
    assert settings_of("").window(NOW) is None
    assert settings_of(" \n").window(NOW) is None


@once
def test_with_closed_dates_alone_the_other_days_are_open_from_midnight_to_midnight():
    window = settings_of("", closed="2026-11-25").window(NOW)

    opening = window.openings(NOW, ZURICH)
    assert next(opening) == (NOW, datetime(2026, 11, 25, tzinfo=ZURICH))
    assert next(opening) == (datetime(2026, 11, 26, tzinfo=ZURICH), None)


@once
def test_holidays_are_those_of_the_country_its_part_and_the_next_two_years():
    def closed(country, part=""):
        return settings_of(country=country, part=part).window(NOW).closed

    swiss, zurich = closed("CH"), closed("ch", "zh")
    assert {date(2026, 12, 25), date(2027, 1, 1), date(2027, 8, 1), date(2028, 8, 1)} <= swiss
    assert date(2027, 5, 1) in zurich - swiss  # Labour Day, a holiday of Zurich and not of every canton
    assert closed("CH", "ZH") == zurich
    assert date(2027, 7, 4) in closed("US") - swiss
    for found in (swiss, zurich):
        assert NOW.date() - timedelta(days=1) <= min(found)
        assert date(2028, 10, 1) > max(found) - timedelta(days=60)
        assert max(found) <= date(2028, 11, 25)


@once
def test_a_holiday_that_somewhere_is_still_today_is_there():
    new_year = datetime(2027, 1, 2, 3, tzinfo=UTC)

    assert date(2027, 1, 1) in settings_of(country="US").window(new_year).closed


@once
def test_holidays_and_closed_dates_are_closed_together():
    window = settings_of(country="CH", closed="2026-12-24").window(NOW)

    assert {date(2026, 12, 24), date(2026, 12, 25)} <= window.closed
    assert window.opens(datetime(2026, 12, 23, 20, tzinfo=ZURICH), ZURICH) == datetime(2026, 12, 26, 10, tzinfo=ZURICH)


@once
@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"text": "mon 9-25"}, "window_hours", '"25" is no time of a day'),
        ({"text": "", "own": True}, "window_hours", "Say which hours of his zone"),
        ({"zone": "Europe/Zürich"}, "window_zone", "Did you mean Europe/Zurich?"),
        ({"zone": "Mars/Olympus"}, "window_zone", "There is no time zone 'Mars/Olympus'"),
        ({"field": "time zone"}, "window_zone_field", 'A good one: "time_zone"'),
        ({"country": "XX"}, "holiday_country", 'for example "CH"'),
        ({"part": "ZH"}, "holiday_country", 'For example "CH"'),
        ({"country": "CH", "part": "ZZ"}, "holiday_subdivision", "write one of AG, AI, AR"),
        ({"country": "VA", "part": "ZZ"}, "holiday_subdivision", 'VA has no part "ZZ": leave it empty.'),
        ({"closed": "soon"}, "closed_dates", '"soon" is no date'),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_their_field_with_a_good_example(said, field, words):
    with pytest.raises(BadWindow) as refused:
        settings_of(**said).window(NOW)

    assert refused.value.field == field
    assert words in str(refused.value)


# ---- a workflow ----


@pytest.mark.django_db
def test_a_workflow_whose_window_makes_no_sense_is_not_valid_whoever_asks():
    workflow = cast.workflow(window_hours="mon-fry 9-17")

    with pytest.raises(ValidationError) as refused:
        workflow.full_clean()

    assert list(refused.value.message_dict) == ["window_hours"]


@pytest.mark.django_db
def test_a_workflow_without_a_window_freezes_none():
    run = cast.initialized(cast.workflow())

    assert Message.objects.get(batch=run.batch).window is None
    assert run.frozen["window"] is None


@pytest.mark.django_db
def test_a_run_keeps_the_window_as_it_was_with_the_holidays_as_dates():
    workflow = cast.workflow(
        window_hours="weekdays 9-17",
        window_zone="Asia/Tokyo",
        window_per_recipient=True,
        window_zone_field="tz",
        holiday_country="JP",
        closed_dates="2027-06-01",
    )

    run = cast.initialized(workflow)
    Workflow.objects.update(window_hours="", holiday_country="")

    kept = Message.objects.get(batch=run.batch).window
    window = Window.of(kept)
    assert kept == run.frozen["window"] == window.as_json()
    assert (window.week, window.zone) == (hours.week("mon-fri 9-17"), "Asia/Tokyo")
    assert (window.per_recipient, window.zone_field) == (True, "tz")
    assert date(2027, 6, 1) in window.closed
    assert len(window.closed) > 30  # Japan has sixteen a year


@pytest.mark.django_db
def test_an_empty_zone_is_the_installations_and_an_empty_field_the_usual_one(settings):
    settings.TIME_ZONE = "America/Bogota"
    run = cast.initialized(cast.workflow(window_hours="mon 9-17", window_zone="", window_zone_field=""))

    window = Window.of(Message.objects.get(batch=run.batch).window)
    assert (window.zone, window.zone_field) == ("America/Bogota", "time_zone")


@pytest.mark.django_db
def test_a_test_run_does_not_wait_for_the_window():
    run = cast.initialized(cast.workflow(window_hours="mon 9-17"), test_limit=1)

    assert Message.objects.get(batch=run.batch).window is None


@pytest.mark.django_db
def test_a_run_whose_window_has_come_to_make_no_sense_fails_and_says_where():
    workflow = cast.workflow(window_hours="mon 9-17")
    Workflow.objects.update(holiday_country="XX")

    run = cast.initialized(workflow)

    assert run.state == RunState.FAILED
    assert 'The sending window of workflow letters makes no sense. Of "XX" no holidays are known' in run.error


@pytest.mark.django_db(transaction=True)
def test_what_a_run_sends_waits_for_the_window():
    today = datetime.now(UTC).date()
    closed = f"{today} to {today + timedelta(days=2)}"
    run = cast.initialized(cast.workflow(closed_dates=closed, window_zone="UTC"))

    pump(run.batch_id, until=Until.IDLE)

    waits_until = datetime(today.year, today.month, today.day, tzinfo=UTC) + timedelta(days=3)
    assert set(Delivery.objects.values_list("state", "not_before")) == {("waiting", waits_until)}
    assert cast.fresh(run).state == RunState.SENDING
    assert cast.kept_for("letters-pool") == []


# ---- the admin ----


@pytest.fixture
def root(db) -> Client:
    client = Client()
    client.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
    return client


def saved(root, workflow, **changes):
    """The answer to a workflow's form with these changes."""
    form = {
        "name": workflow.name,
        "slug": workflow.slug,
        "audience": workflow.audience_id,
        "pool": workflow.pool_id,
        "from_address": workflow.from_address,
        "priority": 0,
        "start": "checked",
        "on_uncertain": "hold",
        "on_render_error": "stop",
        "window_zone": "Europe/Zurich",
        "window_zone_field": "time_zone",
        "steps-TOTAL_FORMS": 1,
        "steps-INITIAL_FORMS": 1,
        "steps-0-id": workflow.steps.get().pk,
        "steps-0-workflow": workflow.pk,
        "steps-0-template": Template.objects.get().pk,
    }
    return root.post(f"/admin/campaigns/workflow/{workflow.pk}/change/", form | changes)


def test_a_window_is_saved_and_its_page_says_what_it_comes_to(root):
    workflow = cast.workflow()

    answer = saved(root, workflow, window_hours=OFFICE, holiday_country="CH", closed_dates="2099-12-24")

    page = html.unescape(root.get(f"/admin/campaigns/workflow/{workflow.pk}/change/").content.decode())
    assert answer.status_code == 302
    assert "Monday-Friday 09:00-12:00, 13:00-17:30; Saturday 10:00-14:00, by the clock of Europe/Zurich." in page
    assert re.search(r"Closed on \w{3} 20\d\d-\d\d-\d\d, .+ and \d+ more\.", page)
    assert re.search(r"Open: (now|\w{3} [-0-9]{10} [:0-9]{5}) to .+, then .+ to .+, then .+ to [:0-9]{5}\.", page)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"window_hours": "mon-fry 9-17"}, "window_hours", f'A good one: "{OFFICE}".'),
        ({"window_hours": OFFICE, "window_zone": "Zurich"}, "window_zone", "Europe/Zurich"),
        ({"holiday_country": "XX"}, "holiday_country", 'for example "CH" for Switzerland'),
        ({"holiday_country": "CH", "holiday_subdivision": "ZZ"}, "holiday_subdivision", "write one of AG, AI"),
        ({"closed_dates": "Easter"}, "closed_dates", f'A good one: "{hours.EXAMPLE_OF_DATES}".'),
    ],
)
def test_nonsense_is_refused_at_its_field_with_a_good_example_and_nothing_is_saved(root, changes, field, words):
    workflow = cast.workflow()

    answer = saved(root, workflow, name="Renamed", **changes)

    errors = answer.context["adminform"].form.errors
    assert list(errors) == [field]
    assert words in errors[field][0]
    assert Workflow.objects.get().name == workflow.name


def test_a_new_workflow_has_the_fields_and_nothing_to_say_yet(root):
    page = html.unescape(root.get("/admin/campaigns/workflow/add/").content.decode())

    assert 'name="window_hours"' in page
    assert "As it is saved" not in page


@pytest.mark.django_db
def test_the_words_say_the_next_three_openings_and_the_next_closed_dates():
    workflow = cast.workflow(
        window_hours=OFFICE,
        window_zone="Europe/Zurich",
        closed_dates="2026-11-25, 2026-11-01",
        window_per_recipient=True,
    )

    assert window_in_words(workflow, NOW) == (
        "Monday-Friday 09:00-12:00, 13:00-17:30; Saturday 10:00-14:00, by the clock of the zone in each recipient's "
        "time_zone, else of Europe/Zurich.<br>"
        "Closed on Wed 2026-11-25.<br>"
        "Open in Europe/Zurich: now to 12:00, then Tue 2026-11-24 13:00 to 17:30, then Thu 2026-11-26 09:00 to 12:00."
    ).replace("'", "&#x27;")


@pytest.mark.django_db
def test_the_words_of_no_window_of_a_night_and_of_all_days():
    workflow = cast.workflow(window_zone="UTC")

    assert window_in_words(workflow, NOW) == AT_ANY_HOUR
    workflow.window_hours = "tue 22-2"
    assert "Open: Tue 2026-11-24 22:00 to Wed 2026-11-25 02:00, then Tue 2026-12-01" in window_in_words(workflow, NOW)
    workflow.window_hours = "daily 0-24"
    assert window_in_words(workflow, NOW).endswith("Open: now and ever after.")
