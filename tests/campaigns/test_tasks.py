"""What the cluster is asked to do, called directly: a doubled, lost, late or reordered task changes nothing."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.conf import Conf
from django_q.models import OrmQ

from campaigns import control, drain, filling, signs, tasks, wake
from campaigns.initialize import initialize
from campaigns.models import Cluster, Run, RunState, Start
from delivery import owner, queue
from delivery.hold import hold, release
from delivery.models import Delivery, KeptMail, Message
from tests.campaigns import cast

pytestmark = [pytest.mark.usefixtures("output_dir"), pytest.mark.django_db(transaction=True)]

CHUNK = 10
ELSEWHERE = "another-host/boot/1:4711:1"  # a process of which this host knows nothing
INITIALIZE = "campaigns.tasks.initialize_run"
PUMP = "campaigns.tasks.pump_slice"
LOGS = "campaigns.tasks.write_logs"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "CHUNK", CHUNK)


@pytest.fixture(autouse=True)
def one_run_for_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what a task asks for can be seen; `test_small_runs_that_wait_are_initialised_one_after_the_other` has
    another opinion."""
    monkeypatch.setattr(tasks, "ROUND", 0.0)


@pytest.fixture
def stopping() -> Iterator[Callable[[], None]]:
    """The cluster's head says that it stops, when this is called."""
    yield drain.begin
    drain.reset()


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """The warnings of campaigns so far."""
    logger = logging.getLogger("campaigns")  # does not propagate to where pytest listens
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    logger.removeHandler(caplog.handler)


def cluster(workers: int, **fields: object) -> Cluster:
    now = timezone.now()
    number = Cluster.objects.count()
    row = {"owner": f"host-{number}:1:1", "host": f"host-{number}", "started_at": now, "beat_at": now}
    return Cluster.objects.create(**row | {"workers": workers} | fields)


def asked() -> list[tuple[str, tuple]]:
    """What the cluster was asked to do and has not begun, in that order."""
    return [(task.task["func"], task.task["args"]) for task in OrmQ.objects.order_by("pk")]


def queued(slug: str, count: int = 3, **settings: object) -> Run:
    audience = cast.list_audience(cast.crowd(count), slug=f"{slug}-list")
    return cast.queued(cast.workflow(slug, audience=audience, **settings))


def filled_elsewhere(run: Run, **fields: object) -> None:
    """Another process, which lives, initialises the run."""
    until = timezone.now() + timedelta(minutes=1)
    row = {"state": RunState.INITIALIZING, "initializer": ELSEWHERE, "initializer_until": until}
    Run.objects.filter(pk=run.pk).update(**row | fields)


def died_while_filling(run: Run) -> None:
    """As if the process that initialises the run had been killed after its first chunk."""

    class Died(BaseException):
        pass

    def die(rows: int) -> None:
        raise Died

    with pytest.raises(Died):
        initialize(run.pk, die)
    Run.objects.filter(pk=run.pk).update(initializer_until=timezone.now() - timedelta(seconds=1))


# --- Doubled, late, reordered ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [Start.CHECKED, Start.AT_ONCE])
def test_tasks_in_any_order_and_number_send_every_mail_once_and_end_the_run_once(rng, start):
    cluster(2)
    run = queued("letters", 35, start=start)
    todo = [lambda: tasks.initialize_run(run.pk), tasks.pump_slice, tasks.tick, tasks.write_logs] * 3
    rng.shuffle(todo)

    for task in [*todo, tasks.pump_slice, tasks.write_logs]:
        assert task() is None

    run = cast.fresh(run)
    assert cast.story(run) == ["queued", "initializing", "sending", "completed"]
    assert cast.nonzero(run.counts) == {"accepted": 35}
    assert run.log_path != ""
    assert cast.kept_for("letters-pool") == [address for address, _, _ in cast.crowd(35)]


@pytest.mark.parametrize("end", [control.cancel, control.pause])
def test_a_task_that_comes_late_finds_nothing_to_do(end):
    cluster(2)
    run = queued("letters")
    tasks.initialize_run(run.pk)
    end(run, "ada")
    before = cast.fresh(run)

    tasks.initialize_run(run.pk)
    tasks.pump_slice()
    tasks.tick()

    assert (cast.fresh(run).state, cast.story(run)) == (before.state, cast.story(before))
    assert (KeptMail.objects.count(), queue.counts_by_state(run.batch_id or before.batch_id)) == (
        0,
        {"cancelled" if end is control.cancel else "ready": 3},
    )


