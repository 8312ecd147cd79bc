"""One look at everything: runs whose time is up end, what dead workers left is taken up, whoever can work is woken."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone
from django_q.conf import Conf
from django_q.models import Failure, OrmQ, Success

from campaigns import control, filling, housekeeping
from campaigns.finish import write_missing_logs
from campaigns.initialize import initialize
from campaigns.models import Cluster, Run, RunState, Start
from campaigns.work import pump
from delivery import owner, queue
from delivery.models import Batch, Delivery, KeptMail, Lease
from delivery.models.batch import BatchState
from delivery.queue import leasing
from delivery.queue.leasing import Leased
from delivery.queue.outcomes import Mark, Settlement, mark, settle
from delivery.worker import Database, Pump
from tests.campaigns import cast

pytestmark = [pytest.mark.usefixtures("output_dir"), pytest.mark.django_db(transaction=True)]

CHUNK = 10
ELSEWHERE = "another-host/boot/1:4711:1"  # a process of which this host knows nothing
INITIALIZE = "campaigns.tasks.initialize_run"
PUMP = "campaigns.tasks.pump_slice"
LOGS = "campaigns.tasks.write_logs"
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "CHUNK", CHUNK)


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """The warnings of campaigns so far."""
    logger = logging.getLogger("campaigns")  # does not propagate to where pytest listens
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    logger.removeHandler(caplog.handler)


def cluster(workers: int = 2, **fields: object) -> Cluster:
    now = timezone.now()
    number = Cluster.objects.count()
    row = {"owner": f"host-{number}:1:1", "host": f"host-{number}", "started_at": now, "beat_at": now}
    return Cluster.objects.create(**row | {"workers": workers} | fields)


def asked() -> list[tuple[str, tuple]]:
    """What the cluster was asked to do and has not begun, in that order."""
    return [(task.task["func"], task.task["args"]) for task in OrmQ.objects.order_by("pk")]


def queued(count: int = 4, slug: str = "letters", **settings: object) -> Run:
    audience = cast.list_audience(cast.crowd(count), slug=f"{slug}-list")
    return cast.queued(cast.workflow(slug, audience=audience, **settings))


def sending(count: int = 4, slug: str = "letters", **settings: object) -> Run:
    run = queued(count, slug, **settings)
    assert initialize(run.pk)
    return cast.fresh(run)


def time_is_up(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(times_out_at=timezone.now() - timedelta(seconds=1))


def in_hands(run: Run, count: int, holder: str = ELSEWHERE) -> tuple[int, list[Leased]]:
    """A worker with so many of the run's deliveries."""
    lease = leasing.acquire(holder, 5 * MINUTE)
    return lease, leasing.lease(lease, run.batch_id, count)


def marked(run: Run, lease: int, rows: list[Leased]) -> set[int]:
    engine = run.workflow.pool.engines.get().pk
    return mark(lease, [Mark(row.id, engine, 1) for row in rows], timezone.now())


def accepted(lease: int, row: Leased) -> None:
    with transaction.atomic():
        settle(lease, [Settlement(row.id, row.batch, "accepted", timezone.now(), row.turn, attempts=1)])


def falls_silent(lease: int) -> None:
    Lease.objects.filter(pk=lease).update(expires_at=timezone.now() - timedelta(seconds=1))


def name_of_the_dead() -> str:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    host, _, _ = owner.name().rsplit(":", 2)
    return f"{host}:{process.pid}:1"


def states(run: Run) -> dict[str, int]:
    return queue.counts_by_state(run.batch_id)


def assert_ended(run: Run, state: RunState, **counts: int) -> None:
    """The run and its batch have their end, and every way of counting agrees."""
    run = cast.fresh(run)
    assert (run.state, run.batch.state, run.ended_at is not None) == (state, BatchState.DONE, True)
    assert cast.nonzero(run.counts) == states(run) == queue.progress(run.batch_id) == counts
    assert sum(counts.values()) == run.batch.total


# --- A run's time limit ----------------------------------------------------------------------------------------------


def test_a_run_gets_its_time_limit_when_it_is_started_and_none_without_one():
    before = timezone.now()
    limited, free = queued(slug="limited", time_limit_minutes=90), queued(slug="free")

    assert before + 90 * MINUTE <= limited.times_out_at <= timezone.now() + 90 * MINUTE
    assert free.times_out_at is None


