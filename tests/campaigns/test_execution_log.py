"""The execution log: what was sent, how and to whom, with no secret in it; whole or not there, however long it is."""

import json
import tracemalloc

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from campaigns import execution_log
from campaigns.execution_log import CHUNK, Stopped
from campaigns.finish import write_missing_logs
from campaigns.models import ProblemKind, Run, RunProblem, RunState
from delivery.core.envelope import Kind, Outcome
from delivery.models import Delivery, Engine, PoolMember
from delivery.queue import NewDelivery
from delivery.queue.filling import Filler
from delivery.secrets import Sealed
from tests.campaigns import cast
from tests.delivery.pumping import ACCEPTED, BROKEN, FakeEngine, pool_of, pumped

SECRET = "hunter2hunter2"


def log_of(run: Run) -> dict:
    return json.loads(execution_log.write(cast.fresh(run)).read_text(encoding="utf-8"))


def crowded(count: int, slug: str = "letters", problems: int = 0) -> Run:
    """A run that has so many deliveries and listed problems, without the work of a real one."""
    run = cast.initialized(cast.workflow(slug))
    message = run.batch.messages.get()
    for begin in range(0, count, 5000):
        numbers = range(begin, min(count, begin + 5000))
        Filler(run.batch_id, message.pk, 0).write(
            [NewDelivery(n, f"p{n}@example.test", f"p{n}@example.test", f"Person {n}", {}) for n in numbers]
        )
    RunProblem.objects.bulk_create(
        [
            RunProblem(run=run, kind=ProblemKind.BAD_ROW, reason="bad", position=n, detail=f"row {n} is no row")
            for n in range(problems)
        ],
        batch_size=2000,
    )
    Run.objects.filter(pk=run.pk).update(state=RunState.COMPLETED)
    return cast.fresh(run)


# --- What it says ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_it_tells_the_workflow_the_step_the_version_and_by_which_engine_each_mail_went(output_dir):
    def broken(address, time):
        return BROKEN

    def second(address, time):
        return Outcome(Kind.RECIPIENT, "550", "no") if address.startswith("Grace") else ACCEPTED

    pool, engines = pool_of(FakeEngine(broken), FakeEngine(second))
    run = cast.initialized(cast.workflow(through=pool, version=cast.template("news")))
    pumped(engines)

    log = log_of(run)

    engine = pool.engines.order_by("memberships__position").last()
    assert {name: log[name] for name in ("run_id", "correlation_id", "workflow", "template", "state", "total")} == {
        "run_id": run.pk,
        "correlation_id": run.correlation_id,
        "workflow": {"id": run.workflow_id, "slug": "letters", "name": "Letters"},
        "template": {"slug": "news", "name": "News", "version": 1, "step": 1},
        "state": "completed",
        "total": 3,
    }
    assert cast.nonzero(log["counts"]) == {"accepted": 2, "rejected": 1}
    assert [(who["address"], who["state"], who["engine"]) for who in log["recipients"]] == [
        ("ada@example.test", "accepted", engine.name),
        ("Grace@example.test", "rejected", engine.name),
        ("bjørn@xn--bcher-kva.example", "accepted", engine.name),
    ]
    assert [each["slug"] for each in log["engines"]] == list(
        pool.engines.order_by("memberships__position").values_list("slug", flat=True)
    )


@pytest.mark.django_db
def test_the_engine_of_a_mail_is_named_when_it_has_left_the_pool_and_not_when_there_was_none(output_dir):
    run = crowded(0)
    other = Engine.objects.create(name="Elsewhere", slug="elsewhere", kind="sandbox")
    Delivery.objects.filter(pk=run.batch.first_id).update(engine=other, state="accepted")

    named = [who["engine"] for who in log_of(run)["recipients"]]

    assert named == ["Elsewhere", None, None]


