"""What a person can do to a run that is under way: pause, resume, cancel."""

from django.db import transaction
from django.utils import timezone

from campaigns.initialize import discard
from campaigns.models import Run, RunState
from campaigns.transitions import move
from campaigns.wake import wake
from delivery import owner, queue
from delivery.models.batch import BatchState


def pause(run: Run, by: str, why: str = "") -> None:
    """Nothing that is not yet handed over goes out until `resume`. Raises IllegalMove."""
    with transaction.atomic():
        move(run.pk, RunState.PAUSED, by=by, why=why)
        queue.hold(run.batch_id, why or f"paused by {by}")


def resume(run: Run, by: str, why: str = "") -> None:
    """Ends a pause. Raises IllegalMove."""
    with transaction.atomic():
        move(run.pk, RunState.SENDING, by=by, why=why, sources=(RunState.PAUSED,))
        queue.release(run.batch_id)
        transaction.on_commit(lambda: wake(run.pk))


def cancel(run: Run, by: str, why: str = "") -> None:
    """Nothing more goes out; what was not handed over ends as cancelled. Raises IllegalMove."""
    with transaction.atomic():
        move(run.pk, RunState.CANCELLED, by=by, why=why, ended_at=timezone.now())
        run.refresh_from_db()
        if run.batch and run.batch.state in (BatchState.OPEN, BatchState.HELD):
            queue.cancel(run.batch_id)
            queue.finish_if_done(run.batch_id)
    # A process that initialises it sees that at its next chunk, and throws away what it wrote. Is there none?
    if run.batch and run.batch.state == BatchState.FILLING and owner.is_gone(run.initializer):
        discard(run)
