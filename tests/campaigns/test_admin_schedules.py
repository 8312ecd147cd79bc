"""The admin's schedules: set up with a look ahead, paused and resumed with a reason, followed slot by slot."""

import html
import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from campaigns import scheduling
from campaigns.firing import fire_due
from campaigns.models import Run, Schedule, ScheduleEvent, Slot, Workflow
from delivery.queue import database_now
from tests.campaigns import cast

pytestmark = pytest.mark.django_db

LIST = "/admin/campaigns/schedule/"
ADD = f"{LIST}add/"
PREVIEW = f"{LIST}preview/"
CONFIRMED = {"_form_submitted": "1"}


def signed_in(name: str, permissions: object = None) -> Client:
    user = User.objects.create(username=name, is_staff=True, is_superuser=permissions is None)
    if permissions is not None:
        user.user_permissions.set(permissions)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def root(db: None) -> Client:
    return signed_in("root")


@pytest.fixture
def viewer(db: None) -> Client:
    return signed_in("viewer", Permission.objects.filter(codename__startswith="view_"))


@pytest.fixture
def editor(db: None) -> Client:
    """May set everything up, and start nothing."""
    return signed_in("editor", Permission.objects.exclude(codename="send_workflow"))


@pytest.fixture
def letters(db: None) -> Workflow:
    return cast.workflow()


def text_of(response: HttpResponse) -> str:
    return html.unescape(response.content.decode())


def typed(workflow: Workflow, **fields: object) -> dict[str, object]:
    """What a browser sends: also the fields that another kind would need."""
    return {
        "workflow": workflow.pk,
        "name": "weekdays",
        "kind": "cron",
        "cron": "0 9 * * 1-5",
        "every": "",
        "unit": "minutes",
        "time_zone": "Europe/Zurich",
        "late_policy": "run_once",
        "late_grace_seconds": 120,
        **{f"{name}_{n}": "" for name in ("at", "anchor", "starts_at", "ends_at") for n in (0, 1)},
    } | fields


def errors_of(response: HttpResponse) -> dict[str, list[str]]:
    return response.context["adminform"].form.errors


def weekdays(workflow: Workflow, **fields: object) -> Schedule:
    values = {"name": "weekdays", "cron": "0 9 * * 1-5", "time_zone": "Europe/Zurich"} | fields
    schedule = Schedule(workflow=workflow, **values)
    scheduling.save(schedule, by="ada", now=database_now())
    return schedule


def page(schedule: Schedule) -> str:
    return f"{LIST}{schedule.pk}/change/"


def slots_of(fragment: str) -> list[str]:
    return re.findall(r"<li>(\w{3} [\d-]+ [\d:]+ \(UTC[+-]\d{4}\))</li>", fragment)


# ---- setting up ----


def test_a_schedule_is_set_up_and_its_first_slot_is_kept(root, letters):
    response = root.post(ADD, typed(letters, starts_at_0="2027-03-27", starts_at_1="00:00"))

    schedule = Schedule.objects.get()
    assert response.status_code == 302
    assert (schedule.cron, schedule.unit, schedule.paused) == ("0 9 * * 1-5", "", False)
    assert f"{schedule.next_at:%Y-%m-%d %H:%M %Z}" == "2027-03-29 07:00 UTC"
    assert [(event.what, event.by) for event in schedule.events.all()] == [("set up", "root")]


def test_times_are_by_the_clock_of_the_schedules_zone_and_are_shown_so_again(root, letters):
    fields = {"kind": "once", "time_zone": "Asia/Kathmandu", "at_0": "2027-03-01", "at_1": "09:00"}
    root.post(ADD, typed(letters, **fields))
    schedule = Schedule.objects.get()

    shown = text_of(root.get(page(schedule)))
    again = root.post(page(schedule), typed(letters, **fields, name="renamed"))

    assert f"{schedule.at:%Y-%m-%d %H:%M %Z}" == "2027-03-01 03:15 UTC"
    assert 'value="2027-03-01"' in shown
    assert re.search(r'name="at_1"[^>]*value="09:00(:00)?"|value="09:00(:00)?"[^>]*name="at_1"', shown)
    assert again.status_code == 302
    assert Schedule.objects.get().at == schedule.at
    assert ScheduleEvent.objects.last().what == "changed: name"


