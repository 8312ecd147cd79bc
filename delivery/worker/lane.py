"""Deliveries on their way through one engine: composed, allowed by the throttle, marked, handed over.

A lane asks the pump for whatever is not its own business: what an outcome means, where else a delivery could go.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from delivery.composition import CompiledMessage
from delivery.core.envelope import Envelope, Outcome
from delivery.engines.base import Engine
from delivery.queue.leasing import Leased
from delivery.queue.outcomes import Mark
from delivery.worker.ledger import Ledger
from delivery.worker.tokens import FOREVER, Token, Tokens

# How many are composed and marked in one go.
BLOCK = 64
# How many may be marked beyond what the senders have in hand: a mark is durable some 40 ms after it was asked for, and
# meanwhile the senders must not run dry. It is also what a crash can leave in doubt, so it is no larger than that.
AHEAD = 256
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
    def may_hand_over(self, engine_id: int) -> bool: ...
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
        self._marking: set[asyncio.Task[None]] = set()
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
    def _capacity(self) -> int:
        """How many may be marked and not yet answered."""
        ahead = AHEAD if self.tokens.limits.lateness >= SHORT_LATENESS else 0
        return self.engine.concurrency * self.engine.batch_size + ahead

    def _block_size(self) -> int:
        """How many to mark next; 0 while there are none, or so little room that it is better to wait for more."""
        room = self._capacity - self._marked
        worthwhile = min(len(self._items), BLOCK // 2, self._capacity // 2 or 1)
        return min(len(self._items), BLOCK, room) if room >= worthwhile else 0

    async def _feed(self) -> None:
        while not self._stop.is_set():
            size = self._block_size()
            if not size:
                self._news.clear()
                await self._news.wait()
                continue
            admitted = await self._owner.admit(self._id)
            if not admitted:
                await self._owner.route(self._take(len(self._items)))
                continue
            await self._mark_block(min(size, admitted))
        await asyncio.gather(*self._marking)

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
        # Not awaited: while the database writes this mark, the next block is composed.
        task = asyncio.get_running_loop().create_task(self._mark(block, token))
        self._marking.add(task)
        task.add_done_callback(self._marking.discard)
        task.add_done_callback(self._owner.task_ended)

    async def _mark(self, block: list[Item], token: Token) -> None:
        allowed = await self._ledger.mark([Mark(i.leased.id, self._id, i.leased.attempts + 1) for i in block])
        refused = [item for item in block if item.leased.id not in allowed]
        if refused:
            self._marked -= len(refused)
            self.tokens.give_back(len(refused), token)
            await self._owner.refuse(refused)
            self._news.set()
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
        """Hands the items over, as many at a time as the throttle allows at one instant."""
        while items:
            allowed = await self._allowed(items)
            if not allowed or self._stop.is_set() or not self._owner.may_hand_over(self._id):
                self._owner.unmark(items)
                return
            handed, items = items[:allowed], items[allowed:]
            started = time.monotonic()
            outcomes = await self.engine.send([item.envelope for item in handed])
            seconds = time.monotonic() - started
            for item, outcome in zip(handed, outcomes, strict=True):
                self._owner.conclude(item, self._id, outcome, seconds)

    async def _allowed(self, items: list[Item]) -> int:
        """How many of the first items have a token that is good now; 0 when the stop came first. Tokens are not
        collected until all have one: the first would be stale when the last is there."""
        if self.tokens.unlimited:
            return len(items)
        drawn_late = self.tokens.limits.lateness < SHORT_LATENESS
        good = 0 if drawn_late else len(list(takewhile(lambda item: item.token.is_good(), items)))
        if good:
            return good
        got, _ = await self.tokens.take(len(items), self._stop)
        return got


async def _until(event: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return
