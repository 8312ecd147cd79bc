"""The end of a run: the equation holds or the run has failed, and the execution log says all of it but no secret."""

import json
import tracemalloc
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.utils import timezone

from campaigns import control, execution_log
from campaigns.finish import ENDS, finish, write_missing_logs
from campaigns.models import RenderErrorPolicy, Run, RunState
from campaigns.work import pump
from delivery import queue
from delivery.addresses import identity
from delivery.models import Delivery, Engine, Suppression, Tally
from delivery.queue import leasing
from delivery.queue.outcomes import Mark, mark
from delivery.secrets import Sealed
from tests.campaigns import cast

pytestmark = pytest.mark.usefixtures("output_dir")


def log_of(run: Run) -> dict:
    return json.loads(Path(cast.fresh(run).log_path).read_text(encoding="utf-8"))


def suppress(address: str) -> None:
    Suppression.objects.create(address=address, identity=identity(address))


def mixed() -> Run:
    """A finished run in which things went differently for different people."""
    people = [*cast.PEOPLE, ("nowhere@example.test", "Nobody", {}), ("no address", "Nobody", {"city": "Bath"})]
    suppress("grace@example.test")
    return cast.ended(
        cast.workflow(audience=cast.list_audience(people), on_render_error=RenderErrorPolicy.SKIP), key="order-66"
    )


# --- The equation ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_completed_run_has_every_kind_of_end_in_its_counts_and_they_sum_up():
    run = mixed()

    assert run.state == RunState.COMPLETED
    assert set(run.counts) == set(ENDS)
    assert cast.nonzero(run.counts) == {"accepted": 2, "suppressed": 1, "skipped": 1}
    assert sum(run.counts.values()) == run.batch.total == 4
    assert run.events.last().why == "4 of 4 accounted for"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("counts", "tally"),
    [
        ({"accepted": 2}, {"accepted": 2}),  # one is missing
        ({"accepted": 4}, {"accepted": 4}),  # one too many
        ({"accepted": 3}, {"accepted": 2, "rejected": 1}),  # the rows say otherwise than the tally
        ({"accepted": 2, "ready": 1}, {"accepted": 2}),  # one has no end
    ],
)
def test_a_run_whose_counts_do_not_reconcile_has_failed(counts, tally):
    run = cast.initialized(cast.workflow())
    Tally.objects.bulk_create(Tally(batch=run.batch, state=state, shard=0, count=n) for state, n in tally.items())

    finish(run, counts)

    run = cast.fresh(run)
    assert run.state == RunState.FAILED
    assert run.error == f"The counts do not reconcile: 3 in all, {counts} by row, {tally} by tally."
    assert cast.nonzero(run.counts) == {state: n for state, n in counts.items() if state in ENDS}
    assert run.ended_at is not None
    assert run.events.last().why == run.error


@pytest.mark.django_db(transaction=True)
def test_a_tally_that_is_wrong_fails_the_run_at_its_end():
    run = cast.initialized(cast.workflow())
    Tally.objects.create(batch=run.batch, state="accepted", shard=99, count=1)

    pump(run.batch_id)

    run = cast.fresh(run)
    assert run.state == RunState.FAILED
    assert "3 in all, {'accepted': 3} by row, {'accepted': 4} by tally" in run.error


@pytest.mark.django_db
def test_a_cancelled_run_stays_cancelled_and_gets_its_counts():
    run = cast.initialized(cast.workflow())
    Run.objects.filter(pk=run.pk).update(state=RunState.CANCELLED)
    Tally.objects.create(batch=run.batch, state="cancelled", shard=0, count=3)

    finish(cast.fresh(run), {"cancelled": 3})

    assert cast.fresh(run).state == RunState.CANCELLED
    assert cast.nonzero(cast.fresh(run).counts) == {"cancelled": 3}


@pytest.mark.django_db(transaction=True)
def test_a_run_ends_once():
    run = cast.ended(cast.workflow())
    ended_at = run.ended_at

    finish(run, {"accepted": 3})
    pump(run.batch_id)

    assert cast.fresh(run).ended_at == ended_at
    assert cast.story(run) == ["queued", "initializing", "sending", "completed"]


# --- The execution log -----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_log_is_at_its_place_and_tells_everything(output_dir):
    run = mixed()

    write_missing_logs()

    run = cast.fresh(run)
    assert Path(run.log_path) == output_dir / f"{run.created_at:%Y-%m-%d}" / f"{run.pk}.json"
    log = log_of(run)
    assert {
        name: log[name] for name in ("run_id", "state", "trigger", "triggered_by", "error", "rows_read", "total")
    } == {
        "run_id": run.pk,
        "state": "completed",
        "trigger": "command",
        "triggered_by": "tester",
        "error": "",
        "rows_read": 5,
        "total": 4,
    }
    assert log["counts"] == run.counts
    assert log["frozen"] == run.frozen
    assert log["problem_counts"] == {"rendering": 1, "impossible_address": 1}
    assert sorted((problem["position"], problem["kind"], problem["reason"]) for problem in log["problems"]) == [
        (4, "rendering", "rendering"),
        (5, "bad_row", "impossible_address"),
    ]
    assert [event["state"] for event in log["events"]] == cast.story(run)
    assert log["message"]["subject"] == cast.SUBJECT
    assert log["engines"] == [
        {"name": "Letters-Pool", "slug": "letters-pool", "kind": "sandbox", "options": {}, "secrets": {}}
    ]
    assert [(who["address"], who["state"], who["attempts"]) for who in log["recipients"]] == [
        ("ada@example.test", "accepted", 1),
        ("Grace@example.test", "suppressed", 0),
        ("bjørn@xn--bcher-kva.example", "accepted", 1),
        ("nowhere@example.test", "skipped", 0),
    ]
    assert all(who["settled_at"] for who in log["recipients"])


