"""Intent before the hand-over, outcome after it, each written together with its neighbours.

Marks and settlements collect while the last commit is on its way; then one transaction writes them all. At most
GATHER seconds pass between a hand-in and the start of its commit when the database keeps up.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from delivery.clock import Clock
from delivery.queue.outcomes import Mark, Settlement
from delivery.queue.work import Queue
from delivery.worker.bell import Bell
from delivery.worker.database import Database

logger = logging.getLogger(__name__)

GATHER = 0.01  # long enough for neighbours to join, short enough to be no wait


class Ledger:
    """Collects marks and settlements of one lease and writes them by group commit."""

    def __init__(
        self, database: Database, queue: Queue, clock: Clock, lease_id: int, released: Callable[[], None]
    ) -> None:
        """`released` is called when outcomes have made others ready to go."""
        self._database = database
        self._queue = queue
        self._clock = clock
        self._lease = lease_id
        self._released = released
        self._marks: list[tuple[Sequence[Mark], asyncio.Future[set[int]]]] = []
        self._settlements: list[Settlement] = []
        self._handed_in = self._written = 0  # marks and settlements, so far
        self._work = Bell()
        self._settled = Bell()
        self._task = asyncio.get_running_loop().create_task(self._write_for_ever())

    def settle(self, settlement: Settlement) -> None:
        """Hands in an outcome. It is durable once `flushed` returns."""
        self._settlements.append(settlement)
        self._handed_in += 1
        self._work.set()

    async def mark(self, marks: Sequence[Mark]) -> set[int]:
        """Records the intent to hand over. Returns the ids for which that is allowed and durable."""
        future: asyncio.Future[set[int]] = asyncio.get_running_loop().create_future()
        self._marks.append((marks, future))
        self._handed_in += 1
        self._work.set()
        return await future

    async def flushed(self) -> None:
        """Returns when everything handed in so far is durable. What comes in meanwhile is not waited for: with other
        batches under way there is no end of it."""
        handed_in = self._handed_in
        while self._written < handed_in:
            self._settled.clear()
            waiter = asyncio.ensure_future(self._settled.wait())
            await asyncio.wait((waiter, self._task), return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            if self._task.done():
                self._task.result()

    async def close(self) -> None:
        """Writes what is left and ends."""
        await self.flushed()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _write_for_ever(self) -> None:
        while True:
            await self._work.wait()
            await asyncio.sleep(GATHER)
            marks, self._marks = self._marks, []
            settlements, self._settlements = self._settlements, []
            try:
                allowed = await self._commit(marks_of(marks), settlements)
            except BaseException as error:  # whatever it is, nobody may go on waiting for an answer that cannot come
                for _, future in marks:
                    if not future.done():
                        future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                raise
            for wanted, future in marks:
                if not future.done():
                    future.set_result({m.id for m in wanted} & allowed)
            self._written += len(marks) + len(settlements)
            if not (self._marks or self._settlements):
                self._work.clear()
            self._settled.set()

    async def _commit(self, marks: list[Mark], settlements: list[Settlement]) -> set[int]:
        now = self._clock.now()
        try:
            return await self._write(marks, settlements, now)
        except Exception as error:
            if not settlements:
                raise
            logger.error("Outcomes cannot be written together, so one by one: %s", error)
        # What the database will never take must not cost its neighbours their outcomes.
        for settlement in settlements:
            try:
                await self._write([], [settlement], now)
            except Exception:
                logger.exception("The outcome of delivery %d cannot be written; it stays in doubt.", settlement.id)
        return await self._write(marks, [], now)

    async def _write(self, marks: Sequence[Mark], settlements: Sequence[Settlement], now: datetime) -> set[int]:
        allowed, released = await self._database.commit(_write, self._queue, self._lease, marks, settlements, now)
        if released:
            self._released()
        return allowed


def marks_of(groups: Sequence[tuple[Sequence[Mark], object]]) -> list[Mark]:
    return [m for group, _ in groups for m in group]


def _write(
    queue: Queue, lease_id: int, marks: Sequence[Mark], settlements: Sequence[Settlement], now: datetime
) -> tuple[set[int], int]:
    """Which marks were allowed, and how many others may go now. Outcomes first: they free what the marks may need."""
    released = queue.settle(lease_id, settlements) if settlements else 0
    return queue.mark(lease_id, marks, now) if marks else set(), released