def test_a_run_whose_time_is_up_fails_and_what_was_not_sent_expires():
    run = sending()
    time_is_up(run)

    housekeeping.tick()

    assert_ended(run, RunState.FAILED, expired=4)
    run = cast.fresh(run)
    assert run.error == f"It was not through by {run.times_out_at:%Y-%m-%d %H:%M} UTC, its time limit."
    assert list(run.events.values_list("state", "by", "why"))[-1] == ("failed", "", run.error)
    assert set(Delivery.objects.values_list("words", flat=True)) == {run.error}
    pump(run.batch_id)
    assert not KeptMail.objects.exists()


@pytest.mark.parametrize("left", [timedelta(seconds=30), None])
def test_a_run_that_has_time_left_goes_on(left):
    run = sending()
    Run.objects.filter(pk=run.pk).update(times_out_at=left and timezone.now() + left)

    housekeeping.tick()

    assert (cast.fresh(run).state, states(run)) == (RunState.SENDING, {"ready": 4})


def test_what_a_worker_has_in_hand_when_the_time_is_up_gets_the_end_that_it_comes_to():
    run = sending(6)
    lease, (first, second, _) = in_hands(run, 3)
    assert marked(run, lease, [first]) == {first.id}
    time_is_up(run)

    housekeeping.tick()
    at_once = (cast.fresh(run).state, cast.fresh(run).batch.state, states(run), dict(cast.fresh(run).counts))
    refused_mark = marked(run, lease, [second])
    accepted(lease, first)
    leasing.end(lease)
    housekeeping.tick()

    assert at_once == (RunState.FAILED, BatchState.CANCELLED, {"sending": 1, "leased": 2, "expired": 3}, {})
    assert refused_mark == set()
    assert_ended(run, RunState.FAILED, accepted=1, expired=5)


def test_what_a_dead_worker_had_in_hand_when_the_time_was_up_expires_or_stays_in_doubt():
    run = sending(6)
    lease, rows = in_hands(run, 3)
    marked(run, lease, rows[:1])
    time_is_up(run)
    housekeeping.tick()

    falls_silent(lease)
    housekeeping.tick()

    assert_ended(run, RunState.FAILED, uncertain=1, expired=5)


def test_a_run_whose_time_is_up_while_it_is_sent_accounts_for_everybody():
    run = sending(600, through=cast.pool(per_second=400))

    def watch(pumping: Pump, database: Database) -> asyncio.Task[None]:
        async def act() -> None:
            # The tally is a row: there is no event to wait for.
            while not await database.ask(queue.progress, run.batch_id):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await database.ask(time_is_up, run)
            await database.ask(housekeeping.tick)

        return asyncio.get_running_loop().create_task(act())

    pump(run.batch_id, watch=watch)

    counts = cast.nonzero(cast.fresh(run).counts)
    assert set(counts) == {"accepted", "expired"}
    assert_ended(run, RunState.FAILED, **counts)
    assert KeptMail.objects.count() == counts["accepted"]


def test_a_paused_run_runs_out_of_time_as_well():
    run = sending()
    control.pause(run, "ada")
    time_is_up(run)

    housekeeping.tick()

    assert_ended(run, RunState.FAILED, expired=4)
    assert cast.story(run)[-2:] == ["paused", "failed"]


def test_a_run_that_nobody_has_begun_runs_out_of_time_as_well():
    run = queued()
    time_is_up(run)

    housekeeping.tick()

    assert (cast.fresh(run).state, cast.fresh(run).batch) == (RunState.FAILED, None)
    assert not initialize(run.pk)


@pytest.mark.parametrize("start", [Start.CHECKED, Start.AT_ONCE])
def test_a_run_that_runs_out_of_time_while_its_audience_is_read_accounts_for_what_was_written(start):
    run = queued(35, start=start)

    def run_out(rows: int) -> None:
        if rows == 2 * CHUNK:
            time_is_up(run)
            housekeeping.tick()

    assert not initialize(run.pk, run_out)

    if start == Start.AT_ONCE:
        assert_ended(run, RunState.FAILED, expired=2 * CHUNK)
    else:
        assert (cast.fresh(run).state, cast.fresh(run).batch) == (RunState.FAILED, None)
        assert [table.objects.count() for table in (Batch, Delivery)] == [0, 0]


