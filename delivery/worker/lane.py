"""Deliveries on their way through one engine: composed, allowed by the throttle, marked, handed over.

A lane asks the pump for whatever is not its own business: what an outcome means, where else a delivery could go.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from delivery.composition import CompiledMessage
from delivery.core.envelope import Envelope, Outcome
from delivery.engines.base import Engine
from delivery.queue.leasing import Leased
from delivery.queue.outcomes import Mark
from delivery.worker.ledger import Ledger
from delivery.worker.tokens import FOREVER, Token, Tokens

# How many are marked in one go. Large enough that the database is not the limit (a group commit takes some 10 ms),
# small enough that a crash leaves few in doubt.
BLOCK = 128
COMPOSED_AT_ONCE = 8  # then the event loop gets a turn: answers are waiting to be read
# Below this, a token would be stale before its mark is durable; then it is drawn after the mark.
SHORT_LATENESS = 50_000_000  # nanoseconds


@dataclass(slots=True)
class Item:
    """A leased delivery on its way. `envelope` is there once it is composed; `token` once it may go."""

    leased: Leased
    message: CompiledMessage
    envelope: Envelope | None = None
    token: Token = FOREVER


class Owner(Protocol):
    """What a lane asks of the pump."""

    def task_ended(self, task: asyncio.Task[None]) -> None: ...
    def may_hand_over(self) -> bool: ...
    async def admit(self, engine_id: int) -> int: ...
    async def route(self, items: Sequence[Item]) -> None: ...
    def compose(self, item: Item) -> bool: ...
    async def refuse(self, items: Sequence[Item]) -> None: ...
    def unmark(self, items: Sequence[Item]) -> None: ...
    def conclude(self, item: Item, engine_id: int, outcome: Outcome, seconds: float) -> None: ...


class Lane:
    """The way through one engine, with its own senders."""

    def __init__(
        self, engine_id: int, engine: Engine, tokens: Tokens, ledger: Ledger, owner: Owner, stop: asyncio.Event
    ) -> None:
        self.tokens = tokens
        self.engine = engine
        self._id = engine_id
        self._ledger = ledger
        self._owner = owner
        self._stop = stop
        self._items: deque[Item] = deque()
        self._outbox: asyncio.Queue[Item] = asyncio.Queue()
        self._marked = 0  # marked and not yet answered
        self._news = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._feeder = loop.create_task(self._feed())
        self._senders = [loop.create_task(self._send_for_ever()) for _ in range(engine.concurrency)]
        for task in (self._feeder, *self._senders):
            task.add_done_callback(owner.task_ended)

    def put(self, item: Item) -> None:
        """A delivery that is to go through this engine."""
        self._items.append(item)
        self._news.set()

    async def finish(self, grace: float) -> None:
        """Ends the lane after a stop: what was handed over is waited for up to `grace` seconds, nothing else begins."""
        self._news.set()
        await asyncio.wait([self._feeder], timeout=grace)
        deadline = time.monotonic() + grace
        while self._marked and time.monotonic() < deadline:
            self._news.clear()
            await _until(self._news, deadline - time.monotonic())
        for task in (self._feeder, *self._senders):
            task.cancel()
        await asyncio.gather(self._feeder, *self._senders, return_exceptions=True)

    @property
    def _room(self) -> int:
        # One block beyond what the senders have in hand, so that they need not wait for a commit.
        ahead = BLOCK if self.tokens.limits.lateness >= SHORT_LATENESS else 0
        return self.engine.concurrency * self.engine.batch_size + ahead - self._marked

    async def _feed(self) -> None:
        while not self._stop.is_set():
            if not self._items or self._room <= 0:
                self._news.clear()
                await self._news.wait()
                continue
            admitted = await self._owner.admit(self._id)
            if not admitted:
                await self._owner.route(self._take(len(self._items)))
                continue
            await self._mark_block(min(BLOCK, self._room, admitted))

    def _take(self, count: int) -> list[Item]:
        return [self._items.popleft() for _ in range(min(count, len(self._items)))]

    async def _mark_block(self, size: int) -> None:
        block = await self._composed(self._take(size))
        if not block:
            return
        granted, token = len(block), FOREVER
        if self.tokens.limits.lateness >= SHORT_LATENESS:
            granted, token = await self.tokens.take(len(block), self._stop)
        self._items.extendleft(reversed(block[granted:]))
        block = block[:granted]
        if not block:
            return
        self._marked += len(block)
        allowed = await self._ledger.mark([Mark(i.leased.id, self._id, i.leased.attempts + 1) for i in block])
        refused = [item for item in block if item.leased.id not in allowed]
        if refused:
            self._marked -= len(refused)
            self.tokens.give_back(len(refused), token)
            await self._owner.refuse(refused)
        for item in block:
            if item.leased.id in allowed:
                item.token = token
                self._outbox.put_nowait(item)

    async def _composed(self, items: list[Item]) -> list[Item]:
        composed = []
        for position, item in enumerate(items):
            if position % COMPOSED_AT_ONCE == COMPOSED_AT_ONCE - 1:
                await asyncio.sleep(0)
            if item.envelope or self._owner.compose(item):
                composed.append(item)
        return composed

    async def _send_for_ever(self) -> None:
        while True:
            items = [await self._outbox.get()]
            while len(items) < self.engine.batch_size and not self._outbox.empty():
                items.append(self._outbox.get_nowait())
            try:
                await self._send(items)
            finally:
                self._marked -= len(items)
                self._news.set()

    async def _send(self, items: list[Item]) -> None:
        if not await self._has_tokens(items) or self._stop.is_set() or not self._owner.may_hand_over():
            self._owner.unmark(items)
            return
        started = time.monotonic()
        outcomes = await self.engine.send([item.envelope for item in items])
        seconds = time.monotonic() - started
        for item, outcome in zip(items, outcomes, strict=True):
            self._owner.conclude(item, self._id, outcome, seconds)

    async def _has_tokens(self, items: list[Item]) -> bool:
        """True once every item has a token that is still good; False when the stop came first."""
        if self.tokens.unlimited:
            return True
        drawn_late = self.tokens.limits.lateness < SHORT_LATENESS
        missing = sum(drawn_late or not item.token.is_good() for item in items)
        while missing:
            got, _ = await self.tokens.take(missing, self._stop)
            if not got:
                return False
            missing -= got
        return True


async def _until(event: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return
