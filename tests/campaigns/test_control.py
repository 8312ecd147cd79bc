"""What a person can do to a run under way: pause, resume, cancel. Nobody gets a mail twice, nobody is forgotten."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import OrmQ

from campaigns import control
from campaigns.exceptions import IllegalMove
from campaigns.models import Cluster, Run, RunState
from campaigns.work import Watch, pump
from delivery import owner, queue
from delivery.models import Delivery, KeptMail
from delivery.models.batch import BatchState
from delivery.queue import database_now, leasing
from delivery.queue.outcomes import Mark, Settlement, mark, settle
from delivery.worker import Database, Pump
from tests.campaigns import cast

pytestmark = pytest.mark.usefixtures("output_dir")

MANY = 400
PACE = 1000  # a second: some part of the whole is under way for a good while


def sending() -> Run:
    """A run to many people, ready to send."""
    people = cast.list_audience(cast.crowd(MANY))
    return cast.initialized(cast.workflow(audience=people, through=cast.pool(per_second=PACE)))


def once_some_are_accepted(run: Run, deed: Callable[[], None]) -> Watch:
    """Does something to the run while it is half-way."""

    def watch(pumping: Pump, database: Database) -> asyncio.Task[None]:
        async def act() -> None:
            # The tally is a row: there is no event to wait for.
            while not await database.ask(queue.progress, run.batch_id):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await database.ask(deed)

        return asyncio.get_running_loop().create_task(act())

    return watch


def states(run: Run) -> dict[str, int]:
    return queue.counts_by_state(run.batch_id)


# --- Pause and resume ------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_nothing_goes_out_of_a_paused_run_and_everything_once_it_is_resumed():
    run = cast.initialized(cast.workflow())

    control.pause(run, "ada", "coffee")
    pump(run.batch_id)
    paused = (cast.fresh(run).state, cast.fresh(run).batch.state, cast.fresh(run).batch.hold_reason, states(run))
    control.resume(run, "grace", "had enough")
    pump(run.batch_id)

    assert paused == (RunState.PAUSED, BatchState.HELD, "coffee", {"ready": 3})
    assert states(run) == {"accepted": 3}
    assert list(run.events.values_list("state", "by", "why"))[3:] == [
        ("paused", "ada", "coffee"),
        ("sending", "grace", "had enough"),
        ("completed", "", "3 of 3 accounted for"),
    ]


@pytest.mark.django_db(transaction=True)
def test_a_run_paused_half_way_stands_still_and_goes_on_to_everybody_once():
    run = sending()

    pump(run.batch_id, watch=once_some_are_accepted(run, lambda: control.pause(run, "ada")))
    half = states(run)
    pump(run.batch_id)
    still = states(run)
    control.resume(run, "ada")
    pump(run.batch_id)

    assert set(half) == {"accepted", "ready"}
    assert sum(half.values()) == MANY
    assert still == half
    assert cast.fresh(run).state == RunState.COMPLETED
    assert cast.nonzero(cast.fresh(run).counts) == {"accepted": MANY}
    assert cast.kept_for("main") == [address for address, _, _ in cast.crowd(MANY)]
    assert set(Delivery.objects.values_list("attempts", "resends")) == {(1, 0)}


@pytest.mark.django_db(transaction=True)
def test_a_run_whose_last_answer_came_while_it_was_paused_completes_when_it_is_resumed():
    run = cast.initialized(cast.workflow(audience=cast.list_audience(cast.crowd(1))))
    lease = leasing.acquire(owner.name(), timedelta(minutes=1))
    (leased,) = leasing.lease(lease, run.batch_id, 10)
    now = timezone.now()
    assert mark(lease, [Mark(leased.id, run.workflow.pool.engines.get().pk, 1)], now) == {leased.id}

    control.pause(run, "ada")
    settle(lease, [Settlement(leased.id, run.batch_id, "accepted", now, leased.turn, attempts=1)])
    leasing.end(lease)
    paused = (cast.fresh(run).state, states(run))
    control.resume(run, "ada")
    pump(run.batch_id)

    assert paused == (RunState.PAUSED, {"accepted": 1})
    assert cast.fresh(run).state == RunState.COMPLETED


@pytest.mark.django_db(transaction=True)
def test_resuming_wakes_the_cluster_if_there_is_one():
    run = cast.initialized(cast.workflow())
    control.pause(run, "ada")
    control.resume(run, "ada")
    assert not OrmQ.objects.exists()  # one that starts looks for work by itself
    control.pause(run, "ada")
    now = database_now()
    Cluster.objects.create(owner="a head", host="here", workers=2, started_at=now, beat_at=now)

    control.resume(run, "ada")

    assert [task.task["func"] for task in OrmQ.objects.all()] == ["campaigns.tasks.pump_slice"]


# --- Cancel ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_run_cancelled_half_way_accounts_for_everybody():
    run = sending()

    pump(run.batch_id, watch=once_some_are_accepted(run, lambda: control.cancel(run, "ada", "wrong list")))

    run = cast.fresh(run)
    counts = cast.nonzero(run.counts)
    assert (run.state, run.batch.state, run.ended_at is not None) == (RunState.CANCELLED, BatchState.DONE, True)
    assert set(counts) == {"accepted", "cancelled"}
    assert sum(counts.values()) == run.batch.total == MANY
    assert counts == states(run) == queue.progress(run.batch_id)
    assert KeptMail.objects.count() == counts["accepted"]
    assert list(run.events.values_list("state", "by", "why"))[-1] == ("cancelled", "ada", "wrong list")


@pytest.mark.django_db(transaction=True)
def test_a_run_cancelled_before_it_began_to_send_sends_nothing():
    run = cast.initialized(cast.workflow())

    control.cancel(run, "ada")
    pump(run.batch_id)

    run = cast.fresh(run)
    assert (run.state, run.batch.state, cast.nonzero(run.counts)) == (
        RunState.CANCELLED,
        BatchState.DONE,
        {"cancelled": 3},
    )
    assert not KeptMail.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_paused_run_can_be_cancelled():
    run = sending()
    pump(run.batch_id, watch=once_some_are_accepted(run, lambda: control.pause(run, "ada")))
    accepted = states(run)["accepted"]

    control.cancel(run, "grace")

    assert cast.story(run)[-2:] == ["paused", "cancelled"]
    assert cast.nonzero(cast.fresh(run).counts) == {"accepted": accepted, "cancelled": MANY - accepted}


@pytest.mark.django_db
def test_a_queued_run_can_be_cancelled():
    run = cast.queued(cast.workflow())

    control.cancel(run, "ada")

    assert cast.story(run) == ["queued", "cancelled"]
    assert cast.fresh(run).ended_at is not None


# --- What cannot be done ---------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("state", "deeds"),
    [
        ("queued", [control.pause, control.resume]),
        ("initializing", [control.pause, control.resume]),
        ("sending", [control.resume]),
        ("paused", [control.pause]),
        ("completed", [control.pause, control.resume, control.cancel]),
        ("failed", [control.pause, control.resume, control.cancel]),
        ("cancelled", [control.pause, control.resume, control.cancel]),
    ],
)
def test_what_cannot_be_done_in_a_state_is_refused_and_changes_nothing(state, deeds):
    run = cast.initialized(cast.workflow())
    Run.objects.filter(pk=run.pk).update(state=state)

    for deed in deeds:
        with pytest.raises(IllegalMove, match=f"Run {run.pk} is {state}: only a run that is"):
            deed(run, "ada")

    assert (cast.fresh(run).state, cast.fresh(run).batch.state) == (state, BatchState.OPEN)
    assert cast.story(run) == ["queued", "initializing", "sending"]
    assert not OrmQ.objects.exists()
