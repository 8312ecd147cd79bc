"""Schedules over REST: what is shown, done and refused, and with which status."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Permission, User
from rest_framework.test import APIClient

from campaigns import scheduling
from campaigns.firing import fire_due
from campaigns.models import Run, Schedule, Workflow
from delivery.queue import database_now
from tests.campaigns import cast
from tests.problems import detail, errors

pytestmark = pytest.mark.django_db(transaction=True)

SCHEDULES = "/api/v1/schedules/"
COUNTED = {"unit": "weeks", "anchor": "2027-01-01T09:00"}
EDITING = ("view_schedule", "add_schedule", "change_schedule", "delete_schedule")


def client(name: str, *permissions: str) -> APIClient:
    """Somebody who may do just this."""
    user = User.objects.create(username=name)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="campaigns", codename__in=permissions))
    signed_in = APIClient()
    signed_in.force_login(user)
    return signed_in


@pytest.fixture
def operator() -> APIClient:
    return client("ada", *EDITING, "send_workflow")


@pytest.fixture
def letters() -> Workflow:
    return cast.workflow()


def weekdays(workflow: Workflow, **fields: object) -> dict[str, object]:
    body = {"workflow": workflow.pk, "name": "weekdays", "cron": "0 9 * * 1-5", "time_zone": "Europe/Zurich"}
    return body | fields


def url(schedule: Schedule, deed: str = "") -> str:
    return f"{SCHEDULES}{schedule.pk}/" + (f"{deed}/" if deed else "")


def test_a_schedule_is_set_up_and_shown_in_words_with_its_next_ten_slots(operator, letters):
    answer = operator.post(SCHEDULES, weekdays(letters, starts_at="2027-03-25T00:00"), format="json")

    shown = answer.json()
    assert answer.status_code == 201
    assert {name: shown[name] for name in ("name", "kind", "workflow_slug", "paused", "in_words", "next_at")} == {
        "name": "weekdays",
        "kind": "cron",
        "workflow_slug": "letters",
        "paused": False,
        "in_words": "every weekday at 09:00, Europe/Zurich, not before 2027-03-25 00:00",
        "next_at": "2027-03-25T08:00:00Z",
    }
    assert shown["next_slots"] == [
        "2027-03-25T09:00:00+01:00",
        "2027-03-26T09:00:00+01:00",
        *(f"2027-03-{day}T09:00:00+02:00" for day in (29, 30, 31)),
        *(f"2027-04-0{day}T09:00:00+02:00" for day in (1, 2, 5, 6, 7)),
    ]
    assert operator.get(url(Schedule.objects.get())).json() == shown


def test_every_kind_is_set_up_with_times_by_its_zones_clock_or_with_an_offset(operator, letters):
    bodies = [
        {"name": "once", "kind": "once", "at": "2027-03-01T09:00", "time_zone": "Asia/Kathmandu"},
        {
            "name": "interval",
            "kind": "interval",
            "every": 90,
            "unit": "minutes",
            "anchor": "2027-03-01T09:00+01:00",
            "time_zone": "Asia/Kathmandu",
        },
    ]

    answers = [operator.post(SCHEDULES, {"workflow": letters.pk} | body, format="json") for body in bodies]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert [schedule.next_at for schedule in Schedule.objects.order_by("pk")] == [
        datetime(2027, 3, 1, 3, 15, tzinfo=UTC),
        datetime(2027, 3, 1, 8, tzinfo=UTC),
    ]


def test_schedules_are_listed_with_their_next_slot_and_without_all_the_others(operator, letters):
    operator.post(SCHEDULES, weekdays(letters), format="json")
    operator.post(SCHEDULES, weekdays(letters, name="paused", paused=True), format="json")

    listed = operator.get(SCHEDULES).json()["results"]

    assert [(each["name"], each["next_at"] is None) for each in listed] == [("weekdays", False), ("paused", True)]
    assert "next_slots" not in listed[0]


def test_a_change_counts_from_now_and_another_kind_empties_the_fields_of_the_old_one(operator, letters):
    schedule = Schedule.objects.get(pk=operator.post(SCHEDULES, weekdays(letters), format="json").json()["id"])
    before = database_now()

    answer = operator.patch(url(schedule), {"kind": "once", "at": "2027-03-01T09:00"}, format="json")

    changed = Schedule.objects.get()
    assert answer.status_code == 200
    assert (changed.kind, changed.cron, changed.in_words()) == ("once", "", "once, 2027-03-01 09:00, Europe/Zurich")
    assert changed.checked_until >= before
    assert [event.what for event in changed.events.all()] == ["set up", "changed: kind, at, cron"]


def test_a_schedule_is_paused_resumed_and_deleted_with_who_and_why(operator, letters):
    schedule = Schedule.objects.get(pk=operator.post(SCHEDULES, weekdays(letters), format="json").json()["id"])

    answers = [
        operator.post(url(schedule, deed), {"why": f"to {deed}"}, format="json")
        for deed in ("pause", "pause", "resume", "resume")
    ]
    events = list(schedule.events.values_list("what", "by", "why"))
    deleted = operator.delete(url(schedule))

    assert [answer.status_code for answer in answers] == [200, 409, 200, 409]
    assert [answer.json()["paused"] for answer in answers[::2]] == [True, False]
    assert "is paused already" in answers[1].json()["detail"]
    assert events[1:] == [("paused", "ada", "to pause"), ("resumed", "ada", "to resume")]
    assert (deleted.status_code, Schedule.objects.count()) == (204, 0)


def test_its_slots_and_its_history_come_in_pages(operator, letters):
    now = database_now()
    schedule = Schedule(workflow=letters, name="minutes", cron="* * * * *", late_policy="skip", late_grace_seconds=60)
    scheduling.save(schedule, by="ada", now=now - timedelta(minutes=5))
    fire_due(now)
    scheduling.pause(schedule, "grace", "enough")

    first = operator.get(url(schedule, "slots") + "?page_size=3").json()
    second = operator.get(first["next"]).json()
    history = operator.get(url(schedule, "events")).json()["results"]

    slots = first["results"] + second["results"]
    assert [slot["outcome"] for slot in slots] == ["fired", *["skipped"] * 4]
    assert sorted((slot["at"] for slot in slots), reverse=True) == [slot["at"] for slot in slots]
    assert [(event["what"], event["by"], event["why"]) for event in history] == [
        ("set up", "ada", ""),
        ("paused", "grace", "enough"),
    ]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("workflow=letters", ["a", "b"]),
        ("workflow=offers", []),
        ("paused=true", ["b"]),
        ("paused=false", ["a"]),
        ("kind=cron&paused=false", ["a"]),
        ("kind=once", []),
        ("search=letters", ["a", "b"]),
        ("ordering=-name", ["b", "a"]),
    ],
)
def test_schedules_are_found_by_what_they_are(operator, letters, query, found):
    cast.workflow("offers")
    operator.post(SCHEDULES, weekdays(letters, name="a"), format="json")
    operator.post(SCHEDULES, weekdays(letters, name="b", paused=True), format="json")

    assert [each["name"] for each in operator.get(f"{SCHEDULES}?{query}").json()["results"]] == found


@pytest.mark.parametrize("query", ["paused=maybe", "kind=yearly", "workflow=nothing", "ordering=next_at", "nmae=a"])
def test_a_filter_that_cannot_be_understood_is_refused_by_name(operator, letters, query):
    answer = operator.get(f"{SCHEDULES}?{query}")

    assert (answer.status_code, list(errors(answer))) == (400, [query.partition("=")[0]])


def test_a_list_of_many_asks_no_more_than_one_of_few(letters, django_assert_num_queries):
    operator = client("viewer", "view_schedule")
    for name in range(5):
        schedule = Schedule(workflow=letters, name=str(name), cron="0 9 * * 1-5")
        scheduling.save(schedule, by="ada", now=database_now())

    # The session, its user, his permissions and those of his groups, the schedules.
    with django_assert_num_queries(5):
        assert len(operator.get(SCHEDULES).json()["results"]) == 5


def test_two_who_take_a_name_at_once_are_one_who_has_it_and_one_who_is_told(letters):
    people = [client(name, "add_schedule", "send_workflow") for name in ("ada", "grace")]

    answers = cast.side_by_side(2, lambda number: people[number].post(SCHEDULES, weekdays(letters), format="json"))

    assert sorted(answer.status_code for answer in answers) == [201, 400]
    assert Schedule.objects.count() == 1


def test_what_became_of_the_last_slots_is_shown_with_their_runs(operator, letters):
    now = database_now()
    schedule = Schedule(workflow=letters, name="minutes", cron="* * * * *", late_policy="skip", late_grace_seconds=60)
    scheduling.save(schedule, by="ada", now=now - timedelta(minutes=5))
    fire_due(now)

    last = operator.get(url(schedule)).json()["last_slots"]

    assert [(slot["outcome"], slot["run"]) for slot in last] == [
        ("fired", Run.objects.get().pk),
        *[("skipped", None)] * 4,
    ]
    assert all("missed slots are skipped" in slot["reason"] for slot in last[1:])


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        ({"cron": "0 9 * *"}, "cron", 'A good line: "0 9 * * 1-5", every weekday at 09:00.'),
        ({"cron": "0 0 9 * * 1-5"}, "cron", "Seconds cannot be said."),
        ({"cron": "0 9 * * FUN"}, "cron", "The day of the week 'FUN' makes no sense: 0 to 7 or SUN to SAT"),
        ({"time_zone": "Zurich"}, "time_zone", "There is no time zone 'Zurich'. Did you mean Europe/Zurich?"),
        ({"starts_at": "tomorrow"}, "starts_at", "A good one: 2027-03-01T09:00"),
        ({"starts_at": "2027-03-28T02:30"}, "starts_at", "Choose another time, such as 2027-03-28 03:00."),
        ({"starts_at": "9999-12-31T23:59"}, "starts_at", "A year from 2000 to 2099, not 9999"),
        ({"starts_at": "0001-01-01T00:00+14:00"}, "starts_at", "A year from 2000 to 2099, not 1:"),
        ({"starts_at": "2027-03-02T00:00", "ends_at": "2027-03-01T00:00"}, "ends_at", "choose a later end"),
        ({"kind": "yearly"}, "kind", '"yearly" is none of once, interval, cron.'),
        ({"kind": "interval", "cron": ""}, "every", "for example every 15 minutes"),
        ({"kind": "interval", "cron": "", "every": "x"}, "every", "A good one: 15."),
        ({"every": 15}, "every", "Only a schedule of the kind interval has this: leave it empty."),
        (
            {"kind": "interval", "cron": "", "every": 10**6} | COUNTED,
            "every",
            "1 to 522 weeks, not 1,000,000. A good one",
        ),
        ({"kind": "interval", "cron": "", "every": 0} | COUNTED, "every", "A good one: 15 minutes."),
        ({"late_policy": "some"}, "late_policy", '"some" is none of skip, run_once, run_all.'),
        ({"unit": "months"}, "unit", '"months" is none of minutes, hours, days, weeks.'),
        ({"workflow": 999}, "workflow", "There is no workflow 999: name one that is there"),
        ({"name": "taken"}, "name", "Choose another name: taken 2."),
        ({"crom": "0 9 * * *"}, "crom", "There is no such field. There is: workflow, name, kind, at,"),
        ({"next_at": "2027-01-01T00:00"}, "next_at", "This is shown and cannot be set."),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_at_its_place_with_a_good_example(operator, letters, change, place, words):
    operator.post(SCHEDULES, weekdays(letters, name="taken"), format="json")

    answer = operator.post(SCHEDULES, weekdays(letters) | change, format="json")

    refusal = errors(answer)
    assert (answer.status_code, list(refusal)) == (400, [place])
    assert words in "".join(refusal[place])
    assert Schedule.objects.count() == 1


def test_what_makes_no_sense_is_refused_in_a_change_too_and_changes_nothing(operator, letters):
    schedule = Schedule.objects.get(pk=operator.post(SCHEDULES, weekdays(letters), format="json").json()["id"])

    answers = [
        operator.patch(url(schedule), change, format="json")
        for change in ({"cron": "0 9"}, {"paused": True}, {"kind": "once"}, {"nope": 1})
    ]

    assert [(answer.status_code, list(errors(answer))) for answer in answers] == [
        (400, ["cron"]),
        (400, ["paused"]),
        (400, ["at"]),
        (400, ["nope"]),
    ]
    assert "POST to pause/" in detail(answers[1])
    assert Schedule.objects.values("cron", "paused", "kind").get() == {
        "cron": "0 9 * * 1-5",
        "paused": False,
        "kind": "cron",
    }


@pytest.mark.parametrize(
    "body", ["[]", "7", "null", '"x"', "{", '{"workflow": {"a": 1}, "name": [1]}', '{"cron": "\\u0000"}']
)
def test_a_body_of_another_shape_is_refused_and_no_server_error(operator, letters, body):
    assert operator.post(SCHEDULES, body, content_type="application/json").status_code == 400


def test_each_deed_needs_its_permission(letters):
    schedule = Schedule(workflow=letters, name="weekdays", cron="0 9 * * 1-5")
    scheduling.save(schedule, by="ada", now=database_now())
    people = {
        "nobody": APIClient(),
        "outsider": client("outsider"),
        "viewer": client("viewer", "view_schedule"),
        "editor": client("editor", "view_schedule", "change_schedule", "add_schedule"),
        "starter": client("starter", "view_schedule", "send_workflow"),
    }

    statuses = {
        name: [
            who.get(url(schedule)).status_code,
            who.post(SCHEDULES, weekdays(letters, name=name), format="json").status_code,
            who.patch(url(schedule), {"name": f"of {name}"}, format="json").status_code,
            who.post(url(schedule, "pause")).status_code,
            who.delete(url(schedule)).status_code,
        ]
        for name, who in people.items()
    }

    assert statuses == {
        "nobody": [401, 401, 401, 401, 401],
        "outsider": [403, 403, 403, 403, 403],
        "viewer": [200, 403, 403, 403, 403],
        "editor": [200, 201, 200, 403, 403],
        "starter": [200, 403, 403, 200, 403],
    }


def test_who_may_set_up_and_not_start_leaves_a_schedule_paused(letters):
    editor = client("editor", *EDITING)

    shown = editor.post(SCHEDULES, weekdays(letters), format="json").json()

    assert (shown["paused"], shown["next_at"]) == (True, None)
    assert "may not start runs" in Schedule.objects.get().events.last().why


@pytest.mark.parametrize("path", ["999/", "9999999999999999999/", "weekdays/"])
def test_what_is_not_there_is_not_found(operator, path):
    assert operator.get(f"{SCHEDULES}{path}").status_code == 404
