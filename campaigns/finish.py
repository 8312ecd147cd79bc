"""The end of a run: the counts must reconcile, then the execution log is written."""

import logging
from collections.abc import Callable

from django.db.models import QuerySet
from django.utils import timezone

from campaigns import execution_log
from campaigns.models import Run, RunState
from campaigns.transitions import try_move
from delivery import queue
from delivery.logs import bound
from delivery.models.batch import BatchState

logger = logging.getLogger(__name__)

ENDS = ("accepted", "rejected", "suppressed", "expired", "skipped", "cancelled", "dead", "uncertain")


def finish(run: Run, counts: dict[str, int]) -> None:
    """Every delivery of `run` has an end state; `counts` says how many have which. The run completes, or fails when
    the sum is not the total. A run that was cancelled, or whose time was up, stays so and gets its counts."""
    with bound(run=run.pk, correlation_id=run.correlation_id):
        _finish(run, counts)


def _finish(run: Run, counts: dict[str, int]) -> None:
    now = timezone.now()
    ends = {state: counts.get(state, 0) for state in ENDS}
    total = run.batch.size
    tally = {state: n for state, n in queue.progress(run.batch_id).items() if n}
    ended = {state: n for state, n in ends.items() if n}
    if tally != ended or sum(ends.values()) != total:
        error = f"The counts do not reconcile: {total} in all, {counts} by row, {tally} by tally."
        try_move(run.pk, RunState.FAILED, why=error, error=error, counts=ends, ended_at=now)
        return
    why = f"{sum(ends.values())} of {total} accounted for"
    if not try_move(run.pk, RunState.COMPLETED, why=why, counts=ends, ended_at=now):
        Run.objects.filter(pk=run.pk, state__in=[RunState.CANCELLED, RunState.FAILED]).update(counts=ends)


def runs_without_log() -> QuerySet[Run]:
    """Runs that have ended for good and have no execution log yet."""
    over = Run.objects.filter(state__in=[RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED], log_path="")
    # Of a cancelled run some mails may still be under way; then its counts are not known yet. Or what was written of it
    # is still to be thrown away.
    return over.exclude(batch__state__in=[BatchState.CANCELLED, BatchState.FILLING])


def write_missing_logs(should_stop: Callable[[], bool] = lambda: False) -> None:
    """Writes the execution logs of runs that have ended and have none yet: also those that a crash left behind. Raises
    execution_log.Stopped when `should_stop` says so: the log it was at is written next time."""
    for run in runs_without_log().select_related("workflow", "batch"):
        with bound(run=run.pk, correlation_id=run.correlation_id):
            path = execution_log.write(run, should_stop)
            # One that was replayed meanwhile ends again, and is written again.
            Run.objects.filter(pk=run.pk, ended_at=run.ended_at).update(log_path=str(path))
            logger.info("execution log written", extra={"path": str(path)})
