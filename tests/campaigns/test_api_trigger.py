"""Runs that programs ask for: with what is theirs alone, at once or waited for, and once for each key."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from campaigns import waits
from campaigns.models import IdempotencyKey, Mode, Outcome, Run, RunRecipients, RunRequest, RunState, Workflow
from delivery.models import Delivery, KeptMail, Pool
from tests.campaigns import cast
from tests.campaigns.clients import client
from tests.problems import detail, errors

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("output_dir")]

TRIGGER = "/api/v1/trigger"
REQUESTS = "/api/v1/requests/"
ADA = {"email": "ada@example.test", "name": "Ada", "city": "London"}
GRACE = {"email": "grace@example.test", "name": "Grace", "city": "New York"}


@pytest.fixture
def program():
    return client("program", "send_workflow", "view_run")


@pytest.fixture
def letters() -> Workflow:
    return cast.workflow()


def runs_of(workflow: Workflow) -> str:
    return f"/api/v1/workflows/{workflow.slug}/runs/"


def ask(who, url: str, key: str | None = None, **body: object):
    return who.post(url, body, format="json", **({"HTTP_IDEMPOTENCY_KEY": key} if key else {}))


# --- What is started -------------------------------------------------------------------------------------------------


def test_a_run_is_asked_for_by_the_slug_or_the_id_of_its_workflow_in_either_form(program, letters):
    answers = [
        ask(program, runs_of(letters)),
        ask(program, f"/api/v1/workflows/{letters.pk}/runs/"),
        ask(program, TRIGGER, workflow_id=letters.pk),
        ask(program, f"{TRIGGER}/", workflow_id=letters.slug),
    ]

    assert [answer.status_code for answer in answers] == [202] * 4
    made = [answer.json()["id"] for answer in answers]
    assert sorted(made) == sorted(Run.objects.values_list("pk", flat=True))
    assert [answer.headers["Location"] for answer in answers] == [f"/api/v1/runs/{pk}/" for pk in made]
    assert {answer.json()["state"] for answer in answers} == {RunState.QUEUED}


def test_recipients_that_come_with_it_get_the_mails_and_nobody_of_the_audience_does(program, letters):
    answer = ask(program, runs_of(letters), recipients=[ADA, GRACE])

    run = cast.carried_out(Run.objects.get(pk=answer.json()["id"]))

    assert run.state == RunState.COMPLETED
    assert set(Delivery.objects.values_list("address", "state")) == {
        ("ada@example.test", "accepted"),
        ("grace@example.test", "accepted"),
    }
    assert not RunRecipients.objects.exists()


def test_the_context_is_everybodys_who_does_not_say_otherwise(program, letters):
    answer = ask(
        program,
        runs_of(letters),
        recipients=[{"email": "a@example.test", "name": "A"}, GRACE],
        context={"city": "Rome"},
    )

    cast.carried_out(Run.objects.get(pk=answer.json()["id"]))

    assert set(Delivery.objects.values_list("data__city", flat=True)) == {"Rome", "New York"}


def test_a_context_goes_with_the_audience_too():
    who = client("program", "send_workflow", "view_run")
    workflow = cast.workflow(version=cast.template(text="Hello {{ name }} of {{ city }}, {{ season }} is here."))
    answer = ask(who, runs_of(workflow), context={"season": "spring"})

    run = cast.carried_out(Run.objects.get(pk=answer.json()["id"]))

    assert (run.state, run.counts["accepted"]) == (RunState.COMPLETED, 3)


def test_a_test_goes_to_the_sandbox_whatever_pool_is_named(program, letters):
    answer = ask(program, runs_of(letters), recipients=[ADA, GRACE], test=1)

    run = cast.carried_out(Run.objects.get(pk=answer.json()["id"]))

    assert (run.test_limit, run.batch.pool.slug, run.counts["accepted"]) == (1, "sandbox", 1)
    assert KeptMail.objects.count() == 1


def test_priority_deadline_and_pool_are_this_runs_own(program, letters):
    other = Pool.objects.create(name="Other", slug="other")
    other.members.create(engine=letters.pool.engines.get())
    until = timezone.now() + timedelta(hours=3)
    answer = ask(program, runs_of(letters), priority=-7, deadline=until.isoformat(), pool="other")

    run = cast.begun(Run.objects.get(pk=answer.json()["id"]))

    assert (run.priority, run.batch.priority, run.batch.pool) == (-7, -7, other)
    assert set(run.batch.rows().values_list("deadline", flat=True)) == {until}
    assert letters.priority == 0


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "place", "words"),
    [
        ({"recipients": []}, "recipients", "at least 1"),
        ({"recipients": [{"name": "Ada"}]}, "recipients", "no column holds the address"),
        ({"recipients": [{"email": "a@b.example", "!": 1}]}, "recipients", "no name for templates can be made"),
        ({"recipients": ["ada@example.test"]}, "recipients/0", "dictionary"),
        ({"recipients": [ADA] * 10_001}, "recipients", "no more than 10000"),
        ({"wait": 61}, "wait", "less than or equal to 60"),
        ({"test": 0}, "test", "greater than or equal to 1"),
        ({"deadline": "2020-01-01T00:00:00Z"}, "deadline", "This is over."),
        ({"deadline": "tomorrow"}, "deadline", "wrong format"),
        ({"pool": "none"}, "pool", "There is no pool 'none'"),
        ({"callback_url": "nowhere"}, "callback_url", ""),
        ({"priority": 99_999}, "priority", "less than or equal"),
        ({"recipient": [ADA]}, "recipient", "There is no such field. There is: wait,"),
        ({"context": [1]}, "context", "dictionary"),
    ],
)
def test_what_makes_no_sense_is_refused_by_field_and_no_run_is_made(program, letters, body, place, words):
    answer = ask(program, runs_of(letters), **body)

    assert answer.status_code == 400
    (said,) = errors(answer)[place]
    assert words in said
    assert not Run.objects.exists()
    refused = RunRequest.objects.get()
    assert (refused.outcome, refused.by, refused.run) == (Outcome.REFUSED, "program", None)
    assert said[:100] in refused.words


def test_a_workflow_that_is_not_there_is_404_in_the_path_and_400_in_the_body(program):
    in_path, in_body, none = (
        ask(program, "/api/v1/workflows/none/runs/"),
        ask(program, TRIGGER, workflow_id=7),
        ask(program, TRIGGER),
    )

    assert (in_path.status_code, in_body.status_code, none.status_code) == (404, 400, 400)
    assert "There is no workflow 7" in errors(in_body)["workflow_id"][0]
    assert "required" in errors(none)["workflow_id"][0]


def test_a_workflow_without_a_step_is_refused_with_409(program, letters):
    letters.steps.all().delete()

    answer = ask(program, runs_of(letters))

    assert (answer.status_code, detail(answer)) == (
        409,
        f"Workflow {letters.slug} has no step: add one with a template.",
    )


def test_who_may_only_look_or_edit_starts_nothing(letters):
    for who in (client("viewer", "view_run", "view_workflow"), client("editor", "change_workflow", "view_run")):
        assert ask(who, runs_of(letters)).status_code == 403
    assert not Run.objects.exists()


# --- Once for each key -----------------------------------------------------------------------------------------------


def test_the_same_key_and_body_get_the_same_answer_and_one_run(program, letters):
    first, second = (ask(program, runs_of(letters), key="k-1", recipients=[ADA]) for _ in range(2))

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert Run.objects.count() == 1
    assert list(RunRequest.objects.values_list("outcome", flat=True)) == [Outcome.REPEATED, Outcome.STARTED]


def test_the_answer_stays_the_same_when_the_run_has_gone_on(program, letters):
    first = ask(program, runs_of(letters), key="k-1")
    cast.carried_out(Run.objects.get())

    assert ask(program, runs_of(letters), key="k-1").json() == first.json()


@pytest.mark.parametrize("change", [{"recipients": [GRACE]}, {"priority": 1}, {}])
def test_the_same_key_with_another_body_is_refused_with_422(program, letters, change):
    ask(program, runs_of(letters), key="k-1", recipients=[ADA])

    answer = ask(program, runs_of(letters), key="k-1", **change)

    assert (answer.status_code, Run.objects.count()) == (422, 1)
    assert "choose a new one" in detail(answer)


def test_the_same_key_for_another_workflow_is_refused_and_somebody_elses_key_is_another_one(program, letters):
    other = cast.workflow(slug="other")
    ask(program, runs_of(letters), key="k-1")

    assert ask(program, runs_of(other), key="k-1").status_code == 422
    assert ask(client("other", "send_workflow", "view_run"), runs_of(letters), key="k-1").status_code == 202
    assert Run.objects.count() == 2


def test_a_refused_request_does_not_use_its_key_up(program, letters):
    refused = ask(program, runs_of(letters), key="k-1", pool="none")
    mended = ask(program, runs_of(letters), key="k-1")

    assert (refused.status_code, mended.status_code) == (400, 202)


def test_a_key_is_forgotten_after_a_day(program, letters):
    ask(program, runs_of(letters), key="k-1")
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=24, seconds=1))

    ask(program, runs_of(letters), key="k-1", priority=3)

    assert Run.objects.count() == 2


@pytest.mark.parametrize("key", ["", "with a space", "ü" * 3, "x" * 201])
def test_a_key_that_is_none_is_refused(program, letters, key):
    answer = program.post(runs_of(letters), {}, format="json", HTTP_IDEMPOTENCY_KEY=key)

    assert answer.status_code == 400
    assert "1 to 200 visible ASCII characters" in errors(answer)["Idempotency-Key"][0]


def test_of_many_at_the_same_instant_with_one_key_one_makes_a_run_and_all_get_its_answer(program, letters):
    def again(number: int):
        return ask(program, runs_of(letters), key="k-1", recipients=[ADA])

    answers = cast.side_by_side(8, again)

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert Run.objects.count() == 1
    assert sorted("Idempotency-Replayed" in answer.headers for answer in answers) == [False] + [True] * 7


# --- Waited for ------------------------------------------------------------------------------------------------------


@pytest.fixture
def working() -> Iterator[None]:
    """Somebody works on what is queued for as long as the test lasts."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            for run in Run.objects.filter(state=RunState.QUEUED):
                cast.carried_out(run)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.usefixtures("working")
