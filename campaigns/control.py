"""What ends or interrupts a run that is under way: a person pauses, resumes or cancels it; its time runs out."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from django.db import transaction
from django.utils import timezone

from campaigns.exceptions import IllegalMove
from campaigns.initialize import discard
from campaigns.models import Run, RunState
from campaigns.transitions import move
from campaigns.wake import wake
from delivery import owner, queue
from delivery.logs import bound
from delivery.models import DeliveryState
from delivery.models.batch import BatchState


def pause(run: Run, by: str, why: str = "") -> None:
    """Nothing that is not yet handed over goes out until `resume`. Raises IllegalMove."""
    with _about(run), _locked(run):
        move(run.pk, RunState.PAUSED, by=by, why=why)
        queue.hold(run.batch_id, why or f"paused by {by}")


def resume(run: Run, by: str, why: str = "") -> None:
    """Ends a pause. Raises IllegalMove."""
    with _about(run), _locked(run):
        move(run.pk, RunState.SENDING, by=by, why=why, sources=(RunState.PAUSED,))
        queue.release(run.batch_id)
        transaction.on_commit(lambda: wake(run.pk))


def cancel(run: Run, by: str, why: str = "") -> None:
    """Nothing more goes out; what was not handed over ends as cancelled. Raises IllegalMove."""
    with _about(run):
        _end(run, RunState.CANCELLED, DeliveryState.CANCELLED, by=by, why=why)


def time_out_overdue() -> int:
    """Ends the runs whose time is up: they fail, and what was not handed over expires. Returns how many."""
    under_way = (RunState.QUEUED, RunState.INITIALIZING, RunState.SENDING, RunState.PAUSED)
    overdue = Run.objects.filter(times_out_at__lte=timezone.now(), state__in=under_way)
    timed_out = 0
    for run in overdue:
        why = f"It was not through by {run.times_out_at:%Y-%m-%d %H:%M} UTC, its time limit."
        with _about(run), suppress(IllegalMove):  # another process, or its end, was faster
            _end(run, RunState.FAILED, DeliveryState.EXPIRED, why=why, error=why)
            timed_out += 1
    return timed_out


def _about(run: Run) -> AbstractContextManager[None]:
    return bound(run=run.pk, correlation_id=run.correlation_id)


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    """A transaction in which nothing else moves the run's batch: its end begins there, too."""
    with transaction.atomic():
        run.refresh_from_db()
        if run.batch_id is not None:
            queue.lock(run.batch_id)
        yield


def _end(run: Run, target: RunState, left_as: DeliveryState, *, why: str, **fields: object) -> None:
    with _locked(run):
        move(run.pk, target, why=why, ended_at=timezone.now(), **fields)
        run.refresh_from_db()
        if run.batch and run.batch.state in (BatchState.OPEN, BatchState.HELD):
            queue.cancel(run.batch_id, why or "the run was cancelled", left_as)
            queue.finish_if_done(run.batch_id)
            transaction.on_commit(lambda: wake(run.pk))  # what workers have in hand is theirs to end
    # A process that initialises it sees that at its next chunk, and throws away what it wrote. Is there none?
    if run.batch and run.batch.state == BatchState.FILLING and not _somebody_initializes(run):
        discard(run)


def _somebody_initializes(run: Run) -> bool:
    return bool(run.initializer) and not owner.is_gone(run.initializer)
