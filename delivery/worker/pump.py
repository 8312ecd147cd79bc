"""The pump: leases what is ready, routes it to engines, concludes what came of it, until told to stop or done.

The policy is the core's (`decide`, `conclude`); the state is the database's. What this module adds is the order of
things: lease, route, mark, hand over, settle. Many pumps, in many processes, work side by side on the same batches.
"""

import asyncio
import json
import logging
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto

from delivery import metrics, owner
from delivery.catalogue import StoredCatalogue
from delivery.clock import SYSTEM, Clock
from delivery.conf import conf
from delivery.core.breaker import State
from delivery.core.condition import Health, News
from delivery.core.dispatch import Candidate, GiveUp, Send, Wait, conclude, decide
from delivery.core.envelope import MAX_WORDS, Kind, Mailbox, Outcome
from delivery.engine_desk import EngineDesk, PoolView, tell_by_signal
from delivery.exceptions import DeliveryError
from delivery.metrics import Meter
from delivery.models import NO_DEADLINE, DeliveryState
from delivery.queue import BatchView, work
from delivery.queue.leasing import Leased
from delivery.queue.outcomes import Settlement
from delivery.queue.work import Composer, Queue
from delivery.shared import shared
from delivery.templating import TemplateProblem
from delivery.worker.bell import Bell
from delivery.worker.composing import Composing, NothingToCompose
from delivery.worker.database import Database
from delivery.worker.hand import LEAST, MOST, Hand
from delivery.worker.lane import Item, Lane
from delivery.worker.ledger import Ledger
from delivery.worker.record import Record
from delivery.worker.selection import select
from delivery.worker.settling import answered, unanswered
from delivery.worker.standing import Standing
from delivery.worker.tokens import Tokens

logger = logging.getLogger(__name__)

LOOK_AGAIN = 0.25  # seconds between looks for work when there was none
REFRESH = 1.0  # seconds between looks at engines, limits and waiting rows
MESSAGES_KEPT = 100  # compiled, in memory
SOONEST = 0.01  # seconds between two looks at what is just due
GRACE = 10.0  # seconds that a stop waits for answers
SOON = timedelta(seconds=REFRESH)
HORIZON = timedelta(seconds=60)  # who wakes pumps up looks that often


class _LeaseEnded(Exception):
    """This session's lease is lost; a new session may begin."""


@dataclass(frozen=True)
class Surroundings:
    """What a pump works on and with. A worker's are the database, the sockets and the system's clock; the simulator
    passes others in, and the pump does not know."""

    database: Database
    queue: Queue = work
    desk: EngineDesk = field(default_factory=lambda: EngineDesk(StoredCatalogue(), shared(), tell_by_signal))
    clock: Clock = SYSTEM
    rng: random.Random = field(default_factory=random.Random)  # jitter and weights
    name: str = field(default_factory=owner.name)
    term: timedelta = field(default_factory=lambda: conf().lease)
    meter: Meter = field(default_factory=metrics.meter)
    composes: bool = True  # whether there may be anything whose words are composed


class Until(Enum):
    """When a pump ends by itself."""

    STOPPED = auto()  # never
    DONE = auto()  # no batch is open any more
    IDLE = auto()  # nothing can be done before HORIZON has passed


class Pump:
    """Works on open batches (or on `only` one) until `stop` is set, or as `until` says."""

    def __init__(self, surroundings: Surroundings, *, only: int | None = None, until: Until = Until.STOPPED) -> None:
        self._surroundings = surroundings
        self._only = only
        self._until = until
        self._session: _Session | None = None
        self.stop = Bell()

    @property
    def is_full(self) -> bool:
        """Whether there is more to do than this pump holds at a time: another worker would have work, too."""
        return self._session is not None and self._session.is_full

    @property
    def is_composing(self) -> bool:
        """Whether words are being composed."""
        return self._session is not None and self._session.is_composing

    async def run(self) -> None:
        """Returns when stopped or done; what is in hand is settled or given back first."""
        self._surroundings.meter.count(metrics.PUMP_SLICES)
        while not self.stop.is_set():
            self._session = _Session(self._surroundings, self._only, self._until, self.stop)
            try:
                await self._session.run()
                return
            except _LeaseEnded:
                logger.warning("The lease was lost (this worker was silent for too long); going on under a new one.")