def test_a_page_that_is_saved_as_it_is_changes_nothing(root, letters):
    schedule = weekdays(letters, starts_at=timezone.now() + timedelta(days=10))
    starts = schedule.starts_at.replace(microsecond=0)
    Schedule.objects.update(starts_at=starts)
    form = root.get(page(schedule)).context["adminform"].form
    sent = {name: value for name, value in form.initial.items() if value is not None and not name.endswith("_at")}
    wall = form.initial["starts_at"]

    root.post(page(schedule), typed(letters) | sent | {"starts_at_0": f"{wall:%Y-%m-%d}", "starts_at_1": f"{wall:%H:%M:%S}"})  # noqa: E501  # fmt: skip

    assert Schedule.objects.get().starts_at == starts
    assert [event.what for event in schedule.events.all()] == ["set up", "saved"]


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"cron": "0 9 * *"}, {"cron": "five fields (minute, hour, day of the month, month, day of the week), not 4"}),
        ({"cron": "0 9 * * FUN"}, {"cron": "The day of the week 'FUN' makes no sense"}),
        ({"cron": ""}, {"cron": 'A good one: "0 9 * * 1-5", every weekday at 09:00.'}),
        ({"time_zone": "Europe/Zürich"}, {"time_zone": "Did you mean Europe/Zurich?"}),
        ({"time_zone": ""}, {"time_zone": "required"}),
        ({"kind": "once"}, {"at": "for example 2027-03-01 09:00"}),
        ({"kind": "once", "at_0": "soon", "at_1": "09:00"}, {"at": "valid date"}),
        ({"kind": "once", "at_0": "2027-03-28", "at_1": "02:30"}, {"at": "another time, such as 2027-03-28 03:00"}),
        ({"kind": "once", "at_0": "2020-03-01", "at_1": "09:00"}, {"at": "Choose a later time, such as"}),
        ({"kind": "once", "at_0": "9999-12-31", "at_1": "23:59"}, {"at": "A year from 2000 to 2099"}),
        ({"kind": "interval", "every": "15"}, {"anchor": "for example 2027-03-01 09:00"}),
        ({"kind": "interval", "every": "0", "anchor_0": "2027-03-01", "anchor_1": "09:00"}, {"every": "15 minutes"}),
        ({"late_grace_seconds": "5"}, {"late_grace_seconds": "greater than or equal to 30"}),
        ({"name": "taken"}, {"name": "Choose another name: taken 2."}),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_at_its_field_once_and_with_a_good_example(root, letters, fields, errors):
    weekdays(letters, name="taken")

    response = root.post(ADD, typed(letters, **fields))

    found = errors_of(response)
    assert {name: len(told) for name, told in found.items()} == dict.fromkeys(errors, 1)
    assert all(words in found[name][0] for name, words in errors.items())
    assert Schedule.objects.count() == 1


def test_what_was_typed_for_another_kind_is_of_no_matter(root, letters):
    response = root.post(ADD, typed(letters, every="nonsense", at_0="soon", anchor_0="2020-02-30"))

    assert response.status_code == 302
    assert Schedule.objects.get().every is None


# ---- the look ahead ----


