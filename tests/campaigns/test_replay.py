"""Replay: what failed goes out again in its place, once, and every count is true before, meanwhile and afterwards."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from django.utils import timezone
from django_q.models import OrmQ

from campaigns import control
from campaigns.control import time_out_overdue
from campaigns.exceptions import IllegalMove, NothingToReplay
from campaigns.finish import write_missing_logs
from campaigns.models import Cluster, Run, RunState
from campaigns.replay import by_run, consider_accepted, replay_run, replayable
from campaigns.tasks import waiting_runs
from campaigns.work import pump
from delivery import queue
from delivery.exceptions import IllegalTransition
from delivery.hold import hold, release
from delivery.models import Delivery, Engine, KeptMail, Suppression
from delivery.models.batch import BatchState
from delivery.queue import tallies
from tests.campaigns import cast
from tests.campaigns.replaying import end_as, in_state, over

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("output_dir")]

ONE_WRITER = pytest.mark.skipif(
    "config.getoption('database') == 'sqlite'", reason="SQLite has one writer at a time: the second waits"
)
FAILED = ("dead", "rejected", "expired")


# --- The queue -------------------------------------------------------------------------------------------------------


def test_what_failed_is_as_if_never_tried_and_the_tally_no_longer_counts_it():
    run = over("dead", "rejected", "expired", "uncertain")

    count = queue.replay(run.batch_id, states=FAILED)

    fields = ("attempts", "not_before", "lease_id", "settled_at", "tried_at", "code", "words", "pinned", "resends")
    again = Delivery.objects.filter(batch=run.batch_id, state="ready")
    assert count == 3
    assert set(again.values_list(*fields)) == {(0, None, None, None, None, "", "", False, 0)}
    assert queue.progress(run.batch_id) == {"accepted": 2, "uncertain": 1}
    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "uncertain": 1, "ready": 3}
    assert (cast.fresh(run).batch.state, cast.fresh(run).batch.done_at) == (BatchState.OPEN, None)


def test_an_uncertain_one_is_asked_of_its_own_engine_alone():
    run = over("uncertain")
    (before,) = in_state(run, "uncertain")

    queue.replay(run.batch_id, states=["uncertain"])

    (after,) = in_state(run, "ready")
    assert (after.pinned, after.resends, after.engine_id) == (True, 1, before.engine_id)
    assert before.engine_id is not None


def test_only_the_deliveries_named_are_replayed_and_only_those_of_this_batch():
    run, other = over("dead", "dead"), over("dead", slug="others")
    ids = [in_state(run, "dead")[1].pk, in_state(other, "dead")[0].pk]

    assert queue.replay(run.batch_id, states=FAILED, ids=ids) == 1

    assert [d.pk for d in in_state(run, "ready")] == ids[:1]
    assert queue.counts_by_state(other.batch_id) == {"accepted": 2, "dead": 1}


def test_nothing_is_replayed_from_a_state_in_which_the_mail_is_out_or_was_never_to_go():
    run = over("dead")

    with pytest.raises(ValueError, match="Nothing is replayed from accepted"):
        queue.replay(run.batch_id, states=["dead", "accepted"])

    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "dead": 1}


def test_a_batch_of_which_nothing_is_replayed_stays_done():
    run = over("uncertain")

    assert queue.replay(run.batch_id, states=FAILED) == 0

    assert cast.fresh(run).batch.state == BatchState.DONE


@ONE_WRITER
def test_of_many_who_replay_the_same_dead_letters_at_once_each_letter_goes_to_one():
    run = over(*["dead"] * 40)

    counts = cast.side_by_side(8, lambda number: queue.replay(run.batch_id, states=FAILED))

    assert sorted(counts) == [0] * 7 + [40]
    assert queue.progress(run.batch_id) == {"accepted": 2}
    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "ready": 40}


def test_a_batch_is_not_called_done_by_a_count_from_before_a_replay(monkeypatch):
    run = cast.initialized(cast.workflow())
    end_as(run, "dead", "accepted", "accepted")
    count = tallies.counts_by_state

    def replayed_meanwhile(batch_id: int) -> dict[str, int]:
        counted = count(batch_id)
        queue.replay(batch_id, states=FAILED)
        return counted

    monkeypatch.setattr(tallies, "counts_by_state", replayed_meanwhile)
    assert not queue.finish_if_done(run.batch_id)

    monkeypatch.undo()
    assert (cast.fresh(run).state, cast.fresh(run).batch.state) == (RunState.SENDING, BatchState.OPEN)
    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "ready": 1}


# --- Runs ------------------------------------------------------------------------------------------------------------


def test_a_finished_run_whose_failures_are_retried_completes_again_with_true_counts_and_a_new_log(output_dir):
    run = over("dead", "rejected", "uncertain")
    log = Path(run.log_path)
    assert json.loads(log.read_text())["counts"]["dead"] == 1

    assert replay_run(run, "ada", "the server is mended") == 2

    going = cast.fresh(run)
    assert (going.state, going.ended_at, going.counts, going.log_path) == (RunState.SENDING, None, {}, "")
    pump(run.batch_id)
    write_missing_logs()
    again = cast.fresh(run)
    assert again.state == RunState.COMPLETED
    assert cast.nonzero(again.counts) == {"accepted": 4, "uncertain": 1}
    assert queue.progress(run.batch_id) == queue.counts_by_state(run.batch_id) == cast.nonzero(again.counts)
    written = json.loads(Path(again.log_path).read_text())
    assert Path(again.log_path) == log
    assert (written["counts"], written["state"]) == (again.counts, "completed")
    assert [r["state"] for r in written["recipients"]].count("accepted") == 4
    assert list(run.events.values_list("state", "by", "why"))[-2:] == [
        ("sending", "ada", "replays 2 deliveries: the server is mended"),
        ("completed", "", "5 of 5 accounted for"),
    ]


def test_who_has_the_mail_does_not_get_it_again_when_the_others_are_retried():
    run = over("dead", "rejected")
    KeptMail.objects.all().delete()

    replay_run(run, "ada")
    pump(run.batch_id)

    assert cast.kept_for("letters-pool") == [delivery.address for delivery in in_state(run, "accepted")[:2]]


def test_a_replay_wakes_the_cluster():
    run = over("dead")
    now = timezone.now()
    Cluster.objects.create(owner="a", host="a", workers=2, started_at=now, beat_at=now)
    OrmQ.objects.all().delete()

    replay_run(run, "ada")

    assert [task.task["func"] for task in OrmQ.objects.all()] == ["campaigns.tasks.pump_slice"]


def test_the_release_of_an_engine_wakes_the_cluster():
    cast.pool()
    now = timezone.now()
    Cluster.objects.create(owner="a", host="a", workers=2, started_at=now, beat_at=now)
    engine = Engine.objects.get()
    hold(engine, "ada", "lunch")
    assert not OrmQ.objects.exists()

    release(engine, "ada")

    assert [task.task["func"] for task in OrmQ.objects.all()] == ["campaigns.tasks.pump_slice"]


def test_a_run_that_is_replayed_never_reads_its_audience_again():
    run = over("dead")
    ended_at = run.ended_at
    Run.objects.filter(pk=run.pk).update(filled_at=None)  # as older runs are

    replay_run(run, "ada")

    assert cast.fresh(run).filled_at == ended_at
    assert not waiting_runs().exists()


def test_a_run_whose_time_was_up_sends_what_expired_when_it_is_replayed():
    run = cast.initialized(cast.workflow())
    Run.objects.filter(pk=run.pk).update(times_out_at=timezone.now())
    assert time_out_overdue() == 1
    assert (cast.fresh(run).state, queue.counts_by_state(run.batch_id)) == (RunState.FAILED, {"expired": 3})

    replay_run(run, "ada")
    pump(run.batch_id)

    again = cast.fresh(run)
    assert (again.state, again.times_out_at, again.error) == (RunState.COMPLETED, None, "")
    assert cast.nonzero(again.counts) == {"accepted": 3}
    assert time_out_overdue() == 0


def test_a_run_that_failed_before_its_whole_audience_was_written_is_not_replayed():
    run = over("dead")
    Run.objects.filter(pk=run.pk).update(filled_at=None, state=RunState.FAILED)

    with pytest.raises(IllegalMove, match="a replay would leave the others out in silence"):
        replay_run(run, "ada")

    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "dead": 1}


def test_an_address_suppressed_meanwhile_stays_suppressed():
    run = over("dead", "dead")
    dead = in_state(run, "dead")[0]
    Suppression.objects.create(address=dead.address, identity=dead.identity, reason="unsubscribe")
    KeptMail.objects.all().delete()

    replay_run(run, "ada")
    pump(run.batch_id)

    assert cast.nonzero(cast.fresh(run).counts) == {"accepted": 3, "suppressed": 1}
    assert cast.kept_for("letters-pool") == [in_state(run, "accepted")[0].address]


def test_while_a_run_is_sending_or_paused_its_dead_letters_go_back_without_a_move():
    run = cast.initialized(cast.workflow())
    end_as(run, "dead")

    replay_run(run, "ada", "now")
    end_as(run, "dead")
    control.pause(run, "ada")
    replay_run(run, "grace")

    assert (cast.fresh(run).state, cast.fresh(run).batch.state) == (RunState.PAUSED, BatchState.HELD)
    assert list(run.events.values_list("state", "by", "why"))[-3:] == [
        ("sending", "ada", "replays 1 delivery: now"),
        ("paused", "ada", ""),
        ("paused", "grace", "replays 1 delivery"),
    ]
    control.resume(run, "ada")
    pump(run.batch_id)
    assert cast.nonzero(cast.fresh(run).counts) == {"accepted": 3}


def test_an_uncertain_one_is_replayed_only_when_asked_for():
    run = over("uncertain")

    with pytest.raises(NothingToReplay, match="there are 1 uncertain, to be asked for by name"):
        replay_run(run, "ada")
    assert cast.fresh(run).state == RunState.COMPLETED

    assert replay_run(run, "ada", states=[*FAILED, "uncertain"]) == 1
    pump(run.batch_id)
    assert cast.nonzero(cast.fresh(run).counts) == {"accepted": 3}


def test_a_run_with_nothing_to_replay_says_so_and_stays_as_it_was():
    run = over()
    events = run.events.count()

    with pytest.raises(NothingToReplay, match="has nothing to replay that is dead or rejected or expired"):
        replay_run(run, "ada")

    assert (cast.fresh(run).state, run.events.count()) == (RunState.COMPLETED, events)


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (lambda: cast.queued(cast.workflow()), "has sent nothing"),
        (lambda: cancelled(), "was cancelled"),
        (lambda: failed_early(), "has sent nothing|nothing to replay|not all of its deliveries"),
    ],
)
def test_a_run_that_never_sent_or_was_cancelled_is_not_replayed(begin: Callable[[], Run], said: str):
    run = begin()
    state = cast.fresh(run).state

    with pytest.raises((IllegalMove, NothingToReplay), match=said):
        replay_run(run, "ada", states=queue.REPLAYED)

    assert cast.fresh(run).state == state


def cancelled() -> Run:
    run = cast.initialized(cast.workflow())
    end_as(run, "dead")
    control.cancel(run, "ada")
    return run


def failed_early() -> Run:
    run = cast.initialized(cast.workflow(version=cast.template("bad", text="{{ nowhere }}")))
    assert run.state == RunState.FAILED
    return run


@ONE_WRITER
def test_two_who_retry_the_same_finished_run_at_once_replay_it_once():
    run = over(*["dead"] * 20)

    def retry(number: int) -> int | str:
        try:
            return replay_run(Run.objects.get(pk=run.pk), f"person {number}")
        except NothingToReplay:
            return "nothing"

    results = cast.side_by_side(6, retry)

    assert sorted(results, key=str) == [20] + ["nothing"] * 5
    assert cast.story(run)[-1:] == ["sending"]
    assert cast.story(run).count("completed") == 1
    pump(run.batch_id)
    assert cast.nonzero(cast.fresh(run).counts) == {"accepted": 22}


@ONE_WRITER
def test_a_replay_and_a_cancel_at_once_leave_nothing_that_could_still_go_out():
    for round_ in range(8):
        run = cast.initialized(cast.workflow(f"round-{round_}"))
        end_as(run, "dead", "dead", "accepted")

        def act(number: int, run: Run = run) -> None:
            with suppress(IllegalMove, IllegalTransition, NothingToReplay):
                if number:
                    control.cancel(Run.objects.get(pk=run.pk), "ada")
                else:
                    replay_run(Run.objects.get(pk=run.pk), "grace")

        cast.side_by_side(2, act)

        counts = queue.counts_by_state(run.batch_id)
        assert cast.fresh(run).state == RunState.CANCELLED
        assert counts == queue.progress(run.batch_id)
        assert counts in ({"dead": 2, "accepted": 1}, {"cancelled": 2, "accepted": 1})


@ONE_WRITER
def test_a_replay_at_the_very_end_of_a_run_is_either_before_it_or_after_it():
    for round_ in range(8):
        run = cast.initialized(cast.workflow(f"round-{round_}"))
        end_as(run, "dead", "dead", "accepted")

        def act(number: int, run: Run = run) -> None:
            if number:
                queue.finish_if_done(run.batch_id)
            else:
                replay_run(Run.objects.get(pk=run.pk), "grace")

        cast.side_by_side(2, act)

        after = cast.fresh(run)
        assert (after.state, after.batch.state, after.counts) == (RunState.SENDING, BatchState.OPEN, {})
        assert queue.counts_by_state(run.batch_id) == {"ready": 2, "accepted": 1}
        assert queue.progress(run.batch_id) == {"accepted": 1}


def test_what_could_be_replayed_is_told_by_state():
    assert replayable(over("dead", "dead", "uncertain")) == {"dead": 2, "uncertain": 1}


def test_deliveries_are_told_apart_by_their_run():
    run, other = over("dead"), over("dead", slug="others")
    ids = [in_state(run, "dead")[0].pk, in_state(other, "dead")[0].pk]

    assert by_run(ids) == {run: ids[:1], other: ids[1:]}


# --- Known to have arrived -------------------------------------------------------------------------------------------


def test_what_a_person_knows_to_have_arrived_counts_as_accepted_and_says_who_knew():
    run = over("uncertain", "uncertain", "dead")
    ids = [d.pk for d in in_state(run, "uncertain", "dead")]

    assert consider_accepted(run, "ada", [ids[0], ids[2]], "seen in the provider's log") == 1

    again = cast.fresh(run)
    assert cast.nonzero(again.counts) == {"accepted": 3, "uncertain": 1, "dead": 1}
    assert queue.progress(run.batch_id) == queue.counts_by_state(run.batch_id) == cast.nonzero(again.counts)
    assert Delivery.objects.get(pk=ids[0]).words == "taken as accepted: ada, seen in the provider's log"
    assert (again.state, again.log_path) == (RunState.COMPLETED, "")
    with pytest.raises(NothingToReplay):
        consider_accepted(run, "ada", [ids[0]])
