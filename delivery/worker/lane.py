"""Deliveries on their way through one engine: composed, allowed by the throttle, marked, handed over.

A lane asks the pump for whatever is not its own business: what an outcome means, where else a delivery could go.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from delivery.clock import Clock
from delivery.core.dispatch import Candidate
from delivery.core.envelope import Envelope, Outcome
from delivery.engine_desk import Limits
from delivery.engines.base import Engine
from delivery.queue.leasing import Leased
from delivery.queue.outcomes import Mark
from delivery.queue.work import Composer
from delivery.worker.bell import Bell
from delivery.worker.ledger import Ledger
from delivery.worker.outbox import Outbox
from delivery.worker.tokens import FOREVER, SPENT, Token, Tokens

# How many are composed and marked in one go, at least.
BLOCK = 64
# How many may be marked beyond what the senders have in hand: a mark is durable some 40 ms after it was asked for, and
# meanwhile the senders must not run dry. It is also what a crash can leave in doubt, so it is no larger than that: the
# answers of so much time at the pace of late, within bounds.
AHEAD = 0.25  # seconds
PACE_OVER = 0.1  # seconds over which the pace is taken
LEAST_AHEAD = 8
MOST_AHEAD = 256
COMPOSED_AT_ONCE = 8  # then the event loop gets a turn: answers are waiting to be read
# Below this, a token would be stale before its mark is durable; then it is drawn after the mark.
SHORT_LATENESS = 50_000_000  # nanoseconds
# How long a call that could carry more waits for what is just being marked.
LINGER = 0.03  # seconds


@dataclass(slots=True)
class Item:
    """A leased delivery on its way. `priority` is its batch's; `words` were composed for it, if any; `candidate` is
    what the policy saw of it when it was routed; `envelope` is there once it is made, `token` once it may go."""

    leased: Leased
    message: Composer
    priority: int = 0
    candidate: Candidate | None = None
    envelope: Envelope | None = None
    token: Token = SPENT
    words: str | None = None


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
    """The way through one engine, with its own senders. `tokens` are for messages, `calls` for what carries them;
    `version` tells whether the engine has been set up differently since."""

    def __init__(
        self,
        engine_id: int,
        engine: Engine,
        tokens: Tokens,
        calls: Tokens,
        ledger: Ledger,
        owner: Owner,
        clock: Clock,
        version: str,
    ) -> None:
        self.engine = engine
        self.version = version
        self._tokens = tokens
        self._calls = calls
        self._id = engine_id
        self._ledger = ledger
        self._owner = owner
        self._clock = clock
        self._stop = Bell()
        self._items: list[tuple[int, datetime, int, int, Item]] = []  # a heap: the most urgent first
        self._serials = count()
        self._outbox: Outbox[Item] = Outbox()
        self._collecting = asyncio.Lock()
        self._drawing = asyncio.Lock()  # whoever was marked first gets the next token
        self._marked = 0  # marked and not yet answered
        self._ahead = 0  # what AHEAD is at the pace of late
        self._claimed = 0  # calls that wait for tokens while their room is kept for them
        self._in_calls = 0  # handed over, and not yet answered
        self._answers = 0  # since the pace was last looked at
        self._looked_at = clock.monotonic()
        self._marking: set[asyncio.Task[None]] = set()
        self._news = Bell()
        loop = asyncio.get_running_loop()
        self._feeder = loop.create_task(self._feed())
        self._senders = [loop.create_task(self._send_for_ever()) for _ in range(engine.concurrency)]
        for task in (self._feeder, *self._senders):
            task.add_done_callback(owner.task_ended)

    def put(self, item: Item) -> None:
        """A delivery that is to go through this engine."""
        leased = item.leased
        heappush(self._items, (item.priority, leased.deadline, leased.priority, next(self._serials), item))
        self._news.set()

    def recall(self) -> list[Item]:
        """What is not marked yet leaves the lane: the caller routes it anew."""
        return self._take(len(self._items))

    async def obey(self, limits: Limits) -> None:
        """Keeps to these limits from now on, and returns what was drawn and not used."""
        self._tokens.obey(limits.messages)
        self._calls.obey(limits.calls)
        await self._tokens.return_unused()
        await self._calls.return_unused()

    async def emptied(self, patience: float | None = None) -> bool:
        """Returns once everything that is marked has its answer, or after `patience` seconds; whether it has."""
        deadline = None if patience is None else self._clock.monotonic() + patience
        while self._marked or self._marking:
            left = None if deadline is None else deadline - self._clock.monotonic()
            if left is not None and left <= 0:
                return False
            self._news.clear()
            await self._news.wait(left)
        return True

    def stop(self) -> None:
        """Nothing is begun any more; `finish` ends what is under way."""
        self._stop.set()
        self._news.set()

    async def finish(self, grace: float) -> None:
        """Ends the lane: what was handed over is waited for up to `grace` seconds, nothing else begins."""
        self.stop()
        await asyncio.wait([self._feeder], timeout=grace)
        await self.emptied(grace)
        for task in (self._feeder, *self._senders):
            task.cancel()
        await asyncio.gather(self._feeder, *self._senders, return_exceptions=True)
        await self._tokens.return_unused(also_good=True)
        await self._calls.return_unused(also_good=True)

    @property
    def capacity(self) -> int:
        """How many may be marked and not yet answered. What is marked goes out past a pause or a cancel, so where calls
        or messages are few, no more is marked beyond those under way than the next call carries, or a moment needs."""
        if not self._calls.unlimited:
            return self._in_calls + max(self._ahead, self.engine.batch_size)
        if not self._drawn_early:
            return self._in_calls + max(self._ahead, LEAST_AHEAD)
        return self.engine.concurrency * self.engine.batch_size + max(self._ahead, LEAST_AHEAD, self.engine.batch_size)

    @property
    def _drawn_early(self) -> bool:
        """Whether a token lives long enough to be drawn before the mark."""
        return self._tokens.unlimited or self._tokens.lateness >= SHORT_LATENESS

    def _learn_pace(self) -> None:
        now = self._clock.monotonic()
        elapsed = now - self._looked_at
        if elapsed >= PACE_OVER:
            self._ahead = min(MOST_AHEAD, int(self._answers / elapsed * AHEAD))
            self._answers, self._looked_at = 0, now

    def _block_size(self) -> int:
        """How many to mark next; 0 while there are none, or so little room that it is better to wait for more."""
        self._learn_pace()
        block = max(BLOCK, self.engine.batch_size)
        room = self.capacity - self._marked
        worthwhile = min(len(self._items), block // 2, self.capacity // 2 or 1)
        return min(len(self._items), block, room) if room >= worthwhile else 0

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
        return [heappop(self._items)[-1] for _ in range(min(count, len(self._items)))]

    async def _mark_block(self, size: int) -> None:
        token = FOREVER
        if self._drawn_early and not self._tokens.unlimited:
            size, token = await self._tokens.take(size, self._stop)
        block = await self._composed(self._take(size))
        self._tokens.give_back(size - len(block), token)
        if not block:
            return
        self._marked += len(block)
        # Not awaited: while the database writes this mark, the next block is composed.
        task = asyncio.get_running_loop().create_task(self._mark(block, token))
        self._marking.add(task)
        task.add_done_callback(self._marked_block)

    def _marked_block(self, task: asyncio.Task[None]) -> None:
        self._marking.discard(task)
        self._news.set()
        self._owner.task_ended(task)

    async def _mark(self, block: list[Item], token: Token) -> None:
        allowed = await self._ledger.mark([Mark(i.leased.id, self._id, i.leased.attempts + 1) for i in block])
        refused = [item for item in block if item.leased.id not in allowed]
        if refused:
            self._marked -= len(refused)
            self._tokens.give_back(len(refused), token)
            await self._owner.refuse(refused)
            self._news.set()
            block = [item for item in block if item.leased.id in allowed]
        # Whoever comes first uses it: tied to one item, it would be stale when that item's turn comes.
        self._tokens.give_back(len(block), token)
        for item in block:
            self._outbox.put(item)

    async def _composed(self, items: list[Item]) -> list[Item]:
        composed = []
        for position, item in enumerate(items):
            if position % COMPOSED_AT_ONCE == COMPOSED_AT_ONCE - 1:
                await asyncio.sleep(0)
            if item.envelope or self._owner.compose(item):
                composed.append(item)
        return composed

    # ---- senders ----

    async def _send_for_ever(self) -> None:
        one_at_a_time = self.engine.batch_size == 1
        while True:
            if one_at_a_time:
                items, call = [await self._outbox.get()], self._free_call()
            else:
                items, call = await self._next_call()
            try:
                if len(items) == 1 and self._in_time(items) and self._may_go(call):
                    await self._call_alone(items[0])  # the usual case, without the rest of the ceremony
                else:
                    await self._send(items, call)
            finally:
                self._marked -= len(items)
                self._answers += len(items)
                self._news.set()

    def _may_go(self, call: Token) -> bool:
        """Whether there is nothing to wait for, and nothing against one mail. Takes its token."""
        return (
            self._calls.good(call)
            and not self._stop.is_set()
            and self._owner.may_hand_over(self._id)
            and (self._tokens.unlimited or (self.engine.room > self._claimed and self._tokens.kept(1) is not None))
        )

    async def _next_call(self) -> tuple[list[Item], Token]:
        """What the next call carries, and its own token. One sender collects at a time, or each would leave with a few;
        and while it waits for a call, more gathers."""
        async with self._collecting:
            items = [await self._outbox.get()]
            call = self._free_call() if self._calls.unlimited else (await self._calls.take(1, self._stop))[1]
            begun = self._clock.monotonic()
            while len(items) < self.engine.batch_size:
                if not self._outbox.empty():
                    items.append(self._outbox.take())
                elif self._marking and not self._stop.is_set() and self._clock.monotonic() - begun < LINGER:
                    await asyncio.sleep(LINGER / 10)
                else:
                    break
            return items, call

    def _free_call(self) -> Token:
        return FOREVER if self._calls.unlimited else SPENT

    async def _send(self, items: list[Item], call: Token) -> None:
        """Hands the items over, as many at a time as the throttle allows at one instant. A call that one of them spoilt
        for all is made again with each half, until it stands alone."""
        groups = deque(self._grouped(items))
        while groups:
            group = groups.popleft()
            await self._room_for_a_call()
            self._claimed += 1
            try:
                allowed, call = await self._allowed(group, call)
            finally:
                self._claimed -= 1
            stopped = not allowed or self._stop.is_set() or not self._owner.may_hand_over(self._id)
            if stopped or not self._in_time(group[:allowed]):
                left = [item for each in (group, *groups) for item in each]
                self._owner.unmark(left)
                self._give_back(left)
                self._calls.give_back(1, call)
                return
            if group[allowed:]:
                groups.appendleft(group[allowed:])
            spoilt = await self._call(group[:allowed])
            call = self._free_call()
            if spoilt:
                middle = len(spoilt) // 2
                groups.extendleft([spoilt[middle:], spoilt[:middle]])

    def _in_time(self, items: list[Item]) -> bool:
        """Whether no deadline and no sending window has passed since they were marked: where calls are limited to a few
        an hour, they wait long for theirs."""
        for item in items:
            candidate = item.candidate
            # Asked for each mail, and most have neither: those need no clock.
            timed = candidate is not None and (candidate.deadline is not None or candidate.opening is not None)
            if timed and not candidate.in_time(self._clock.now()):
                return False
        return True

    def _grouped(self, items: list[Item]) -> list[list[Item]]:
        """The items as they may share a call."""
        if len(items) == 1:
            return [items]
        by_envelope = {id(item.envelope): item for item in items}
        groups = self.engine.groups([item.envelope for item in items])
        return [[by_envelope[id(envelope)] for envelope in group] for group in groups]

    async def _call_alone(self, item: Item) -> None:
        started = self._clock.monotonic()
        self._in_calls += 1
        try:
            (outcome,) = await self.engine.send((item.envelope,))
        finally:
            self._in_calls -= 1
        self._owner.conclude(item, self._id, outcome, self._clock.monotonic() - started)

    async def _call(self, items: list[Item]) -> list[Item]:
        """One call. Returns those that must go again, because another one spoilt it for them."""
        if len(items) == 1:
            await self._call_alone(items[0])
            return []
        started = self._clock.monotonic()
        self._in_calls += len(items)
        try:
            outcomes = await self.engine.send([item.envelope for item in items])
        finally:
            self._in_calls -= len(items)
        seconds = self._clock.monotonic() - started
        several = sum(outcome.shared for outcome in outcomes) > 1  # with one, nobody else can be to blame
        spoilt = []
        for item, outcome in zip(items, outcomes, strict=True):
            if several and outcome.shared:
                item.token = SPENT
                spoilt.append(item)
            else:
                self._owner.conclude(item, self._id, outcome, seconds)
        return spoilt

    # ---- the throttle ----

    async def _allowed(self, items: list[Item], call: Token) -> tuple[int, Token]:
        """How many of the first items may go now in one call, and the call's token; 0 when the stop came first."""
        while not self._stop.is_set():
            if not self._calls.good(call):
                got, call = await self._calls.take(1, self._stop)
                if not got:
                    break
            count = await self._with_token(items)
            if not count or self._calls.good(call):
                return count, call
            self._calls.give_back(1, call)  # the messages' tokens were long in coming
            call = SPENT
        return 0, call

    async def _room_for_a_call(self) -> None:
        """Returns when a call would go out at once (a token that waits for a connection would be stale there), or when
        the stop comes first."""
        if self._tokens.unlimited and self._calls.unlimited:
            return
        while self.engine.room <= self._claimed and not self._stop.is_set():
            waits = [asyncio.ensure_future(wait) for wait in (self.engine.more_room(), self._stop.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _with_token(self, items: list[Item]) -> int:
        """How many of the first items have a token that is good now. Tokens are not collected until all have one: the
        first would be stale when the last is there."""
        if self._tokens.unlimited:
            return len(items)
        async with self._drawing:
            got, token = self._tokens.kept(len(items)) or await self._tokens.take(len(items), self._stop)
        for item in items[:got]:
            item.token = token
        return got

    def _give_back(self, items: list[Item]) -> None:
        """The tokens of what was not handed over with them."""
        for item in items:
            self._tokens.give_back(1, item.token)
            item.token = SPENT