def test_whatever_task_may_read_an_audience_is_given_hours_for_it():
    cluster(2)
    run = queued("letters")
    wake.wake(run.pk)
    wake.wake_pumps()

    given = {task.task["func"]: task.task["timeout"] for task in OrmQ.objects.all()}

    assert given == {"campaigns.tasks.initialize_run": wake.LONG, PUMP: wake.LONG}


def test_a_pump_does_what_a_lost_wake_up_should_have_begun():
    run = queued("letters")

    tasks.pump_slice()

    assert cast.fresh(run).state == RunState.COMPLETED
    assert KeptMail.objects.count() == 3


@pytest.mark.parametrize("start", [Start.CHECKED, Start.AT_ONCE])
def test_a_pump_goes_on_where_an_initialiser_has_died(start):
    run = queued("letters", 35, start=start)
    died_while_filling(run)

    tasks.pump_slice()

    assert cast.nonzero(cast.fresh(run).counts) == {"accepted": 35}
    assert cast.kept_for("letters-pool") == [address for address, _, _ in cast.crowd(35)]


def test_a_pump_takes_the_most_urgent_run_that_waits_and_asks_for_the_next():
    cluster(3)
    later, first = queued("later", priority=5), queued("first", priority=-1)

    tasks.pump_slice()

    assert (cast.fresh(first).state, cast.fresh(later).state) == (RunState.COMPLETED, RunState.QUEUED)
    assert (INITIALIZE, (later.pk,)) in asked()


# --- Initialising ----------------------------------------------------------------------------------------------------


def test_a_run_that_is_ready_asks_for_as_many_pumps_as_it_can_use(monkeypatch):
    monkeypatch.setattr(tasks, "FIRST_CHUNK", 10)
    cluster(8)
    small, large = queued("small", 3), queued("large", 35)

    tasks.initialize_run(small.pk)
    for_small = asked()
    OrmQ.objects.all().delete()
    tasks.initialize_run(large.pk)

    assert for_small == [(PUMP, ()), (INITIALIZE, (large.pk,))]
    assert asked() == [(PUMP, ())] * 4


def test_small_runs_that_wait_are_initialised_one_after_the_other(monkeypatch):
    monkeypatch.setattr(tasks, "ROUND", 60.0)
    cluster(2)
    later, first, urgent = queued("later", priority=5), queued("first"), queued("urgent", priority=-1)

    tasks.initialize_run(first.pk)

    first, urgent, later = map(cast.fresh, (first, urgent, later))
    assert {run.state for run in (first, urgent, later)} == {RunState.SENDING}
    assert first.filled_at < urgent.initializing_at < urgent.filled_at < later.initializing_at
    assert INITIALIZE not in dict(asked())


def test_a_worker_that_is_to_stop_begins_with_no_other_run(monkeypatch, stopping):
    monkeypatch.setattr(tasks, "ROUND", 60.0)
    cluster(2)
    first, later = queued("first"), queued("later")
    monkeypatch.setattr(tasks, "initialize", lambda run_id, between: stopping() or initialize(run_id))

    tasks.initialize_run(first.pk)

    assert (cast.fresh(first).state, cast.fresh(later).state) == (RunState.SENDING, RunState.QUEUED)
    assert (INITIALIZE, (later.pk,)) in asked()


def test_a_run_that_fails_to_initialise_asks_for_its_log_and_for_no_pump():
    cluster(4)
    run = queued("letters", version=cast.template(text="{{ nickname }}"))

    tasks.initialize_run(run.pk)

    assert cast.fresh(run).state == RunState.FAILED
    assert asked() == [(LOGS, ())]


@pytest.mark.parametrize("start", [Start.CHECKED, Start.AT_ONCE])
def test_a_more_urgent_run_is_initialised_between_two_chunks_of_a_large_one(monkeypatch, start):
    monkeypatch.setattr(tasks, "LOOK", 0.0)
    large, less, urgent = (
        queued(slug, count, priority=priority, start=start)
        for slug, count, priority in (("large", 45, 5), ("less", 3, 9), ("urgent", 3, -1))
    )

    tasks.initialize_run(large.pk)

    large, less, urgent = map(cast.fresh, (large, less, urgent))
    assert large.initializing_at < urgent.initializing_at < urgent.filled_at < large.filled_at
    assert (large.batch.total, urgent.batch.total) == (45, 3)
    assert (large.state, urgent.state, less.state) == (RunState.SENDING, RunState.SENDING, RunState.QUEUED)


def test_an_urgent_run_that_cannot_be_initialised_does_not_stop_the_large_one(monkeypatch):
    monkeypatch.setattr(tasks, "LOOK", 0.0)
    large = queued("large", 45, priority=5)
    urgent = queued("urgent", priority=-1, version=cast.template(text="{{ nickname }}"))

    tasks.initialize_run(large.pk)

    assert (cast.fresh(urgent).state, cast.fresh(large).state) == (RunState.FAILED, RunState.SENDING)
    assert cast.fresh(large).batch.total == 45


