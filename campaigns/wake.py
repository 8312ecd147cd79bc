"""Wakes the cluster. A wake-up is a hint: what there is to do stands in the database, so a lost one costs a wait."""

from django_q.tasks import async_task

from campaigns.models import Run, RunState


def wake(run_id: int) -> None:
    """Asks the cluster to work on a run."""
    # Filling a large run takes longer than the cluster's usual limit; the claim on the run keeps a second one off.
    async_task("campaigns.tasks.work_on", run_id, task_name=f"run {run_id}", timeout=6 * 3600)


def wake_unfinished() -> None:
    """Asks the cluster to work on every run that is under way: wake-ups may have been lost with the last cluster."""
    under_way = (RunState.QUEUED, RunState.INITIALIZING, RunState.SENDING)
    for run_id in Run.objects.filter(state__in=under_way).values_list("pk", flat=True):
        wake(run_id)
