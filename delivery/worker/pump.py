"""The pump: leases what is ready, routes it to engines, concludes what came of it, until told to stop or done.

The policy is the core's (`decide`, `conclude`); the state is the database's. What this module adds is the order of
things: lease, route, mark, hand over, settle. Many pumps, in many processes, work side by side on the same batches.
"""

import asyncio
import json
import logging
import random
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from delivery import owner
from delivery.catalogue import StoredCatalogue
from delivery.clock import SYSTEM, Clock
from delivery.conf import conf
from delivery.core.breaker import State
from delivery.core.condition import Health, News
from delivery.core.dispatch import Candidate, End, GiveUp, Send, Wait, conclude, decide
from delivery.core.envelope import MAX_WORDS, Kind, Mailbox, Outcome
from delivery.engine_desk import EngineDesk, PoolView
from delivery.exceptions import DeliveryError
from delivery.models import NO_DEADLINE, DeliveryState
from delivery.queue import BatchView, work
from delivery.queue.outcomes import Settlement
from delivery.queue.work import Composer, Queue
from delivery.shared import shared
from delivery.templating import TemplateProblem
from delivery.worker.bell import Bell
from delivery.worker.database import Database
from delivery.worker.lane import Item, Lane
from delivery.worker.ledger import Ledger
from delivery.worker.settling import answered, unanswered
from delivery.worker.standing import Standing
from delivery.worker.tokens import Tokens

logger = logging.getLogger(__name__)

IN_HAND = 1000  # leased deliveries of one batch: what may be in flight, and twice that to feed it from
LEASED_AT_ONCE = 300
LOOK_AGAIN = 0.25  # seconds between looks for work when there was none
REFRESH = 1.0  # seconds between looks at engines, limits and waiting rows
MESSAGES_KEPT = 100  # compiled, in memory
GRACE = 10.0  # seconds that a stop waits for answers
SOON = timedelta(seconds=REFRESH)


class _LeaseEnded(Exception):
    """This session's lease is lost; a new session may begin."""


@dataclass(frozen=True)
class Surroundings:
    """What a pump works on and with. A worker's are the database, the sockets and the system's clock; the simulator
    passes others in, and the pump does not know."""

    database: Database
    queue: Queue = work
    desk: EngineDesk = field(default_factory=lambda: EngineDesk(StoredCatalogue(), shared()))
    clock: Clock = SYSTEM
    rng: random.Random = field(default_factory=random.Random)  # jitter and weights
    name: str = field(default_factory=owner.name)
    term: timedelta = field(default_factory=lambda: conf().lease)


class Pump:
    """Works on open batches (or on `only` one) until `stop` is set or, with `until_done`, nothing is open any more."""

    def __init__(self, surroundings: Surroundings, *, only: int | None = None, until_done: bool = False) -> None:
        self._surroundings = surroundings
        self._only = only
        self._until_done = until_done
        self.stop = Bell()

    async def run(self) -> None:
        """Returns when stopped or done; what is in hand is settled or given back first."""
        while not self.stop.is_set():
            session = _Session(self._surroundings, self._only, self._until_done, self.stop)
            try:
                await session.run()
                return
            except _LeaseEnded:
                logger.warning("The lease was lost (this worker was silent for too long); going on under a new one.")


