"""Workflows over REST: set up and changed with their steps, and refused where they make no sense, as in the admin."""

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from campaigns.models import Schedule, Step, Workflow
from campaigns.sequence import NO_DEADLINE, NO_DEADLINE_AFTER_ANOTHER, NO_STEP
from delivery.models import Engine
from tests.campaigns import cast
from tests.campaigns.test_api_schedules import client
from tests.problems import detail, errors

pytestmark = pytest.mark.django_db(transaction=True)

WORKFLOWS = "/api/v1/workflows/"


@pytest.fixture
def operator() -> APIClient:
    return client("ada", "view_workflow", "add_workflow", "change_workflow")


@pytest.fixture
def letters() -> Workflow:
    return cast.workflow()


def body(**fields: object) -> dict[str, object]:
    """A workflow of what `letters` is made of."""
    return {
        "name": "Reminders",
        "slug": "reminders",
        "audience": "letters-friends",
        "pool": "letters-pool",
        "from_address": "letters@sender.example",
        "steps": [{"template": "letters-news"}],
    } | fields


def steps(*changes: dict[str, object]) -> list[dict[str, object]]:
    return [{"template": "letters-news"} | change for change in changes]


def url(workflow: Workflow) -> str:
    return f"{WORKFLOWS}{workflow.pk}/"


def state(workflow: Workflow) -> tuple[object, ...]:
    """All that is kept of a workflow and its steps."""
    return Workflow.objects.filter(pk=workflow.pk).values().get(), list(Step.objects.order_by("pk").values())


# ---- set up and changed ----


def test_a_workflow_is_set_up_with_all_its_steps_in_one_request(operator, letters):
    composer = Engine.objects.create(name="Writer", slug="writer", kind="mock_composer")
    second = {"after": "1 not opened", "delay": "3 days", "condition": 'city == "Oslo"', "thread": False}
    timed = {"deadline_minutes": 120, "on_late": "send", "lead_seconds": 60}
    written = {"composer": "writer", "prompt": "Write to {{ name }}.", "review": True}
    window = {"window_hours": "mon-fri 9-17", "window_zone": "Europe/Zurich", "holiday_country": "CH"}

    answer = operator.post(WORKFLOWS, body(steps=steps({}, second | timed | written), **window), format="json")

    shown = answer.json()
    assert answer.status_code == 201
    assert {name: shown[name] for name in (*window, "audience_slug", "pool_slug", "stop_on_reply", "on_failed")} == {
        **window,
        "audience_slug": "letters-friends",
        "pool_slug": "letters-pool",
        "stop_on_reply": True,
        "on_failed": "skip",
    }
    template = letters.steps.get().template_id
    usual = {"after": "", "delay": "", "condition": "", "deadline_minutes": None, "on_late": "expire"}
    usual |= {"lead_seconds": None, "thread": True, "composer": None, "prompt": "", "review": False}
    assert shown["steps"] == [
        {"position": 1, "template": template, **usual},
        {"position": 2, "template": template, **second, **timed, **written, "composer": composer.pk},
    ]
    made = Workflow.objects.get(slug="reminders")
    assert operator.get(url(made)).json() == operator.get(f"{WORKFLOWS}reminders/").json() == shown


def test_a_change_is_of_what_it_names_and_leaves_the_steps_alone(operator, letters):
    cast.add_step(letters, 2, after="1", delay="3 days")
    before = list(letters.steps.values())

    answer = operator.patch(url(letters), {"name": "Briefe", "stop_on_bounce": False}, format="json")

    letters.refresh_from_db()
    assert answer.status_code == 200
    assert (answer.json()["name"], letters.name, letters.stop_on_bounce) == ("Briefe", "Briefe", False)
    assert (letters.stop_on_reply, letters.from_name) == (True, "Letters")
    assert list(letters.steps.values()) == before


def test_steps_are_written_as_a_whole_and_are_the_ones_that_had_their_numbers(operator, letters):
    for position in (2, 3):
        cast.add_step(letters, position, after="1", delay="3 days")
    one, two, three = letters.steps.values_list("pk", flat=True)

    answer = operator.patch(
        url(letters), {"steps": steps({"position": 3, "delay": "1 hour", "after": "1"}, {"position": 1}, {})},
        format="json",
    )  # fmt: skip

    kept = {step.position: step for step in letters.steps.all()}
    assert answer.status_code == 200
    assert [step["position"] for step in answer.json()["steps"]] == list(kept) == [1, 3, 4]
    assert (kept[1].pk, kept[3].pk) == (one, three)
    assert kept[4].pk not in (one, two, three)
    assert (kept[3].delay, kept[3].after, kept[4].delay) == ("1 hour", "1", "")


