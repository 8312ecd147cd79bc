"""What the cluster is asked to do. Arguments are ids, results are None, and any of it may come twice, late or never."""

import asyncio

from campaigns import drain
from campaigns.finish import write_missing_logs
from campaigns.initialize import initialize
from campaigns.models import Run, RunState
from campaigns.wake import wake
from campaigns.work import pump
from delivery.worker import Database, Pump

SLICE = 15.0  # seconds, far inside the cluster's timeout


def work_on(run_id: int) -> None:
    """Brings a run forward by one slice, and asks for the next one if it is not over."""
    run = Run.objects.filter(pk=run_id).first()
    if run is None:
        return
    if run.state in (RunState.QUEUED, RunState.INITIALIZING):
        initialize(run_id)
        run.refresh_from_db()
    if run.state == RunState.SENDING:
        pump(run.batch_id, seconds=SLICE, watch=_stop_when_draining)
        run.refresh_from_db()
    # One that another process initialises is woken by that process.
    if run.state == RunState.SENDING:
        wake(run_id)
    write_missing_logs()


def _stop_when_draining(pumping: Pump, database: Database) -> asyncio.Task[None]:
    async def watch() -> None:
        # Another process sets a byte: there is no event to wait for.
        while not drain.begun():  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        pumping.stop.set()

    return asyncio.get_running_loop().create_task(watch())