@pytest.mark.django_db
def test_an_engine_is_there_with_its_plain_settings_and_the_names_of_its_secrets(output_dir):
    pool = cast.smtp_pool(2525)
    api = Engine.objects.create(
        name="Api",
        slug="api",
        kind="http",
        options={
            "url": f"https://sender:{SECRET}@api.example/mails?list=7",
            "headers": f"X-List: 7\nAuthorization: Token {SECRET}",
            "auth": "bearer",
            "batch_size": 5,
        },
        secrets=Sealed.seal({"credential": SECRET}),
    )
    PoolMember.objects.create(pool=pool, engine=api, position=1)
    run = cast.initialized(cast.workflow(through=pool))

    path = execution_log.write(run)

    smtp, http = json.loads(path.read_text())["engines"]
    assert (smtp["options"]["port"], smtp["secrets"]) == (2525, {})
    assert http["options"] == {
        "url": "https://***@api.example/mails?list=7",
        "headers": "X-List: 7\nAuthorization: ***",
        "auth": "bearer",
        "batch_size": 5,
    }
    assert http["secrets"]["credential"] == "***"
    assert SECRET not in path.read_text()
    assert api.secrets.token not in path.read_text()


@pytest.mark.django_db
def test_secrets_that_no_key_opens_any_more_are_no_obstacle(output_dir, outreach):
    pool = cast.smtp_pool(2525)
    Engine.objects.update(secrets=Sealed("not what any key would open"))
    run = cast.initialized(cast.workflow(through=pool))

    assert set(log_of(run)["engines"][0]["secrets"].values()) == {"***"}


@pytest.mark.django_db
def test_a_run_that_never_came_to_freezing_has_what_its_workflow_is_called_now(output_dir):
    run = cast.queued(cast.workflow())

    log = log_of(run)

    assert (log["workflow"]["slug"], log["template"], log["engines"], log["recipients"]) == ("letters", None, [], [])


# --- However long it is ----------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_everybody_is_in_it_once_at_the_edge_of_a_chunk(output_dir, more):
    run = crowded(CHUNK - 3 + more, problems=CHUNK + more)

    log = log_of(run)

    addresses = [who["address"] for who in log["recipients"]]
    assert len(addresses) == len(set(addresses)) == CHUNK + more == cast.fresh(run).batch.total
    assert [problem["position"] for problem in log["problems"]] == list(range(CHUNK + more))


@pytest.mark.django_db
def test_rows_of_another_run_between_are_not_in_it(output_dir):
    first, second = cast.initialized(cast.workflow("first")), cast.initialized(cast.workflow("second"))
    message = first.batch.messages.get()
    Filler(first.batch_id, message.pk, 0).write([NewDelivery(9, "z@example.test", "z@example.test", "", {})])

    assert [who["address"] for who in log_of(first)["recipients"]] == [*cast.recipients(second), "z@example.test"]


@pytest.mark.django_db
def test_a_long_log_needs_no_more_memory_than_a_short_one(output_dir):
    def used(run: Run) -> int:
        tracemalloc.start()
        execution_log.write(run)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    used(crowded(10, "warm-up"))
    short, long = (used(crowded(n * CHUNK, f"of-{n}", problems=n * CHUNK)) for n in (2, 8))

    assert long < 1.5 * short


@pytest.mark.django_db
def test_it_is_read_by_keys_and_leaves_nothing_open(output_dir):
    run = crowded(3 * CHUNK)

    with CaptureQueriesContext(
        connection,
    ) as asked:
        execution_log.write(run)

    reads = [query["sql"] for query in asked if "delivery_delivery" in query["sql"]]
    assert len(reads) == 4
    assert all("LIMIT" in sql for sql in reads)
    assert not any("DECLARE" in query["sql"] for query in asked)


# --- Whole or not there ----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_writer_that_has_to_stop_leaves_nothing_and_the_next_one_writes_it(output_dir):
    run = crowded(3 * CHUNK)
    asked = []

    def after_three_chunks() -> bool:
        asked.append(len([path for path in output_dir.rglob("*") if path.is_file()]))
        return len(asked) > 3

    with pytest.raises(Stopped):
        write_missing_logs(after_three_chunks)
    left = [path for path in output_dir.rglob("*") if path.is_file()]
    unwritten = cast.fresh(run).log_path
    write_missing_logs()

    assert asked == [1, 1, 1, 1]  # the partial file was there all the time
    assert (left, unwritten) == ([], "")
    assert [path.name for path in output_dir.rglob("*") if path.is_file()] == [f"{run.pk}.json"]
    assert cast.fresh(run).log_path


@pytest.mark.django_db
def test_a_writer_that_fails_leaves_an_earlier_log_as_it_was(output_dir):
    run = crowded(0)
    path = execution_log.write(run)
    before = path.read_text()

    def full() -> bool:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        execution_log.write(run, full)

    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]