def test_the_form_is_said_in_words_with_its_next_ten_slots_before_it_is_saved(root, letters):
    fragment = text_of(root.post(PREVIEW, typed(letters, name="", starts_at_0="2027-03-25", starts_at_1="00:00")))

    assert "Runs <b>every weekday at 09:00, Europe/Zurich, not before 2027-03-25 00:00</b>." in fragment
    assert slots_of(fragment) == [
        "Thu 2027-03-25 09:00 (UTC+0100)",
        "Fri 2027-03-26 09:00 (UTC+0100)",
        "Mon 2027-03-29 09:00 (UTC+0200)",
        "Tue 2027-03-30 09:00 (UTC+0200)",
        "Wed 2027-03-31 09:00 (UTC+0200)",
        "Thu 2027-04-01 09:00 (UTC+0200)",
        "Fri 2027-04-02 09:00 (UTC+0200)",
        "Mon 2027-04-05 09:00 (UTC+0200)",
        "Tue 2027-04-06 09:00 (UTC+0200)",
        "Wed 2027-04-07 09:00 (UTC+0200)",
    ]
    assert Schedule.objects.count() == 0


def test_the_look_ahead_says_what_makes_no_sense_and_when_nothing_is_to_come(root, letters):
    wrong = text_of(root.post(PREVIEW, typed(letters, cron="0 25 * * *")))
    over = text_of(root.post(PREVIEW, typed(letters, name="", ends_at_0="2020-01-01", ends_at_1="00:00")))

    assert "<b>Cron line:</b> The hour '25' makes no sense: 0 to 23" in wrong
    assert "No slot is to come." in over


def test_the_look_ahead_of_a_schedule_that_is_there_changes_nothing(root, letters):
    schedule = weekdays(letters)

    fragment = text_of(root.post(f"{PREVIEW}?schedule={schedule.pk}", typed(letters, cron="@hourly")))

    assert len(slots_of(fragment)) == 10
    assert Schedule.objects.get().cron == "0 9 * * 1-5"


def test_only_who_may_edit_looks_ahead_and_only_by_post(root, viewer, letters):
    statuses = [
        viewer.post(PREVIEW, typed(letters)).status_code,
        root.get(PREVIEW).status_code,
        root.post(f"{PREVIEW}?schedule=999", typed(letters)).status_code,
        root.post(f"{PREVIEW}?schedule=x", {}).status_code,
    ]

    assert statuses == [403, 405, 404, 200]


# ---- what is shown ----


def test_the_list_shows_when_it_runs_next_and_what_ran_last(root, letters):
    schedule = weekdays(letters, cron="0 9 * * *", starts_at=timezone.now() + timedelta(days=1))
    weekdays(letters, name="paused", paused=True)
    run = cast.queued(letters)
    Slot.objects.create(schedule=schedule, at=timezone.now(), run=run)

    shown = text_of(root.get(LIST))

    assert re.search(r"every day at 09:00, Europe/Zurich, not before", shown)
    assert re.search(r"\w{3} [\d-]{10} 09:00 Europe/Zurich", shown)
    assert f"Run {run.pk}</a>, queued" in shown
    assert shown.count("never") >= 1
    assert "paused" in shown


def test_the_list_does_not_ask_once_for_each_row(root, letters, django_assert_max_num_queries):
    for number in range(20):
        weekdays(letters, name=f"schedule {number}")

    with django_assert_max_num_queries(12):
        root.get(LIST)


def test_an_empty_list_says_what_it_is_for(root):
    assert "A schedule runs a workflow by itself" in text_of(root.get(LIST))


def test_a_page_tells_what_became_of_each_slot_and_what_was_done(root, viewer, letters):
    now = database_now()
    schedule = Schedule(workflow=letters, name="minutes", cron="* * * * *", late_policy="skip", late_grace_seconds=60)
    scheduling.save(schedule, by="ada", now=now - timedelta(minutes=3))
    fire_due(now)
    scheduling.pause(schedule, "bob", "enough")

    for client in (root, viewer):
        shown = text_of(client.get(page(schedule)))

        assert shown.count("and missed slots are skipped.") == 2
        assert f'href="/admin/campaigns/run/{Run.objects.get().pk}/change/"' in shown
        assert "<b>paused</b> by bob: enough" in shown
        assert "No slot makes a run until somebody resumes it." in shown


