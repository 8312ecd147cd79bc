"""Wakes the cluster. A wake-up is a hint: what there is to do stands in the database, so a lost one costs a wait."""

from django_q.tasks import async_task


def wake(run_id: int) -> None:
    """Asks the cluster to work on a run."""
    # Filling a large run takes longer than the cluster's usual limit; the claim on the run keeps a second one off.
    async_task("campaigns.tasks.work_on", run_id, task_name=f"run {run_id}", timeout=6 * 3600)
