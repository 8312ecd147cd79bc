"""Works on runs in this process: the same for the foreground command and for a worker of the cluster."""

import asyncio
import contextlib
import gc
from collections.abc import Callable

import uvloop

from delivery.worker import Database, Pump, Surroundings, Until

LONGEST_WRITING = 45.0  # seconds beyond its own that a slice goes on while a model writes
LOOK = 0.2

Watch = Callable[[Pump, Database], "asyncio.Future[None]"]


def pump(
    only: int | None = None,
    *,
    until: Until = Until.DONE,
    seconds: float | None = None,
    watch: Watch | None = None,
) -> bool:
    """Pumps open batches, or `only` one, as long as `until` says, until `seconds` have passed, or until it is told to
    stop. True when it ended because nothing was left to do.

    `watch` may return a task that runs beside the pump, to show progress or to stop it.
    """
    # What is there by now stays: the collector need not look at it again and again while mails come and go. Nor need it
    # look at every 700th object, when each mail makes a hundred that are gone a moment later.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_pump(only, until, seconds, watch))


async def _stop_in_time(pump: Pump, seconds: float) -> None:
    """A model that is writing is waited for, within bounds: what is cut off would be written, and paid for, again."""
    await asyncio.sleep(seconds)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_WRITING):
            while pump.is_composing:  # noqa: ASYNC110 - nobody tells, and it is looked at a few times only
                await asyncio.sleep(LOOK)
    pump.stop.set()


async def _pump(only: int | None, until: Until, seconds: float | None, watch: Watch | None) -> bool:
    database = Database()
    pump = Pump(Surroundings(database), only=only, until=until)
    loop = asyncio.get_running_loop()
    alarm = loop.create_task(_stop_in_time(pump, seconds)) if seconds is not None else None
    beside = watch(pump, database) if watch else None
    try:
        await pump.run()
        return not pump.stop.is_set()
    finally:
        others = [task for task in (alarm, beside) if task]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await database.close()