def test_who_may_only_look_sees_the_words_and_the_next_slots_and_no_form(viewer, letters):
    shown = text_of(viewer.get(page(weekdays(letters))))

    assert "Runs <b>every weekday at 09:00, Europe/Zurich</b>." in shown
    assert len(slots_of(shown)) == 10
    assert 'name="cron"' not in shown


def test_a_schedule_whose_zone_is_none_any_more_can_still_be_opened_and_mended(root, letters):
    schedule = weekdays(letters)
    Schedule.objects.update(time_zone="Europe/Atlantis")

    opened, listed = root.get(page(schedule)), root.get(LIST)
    mended = root.post(page(schedule), typed(letters))

    assert (opened.status_code, listed.status_code, mended.status_code) == (200, 200, 302)
    assert "There is no time zone 'Europe/Atlantis'." in text_of(listed)
    assert Schedule.objects.get().time_zone == "Europe/Zurich"


def test_a_workflows_page_leads_to_its_schedules(root, letters):
    bare = text_of(root.get(f"/admin/campaigns/workflow/{letters.pk}/change/"))
    schedule = weekdays(letters)

    shown = text_of(root.get(f"/admin/campaigns/workflow/{letters.pk}/change/"))

    assert "It runs only when somebody starts it." in bare
    assert f'href="{page(schedule)}">weekdays</a>: every weekday at 09:00, Europe/Zurich' in shown
    assert f'href="{ADD}?workflow={letters.pk}"' in shown


def test_the_menu_leads_to_schedules_for_who_may_see_them(viewer):
    assert f'href="{LIST}"' in text_of(viewer.get("/admin/"))
    assert f'href="{LIST}"' not in text_of(signed_in("outsider", []).get("/admin/"))


# ---- what a person may do ----


def test_a_schedule_is_paused_and_resumed_with_a_reason(root, letters):
    schedule = weekdays(letters)
    states = []

    for deed in ("pause", "resume"):
        root.get(f"{LIST}{schedule.pk}/{deed}/")  # asks, and does nothing
        root.post(f"{LIST}{schedule.pk}/{deed}/", CONFIRMED | {"why": f"to {deed}"})
        states.append(Schedule.objects.get().paused)

    assert states == [True, False]
    assert list(schedule.events.values_list("what", "by", "why"))[1:] == [
        ("paused", "root", "to pause"),
        ("resumed", "root", "to resume"),
    ]


def test_only_what_is_possible_is_offered_and_only_to_who_may_start_runs(root, editor, letters):
    schedule = weekdays(letters)

    def offers(client: Client) -> list[str]:
        shown = text_of(client.get(page(schedule)))
        return [deed for deed in ("pause", "resume") if f"{LIST}{schedule.pk}/{deed}/" in shown]

    on = offers(root), offers(editor)
    scheduling.pause(schedule, "ada")

    assert on == (["pause"], [])
    assert (offers(root), offers(editor)) == (["resume"], [])


def test_a_deed_that_has_become_impossible_is_explained(root, letters):
    schedule = weekdays(letters)

    response = root.post(f"{LIST}{schedule.pk}/resume/", CONFIRMED, follow=True)

    assert "is not paused" in text_of(response)


def test_who_may_not_start_runs_may_set_up_and_leaves_it_paused(editor, letters):
    refused = editor.post(f"{LIST}{weekdays(letters, name='on').pk}/pause/", CONFIRMED)
    response = editor.post(ADD, typed(letters), follow=True)

    assert refused.status_code == 403
    assert Schedule.objects.get(name="weekdays").paused
    assert "It is paused: who may start runs has to resume it." in text_of(response)


def test_a_schedule_can_be_deleted_with_its_slots_and_its_runs_stay(root, letters):
    schedule = weekdays(letters)
    run = cast.queued(letters)
    Slot.objects.create(schedule=schedule, at=timezone.now(), run=run)

    root.post(f"{LIST}{schedule.pk}/delete/", {"post": "yes"})

    assert (Schedule.objects.count(), Slot.objects.count(), Run.objects.count()) == (0, 0, 1)
