"""What a person can do for deliveries that did not get through: send them again, or say that they have arrived.

The batch is locked first and the run written after it, as at a run's end: two that wait for each other in a circle are
not possible.
"""

from collections.abc import Collection, Iterable

from django.db import transaction
from django.db.models import Count

from campaigns.exceptions import IllegalMove, NothingToReplay
from campaigns.models import Run, RunEvent, RunState
from campaigns.transitions import reopen
from campaigns.wake import wake
from delivery import queue
from delivery.logs import bound
from delivery.models import Batch, Delivery, DeliveryState
from delivery.models.batch import BatchState

# An uncertain delivery may have arrived: it is sent again only when somebody asks for just that.
FAILED = (DeliveryState.DEAD, DeliveryState.REJECTED, DeliveryState.EXPIRED)
OVER = (RunState.COMPLETED, RunState.FAILED)


def replay_run(
    run: Run, by: str, why: str = "", *, states: Collection[str] = FAILED, ids: Collection[int] | None = None
) -> int:
    """Sends what failed of a run again, all of it or the deliveries of `ids`. Returns how many. A run that was over is
    sending again, and ends anew: then its counts and its execution log are rewritten.

    Raises NothingToReplay when no delivery is in one of `states`, and IllegalMove for a run that was cancelled, has not
    begun to send, or is not quite at its end.
    """
    _refuse_unless_replayable(run)
    with bound(run=run.pk, correlation_id=run.correlation_id), transaction.atomic():
        count = queue.replay(run.batch_id, states=states, ids=ids)
        if not count:
            raise NothingToReplay(f"Run {run.pk} has nothing to replay{_hint(run, states, ids)}.")
        words = f"replays {count:,} {'delivery' if count == 1 else 'deliveries'}" + (f": {why}" if why else "")
        if not reopen(run.pk, by=by, why=words):
            run.refresh_from_db()
            if run.state not in (RunState.SENDING, RunState.PAUSED):
                raise IllegalMove(f"Run {run.pk} is {run.state}: nothing of it can be sent again.")
            RunEvent.objects.create(run=run, state=run.state, by=by[:150], why=words[:500])
        transaction.on_commit(lambda: wake(run.pk))
    run.refresh_from_db()
    return count


def consider_accepted(run: Run, by: str, ids: Iterable[int], why: str = "") -> int:
    """Ends uncertain deliveries as accepted, because somebody knows that they have arrived. Returns how many; of a run
    that is over, counts and execution log are rewritten. Raises NothingToReplay when none of them is uncertain."""
    with bound(run=run.pk, correlation_id=run.correlation_id), transaction.atomic():
        count = queue.consider_accepted(run.batch_id, ids, f"{by}, {why}" if why else by)
        if not count:
            raise NothingToReplay(f"None of these deliveries of run {run.pk} is uncertain.")
        counted = Run.objects.filter(pk=run.pk, state__in=[*OVER, RunState.CANCELLED]).exclude(counts={})
        for counts in counted.values_list("counts", flat=True):
            counted.update(counts=dict.fromkeys(counts, 0) | queue.progress(run.batch_id), log_path="")
        run.refresh_from_db()
        words = f"{count:,} taken as accepted" + (f": {why}" if why else "")
        run.refresh_from_db()
        if run.state in OVER and Batch.objects.get(pk=run.batch_id).state == BatchState.OPEN:
            reopen(run.pk, by=by, why=f"{words}; what follows them goes out")
        RunEvent.objects.create(run=run, state=run.state, by=by[:150], why=words[:500])
        transaction.on_commit(lambda: wake(run.pk))
    return count


def replayable(
    run: Run, states: Collection[str] = queue.REPLAYED, ids: Collection[int] | None = None
) -> dict[str, int]:
    """How many deliveries of a run, or of its deliveries `ids`, could go out again, by the state they ended in."""
    if run.batch_id is None:
        return {}
    if ids is None:
        counts = queue.progress(run.batch_id)
    else:
        rows = Delivery.objects.filter(batch=run.batch_id, pk__in=ids, state__in=queue.REPLAYED)
        counts = dict(rows.order_by().values_list("state").annotate(Count("pk")))
    return {state.value: counts[state] for state in queue.REPLAYED if state in states and counts.get(state)}


def may_replay(run: Run) -> bool:
    """Whether there is anything to replay, in a state of the run that allows it."""
    return run.state in (RunState.SENDING, RunState.PAUSED, *OVER) and bool(replayable(run))


def by_run(ids: Iterable[int]) -> dict[Run, list[int]]:
    """These deliveries, by the run that they belong to. Those of no run are left out."""
    batches: dict[int, list[int]] = {}
    for delivery_id, batch_id in Delivery.objects.filter(pk__in=ids).order_by("pk").values_list("pk", "batch_id"):
        batches.setdefault(batch_id, []).append(delivery_id)
    runs = Run.objects.filter(batch__in=list(batches)).select_related("batch").order_by("pk")
    return {run: batches[run.batch_id] for run in runs}


def _refuse_unless_replayable(run: Run) -> None:
    run.refresh_from_db()
    if run.batch_id is None or run.state in (RunState.QUEUED, RunState.INITIALIZING):
        raise IllegalMove(f"Run {run.pk} is {run.state} and has sent nothing: there is nothing to replay.")
    if run.state == RunState.CANCELLED:
        raise IllegalMove(f"Run {run.pk} was cancelled: nothing of it can be sent again. Start a new run.")
    if run.state == RunState.FAILED and run.filled_at is None:
        raise IllegalMove(
            f"Run {run.pk} failed before its whole audience was written: a replay would leave the others out in "
            "silence. Start a new run."
        )
    batch_state = Batch.objects.values_list("state", flat=True).get(pk=run.batch_id)
    if run.state in OVER and batch_state != BatchState.DONE:
        raise IllegalMove(
            f"Run {run.pk} is {run.state}, but not all of its deliveries have ended: try again in a moment."
        )


def _hint(run: Run, states: Collection[str], ids: Collection[int] | None) -> str:
    others = {state: n for state, n in replayable(run, ids=ids).items() if state not in states}
    asked = "among these deliveries" if ids is not None else f"that is {' or '.join(states)}"
    if not others:
        return f" {asked}"
    return f" {asked}; there are {', '.join(f'{n:,} {state}' for state, n in others.items())}, to be asked for by name"
