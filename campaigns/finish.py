"""The end of a run: the counts must reconcile, then the execution log is written."""

from django.utils import timezone

from campaigns import execution_log
from campaigns.models import Run, RunState
from campaigns.transitions import try_move
from delivery import queue
from delivery.models.batch import BatchState

ENDS = ("accepted", "rejected", "suppressed", "expired", "skipped", "cancelled", "dead", "uncertain")


def finish(run: Run, counts: dict[str, int]) -> None:
    """Every delivery of `run` has an end state; `counts` says how many have which. The run completes, or fails when
    the sum is not the total. A cancelled run stays cancelled and gets its counts."""
    now = timezone.now()
    ends = {state: counts.get(state, 0) for state in ENDS}
    total = run.batch.total
    tally = {state: n for state, n in queue.progress(run.batch_id).items() if n}
    ended = {state: n for state, n in ends.items() if n}
    if tally != ended or (sum(ends.values()) != total and run.state != RunState.CANCELLED):
        error = f"The counts do not reconcile: {total} in all, {counts} by row, {tally} by tally."
        try_move(run.pk, RunState.FAILED, why=error, error=error, counts=ends, ended_at=now)
        return
    why = f"{sum(ends.values())} of {total} accounted for"
    if not try_move(run.pk, RunState.COMPLETED, why=why, counts=ends, ended_at=now):
        Run.objects.filter(pk=run.pk, state=RunState.CANCELLED).update(counts=ends)


def write_missing_logs() -> None:
    """Writes the execution logs of runs that have ended and have none yet: also those that a crash left behind."""
    over = Run.objects.filter(state__in=[RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED], log_path="")
    # Of a cancelled run some mails may still be under way; then its counts are not known yet.
    over = over.exclude(batch__state=BatchState.CANCELLED)
    for run in over.select_related("workflow", "batch"):
        path = execution_log.write(run)
        Run.objects.filter(pk=run.pk).update(log_path=str(path))