def test_what_a_dead_initialiser_left_of_a_run_whose_time_is_up_is_thrown_away():
    run = queued(35)

    class Died(BaseException):
        pass

    def die(rows: int) -> None:
        raise Died

    with pytest.raises(Died):
        initialize(run.pk, die)
    Run.objects.filter(pk=run.pk).update(initializer=name_of_the_dead())
    time_is_up(run)

    housekeeping.tick()

    assert (cast.fresh(run).state, cast.fresh(run).batch) == (RunState.FAILED, None)
    assert [table.objects.count() for table in (Batch, Delivery)] == [0, 0]


@pytest.mark.parametrize("end", ["completed", "cancelled", "failed"])
def test_a_run_that_has_ended_does_not_run_out_of_time(end):
    run = cast.ended(cast.workflow())
    Run.objects.filter(pk=run.pk).update(state=end)
    time_is_up(run)

    assert control.time_out_overdue() == 0

    assert (cast.fresh(run).state, cast.fresh(run).counts) == (end, run.counts)


def test_of_several_that_look_at_once_one_ends_a_run_whose_time_is_up():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    run = sending(40)
    time_is_up(run)

    timed_out = cast.side_by_side(3, lambda n: control.time_out_overdue())

    assert sorted(timed_out) == [0, 0, 1]
    assert cast.story(run).count("failed") == 1
    assert_ended(run, RunState.FAILED, expired=40)


def test_one_run_whose_time_is_up_ends_although_another_cannot():
    first, second = sending(slug="first"), sending(slug="second")
    for run in (first, second):
        time_is_up(run)
    Run.objects.filter(pk=first.pk).update(state=RunState.PAUSED)  # its batch is not held: as after half a move

    assert control.time_out_overdue() == 2

    for run in (first, second):
        assert_ended(run, RunState.FAILED, expired=4)


# --- What nobody works on --------------------------------------------------------------------------------------------


def test_a_run_that_nobody_has_begun_is_asked_for_whether_or_not_there_is_a_cluster():
    run = queued()

    housekeeping.tick()

    assert asked() == [(INITIALIZE, (run.pk,))]


@pytest.mark.parametrize("state", [RunState.INITIALIZING, RunState.SENDING])
@pytest.mark.parametrize(
    ("holder", "seconds", "is_asked_for"),
    [
        (lambda: ELSEWHERE, -1, True),  # silent for too long
        (lambda: "", -1, True),  # given up
        (name_of_the_dead, 60, True),
        (lambda: ELSEWHERE, 60, False),
        (owner.name, 60, False),
    ],
)
def test_a_run_whose_initialiser_has_ended_is_asked_for_and_one_whose_lives_is_not(
    state, holder, seconds, is_asked_for
):
    run = queued()
    until = timezone.now() + timedelta(seconds=seconds)
    Run.objects.filter(pk=run.pk).update(state=state, initializer=holder(), initializer_until=until)

    housekeeping.tick()

    assert ((INITIALIZE, (run.pk,)) in asked()) is is_asked_for


@pytest.mark.parametrize("state", [RunState.PAUSED, RunState.CANCELLED])
def test_a_run_that_is_not_to_go_on_is_not_asked_for(state):
    run = queued()
    Run.objects.filter(pk=run.pk).update(state=state, initializer_until=timezone.now() - MINUTE)

    housekeeping.tick()

    assert INITIALIZE not in [name for name, _ in asked()]


def test_a_run_with_something_ready_wakes_one_pump():
    cluster()
    sending(slug="first")
    sending(slug="second")

    housekeeping.tick()

    assert asked() == [(PUMP, ())]


@pytest.mark.parametrize(("seconds", "wakes"), [(30, [(PUMP, ())]), (300, [])])
def test_a_retry_that_is_due_before_the_next_look_wakes_a_pump(seconds, wakes):
    cluster()
    sending()
    Delivery.objects.update(state="waiting", not_before=timezone.now() + timedelta(seconds=seconds))

    housekeeping.tick()

    assert asked() == wakes


def test_what_another_worker_has_in_hand_wakes_nobody():
    cluster()
    run = sending()
    in_hands(run, 4)

    housekeeping.tick()

    assert asked() == []


def test_a_paused_run_wakes_nobody():
    cluster()
    control.pause(sending(), "ada")

    housekeeping.tick()

    assert asked() == []


def test_a_retry_whose_time_has_come_is_ready():
    run = sending()
    Delivery.objects.update(state="waiting", not_before=timezone.now() - timedelta(seconds=1))

    housekeeping.tick()

    assert states(run) == {"ready": 4}


