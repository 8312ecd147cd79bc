"""Runs over REST: found in lists of any length, with their history, their problems and their execution log."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from rest_framework.test import APIClient

from campaigns import control
from campaigns.api.runs import OUT_OF_ORDER
from campaigns.models import Run, RunProblem, RunState, Trigger, Workflow
from tests.campaigns import cast
from tests.campaigns.clients import client
from tests.campaigns.replaying import over
from tests.problems import detail, errors

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("output_dir")]

RUNS = "/api/v1/runs/"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def viewer() -> APIClient:
    return client("viewer", "view_run")


def made(workflow: Workflow, at: datetime = NOON, **fields: object) -> Run:
    """A run as a row, made at this instant."""
    run = Run.objects.create(workflow=workflow, **{"trigger": Trigger.API, "state": RunState.COMPLETED} | fields)
    Run.objects.filter(pk=run.pk).update(created_at=at)
    return run


def found(who: APIClient, query: str) -> list[int]:
    answer = who.get(f"{RUNS}?{query}")
    assert answer.status_code == 200, answer.content
    return [run["id"] for run in answer.json()["results"]]


# ---- lists ----


def test_runs_are_found_by_what_they_are(viewer):
    letters, offers = cast.workflow("letters"), cast.workflow("offers")
    plain = made(letters).pk
    failed = made(letters, state=RunState.FAILED).pk
    timed = made(offers, trigger=Trigger.SCHEDULE).pk
    test = made(offers, test_limit=5, state=RunState.SENDING).pk

    assert {query: found(viewer, query) for query in (
        "workflow=letters", f"workflow={offers.pk}", "state=failed", "trigger=schedule", "test=true", "test=false",
        "test=true&workflow=letters", "workflow=offers&state=sending", "",
    )} == {
        "workflow=letters": [failed, plain],
        f"workflow={offers.pk}": [test, timed],
        "state=failed": [failed],
        "trigger=schedule": [timed],
        "test=true": [test],
        "test=false": [timed, failed, plain],
        "test=true&workflow=letters": [],
        "workflow=offers&state=sending": [test],
        "": [test, timed, failed, plain],
    }  # fmt: skip


def test_runs_are_found_by_when_they_were_made(viewer):
    letters = cast.workflow()
    first, second, third = (made(letters, NOON + timedelta(hours=hour)).pk for hour in range(3))

    queries = {
        "created_after=2026-11-24T13:00:00Z": [third, second],
        "created_before=2026-11-24T13:00:00Z": [first],
        "created_after=2026-11-24T14:00:00%2B01:00&created_before=2026-11-24T13:30:00Z": [second],
        "created_after=2026-11-25T00:00:00Z": [],
        "created_before=2026-01-01T00:00:00Z": [],
    }

    assert {query: found(viewer, query) for query in queries} == queries


def test_of_runs_that_are_made_at_the_same_moment_one_with_a_later_id_may_be_the_earlier_one(viewer):
    letters = cast.workflow()
    late, early = made(letters, NOON + timedelta(seconds=2)).pk, made(letters, NOON).pk
    assert late < early < late + OUT_OF_ORDER

    assert found(viewer, "created_after=2026-11-24T12:00:01Z") == [late]
    assert found(viewer, "created_before=2026-11-24T12:00:01Z") == [early]


@pytest.mark.parametrize(
    "query",
    [
        "workflow=nothing",
        *("state=gone", "trigger=fax", "test=maybe", "test=1", "ordering=created_at", "stat=failed"),
        *("created_after=yesterday", "created_after=0001-01-01T00:00:00%2B14:00", "created_before=9999-12-31T23:59Z"),
        *("page_size=0", "page_size=501", "search=letters"),
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_understood_is_refused_by_name(viewer, query):
    answer = viewer.get(f"{RUNS}?{query}")

    assert (answer.status_code, list(errors(answer))) == (400, [query.partition("=")[0]])


def test_pages_follow_each_other_to_the_end_and_back(viewer):
    letters = cast.workflow()
    ids = [made(letters).pk for _ in range(5)][::-1]

    first = viewer.get(f"{RUNS}?page_size=2").json()
    second = viewer.get(first["next"]).json()
    third = viewer.get(second["next"]).json()

    assert [run["id"] for page in (first, second, third) for run in page["results"]] == ids
    assert (first["previous"], third["next"]) == (None, None)
    assert viewer.get(second["previous"]).json()["results"] == first["results"]


@pytest.mark.parametrize("count", [1, 12])
def test_a_list_of_many_runs_asks_no_more_than_one_of_few(viewer, django_assert_num_queries, count):
    letters = cast.workflow()
    for _ in range(count):
        cast.initialized(letters)

    # The session, its user, his permissions and those of his groups, the runs, their workflows, their tallies.
    with django_assert_num_queries(7):
        listed = viewer.get(RUNS).json()["results"]

    assert [(run["total"], run["open"]) for run in listed] == [(3, 3)] * count


def test_what_is_counted_of_each_run_in_a_list_is_what_it_says_by_itself(viewer):
    sequenced = cast.workflow("sequence")
    cast.add_step(sequenced, 2, after="1")
    runs = [cast.ended(sequenced), cast.initialized(sequenced), cast.ended(cast.workflow("plain")), over("dead")]
    control.cancel(runs[1], "ada")
    runs.append(cast.queued(sequenced))

    listed = viewer.get(RUNS).json()["results"]

    assert [run["id"] for run in listed] == [run.pk for run in reversed(runs)]
    assert listed == [viewer.get(f"{RUNS}{run['id']}/").json() for run in listed]
    first = listed[-1]
    assert (first["total"], first["open"], cast.nonzero(first["counts"])) == (6, 0, {"accepted": 6})


@pytest.mark.parametrize("query", ["", "workflow=letters", "state=failed", "trigger=schedule", "test=true"])
def test_a_page_is_read_from_an_index_in_its_order(viewer, query, django_assert_max_num_queries):
    letters = cast.workflow()
    Run.objects.bulk_create(
        Run(workflow=letters, trigger=trigger, state=state, test_limit=limit)
        for trigger, state, limit in [("api", "completed", None)] * 500
        + [("schedule", "failed", 5), ("schedule", "completed", None)] * 20
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")

    with django_assert_max_num_queries(20) as asked:
        viewer.get(f"{RUNS}?{query}&page_size=10")

    (page,) = [each["sql"] for each in asked.captured_queries if 'ORDER BY "campaigns_run"."id" DESC' in each["sql"]]
    with connection.cursor() as cursor:
        how = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
        cursor.execute(f"{how} {page}")
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
    assert "TEMP B-TREE" not in plan, plan
    assert "Sort" not in plan, plan


# ---- history, problems ----


def test_the_history_of_a_run_is_told_in_its_order(viewer):
    run = cast.initialized(cast.workflow())
    control.pause(run, "ada", "lunch")

    events = viewer.get(f"{RUNS}{run.pk}/events/").json()["results"]

    assert [(event["state"], event["by"], event["why"]) for event in events][-1] == ("paused", "ada", "lunch")
    assert [event["state"] for event in events] == ["queued", "initializing", "sending", "paused"]


def test_problems_come_in_pages_and_by_kind(viewer):
    audience = cast.csv_audience("email,name,city\nada@example.test,Ada,London\nnobody,N,x\n,N,x\n")
    run = cast.initialized(cast.workflow(audience=audience))
    RunProblem.objects.create(run=run, kind="rendering", reason="template", position=2, detail="no")
    url = f"{RUNS}{run.pk}/problems/"

    first = viewer.get(f"{url}?page_size=2").json()
    second = viewer.get(first["next"]).json()

    assert [(each["position"], each["kind"]) for each in first["results"] + second["results"]] == [
        (3, "bad_row"),
        (4, "bad_row"),
        (2, "rendering"),
    ]
    assert first["results"][0]["detail"].startswith("There is no @ in it.")
    assert [each["position"] for each in viewer.get(f"{url}?kind=rendering").json()["results"]] == [2]
    assert list(errors(viewer.get(f"{url}?kind=none"))) == ["kind"]
    assert list(errors(viewer.get(f"{url}?state=failed"))) == ["state"]


# ---- the execution log ----


def content(answer) -> bytes:
    return b"".join(answer.streaming_content)


def test_the_execution_log_is_given_as_it_was_written(viewer):
    run = over("dead")

    answer = viewer.get(f"{RUNS}{run.pk}/log/")

    log = json.loads(content(answer))
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert (log["run_id"], log["counts"], len(log["recipients"])) == (run.pk, cast.fresh(run).counts, 3)


def test_there_is_no_log_while_a_run_is_under_way(viewer):
    run = cast.initialized(cast.workflow())

    answer = viewer.get(f"{RUNS}{run.pk}/log/")

    assert (answer.status_code, detail(answer)) == (
        404,
        f"Run {run.pk} is sending and has no execution log: it is written when a run has ended.",
    )


def test_a_log_that_is_on_another_host_is_said_to_be(viewer, output_dir):
    run = over()
    (path,) = output_dir.rglob("*.json")
    path.unlink()

    answer = viewer.get(f"{RUNS}{run.pk}/log/")

    assert (answer.status_code, "is not on this host" in detail(answer)) == (404, True)


@pytest.mark.parametrize("way", ["absolute", "upwards", "link"])
def test_no_file_outside_of_the_folder_of_logs_is_given(viewer, output_dir, tmp_path, way):
    secret = tmp_path / "secret.json"
    secret.write_text('{"secret": 1}')
    output_dir.mkdir(exist_ok=True)
    (output_dir / "link.json").symlink_to(secret)
    run = over()
    paths = {"absolute": secret, "upwards": f"{output_dir}/../secret.json", "link": output_dir / "link.json"}
    Run.objects.filter(pk=run.pk).update(log_path=str(paths[way]))

    answer = viewer.get(f"{RUNS}{run.pk}/log/")

    assert (answer.status_code, "is not on this host" in detail(answer)) == (404, True)


# ---- who ----


@pytest.mark.parametrize("part", ["events", "problems", "log"])
def test_who_may_not_look_sees_no_part_of_a_run(viewer, part):
    run = over()
    url = f"{RUNS}{run.pk}/{part}/"

    statuses = [who.get(url).status_code for who in (viewer, client("outsider", "send_workflow"), APIClient())]

    assert statuses == [200, 403, 401]
    assert viewer.get(f"{RUNS}999999/{part}/").status_code == 404
    assert viewer.post(url).status_code == 403