def test_what_is_left_out_of_a_step_is_as_usual(operator, letters):
    cast.add_step(letters, 2, after="1", delay="3 days", condition="name", deadline_minutes=5, thread=False)

    operator.patch(url(letters), {"steps": steps({}, {})}, format="json")

    second = letters.steps.get(position=2)
    assert (second.after, second.delay, second.condition) == ("", "", "")
    assert (second.deadline_minutes, second.thread) == (None, True)


def test_steps_can_be_sent_back_as_they_were_shown(operator, letters):
    cast.add_step(letters, 2, after="1 not opened", delay="3 days", deadline_minutes=5, lead_seconds=1.5)
    before = list(letters.steps.values())

    answer = operator.patch(url(letters), {"steps": operator.get(url(letters)).json()["steps"]}, format="json")

    assert answer.status_code == 200
    assert list(letters.steps.values()) == before


def test_others_are_named_by_their_slug_or_their_id(operator, letters):
    template = letters.steps.get().template

    answers = [
        operator.post(WORKFLOWS, body(name=name, slug=name, **others), format="json")
        for name, others in {
            "ids": {"audience": letters.audience_id, "pool": letters.pool_id, "steps": [{"template": template.pk}]},
            "words": {"audience": str(letters.audience_id), "pool": str(letters.pool_id)},
            "slugs": {},
        }.items()
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 201]
    made = Workflow.objects.exclude(pk=letters.pk)
    assert set(made.values_list("audience", "pool", "steps__template")) == {
        (letters.audience_id, letters.pool_id, template.pk)
    }


def test_a_workflow_that_was_set_up_can_run(operator, letters, output_dir):
    operator.post(WORKFLOWS, body(steps=steps({}, {"after": "1", "condition": "city == 'Oslo'"})), format="json")

    run = cast.ended(Workflow.objects.get(slug="reminders"))

    assert cast.nonzero(run.counts) == {"accepted": 4, "skipped": 2}