def test_what_a_dead_worker_had_is_ready_again_and_wakes_a_pump():
    cluster()
    run = sending()
    lease, _ = in_hands(run, 4)
    falls_silent(lease)

    housekeeping.tick()

    assert (states(run), asked()) == ({"ready": 4}, [(PUMP, ())])


# --- What a dead worker has left undone ------------------------------------------------------------------------------


@pytest.mark.parametrize("holder", [lambda: ELSEWHERE, name_of_the_dead])
def test_a_cancelled_run_whose_worker_has_died_comes_to_its_end(holder):
    run = sending(6)
    lease, rows = in_hands(run, 3, holder())
    marked(run, lease, rows[:1])
    control.cancel(run, "ada")
    assert cast.fresh(run).batch.state == BatchState.CANCELLED

    falls_silent(lease)
    housekeeping.tick()

    assert_ended(run, RunState.CANCELLED, uncertain=1, cancelled=5)


def test_a_run_whose_last_pump_died_between_the_last_outcome_and_the_end_comes_to_its_end():
    run = sending(2)
    lease, rows = in_hands(run, 2)
    marked(run, lease, rows)
    for row in rows:
        accepted(lease, row)
    assert cast.fresh(run).state == RunState.SENDING  # and nobody is there any more

    housekeeping.tick()

    assert_ended(run, RunState.COMPLETED, accepted=2)


def test_a_run_that_ended_without_its_log_has_it_asked_for_until_it_is_there():
    run = cast.ended(cast.workflow())

    housekeeping.tick()
    before = asked()
    write_missing_logs()
    OrmQ.objects.all().delete()
    housekeeping.tick()

    assert (before, asked()) == ([(LOGS, ())], [])
    assert cast.fresh(run).log_path != ""


def test_the_log_of_a_cancelled_run_is_not_asked_for_while_a_worker_has_something_of_it():
    run = sending()
    lease, _ = in_hands(run, 1)
    control.cancel(run, "ada")

    housekeeping.tick()
    before = asked()
    leasing.end(lease)
    housekeeping.tick()

    assert LOGS not in [name for name, _ in before]
    assert (LOGS, ()) in asked()


# --- Looking again ---------------------------------------------------------------------------------------------------


def test_a_look_that_is_taken_twice_changes_nothing_the_second_time():
    over, doing, paused = sending(slug="over"), sending(slug="doing"), sending(slug="paused")
    time_is_up(over)
    control.pause(paused, "ada")
    housekeeping.tick()
    first = [(run.state, cast.story(run), states(run), run.counts) for run in map(cast.fresh, (over, doing, paused))]

    housekeeping.tick()

    assert first == [
        (run.state, cast.story(run), states(run), run.counts) for run in map(cast.fresh, (over, doing, paused))
    ]


def test_clusters_that_were_not_heard_of_for_a_day_are_forgotten():
    now = timezone.now()
    for hours in (0, 1, 23, 25, 1000):
        cluster(owner=f"{hours}", beat_at=now - timedelta(hours=hours))

    housekeeping.tick()

    assert set(Cluster.objects.values_list("owner", flat=True)) == {"0", "1", "23"}


def test_failures_are_forgotten_after_thirty_days():
    now = timezone.now()
    for model, success in ((Failure, False), (Success, True)):
        for days in (0, 29, 31):
            at = now - timedelta(days=days)
            name = f"{model.__name__} {days}"
            model.objects.create(id=name, name=name, func="a.b", started=at, stopped=at, success=success)

    housekeeping.tick()

    assert set(Failure.objects.values_list("name", flat=True)) == {"Failure 0", "Failure 29"}
    assert Success.objects.count() == 3


def test_while_the_broker_is_away_everything_else_is_done(monkeypatch, warned):
    cluster()
    cluster(owner="old", beat_at=timezone.now() - timedelta(days=2))
    over, ready = sending(slug="over"), sending(slug="ready")
    fresh = queued(slug="fresh")
    time_is_up(over)
    monkeypatch.setattr(Conf, "ORM", None)
    monkeypatch.setattr(Conf, "REDIS", "redis://127.0.0.1:1/0")

    housekeeping.tick()

    assert_ended(over, RunState.FAILED, expired=4)
    assert (states(ready), cast.fresh(fresh).state) == ({"ready": 4}, RunState.QUEUED)
    assert not Cluster.objects.filter(owner="old").exists()
    assert {words.split(",")[0] for words in warned()} == {"A wake-up is lost"}
    assert asked() == []