@pytest.mark.django_db
def test_every_recipient_of_a_long_run_is_in_the_log():
    people = cast.crowd(2500)  # more than are read at once
    run = cast.initialized(cast.workflow(audience=cast.list_audience(people)))
    control.cancel(run, "ada")

    write_missing_logs()

    assert [(who["address"], who["state"]) for who in log_of(run)["recipients"]] == [
        (address, "cancelled") for address, _, _ in people
    ]


@pytest.mark.django_db
def test_runs_that_have_no_batch_have_a_log_as_well(outreach):
    failed = cast.initialized(cast.workflow("first", version=cast.template(text="{{ nickname }}")))
    cancelled = cast.queued(cast.workflow("second"))
    control.cancel(cancelled, "ada")

    write_missing_logs()

    assert (log_of(failed)["state"], log_of(failed)["error"], log_of(failed)["recipients"]) == (
        "failed",
        failed.error,
        [],
    )
    assert (log_of(cancelled)["state"], log_of(cancelled)["message"], log_of(cancelled)["recipients"]) == (
        "cancelled",
        None,
        [],
    )


@pytest.mark.django_db(transaction=True)
def test_logs_that_a_crash_left_unwritten_are_written_later_and_each_once(output_dir):
    done = cast.ended(cast.workflow("done"))
    going = cast.initialized(cast.workflow("going"))

    write_missing_logs()
    first = Path(cast.fresh(done).log_path).stat().st_mtime_ns
    write_missing_logs()

    assert Path(cast.fresh(done).log_path).stat().st_mtime_ns == first
    assert cast.fresh(going).log_path == ""
    assert [path.name for path in output_dir.rglob("*") if path.is_file()] == [f"{done.pk}.json"]


@pytest.mark.django_db
def test_the_log_of_a_cancelled_run_waits_for_what_is_still_under_way():
    run = cast.initialized(cast.workflow())
    lease = leasing.acquire("another-host:4711:1", timedelta(minutes=1))
    leased = leasing.lease(lease, run.batch_id, 1)
    mark(lease, [Mark(row.id, run.workflow.pool.engines.get().pk, 1) for row in leased], timezone.now())
    control.cancel(run, "ada")

    write_missing_logs()
    before = cast.fresh(run).log_path
    Delivery.objects.filter(pk=leased[0].id).update(state="accepted", lease=None)
    Tally.objects.create(batch=run.batch, state="accepted", shard=99, count=1)
    queue.finish_if_done(run.batch_id)
    write_missing_logs()

    assert before == ""
    assert cast.nonzero(log_of(run)["counts"]) == {"accepted": 1, "cancelled": 2}


@pytest.mark.django_db
def test_no_secret_is_in_the_log(outreach, output_dir):
    key = Fernet.generate_key().decode()
    outreach(
        SECRET_KEYS=[key],
        AUDIENCE_DATABASES={"crm": "postgres://reader:db-hunter2@127.0.0.1:1/crm?password=db-hunter3"},
    )
    workflow = cast.workflow(through=cast.smtp_pool(1))
    Engine.objects.update(secrets=Sealed.seal({"password": "smtp-hunter2"}))
    run = cast.initialized(workflow)
    control.cancel(run, "ada")
    audience = workflow.audience
    audience.kind, audience.connection, audience.query = "sql", "crm", "SELECT 1 AS email"
    audience.save()
    unreachable = cast.initialized(workflow)

    write_missing_logs()

    assert unreachable.state == RunState.FAILED
    assert "connection 'crm'" in unreachable.error
    written = [path.read_text() for path in output_dir.rglob("*.json")]
    assert len(written) == 2
    assert log_of(run)["engines"][0]["options"]["port"] == 1
    for secret in ("smtp-hunter2", "db-hunter", key, Engine.objects.get().secrets.token):
        assert not any(secret in text for text in written)


@pytest.mark.django_db(transaction=True)
def test_the_log_is_written_as_a_stream():
    def written(count: int, slug: str) -> tuple[int, int]:
        """The length of the log of a run to so many, and the memory that writing it took at most."""
        run = cast.initialized(cast.workflow(slug, audience=cast.list_audience(cast.crowd(count), slug=f"{slug}-list")))
        tracemalloc.start()
        path = execution_log.write(run)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return path.stat().st_size, used

    written(10, "warm-up")
    (short, used_for_short), (long, used_for_long) = written(4000, "short"), written(8400, "long")

    assert long > 2 * short
    assert used_for_long < 1.5 * used_for_short