# ---- refused ----


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        ({"window_hours": "mon-fry 9-17"}, "window_hours", 'A good one: "mon-fri 09:00-12:00, 13:00'),
        ({"window_hours": "mon 9-25"}, "window_hours", '"25" is no time of a day'),
        ({"window_zone": "Europe/Zürich"}, "window_zone", "Did you mean Europe/Zurich?"),
        ({"window_zone": "Mars/Olympus"}, "window_zone", "There is no time zone 'Mars/Olympus'"),
        ({"window_per_recipient": True}, "window_hours", "Say which hours of his zone"),
        ({"window_zone_field": "time zone"}, "window_zone_field", 'A good one: "time_zone"'),
        ({"holiday_country": "XX"}, "holiday_country", 'for example "CH" for Switzerland'),
        ({"holiday_subdivision": "ZH"}, "holiday_country", 'For example "CH"'),
        ({"holiday_country": "CH", "holiday_subdivision": "ZZ"}, "holiday_subdivision", "write one of AG, AI, AR"),
        ({"closed_dates": "soon"}, "closed_dates", '"soon" is no date'),
        ({"from_address": "nobody"}, "from_address", "Not an address"),
        ({"reply_to": "a@b@c"}, "reply_to", "Not an address"),
        ({"start": "later"}, "start", '"later" is none of checked, at_once.'),
        ({"on_failed": "cry"}, "on_failed", '"cry" is none of skip, release.'),
        ({"on_uncertain": ""}, "on_uncertain", "is none of hold, "),
        ({"priority": "high"}, "priority", "This is no whole number. A good one: 120."),
        ({"time_limit_minutes": 0}, "time_limit_minutes", "greater than or equal to 1"),
        ({"gap_microseconds": 10**18}, "gap_microseconds", "less than or equal to 1000000000"),
        ({"audience": "nobody"}, "audience", "There is no audience 'nobody': name one that is there by its slug or"),
        ({"audience": 10**18}, "audience", "such as \"newsletter\" or 7."),
        ({"audience": True}, "audience", "There is no audience True"),
        ({"audience": [1]}, "audience", "There is no audience [1]"),
        ({"pool": "a b"}, "pool", "There is no pool"),
        ({"pool": None}, "pool", "may not be null"),
        ({"name": "Letters"}, "name", "Workflow with this Name already exists."),
        ({"slug": "letters"}, "slug", "Workflow with this Slug already exists."),
        ({"slug": "two words"}, "slug", "Enter a valid"),
        ({"slgu": "letters"}, "slgu", "There is no such field. There is: name, slug, audience,"),
        ({"id": 7}, "id", "This is shown and cannot be set."),
        ({"steps": []}, "steps", NO_STEP),
        ({"steps": None}, "steps", NO_STEP),
        ({"steps": {"template": "letters-news"}}, "steps", 'such as [{"template": "newsletter"}]'),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_at_its_place_with_a_good_example(operator, letters, change, place, words):
    answer = operator.post(WORKFLOWS, body() | change, format="json")

    refusal = errors(answer)
    assert (answer.status_code, list(refusal)) == (400, [place])
    assert words in "".join(refusal[place])
    assert Workflow.objects.count() == 1


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"after": "2 ate"}, "after", 'A good one: "1, 2 opened".'),
        ({"after": "one"}, "after", '"one" is not the number of a step. A good one: "1, 2 opened".'),
        ({"after": "7"}, "after", "There is no step 7 to wait for; there is 1, 2."),
        ({"after": "1 replied"}, "after", "It waits for step 1 to be replied, and the workflow stops at that: then it"),
        ({"delay": "soon"}, "delay", '"soon" is no delay. Good ones: "3 days", "next tuesday 9:00 their time".'),
        ({"delay": "9 years"}, "delay", '"years" is no unit of time'),
        ({"condition": "city =="}, "condition", "line 1"),
        ({"condition": "x" * 501}, "condition", "no more than 500 characters"),
        ({"lead_seconds": 60}, "lead_seconds", NO_DEADLINE),
        ({"lead_seconds": 60, "after": "1"}, "lead_seconds", NO_DEADLINE_AFTER_ANOTHER),
        ({"lead_seconds": "NaN", "deadline_minutes": 5}, "lead_seconds", "number"),
        ({"lead_seconds": -1, "deadline_minutes": 5}, "lead_seconds", "greater than or equal to 0"),
        ({"deadline_minutes": 0}, "deadline_minutes", "greater than or equal to 1"),
        ({"on_late": "weep"}, "on_late", '"weep" is none of expire, send.'),
        ({"position": 0}, "position", "Numbers go from 1 to 29,999."),
        ({"position": 30_000}, "position", "Numbers go from 1 to 29,999."),
        ({"position": 10**18}, "position", "Numbers go from 1 to 29,999."),
        ({"position": "first"}, "position", "This is no whole number. A good one: 2."),
        ({"template": "nothing"}, "template", "There is no template 'nothing': name one"),
        ({"template": None}, "template", 'Which template? Name it by its slug or its id, such as "newsletter" or 7.'),
        ({"prompt": "Write."}, "composer", "Who is asked? Choose a composer, or leave the prompt empty."),
        ({"composer": "letters-pool", "prompt": "Write."}, "composer", "sends mails and writes none"),
        ({"composer": "writer"}, "prompt", "What is the model asked? For example:"),
        ({"composer": "writer", "prompt": "{{"}, "prompt", "line 1"),
        ({"afterr": "1"}, "afterr", "There is no such field. There is: position, template, after,"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused_at_its_field_and_the_workflow_stays_as_it_was(
    operator, letters, change, field, words
):
    Engine.objects.create(name="Writer", slug="writer", kind="mock_composer")
    before = state(letters)
    third = steps({"position": 1, "delay": "1 hour"}, {"position": 2}, {"position": 3} | change)

    answers = [
        operator.patch(url(letters), {"name": "Changed", "steps": third}, format="json"),
        operator.post(WORKFLOWS, body(steps=third), format="json"),
    ]

    for answer in answers:
        refusal = errors(answer)
        assert (answer.status_code, list(refusal)) == (400, [f"steps/2/{field}"])
        assert words in "".join(refusal[f"steps/2/{field}"])
    assert state(letters) == before
    assert Workflow.objects.count() == 1


def test_a_number_that_two_steps_have_is_said_at_both_with_one_that_is_free(operator, letters):
    bad = steps({"position": 1}, {"position": 1}, {"position": 3})

    answer = operator.post(WORKFLOWS, body(steps=bad), format="json")

    words = ["There are 2 steps 1: 2 is free, for example."]
    assert answer.status_code == 400
    assert errors(answer) == {"steps/0/position": words, "steps/1/position": words}


def test_a_circle_is_refused_and_said(operator, letters):
    answer = operator.post(WORKFLOWS, body(steps=steps({"after": "2"}, {"after": "1"})), format="json")

    assert answer.status_code == 400
    assert "These steps wait for each other in a circle: " in detail(answer)
    assert "One of them must begin." in detail(answer)


def test_all_bad_steps_are_said_at_once_beside_what_else_cannot_be_read(operator, letters):
    bad = steps({"delay": "soon"}, {}, {"after": "one", "condition": "("})

    refusal = errors(operator.post(WORKFLOWS, body(start="later", steps=bad), format="json"))

    assert set(refusal) == {"start", "steps/0/delay", "steps/2/after", "steps/2/condition"}


def test_a_change_that_leaves_the_steps_is_judged_with_them(operator, letters):
    cast.add_step(letters, 2, after="1 replied")
    Workflow.objects.update(stop_on_reply=False)
    before = state(letters)

    stops = operator.patch(url(letters), {"stop_on_reply": True}, format="json")

    assert stops.status_code == 400
    assert "the workflow stops at that" in errors(stops)["steps/1/after"][0]
    assert state(letters) == before


def test_the_audiences_deadlines_do_for_a_lead_of_steps_that_begin(operator, letters):
    dated = cast.csv_audience("email,until\na@example.test,\n", deadline_field="until")
    answers = [
        operator.post(WORKFLOWS, body(audience=audience, steps=steps({"lead_seconds": 60})), format="json")
        for audience in (dated.slug, "letters-friends")
    ]

    moved = operator.patch(f"{WORKFLOWS}reminders/", {"audience": "letters-friends"}, format="json")

    assert [answer.status_code for answer in (*answers, moved)] == [201, 400, 400]
    assert errors(moved) == {"steps/0/lead_seconds": [NO_DEADLINE]}


def test_a_workflow_does_not_begin_at_once_where_recipients_depend_on_each_other(operator, letters):
    letters.audience.key_field, letters.audience.depends_field = "id", "after"
    letters.audience.save()

    answer = operator.patch(url(letters), {"start": "at_once"}, format="json")

    assert (answer.status_code, list(errors(answer))) == (400, ["start"])
    assert "choose “when every recipient has been checked”" in detail(answer)


@pytest.mark.parametrize(
    "sent",
    [
        *("[]", "7", "null", '"x"', "{", '{"steps": [1]}', '{"steps": [[]], "name": [1]}'),
        *(
            '{"priority": 1e400}',
            '{"priority": 1' + "0" * 30 + "}",
            '{"pool": "a\\u0000"}',
            '{"name": "a", "name": "b"}',
        ),
        *('{"\\ud800": 1}', '{"start": "\\ud800"}', '{"steps": [{"on_late": "\\ud800"}]}'),
        '{"steps": ' + "[" * 5_000 + "]" * 5_000 + "}",
    ],
    ids=range(15),
)
def test_a_body_of_another_shape_is_refused_and_no_server_error(operator, letters, sent):
    assert operator.post(WORKFLOWS, sent, content_type="application/json").status_code == 400
    assert operator.patch(url(letters), sent, content_type="application/json").status_code == 400


def test_a_form_is_no_body_for_what_it_leaves_out_would_be_unticked(operator, letters):
    assert operator.patch(url(letters), {"name": "Changed"}, format="multipart").status_code == 415


# ---- deleted, and found ----


def test_a_workflow_is_deleted_with_its_steps_and_schedules_while_it_has_no_runs(operator, letters):
    remover = client("remover", "delete_workflow")
    Schedule.objects.create(workflow=letters, name="weekdays", cron="0 9 * * 1-5", checked_until=timezone.now())

    answer = remover.delete(url(letters))

    assert answer.status_code == 204
    assert not Workflow.objects.exists()
    assert not Step.objects.exists()


def test_a_workflow_that_ran_is_not_deleted_for_its_runs_are_kept(letters, output_dir):
    run = cast.queued(letters)

    answer = client("remover", "delete_workflow").delete(url(letters))

    assert (answer.status_code, detail(answer)) == (
        409,
        f"The workflow 'Letters' cannot be deleted: the run 'Run {run.pk} of Letters' needs it, for example.",
    )
    assert Workflow.objects.count() == 1


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("audience=letters-friends", ["letters"]),
        ("pool=offers-pool", ["offers"]),
        ("template=offers-step-2", ["offers"]),
        ("template=letters-news", ["letters"]),
        ("audience=offers-friends&pool=letters-pool", []),
        ("search=offer", ["offers"]),
        ("ordering=-slug", ["offers", "letters"]),
        ("ordering=changed_at", ["letters", "offers"]),
    ],
)
def test_workflows_are_found_by_what_they_are_made_of(operator, letters, query, found):
    cast.add_step(cast.workflow("offers"), 2, after="1")

    assert [each["slug"] for each in operator.get(f"{WORKFLOWS}?{query}").json()["results"]] == found