def test_who_waits_gets_the_finished_run_with_201_and_so_does_who_repeats_it(program, letters):
    first, second = (ask(program, runs_of(letters), key="k-1", recipients=[ADA], wait=30) for _ in range(2))

    assert (first.status_code, first.json()["state"], first.json()["counts"]["accepted"]) == (201, "completed", 1)
    assert second.json() == first.json()
    started = RunRequest.objects.get(outcome=Outcome.STARTED)
    assert started.mode == Mode.SYNC
    assert 0 < started.seconds < 30


def test_who_has_waited_long_enough_gets_the_run_as_it_is_with_202(program, letters):
    answer = ask(program, runs_of(letters), wait=0.2)

    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


def test_when_too_many_wait_nobody_else_does(program, letters):
    for _ in range(waits.MOST):
        assert waits.places.acquire(blocking=False)
    try:
        answer = ask(program, runs_of(letters), wait=60)
    finally:
        waits.places.release(waits.MOST)

    assert answer.status_code == 202


# --- The record ------------------------------------------------------------------------------------------------------


def test_how_runs_were_asked_for_is_a_list(program, letters, manage):
    ask(program, runs_of(letters), recipients=[ADA])
    ask(program, runs_of(letters), wait=0.05)
    ask(program, runs_of(letters), pool="none")
    assert manage("run_workflow", letters.slug, "--detach", "--idempotency-key", "c").returncode == 0

    listed = program.get(REQUESTS).json()["results"]

    assert [(row["mode"], row["outcome"], row["recipients"]) for row in listed] == [
        ("command", "started", None),
        ("async", "refused", None),
        ("sync", "started", None),
        ("async", "started", 1),
    ]
    assert [row["mode"] for row in program.get(f"{REQUESTS}?mode=command").json()["results"]] == ["command"]
    assert program.get(f"{REQUESTS}?outcome=refused").json()["results"][0]["words"].startswith("pool: There is no pool")


def test_the_list_takes_as_many_queries_for_forty_requests_as_for_two(program, letters):
    def queries(count: int) -> int:
        for _ in range(count):
            ask(program, runs_of(letters))
        with CaptureQueriesContext(connection) as asked:
            assert program.get(REQUESTS).status_code == 200
        return len(asked)

    assert queries(2) == queries(38)
