"""The way to one composer: what waits for it in this worker, and as many calls at once as it allows.

Knows no queue and no policy: what becomes of each text is its owner's business.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from heapq import heapify, heappop, heappush
from typing import Protocol

from delivery.clock import Clock
from delivery.engines.composers import Composer, Prompt
from delivery.queue.composing import ToCompose
from delivery.worker.bell import Bell
from delivery.worker.tokens import Tokens

HALF_FORGOTTEN = 15.0  # seconds after which the longest call of late counts for half


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed composition with its prompt. `review`: a person reads the words before they go."""

    item: ToCompose
    prompt: Prompt
    review: bool


class Owner(Protocol):
    """What a line asks of the stage that it is part of."""

    def task_ended(self, task: asyncio.Task[None]) -> None: ...
    async def work_on(self, line: "Line", job: Job) -> None: ...


class Line:
    """See the module. `version` tells whether the composer has been set up differently since."""

    def __init__(
        self, engine_id: int, composer: Composer, tokens: Tokens, version: str, owner: Owner, clock: Clock
    ) -> None:
        self.engine_id = engine_id
        self.composer = composer
        self.tokens = tokens
        self.version = version
        self._longest, self._longest_at = 0.0, clock.monotonic()
        self._clock = clock
        self.stopped = False
        self._owner = owner
        self._jobs: list[tuple[datetime, int, Job]] = []  # a heap: the earliest deadline first
        self._news = Bell()
        self._under_way = 0
        self._waits: set[Bell] = set()
        loop = asyncio.get_running_loop()
        self._workers = [loop.create_task(self._work()) for _ in range(composer.concurrency)]
        for task in self._workers:
            task.add_done_callback(owner.task_ended)

    def put(self, job: Job) -> None:
        """A text that is to be composed here."""
        heappush(self._jobs, (job.item.deadline, job.item.id, job))
        self._news.set()

    def room(self, *, probing: bool = False) -> int:
        """How many more to claim: enough that no call waits for a claim, and no more, for what one worker has no other
        can compose. 0 while so few are not worth a statement. For a probe one is enough."""
        held = len(self._jobs) + self._under_way
        if probing:
            return 0 if held else 1
        at_once = self.composer.concurrency
        room = at_once + max(1, at_once // 2) - held
        return room if room >= max(1, at_once // 4) else 0

    def recall(self, wanted: Callable[[Job], bool] = lambda job: True) -> list[Job]:
        """Those that have not begun, and of which that is true, leave the line."""
        left = [job for _, _, job in self._jobs if wanted(job)]
        self._jobs = [entry for entry in self._jobs if not wanted(entry[-1])]
        heapify(self._jobs)
        return left

    @property
    def expected(self) -> float:
        """How many seconds a call may take: the longest of late. Forgotten with time and not with calls: else one slow
        call could forbid all others."""
        return self._longest * 0.5 ** ((self._clock.monotonic() - self._longest_at) / HALF_FORGOTTEN)

    def learn(self, seconds: float) -> None:
        """A call took so long."""
        self._longest, self._longest_at = max(seconds, self.expected), self._clock.monotonic()

    @contextmanager
    def patience(self, seconds: float | None) -> Iterator[Bell]:
        """A bell that rings after so many seconds, or when the line is stopped."""
        bell = Bell()
        self._waits.add(bell)
        if self.stopped:
            bell.set()
        loop = asyncio.get_running_loop()
        timer = None if seconds is None else loop.call_later(max(0.0, seconds), bell.set)
        try:
            yield bell
        finally:
            self._waits.discard(bell)
            if timer:
                timer.cancel()

    def stop(self) -> None:
        """Nothing begins any more."""
        self.stopped = True
        for bell in self._waits:
            bell.set()

    async def finish(self, grace: float | None = None) -> None:
        """Ends the line: what is being composed is waited for, up to `grace` seconds if given. Asking twice is
        harmless."""
        self.stop()
        end = None if grace is None else self._clock.monotonic() + grace
        while self._under_way and (end is None or self._clock.monotonic() < end):
            self._news.clear()
            await self._news.wait(end and end - self._clock.monotonic())
        for task in self._workers:
            task.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self.tokens.return_unused(also_good=True)
        await self.composer.close()

    async def _work(self) -> None:
        while True:
            while not self._jobs or self.stopped:
                self._news.clear()
                await self._news.wait()
            job = heappop(self._jobs)[-1]
            self._under_way += 1
            try:
                await self._owner.work_on(self, job)
            finally:
                self._under_way -= 1
                self._news.set()