@pytest.mark.parametrize("query", ["audience=nothing", "pool=999", "template=9999999999999999999", "pool=a%20b", "x=1"])
def test_a_filter_that_cannot_be_understood_is_refused_by_name(operator, letters, query):
    answer = operator.get(f"{WORKFLOWS}?{query}")

    assert (answer.status_code, list(errors(answer))) == (400, [query.partition("=")[0]])


# ---- who, and how many questions ----


def test_each_deed_needs_its_permission(letters):
    people = {
        "nobody": APIClient(),
        "outsider": client("outsider"),
        "viewer": client("viewer", "view_workflow"),
        "adder": client("adder", "view_workflow", "add_workflow"),
        "editor": client("editor", "view_workflow", "change_workflow"),
        "remover": client("remover", "view_workflow", "delete_workflow"),
    }

    statuses = {
        name: [
            who.get(WORKFLOWS).status_code,
            who.get(url(letters)).status_code,
            who.post(WORKFLOWS, body(name=name, slug=name), format="json").status_code,
            who.patch(url(letters), {"name": f"of {name}"}, format="json").status_code,
            who.delete(url(letters)).status_code,
        ]
        for name, who in people.items()
    }

    assert statuses == {
        "nobody": [401, 401, 401, 401, 401],
        "outsider": [403, 403, 403, 403, 403],
        "viewer": [200, 200, 403, 403, 403],
        "adder": [200, 200, 201, 403, 403],
        "editor": [200, 200, 403, 200, 403],
        "remover": [200, 200, 403, 403, 204],
    }