class _Session:
    """One lease's worth of work."""

    def __init__(self, around: Surroundings, only: int | None, until: Until, stop: Bell) -> None:
        self._around = around
        self._database = around.database
        self._queue = around.queue
        self._desk = around.desk
        self._clock = around.clock
        self._only = only
        self._until = until
        self._asked_to_stop = stop
        self._stop = Bell()  # of this session: asked to, or its lease ended
        self._idle = Bell()  # there is room for more deliveries, or none is left in hand
        self._lanes: dict[int, Lane] = {}
        self._closing: set[int] = set()  # lanes that end, to be opened anew
        self._retired: list[Lane] = []  # those of which something is still on its way
        self._renewing: set[asyncio.Task[None]] = set()
        self._standing = Standing(around.database, around.desk, around.clock)
        self._batches: dict[int, BatchView] = {}
        self._messages: OrderedDict[int, Composer] = OrderedDict()
        self._time = Bell()  # something waits for its time that did not before
        self._hand = Hand()
        self._stale = False  # something is ready that the last look at the batches did not see
        self._record = Record(around.meter, around.clock)
        self.is_full = False
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._able: frozenset[tuple[int, State]] = frozenset()  # engines, at the last look
        self._looked_at = float("-inf")  # at the engines
        self._composing: Composing | NothingToCompose = NothingToCompose()
        self._lease = 0
        self._lease_good_until = 0.0

    # ---- the frame of a session ----

    async def run(self) -> None:
        term = self._around.term
        begun = self._clock.monotonic()
        self._lease = await self._database.ask(self._queue.acquire, self._around.name, term)
        self._lease_good_until = begun + term.total_seconds()
        self._composing = self._stage()
        self._ledger = Ledger(self._database, self._queue, self._clock, self._lease, self._released)
        loop = asyncio.get_running_loop()
        work = loop.create_task(self._work())
        others = [
            loop.create_task(task)
            for task in (
                self._keep_lease(term),
                self._keep_views(),
                self._keep_time(),
                self._composing.run(),
                self._standing.pass_on_for_ever(),
                self._asked_to_stop.wait(),
            )
        ]
        try:
            await asyncio.wait([work, self._broken, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop.set()
            for lane in self._every_lane():
                lane.stop()
            failed = await self._wind_up(work, others)
        if failed:
            raise failed

    def _stage(self) -> "Composing | NothingToCompose":
        around = self._around
        if not around.composes:
            return NothingToCompose()
        return Composing(
            around.database, around.desk, around.clock, around.rng, self._lease, self._released, only=self._only
        )

    async def _wind_up(self, work: asyncio.Task[None], others: Sequence[asyncio.Task]) -> BaseException | None:
        """Settles what is in hand and gives back the rest. Returns what the first failed task raised, if any."""
        for task in list(self._renewing):
            task.cancel()
        await asyncio.gather(*self._renewing, return_exceptions=True)
        lanes = self._every_lane()
        await asyncio.gather(self._composing.finish(GRACE), *(lane.finish(GRACE) for lane in lanes))
        for task in (work, self._broken, *others):
            task.cancel()
        ended = await asyncio.gather(work, self._broken, *others, return_exceptions=True)
        try:
            await self._ledger.close()
        finally:
            await self._standing.pass_on()
            await asyncio.gather(*(lane.engine.close() for lane in lanes))
            await self._database.ask(self._queue.end, self._lease)
        self._record.beat(self._hand.total)
        await self._database.ask(self._around.meter.flush)
        return next((e for e in ended if e and not isinstance(e, asyncio.CancelledError | bool)), None)

    @property
    def is_composing(self) -> bool:
        return bool(self._composing.in_hand)

    def _every_lane(self) -> list[Lane]:
        return [*self._lanes.values(), *self._retired]

    def task_ended(self, task: asyncio.Task[None]) -> None:
        """A lane's task has ended. When it failed, so does the session: a lane that stands still would hold its
        deliveries for ever."""
        if not task.cancelled() and task.exception() and not self._broken.done():
            self._broken.set_exception(task.exception())

    def _renewed(self, task: asyncio.Task[None]) -> None:
        self._renewing.discard(task)
        self.task_ended(task)

    async def _keep_lease(self, term: timedelta) -> None:
        while True:
            await asyncio.sleep(term.total_seconds() / 4)
            begun = self._clock.monotonic()
            # In the ledger's thread: the other one may have to wait for a lock longer than the lease is good for.
            if not await self._database.commit(self._queue.extend, self._lease, term):
                raise _LeaseEnded
            self._lease_good_until = begun + term.total_seconds()

    def may_hand_over(self, engine_id: int) -> bool:
        """False once the lease may have ended by this worker's own clock: somebody else may have the deliveries. False
        too for an engine that wants no more: what is marked for it goes back, before a provider locks us out."""
        return self._clock.monotonic() < self._lease_good_until and self._standing.wants_more(engine_id)

    async def _keep_views(self) -> None:
        while True:
            await self._database.ask(self._queue.reap)
            await self._database.ask(self._queue.finish_cancelled)
            await self._look_at_engines()
            able, self._able = self._able, self._standing.able_engines()
            if self._able - able:  # one is there again, and may be preferred to those that stood in for it
                await self.route([item for lane in self._lanes.values() for item in lane.recall()])
            for engine_id, lane in list(self._lanes.items()):
                await self._database.ask(self._desk.recover, engine_id)
                limits = await self._database.ask(self._desk.limits, engine_id, self._clock.now())
                if limits.version == lane.version:
                    await lane.obey(limits)
                elif engine_id not in self._closing:
                    task = asyncio.get_running_loop().create_task(self._renew_lane(engine_id))
                    self._renewing.add(task)
                    task.add_done_callback(self._renewed)
            begun = self._clock.monotonic()
            await asyncio.sleep(REFRESH)
            self._hand.beat(self._clock.monotonic() - begun)
            if self._record.is_due():
                self._record.beat(self._hand.total)
                await self._database.ask(self._around.meter.flush)

    def _released(self) -> None:
        self._stale = True
        self._idle.set()
        self._time.set()

    async def _look_at_engines(self) -> None:
        self._looked_at = self._clock.monotonic()
        await self._standing.look_again()

    async def _keep_time(self) -> None:
        """Makes ready what waits, to the instant: some are to go just before their deadline."""
        while True:
            self._time.clear()
            due = await self._database.ask(self._queue.next_due)
            now = self._clock.now()
            wait = REFRESH if due is None else min(REFRESH, (due - now).total_seconds())
            if wait > 0 and await self._time.wait(wait):
                continue  # something was released meanwhile, and may be due before
            if due is not None and due <= self._clock.now() and await self._database.ask(self._queue.promote):
                if self._clock.monotonic() - self._looked_at > LOOK_AGAIN:
                    await self._look_at_engines()  # it may have waited for just what a person has changed meanwhile
                self._stale = True
                self._idle.set()
            elif wait <= 0:
                await asyncio.sleep(SOONEST)  # by the database's clock its time has not quite come

    # ---- leasing and routing ----

    async def _work(self) -> None:
        looked_at = 0.0
        batches: list[BatchView] = []
        while not self._stop.is_set():
            if not batches or self._stale or self._clock.monotonic() - looked_at > LOOK_AGAIN:
                self._stale = False
                batches = await self._database.ask(self._queue.open_batches, self._only)
                self._hand.looked()
                looked_at = self._clock.monotonic()
            if not batches and self._until is not Until.STOPPED and not self._hand.total:
                await self._ledger.flushed()
                await self._database.ask(self._queue.finish_cancelled)
                return
            self._idle.clear()  # before the look: what rings while it lasts may be what it has just missed
            leased = 0
            for batch in self._hand.in_turn(batches):
                leased += await self._lease_and_route(batch)
            if not leased:
                # Also those that were cancelled while this worker had some of their deliveries.
                await self._finish_batches({batch.id for batch in batches} | self._hand.batches())
                nothing_held = not self._hand.total and not self.is_composing
                if self._until is Until.IDLE and nothing_held and not await self._anything_soon(batches):
                    return
                await self._idle.wait(LOOK_AGAIN)

    async def _lease_and_route(self, batch: BatchView) -> int:
        self._batches[batch.id] = batch
        if not await self._standing.able(batch.pool):
            return 0  # what is ready stays ready: leasing it would only move it to and fro
        room = self._hand.room(batch, *self._bounds())
        if not room:
            self.is_full = True
            return 0
        rows = await self._database.ask(self._queue.lease, self._lease, batch.id, room)
        self.is_full = len(rows) == room
        if rows:
            self._hand.took(batch, len(rows), [row.deadline for row in rows if row.deadline != NO_DEADLINE])
            self._record.beat(self._hand.total)
        items = [Item(row, await self._compiled(row.message), batch.priority) for row in rows]
        if any(item.message.conditional or item.message.is_composed for item in items):
            items, left_out = await select(items, self._database, self._queue)
            for item, end, words in left_out:
                self._end_unsent(item, end, words)
        await self.route(items)
        return len(rows)

    def _end_unsent(self, item: Item, end: DeliveryState, words: str) -> None:
        if item.leased.pinned:  # an engine may have it from before, when it was wanted
            end = DeliveryState.UNCERTAIN
        self._unasked(item.leased, end, self._clock.now(), words=words[:MAX_WORDS])
        self._record.ended(end)

    def _bounds(self) -> tuple[int, int]:
        """The least and the most to hold for one pool: enough for engines that take hundreds at once."""
        in_calls = (2 * lane.engine.concurrency * lane.engine.batch_size for lane in self._lanes.values())
        ahead = (2 * lane.capacity for lane in self._lanes.values())
        return max(LEAST, *in_calls, 0), max(MOST, *ahead, 0)

    async def _anything_soon(self, batches: Sequence[BatchView]) -> bool:
        """Whether any of these batches has something to do within the horizon."""
        for batch in batches:
            if batch.growing:
                return True
            now = self._clock.now()
            due = await self._database.ask(self._queue.due, batch.id)
            if due is not None and max(due, await self._standing.able_at(batch.pool)) < now + HORIZON:
                return True
            words_due = await self._composing.due(batch.id)
            if words_due is not None and words_due < now + HORIZON:
                return True
        return False

    async def _finish_batches(self, batch_ids: set[int]) -> None:
        if not self._hand.total:
            # What is out of hand has its end only when that is written: until then it must stay this lease's.
            await self._ledger.flushed()
            # A lease whose answer got lost with the database's connection: leased here, and nobody knows of it.
            await self._database.ask(self._queue.give_back, self._lease)
        for batch_id in batch_ids:
            if not self._hand.of(batch_id):
                await self._ledger.flushed()
                await self._database.ask(self._queue.finish_if_done, batch_id)
                self._hand.forget(batch_id)

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
            item.candidate = _candidate(item, now)
            match decide(item.candidate, pool.roster, pool.retry, now, self._around.rng):
                case Send(engine_id):
                    lane = self._lanes.get(engine_id) or await self._open_lane(engine_id)
                    if lane and engine_id not in self._closing:
                        lane.put(item)
                    else:
                        self._unasked(item.leased, DeliveryState.WAITING, now, not_before=now + SOON)
                case Wait(until, reason):
                    self._unasked(item.leased, DeliveryState.WAITING, now, not_before=until, words=reason)
                case GiveUp(end, reason):
                    self._unasked(item.leased, DeliveryState(end), now, words=reason)
                    self._record.ended(end)

    def _pool_of(self, item: Item) -> PoolView:
        return self._standing[self._batches[item.leased.batch].pool]

    async def _renew_lane(self, engine_id: int) -> None:
        """Ends a lane whose engine is set up differently now; the next delivery opens a new one. What is on its way is
        waited for, but no longer than GRACE before others go the new way."""
        lane = self._lanes[engine_id]
        self._closing.add(engine_id)
        lane.stop()
        await self.route(lane.recall())
        await lane.emptied(GRACE)
        del self._lanes[engine_id]
        self._closing.discard(engine_id)
        self._retired.append(lane)
        await lane.emptied()
        await lane.finish(0)
        await lane.engine.close()
        self._retired.remove(lane)

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
            waited = self._record.engine(engine_id, limits.name)
            tokens = Tokens(self._database, self._desk, self._clock, limits.messages, waited)
            calls = Tokens(self._database, self._desk, self._clock, limits.calls, waited)
            self._lanes[engine_id] = Lane(
                engine_id, engine, tokens, calls, self._ledger, self, self._clock, limits.version
            )
        return self._lanes[engine_id]

    # ---- what a lane asks ----

    async def admit(self, engine_id: int) -> int:
        """How many deliveries the engine may be asked to take now."""
        return await self._standing.admit(engine_id)

    def compose(self, item: Item) -> bool:
        """Renders the mail. What cannot be rendered now (it could when the run began) is kept for a person."""
        leased, now = item.leased, self._clock.now()
        if not item.candidate.in_time(now):
            # Its time has passed in the lane, where a slow limit keeps it for hours: routed anew, it is told what now.
            self._unasked(leased, DeliveryState.READY, now)
            return False
        try:
            recipient = Mailbox(leased.address, leased.name)
            item.envelope = item.message.envelope(
                leased.id, recipient, json.loads(leased.data), now, leased.thread, item.words
            )
        except TemplateProblem as problem:
            self._end_unsent(item, DeliveryState.DEAD, f"cannot be rendered: {problem}")
            return False
        return True

    async def refuse(self, items: Sequence[Item]) -> None:
        """The mark was refused: each delivery gets the state that says why. One that is no longer this worker's is
        left alone."""
        reasons = await self._database.ask(self._queue.refused, self._lease, [item.leased.id for item in items])
        now = self._clock.now()
        known = {item.leased.id: item for item in items}
        for delivery_id, state, words in reasons:
            self._unasked(known.pop(delivery_id).leased, DeliveryState(state), now, words=words)
            self._record.ended(state)
        for item in known.values():
            self._hand.let_go(item.leased.batch, item.leased.deadline)

    def unmark(self, items: Sequence[Item]) -> None:
        """Marked, and certainly not handed over: ready again, and no attempt."""
        now = self._clock.now()
        for item in items:
            self._unasked(item.leased, DeliveryState.READY, now)

    def conclude(self, item: Item, engine_id: int, outcome: Outcome, seconds: float) -> None:
        """What follows from an engine's answer, for the delivery and for the engine."""
        now = self._clock.now()
        candidate = item.candidate
        pool = self._pool_of(item)
        batch = self._batches[item.leased.batch]
        verdict = conclude(
            candidate,
            outcome,
            pool.retry,
            batch.uncertain,
            now,
            self._around.rng,
            alternatives=outcome.kind is Kind.TRANSIENT
            and self._standing.has_other(pool.id, engine_id, candidate.sender_domain, now),
            honours_keys=self._honours_keys(engine_id),
        )
        self._settle(item.leased, answered(item.leased, verdict, outcome, engine_id, seconds, now, batch.linked))
        self._record.attempt(item.leased, batch.reference, engine_id, outcome, seconds, verdict.end)
        self._standing.hear(engine_id, verdict, outcome)

    def _honours_keys(self, engine_id: int) -> bool:
        lane = self._lanes.get(engine_id)  # none while a lane whose engine is set up anew gets its last answers
        return lane is not None and lane.engine.honours_keys

    def _unasked(
        self,
        leased: Leased,
        state: DeliveryState,
        now: datetime,
        *,
        not_before: datetime | None = None,
        words: str = "",
    ) -> None:
        linked = self._batches[leased.batch].linked
        self._settle(leased, unanswered(leased, state, now, not_before=not_before, words=words, linked=linked))

    def _settle(self, leased: Leased, settlement: Settlement) -> None:
        if self._hand.let_go(leased.batch, leased.deadline):
            self._idle.set()
            if not self._hand.total:
                self._record.beat(0)
        self._ledger.settle(settlement)


def _candidate(item: Item, now: datetime) -> Candidate:
    leased = item.leased
    candidate = Candidate(
        item.message.domain,
        leased.attempts,
        leased.tried_at,
        None if leased.deadline == NO_DEADLINE or item.message.late else leased.deadline,
        leased.engine,
        leased.pinned,
    )
    if leased.thread and leased.tried_at is None:
        candidate = candidate._replace(preferred=leased.engine)
    openings = item.message.openings
    if openings is None:
        return candidate
    # A night or a weekend outside the window is no time in which it could have been tried.
    since = leased.tried_at and leased.tried_at + openings.closed_for(leased.data, leased.tried_at, now)
    return candidate._replace(since=since, opening=openings.opening(leased.data, now))