class _Session:
    """One lease's worth of work."""

    def __init__(self, around: Surroundings, only: int | None, until_done: bool, stop: Bell) -> None:
        self._around = around
        self._database = around.database
        self._queue = around.queue
        self._desk = around.desk
        self._clock = around.clock
        self._only = only
        self._until_done = until_done
        self._asked_to_stop = stop
        self._stop = Bell()  # of this session: asked to, or its lease ended
        self._idle = Bell()  # there is room for more deliveries, or none is left in hand
        self._lanes: dict[int, Lane] = {}
        self._standing = Standing(around.database, around.desk, around.clock)
        self._batches: dict[int, BatchView] = {}
        self._messages: OrderedDict[int, Composer] = OrderedDict()
        self._in_hand: Counter[int] = Counter()  # leased deliveries by batch
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._able: frozenset[tuple[int, State]] = frozenset()  # engines, at the last look
        self._enough = 0  # with more of one batch in hand, none are leased
        self._lease = 0
        self._lease_good_until = 0.0

    # ---- the frame of a session ----

    async def run(self) -> None:
        term = self._around.term
        begun = self._clock.monotonic()
        self._lease = await self._database.ask(self._queue.acquire, self._around.name, term)
        self._lease_good_until = begun + term.total_seconds()
        self._ledger = Ledger(self._database, self._queue, self._clock, self._lease)
        loop = asyncio.get_running_loop()
        work = loop.create_task(self._work())
        others = [
            loop.create_task(task)
            for task in (
                self._keep_lease(term),
                self._keep_views(),
                self._standing.pass_on_for_ever(),
                self._asked_to_stop.wait(),
            )
        ]
        try:
            await asyncio.wait([work, self._broken, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop.set()
            failed = await self._wind_up(work, others)
        if failed:
            raise failed

    async def _wind_up(self, work: asyncio.Task[None], others: Sequence[asyncio.Task]) -> BaseException | None:
        """Settles what is in hand and gives back the rest. Returns what the first failed task raised, if any."""
        await asyncio.gather(*(lane.finish(GRACE) for lane in self._lanes.values()))
        for task in (work, self._broken, *others):
            task.cancel()
        ended = await asyncio.gather(work, self._broken, *others, return_exceptions=True)
        await self._ledger.close()
        await self._standing.pass_on()
        await asyncio.gather(*(lane.engine.close() for lane in self._lanes.values()))
        await self._database.ask(self._queue.end, self._lease)
        return next((e for e in ended if e and not isinstance(e, asyncio.CancelledError | bool)), None)

    def task_ended(self, task: asyncio.Task[None]) -> None:
        """A lane's task has ended. When it failed, so does the session: a lane that stands still would hold its
        deliveries for ever."""
        if not task.cancelled() and task.exception() and not self._broken.done():
            self._broken.set_exception(task.exception())

    async def _keep_lease(self, term: timedelta) -> None:
        while True:
            await asyncio.sleep(term.total_seconds() / 4)
            begun = self._clock.monotonic()
            if not await self._database.ask(self._queue.extend, self._lease, term):
                raise _LeaseEnded
            self._lease_good_until = begun + term.total_seconds()

    def may_hand_over(self, engine_id: int) -> bool:
        """False once the lease may have ended by this worker's own clock: somebody else may have the deliveries. False
        too for an engine that wants no more: what is marked for it goes back, before a provider locks us out."""
        return self._clock.monotonic() < self._lease_good_until and self._standing.wants_more(engine_id)

    async def _keep_views(self) -> None:
        while True:
            await self._database.ask(self._queue.reap)
            await self._database.ask(self._queue.promote)
            await self._database.ask(self._queue.finish_cancelled)
            await self._standing.look_again()
            able, self._able = self._able, self._standing.able_engines()
            if self._able - able:  # one is there again, and may be preferred to those that stood in for it
                await self.route([item for lane in self._lanes.values() for item in lane.recall()])
            for engine_id, lane in list(self._lanes.items()):
                await self._database.ask(self._desk.recover, engine_id)
                await lane.obey(await self._database.ask(self._desk.limits, engine_id, self._clock.now()))
            await asyncio.sleep(REFRESH)

    # ---- leasing and routing ----

    async def _work(self) -> None:
        looked_at = 0.0
        batches: list[BatchView] = []
        while not self._stop.is_set():
            if not batches or self._clock.monotonic() - looked_at > LOOK_AGAIN:
                batches = await self._database.ask(self._queue.open_batches, self._only)
                looked_at = self._clock.monotonic()
            if not batches and self._until_done and not self._in_hand.total():
                await self._ledger.flushed()
                await self._database.ask(self._queue.finish_cancelled)
                return
            leased = 0
            for batch in batches:
                leased += await self._lease_and_route(batch)
            if not leased:
                # Also those that were cancelled while this worker had some of their deliveries.
                await self._finish_batches({batch.id for batch in batches} | self._in_hand.keys())
                self._idle.clear()
                await self._idle.wait(LOOK_AGAIN)

    async def _lease_and_route(self, batch: BatchView) -> int:
        self._batches[batch.id] = batch
        if not await self._standing.able(batch.pool):
            return 0  # what is ready stays ready: leasing it would only move it to and fro
        self._enough = self._most_in_hand() - LEASED_AT_ONCE
        if self._in_hand[batch.id] > self._enough:
            return 0
        rows = await self._database.ask(self._queue.lease, self._lease, batch.id, LEASED_AT_ONCE)
        self._in_hand[batch.id] += len(rows)
        await self.route([Item(row, await self._compiled(row.message)) for row in rows])
        return len(rows)

    def _most_in_hand(self) -> int:
        """How many deliveries of one batch to hold: enough for engines that take hundreds at once."""
        return max(IN_HAND, *(2 * lane.capacity for lane in self._lanes.values()), 0)

    async def _finish_batches(self, batch_ids: set[int]) -> None:
        if not self._in_hand.total():
            # What is out of hand has its end only when that is written: until then it must stay this lease's.
            await self._ledger.flushed()
            # A lease whose answer got lost with the database's connection: leased here, and nobody knows of it.
            await self._database.ask(self._queue.give_back, self._lease)
        for batch_id in batch_ids:
            if not self._in_hand[batch_id]:
                await self._ledger.flushed()
                await self._database.ask(self._queue.finish_if_done, batch_id)
                del self._in_hand[batch_id]

    async def _compiled(self, message_id: int) -> Composer:
        found = self._messages.get(message_id)
        if found is None:
            found = self._messages[message_id] = await self._database.ask(self._queue.compiled, message_id)
            while len(self._messages) > MESSAGES_KEPT:
                self._messages.popitem(last=False)
        return found

    async def route(self, items: Sequence[Item]) -> None:
        """Puts each delivery into the lane of its engine, or back into the queue."""
        now = self._clock.now()
        for item in items:
            pool = self._pool_of(item)
            item.candidate = _candidate(item)
            match decide(item.candidate, pool.roster, pool.retry, now, self._around.rng):
                case Send(engine_id):
                    lane = self._lanes.get(engine_id) or await self._open_lane(engine_id)
                    if lane:
                        lane.put(item)
                    else:
                        self._settle(unanswered(item.leased, DeliveryState.WAITING, now, not_before=now + SOON))
                case Wait(until, reason):
                    self._settle(unanswered(item.leased, DeliveryState.WAITING, now, not_before=until, words=reason))
                case GiveUp(end, reason):
                    self._settle(unanswered(item.leased, DeliveryState(end), now, words=reason))

    def _pool_of(self, item: Item) -> PoolView:
        return self._standing[self._batches[item.leased.batch].pool]

    async def _open_lane(self, engine_id: int) -> Lane | None:
        limits = await self._database.ask(self._desk.limits, engine_id, self._clock.now())
        try:
            engine = await self._database.ask(self._desk.open, engine_id)
        except DeliveryError as error:
            logger.error("Engine %d cannot be used: %s", engine_id, error)
            await self._database.ask(self._desk.record, engine_id, [News(Health.FATAL, str(error))])
            return None
        if self._stop.is_set():  # the lanes are being ended: nobody would end this one
            return None
        if engine_id not in self._lanes:  # two routes may have waited for the database side by side
            tokens = Tokens(self._database, self._desk, self._clock, limits.messages)
            calls = Tokens(self._database, self._desk, self._clock, limits.calls)
            self._lanes[engine_id] = Lane(engine_id, engine, tokens, calls, self._ledger, self, self._clock, self._stop)
        return self._lanes[engine_id]

    # ---- what a lane asks ----

    async def admit(self, engine_id: int) -> int:
        """How many deliveries the engine may be asked to take now."""
        return await self._standing.admit(engine_id)

    def compose(self, item: Item) -> bool:
        """Renders the mail. What cannot be rendered now (it could when the run began) is kept for a person."""
        leased, now = item.leased, self._clock.now()
        try:
            recipient = Mailbox(leased.address, leased.name)
            item.envelope = item.message.envelope(leased.id, recipient, json.loads(leased.data), now)
        except TemplateProblem as problem:
            end = DeliveryState(item.candidate.given_up(End.DEAD))
            self._settle(unanswered(leased, end, now, words=f"cannot be rendered: {problem}"[:MAX_WORDS]))
            return False
        return True

    async def refuse(self, items: Sequence[Item]) -> None:
        """The mark was refused: each delivery gets the state that says why. One that is no longer this worker's is
        left alone."""
        reasons = await self._database.ask(self._queue.refused, self._lease, [item.leased.id for item in items])
        now = self._clock.now()
        known = {item.leased.id: item for item in items}
        for delivery_id, state, words in reasons:
            self._settle(unanswered(known.pop(delivery_id).leased, DeliveryState(state), now, words=words))
        for item in known.values():
            self._in_hand[item.leased.batch] -= 1

    def unmark(self, items: Sequence[Item]) -> None:
        """Marked, and certainly not handed over: ready again, and no attempt."""
        now = self._clock.now()
        for item in items:
            self._settle(unanswered(item.leased, DeliveryState.READY, now))

    def conclude(self, item: Item, engine_id: int, outcome: Outcome, seconds: float) -> None:
        """What follows from an engine's answer, for the delivery and for the engine."""
        now = self._clock.now()
        candidate = item.candidate
        pool = self._pool_of(item)
        verdict = conclude(
            candidate,
            outcome,
            pool.retry,
            self._batches[item.leased.batch].uncertain,
            now,
            self._around.rng,
            alternatives=outcome.kind is Kind.TRANSIENT
            and self._standing.has_other(pool.id, engine_id, candidate.sender_domain, now),
            honours_keys=self._lanes[engine_id].engine.honours_keys,
        )
        self._settle(answered(item.leased, verdict, outcome, engine_id, seconds, now))
        self._standing.hear(engine_id, verdict, outcome)

    def _settle(self, settlement: Settlement) -> None:
        left = self._in_hand[settlement.batch] - 1
        self._in_hand[settlement.batch] = left
        if not left or left == self._enough:
            self._idle.set()
        self._ledger.settle(settlement)


def _candidate(item: Item) -> Candidate:
    leased = item.leased
    return Candidate(
        item.message.domain,
        leased.attempts,
        leased.tried_at,
        None if leased.deadline == NO_DEADLINE else leased.deadline,
        leased.engine,
        leased.pinned,
    )