def test_a_list_of_many_asks_no_more_than_one_of_few(letters, django_assert_num_queries):
    viewer = client("viewer", "view_workflow")
    for number in range(5):
        cast.add_step(cast.workflow(f"more-{number}"), 2, after="1")

    # The session, its user, his permissions and those of his groups, the workflows, their steps.
    with django_assert_num_queries(6):
        listed = viewer.get(WORKFLOWS).json()["results"]

    assert [(each["slug"], len(each["steps"])) for each in listed] == [
        ("letters", 1),
        *((f"more-{number}", 2) for number in range(5)),
    ]


@pytest.mark.parametrize("path", ["999/", "9999999999999999999/", "nothing/"])
def test_what_is_not_there_is_not_found(operator, path):
    assert operator.get(f"{WORKFLOWS}{path}").status_code == 404


def test_two_who_take_a_name_at_once_are_one_who_has_it_and_one_who_is_told(letters):
    people = [client(name, "add_workflow") for name in ("ada", "grace")]

    answers = cast.side_by_side(2, lambda number: people[number].post(WORKFLOWS, body(), format="json"))

    refused = max(answers, key=lambda answer: answer.status_code)
    assert sorted(answer.status_code for answer in answers) == [201, 400]
    assert errors(refused)["name"] == ["Workflow with this Name already exists."]
    assert Step.objects.filter(workflow__slug="reminders").count() == 1


def test_two_who_change_the_steps_at_once_leave_the_steps_of_one(letters):
    people = [client(name, "change_workflow") for name in ("ada", "grace")]
    wanted = [steps({}, {"delay": "1 hour"}, {}), steps({"delay": "2 hours"}, {"delay": "2 hours"})]

    answers = cast.side_by_side(
        2, lambda number: people[number].patch(url(letters), {"steps": wanted[number]}, format="json")
    )

    assert [answer.status_code for answer in answers] == [200, 200]
    assert list(letters.steps.values_list("delay", flat=True)) in (["", "1 hour", ""], ["2 hours", "2 hours"])