# --- A worker is left for sending ------------------------------------------------------------------------------------


def test_while_another_audience_is_read_the_last_worker_sends():
    cluster(2)
    ready, reading, waits = queued("ready"), queued("reading"), queued("waits")
    initialize(ready.pk)
    filled_elsewhere(reading)

    tasks.initialize_run(waits.pk)
    tasks.pump_slice()

    assert cast.fresh(waits).state == RunState.QUEUED
    assert cast.fresh(ready).state == RunState.COMPLETED
    assert asked()[0] == (PUMP, ())


def _paused(run: Run) -> None:
    filled_elsewhere(run, state=RunState.PAUSED)


def _sending(run: Run) -> None:
    filled_elsewhere(run, state=RunState.SENDING)


@pytest.mark.parametrize("reads", [filled_elsewhere, _sending, _paused])
def test_an_audience_counts_as_read_whatever_state_its_run_is_in_meanwhile(reads):
    cluster(2)
    reading, waits = queued("reading"), queued("waits")
    reads(reading)

    tasks.initialize_run(waits.pk)

    assert cast.fresh(waits).state == RunState.QUEUED


@pytest.mark.parametrize(
    "ended",
    [
        {"filled_at": timezone.now()},
        {"initializer_until": timezone.now() - timedelta(seconds=1)},
        {"initializer": "", "initializer_until": None},
        {"state": RunState.CANCELLED},
    ],
)
def test_an_audience_that_nobody_reads_any_more_keeps_nobody_from_the_next(ended):
    cluster(2)
    read, waits = queued("read", priority=9), queued("waits")
    filled_elsewhere(read, **{"state": RunState.SENDING} | ended)

    tasks.initialize_run(waits.pk)

    assert cast.fresh(waits).state == RunState.SENDING


def test_an_audience_whose_reader_is_gone_from_this_host_keeps_nobody_from_the_next():
    cluster(2)
    read, waits = queued("read", priority=9), queued("waits")
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    host, _, _ = owner.name().rsplit(":", 2)
    filled_elsewhere(read, initializer=f"{host}:{process.pid}:1")

    tasks.initialize_run(waits.pk)

    assert cast.fresh(waits).state == RunState.SENDING


@pytest.mark.parametrize(
    ("rows", "reads"),
    [
        ([(3, {})], True),
        ([(1, {}), (2, {})], True),  # on two hosts
        ([(2, {}), (2, {"stopping": True})], False),
        ([(2, {}), (2, {"beat_at": timezone.now() - timedelta(minutes=1)})], False),
        ([], False),  # a command without a cluster: one audience at a time
    ],
)
def test_a_second_audience_is_read_where_there_are_workers_enough(rows, reads):
    for workers, fields in rows:
        cluster(workers, **fields)
    reading, waits = queued("reading"), queued("waits")
    filled_elsewhere(reading)

    tasks.initialize_run(waits.pk)

    assert (cast.fresh(waits).state == RunState.SENDING) is reads


# --- Slices ----------------------------------------------------------------------------------------------------------


def test_a_slice_that_ends_with_work_left_asks_for_the_next(monkeypatch):
    monkeypatch.setattr(tasks, "SLICE", 0.3)
    cluster(2)
    run = queued("letters", through=cast.pool(per_second=1))
    initialize(run.pk)

    tasks.pump_slice()

    assert queue.counts_by_state(cast.fresh(run).batch_id)["ready"] >= 1
    assert asked() == [(PUMP, ())]


def test_a_slice_that_leaves_nothing_to_do_asks_for_nothing_but_the_log():
    cluster(2)
    run = queued("letters")
    initialize(run.pk)

    tasks.pump_slice()

    assert cast.fresh(run).state == RunState.COMPLETED
    assert asked() == [(LOGS, ())]


def test_a_slice_that_fails_asks_for_nothing():
    cluster(2)
    run = queued("letters")
    initialize(run.pk)
    Message.objects.all().delete()

    with pytest.raises(Message.DoesNotExist):
        tasks.pump_slice()

    assert asked() == []
    assert signs.busy() == 0


def test_a_slice_makes_room_for_a_run_that_waits_to_be_initialised(monkeypatch):
    monkeypatch.setattr(tasks, "LEAST_SLICE", 0.0)
    monkeypatch.setattr(tasks, "LOOK", 0.05)
    cluster(2)
    slow, late = queued("slow", 40, through=cast.pool(per_second=1)), queued("late")
    initialize(slow.pk)
    # Somebody else is about to initialise it and ends only when the pump is under way.
    filled_elsewhere(late, initializer_until=timezone.now() + timedelta(seconds=1))

    begun = time.monotonic()
    tasks.pump_slice()

    assert time.monotonic() - begun < tasks.SLICE - 5
    assert asked()[0] == (PUMP, ())
    assert Delivery.objects.filter(state="ready").count() > 0


# --- A stop ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [Start.CHECKED, Start.AT_ONCE])
def test_a_stop_leaves_a_run_that_is_initialised_to_anybody_and_says_so(stopping, start):
    run = queued("letters", 45, start=start)
    stopping()

    tasks.initialize_run(run.pk)
    left = cast.fresh(run)
    drain.reset()
    tasks.pump_slice()

    assert (left.initializer, left.filled_at, left.rows_read) == ("", None, CHUNK)
    assert (INITIALIZE, (run.pk,)) in asked()
    assert cast.nonzero(cast.fresh(run).counts) == {"accepted": 45}


def test_after_a_stop_a_pump_sends_nothing(stopping):
    run = queued("letters")
    initialize(run.pk)
    stopping()

    tasks.pump_slice()

    assert queue.counts_by_state(cast.fresh(run).batch_id) == {"ready": 3}


def test_a_stop_while_logs_are_written_leaves_them_to_the_next(stopping):
    run = cast.ended(cast.workflow())
    stopping()

    tasks.write_logs()
    before = (cast.fresh(run).log_path, asked())
    drain.reset()
    tasks.write_logs()

    assert before == ("", [(LOGS, ())])
    assert cast.fresh(run).log_path.endswith(f"{run.pk}.json")


# --- Wake-ups --------------------------------------------------------------------------------------------------------


def test_a_wake_up_asks_for_what_the_state_of_the_run_needs():
    cluster(4)
    run = queued("letters")
    wanted = {}
    for state, filled_at in (
        ("queued", None),
        ("initializing", None),
        ("sending", None),
        ("sending", timezone.now()),
        ("cancelled", timezone.now()),
    ):
        Run.objects.filter(pk=run.pk).update(state=state, filled_at=filled_at)
        wake.wake(run.pk)
        wanted[state, filled_at is not None] = [name for name, _ in asked()]
        OrmQ.objects.all().delete()

    assert wanted == {
        ("queued", False): [INITIALIZE],
        ("initializing", False): [INITIALIZE],
        ("sending", False): [INITIALIZE, PUMP],
        ("sending", True): [PUMP],
        ("cancelled", True): [PUMP],
    }


def test_a_wake_up_for_a_run_that_is_no_more_asks_for_nothing():
    cluster(4)

    wake.wake(4711)

    assert asked() == []


def test_no_more_pumps_are_asked_for_than_there_are_workers_and_not_again_while_they_are_on_their_way():
    cluster(2)
    cluster(1)

    numbers = []
    for _ in range(4):
        wake.wake_pumps(10)
        numbers.append(len(asked()))

    assert numbers == [3, 6, 6, 6]


def test_without_a_cluster_no_pump_is_asked_for():
    cluster(3, beat_at=timezone.now() - timedelta(hours=1))

    wake.wake_pumps(10)

    assert asked() == []


@pytest.fixture
def broker_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker is a Redis that is not there."""
    monkeypatch.setattr(Conf, "ORM", None)
    monkeypatch.setattr(Conf, "REDIS", "redis://127.0.0.1:1/0")


@pytest.mark.parametrize(
    "deed", [lambda: wake.wake_pumps(), wake.ask_for_logs, wake.ask_for_tick, lambda: wake.wake(Run.objects.get().pk)]
)
def test_a_broker_that_is_away_costs_a_warning_and_no_exception(broker_away, warned, deed):
    cluster(2)
    queued("letters")

    deed()

    assert warned()
    assert {words.split(",")[0] for words in warned()} == {"A wake-up is lost"}


def test_a_person_may_start_pause_and_resume_a_run_and_it_is_sent_while_the_broker_is_away(broker_away, warned):
    cluster(2)
    run = queued("letters")
    tasks.initialize_run(run.pk)
    control.pause(run, "ada")
    control.resume(run, "ada")
    tasks.pump_slice()
    tasks.tick()

    assert cast.fresh(run).state == RunState.COMPLETED
    assert warned()


def test_an_engine_that_is_released_wakes_a_pump():
    cluster(2)
    engine = cast.pool().engines.get()
    hold(engine, "ada", "lunch")

    release(engine, "ada", "back")

    assert asked() == [(PUMP, ())]
