"""The stage before the pump: claims what is to be composed, asks the composers, writes down what came of it.

The policy is the core's (`conclude`, a retry policy); the state is the database's. What this module adds is the order
of things, and when the template stands in: when the prompt cannot be rendered, when the tries are used up, when the
composer is switched off or keeps failing, and when the deadline is nearer than an answer.
"""

import asyncio
import json
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from delivery.clock import Clock
from delivery.core.breaker import State
from delivery.core.dispatch import Candidate, End, UncertainPolicy, Verdict, conclude
from delivery.core.envelope import Kind, Outcome
from delivery.core.retry import Backoff, Jitter, RetryPolicy, RetryRule
from delivery.engine_desk import EngineDesk
from delivery.engines.composers import Composed, Prompt
from delivery.exceptions import DeliveryError
from delivery.models import NO_DEADLINE, CompositionState
from delivery.queue import composing
from delivery.queue.composing import Result, Source, ToCompose, Wording
from delivery.templating import Budget, Limits, TemplateProblem
from delivery.templating.part import Part
from delivery.templating.sandbox import PLAIN
from delivery.worker.bell import Bell
from delivery.worker.composer_standing import REFRESH, ComposerDesk, ComposerStanding
from delivery.worker.composing_line import Job, Line
from delivery.worker.database import Database
from delivery.worker.tokens import Tokens

logger = logging.getLogger(__name__)

LOOK_AGAIN = 0.25  # seconds between looks for what is wanted
GATHER = 0.01  # seconds that a result waits for its neighbours
RESERVE = timedelta(seconds=0.5)  # before the deadline, for the mail itself
A_MOMENT = timedelta(seconds=LOOK_AGAIN)
AT_ONCE = 500  # that get the template in one statement
WORDINGS_KEPT = 100  # compiled prompts, in memory
WAITS = Backoff(base=timedelta(seconds=0.5), factor=3.0, longest=timedelta(seconds=30), jitter=Jitter(0.5, 1.5))
RETRY = RetryPolicy(RetryRule(3, WAITS))
CUT_SHORT = Outcome(Kind.TRANSIENT, text="The worker stopped before there was an answer.", faults_engine=False)
TOO_LATE = "its deadline is nearer than an answer"

_WANTED, _FALLBACK = CompositionState.WANTED.value, CompositionState.FALLBACK.value
_DONE, _REVIEW = CompositionState.DONE.value, CompositionState.REVIEW.value


class Work(Protocol):
    """What the stage asks of the queue; each function says at its definition what it does."""

    def sources(self, only: int | None = None) -> list[Source]: ...
    def claim(
        self, lease_id: int, batch_id: int, engine_id: int, limit: int, until: datetime | None = None
    ) -> list[ToCompose]: ...
    def wording(self, message_id: int) -> Wording: ...
    def settle(self, lease_id: int, results: Sequence[Result]) -> int: ...
    def give_back(self, lease_id: int) -> int: ...
    def take_back(self) -> int: ...
    def lapse(self) -> int: ...
    def due(self, batch_id: int) -> datetime | None: ...


class _Prompts(NamedTuple):
    """A message's prompt, compiled; or what is wrong with it."""

    wording: Wording
    part: Part | None
    problem: str = ""


class Composing:
    """Works under one lease, beside the pump that holds it; on open batches, or on `only` one. `ring` is called when
    deliveries may go that waited for their words."""

    def __init__(
        self,
        database: Database,
        desk: EngineDesk,
        clock: Clock,
        rng: random.Random,
        lease_id: int,
        ring: Callable[[], None],
        *,
        only: int | None = None,
        work: Work = composing,
        retry: RetryPolicy = RETRY,
    ) -> None:
        self._database = database
        self._desk = ComposerDesk.beside(desk)
        self._clock = clock
        self._rng = rng
        self._lease = lease_id
        self._ring = ring
        self._only = only
        self._work = work
        self._retry = retry
        self._standing = ComposerStanding(database, self._desk, clock)
        self._lines: dict[int, Line] = {}
        self._retired: dict[Line, asyncio.Task[None]] = {}  # those of which something is still under way
        self._prompts: OrderedDict[int, _Prompts] = OrderedDict()
        self._sources: list[Source] = []
        self._hand: set[int] = set()  # claimed, and nothing is written of it yet
        self._results: list[Result] = []
        self._writes = Bell()
        self._looking = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._news = Bell()
        self._stopped = False
        self._refreshed_at = float("-inf")
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # ---- the frame ----

    @property
    def in_hand(self) -> int:
        """How many compositions this worker has claimed of which nothing is written yet."""
        return len(self._hand)

    def wake(self) -> None:
        """There may be something to compose: looked for at once."""
        self._news.set()

    async def run(self) -> None:
        """Returns when `finish` has ended it. Raises what breaks."""
        loop = asyncio.get_running_loop()
        work = (self._look_for_ever(), self._write_for_ever(), self._standing.pass_on_for_ever())
        tasks = [loop.create_task(each) for each in work]
        for task in tasks:
            task.add_done_callback(self.task_ended)
        try:
            await asyncio.shield(self._over)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def task_ended(self, task: asyncio.Task[None]) -> None:
        """When a task failed, so does the stage: what stands still would hold its compositions for ever."""
        if not task.cancelled() and task.exception() and not self._over.done():
            self._over.set_exception(task.exception())

    async def finish(self, grace: float) -> None:
        """Ends it: calls under way are waited for up to `grace` seconds, what was claimed besides is given back. To be
        called once, before the lease ends, whether or not `run` still runs."""
        self._stopped = True
        self._news.set()
        async with self._looking:  # nobody claims any more
            for task in self._retired.values():
                task.cancel()
            lines = [*self._lines.values(), *self._retired]
            await asyncio.gather(*(line.finish(grace) for line in lines))
        await self._write()
        await self._standing.pass_on()
        await self._database.ask(self._work.give_back, self._lease)
        self._hand.clear()
        if not self._over.done():
            self._over.set_result(None)

    async def due(self, batch_id: int) -> datetime | None:
        """When there is next something to do for the words of a batch, as far as its composers are able; None: not
        before somebody else's work is done."""
        at = await self._database.ask(self._work.due, batch_id)
        instants = []
        for source in self._sources:
            if source.batch == batch_id:
                able_at = (await self._standing.of(source.engine)).able_at(self._clock.now()) or NO_DEADLINE
                instants.append(min(able_at, source.deadline - RESERVE))
        return at if at is None or not instants else max(at, min(instants))

    # ---- claiming ----

    async def _look_for_ever(self) -> None:
        while not self._stopped:
            self._news.clear()
            async with self._looking:
                if not self._stopped:
                    await self._look()
            await self._news.wait(LOOK_AGAIN)

    async def _look(self) -> None:
        if self._clock.monotonic() - self._refreshed_at >= REFRESH:
            await self._refresh()
            self._refreshed_at = self._clock.monotonic()
        for line in self._lines.values():
            self._use_template(line.recall(lambda job, line=line: self._is_late(line, job.item)), TOO_LATE)
        self._sources = await self._database.ask(self._work.sources, self._only)
        for source in self._sources:
            await self._serve(source)

    async def _refresh(self) -> None:
        """Looks at what others left behind, and whether composers are set up differently."""
        if not self._hand:  # a claim whose answer got lost with the database's connection
            await self._database.ask(self._work.give_back, self._lease)
        await self._database.ask(self._work.take_back)
        await self._database.ask(self._work.lapse)
        for engine_id, line in list(self._lines.items()):
            if (await self._standing.of(engine_id)).off:
                self._retire(self._lines.pop(engine_id))  # what waits here for a token is given the template
                continue
            await self._database.ask(self._desk.recover, engine_id)
            limits = await self._database.ask(self._desk.limits, engine_id, self._clock.now())
            if limits.version == line.version:
                line.tokens.obey({**limits.messages, **limits.calls})
            else:
                self._retire(self._lines.pop(engine_id))

    def _retire(self, line: Line) -> None:
        """What has begun there comes to its end; the rest goes the new way."""
        line.stop()
        self._put_back(line.recall())
        task = self._retired[line] = asyncio.get_running_loop().create_task(line.finish())
        task.add_done_callback(lambda task: self._retired.pop(line, None))
        task.add_done_callback(self.task_ended)

    async def _serve(self, source: Source) -> None:
        """Claims for a composer what it has room for, and for the template what cannot wait for that."""
        now = self._clock.now()
        view = await self._standing.of(source.engine)
        if view.off:
            await self._claim_for_template(source, None, view.off)
            return
        line = self._lines.get(source.engine)
        able_at = view.able_at(now)
        needed = RESERVE + timedelta(seconds=line.expected if line else 0)
        until = max(able_at or now, now) + needed
        if source.deadline <= until:
            await self._claim_for_template(source, until, TOO_LATE)
        if able_at != now:
            return
        line = line or await self._open_line(source.engine)
        if line is None:
            return
        room = line.room(probing=view.engine.breaker.state is not State.CLOSED)
        if room:
            for item in await self._claim(source, room, None):
                await self._begin(line, item)

    async def _claim(self, source: Source, limit: int, until: datetime | None) -> list[ToCompose]:
        claim = self._work.claim
        items = await self._database.ask(claim, self._lease, source.batch, source.engine, limit, until)
        self._hand.update(item.id for item in items)
        return items

    async def _claim_for_template(self, source: Source, until: datetime | None, words: str) -> None:
        items = await self._claim(source, AT_ONCE, until)
        for item in items:
            self._settle(Result(item.id, _FALLBACK, item.attempts, words=words))
        if len(items) == AT_ONCE:
            self._news.set()  # there are more

    async def _open_line(self, engine_id: int) -> Line | None:
        limits = await self._database.ask(self._desk.limits, engine_id, self._clock.now())
        try:
            composer = await self._database.ask(self._desk.open, engine_id)
            if not hasattr(composer, "compose"):
                raise DeliveryError(f"Engine {limits.name} sends mails and composes none: choose a composer.")
        except DeliveryError as error:
            logger.error("Composer %d cannot be used: %s", engine_id, error)
            await self._standing.fail(engine_id, str(error))
            return None
        # One text is one message and one call, so all limits are drawn together.
        rates = {**limits.messages, **limits.calls}
        tokens = Tokens(self._database, self._desk, self._clock, rates)
        self._lines[engine_id] = Line(engine_id, composer, tokens, limits.version, self, self._clock)
        return self._lines[engine_id]

    async def _begin(self, line: Line, item: ToCompose) -> None:
        prompts = await self._prompts_of(item.message)
        review = prompts.wording.review
        if item.text:  # composed before its delivery was called off for a while
            self._settle(Result(item.id, _REVIEW if review else _DONE, item.attempts, item.text))
            return
        try:
            if prompts.part is None:
                raise TemplateProblem("prompt", 1, prompts.problem)
            asked = prompts.part.render(json.loads(item.data), Budget(Limits())).strip()
        except TemplateProblem as problem:
            self._settle(Result(item.id, _FALLBACK, item.attempts, words=f"the prompt cannot be rendered: {problem}"))
            return
        if not asked:
            self._settle(Result(item.id, _FALLBACK, item.attempts, words="the prompt is empty for this recipient"))
            return
        # Another key for each try: an answer that was no good must not be given again.
        key = f"{prompts.wording.token}.{item.id:x}.{item.attempts + 1}"
        line.put(Job(item, Prompt(asked, key=key), review))

    async def _prompts_of(self, message_id: int) -> _Prompts:
        found = self._prompts.get(message_id)
        if found is None:
            wording = await self._database.ask(self._work.wording, message_id)
            try:
                found = _Prompts(wording, Part("prompt", wording.prompt, PLAIN))
            except TemplateProblem as problem:
                found = _Prompts(wording, None, str(problem))
            self._prompts[message_id] = found
            while len(self._prompts) > WORDINGS_KEPT:
                self._prompts.popitem(last=False)
        return found

    # ---- composing ----

    def _seconds_left(self, item: ToCompose) -> float | None:
        """Until the words must be there; None without a deadline."""
        if item.deadline == NO_DEADLINE:
            return None
        return (item.deadline - RESERVE - self._clock.now()).total_seconds()

    def _is_late(self, line: Line, item: ToCompose) -> bool:
        left = self._seconds_left(item)
        return left is not None and left <= line.expected

    async def work_on(self, line: Line, job: Job) -> None:
        """Composes one text, if it still may, and says what came of it."""
        if not await self._token(line, job):
            if line.stopped:
                self._put_back([job])
            else:
                self._use_template([job], TOO_LATE)
        elif not await self._standing.admit(line.engine_id):
            self._wait_for_composer(job)
        else:
            await self._compose(line, job)
        self._news.set()

    async def _token(self, line: Line, job: Job) -> bool:
        """Takes a token. False when the deadline came too near before there was one, or the line was stopped."""
        left = self._seconds_left(job.item)
        with line.patience(None if left is None else left - line.expected) as bell:
            got, token = await line.tokens.take(1, bell)
        if got and (line.stopped or self._is_late(line, job.item)):
            line.tokens.give_back(1, token)
            return False
        return bool(got)

    async def _compose(self, line: Line, job: Job) -> None:
        begun = self._clock.monotonic()
        left = self._seconds_left(job.item)
        try:
            async with asyncio.timeout(None if left is None else max(0.0, left)):
                composed = await line.composer.compose(job.prompt)
        except TimeoutError:
            line.learn(self._clock.monotonic() - begun)
            self._use_template([job], TOO_LATE)
            return
        except asyncio.CancelledError:
            # A try all the same: who takes longer than workers live would be asked for ever, and cost as much.
            self._follow(line, job, Composed(CUT_SHORT))
            raise
        line.learn(self._clock.monotonic() - begun)
        self._standing.hear(line.engine_id, self._follow(line, job, composed), composed.outcome)

    def _follow(self, line: Line, job: Job, composed: Composed) -> Verdict:
        """What follows from an answer for the text; returns the core's verdict."""
        now, item, outcome = self._clock.now(), job.item, composed.outcome
        candidate = Candidate("", item.attempts)
        verdict = conclude(candidate, outcome, self._retry, UncertainPolicy.RESEND, now, self._rng)
        words = f"{outcome.code} {outcome.text}".strip()
        if verdict.end is End.ACCEPTED:
            state = _REVIEW if job.review else _DONE
            self._settle(Result(item.id, state, verdict.attempts, composed.text))
        elif verdict.end:
            self._settle(Result(item.id, _FALLBACK, verdict.attempts, words=words))
        else:
            self._try_again(line, item, verdict, words, outcome.retry_after)
        return verdict

    def _try_again(
        self, line: Line, item: ToCompose, verdict: Verdict, words: str, retry_after: timedelta | None
    ) -> None:
        now = self._clock.now()
        at = max(verdict.again_at, now + (verdict.pause or retry_after or timedelta()))
        if item.deadline - RESERVE - timedelta(seconds=line.expected) <= at:
            words = f"{words}; another try would come too late"
            self._settle(Result(item.id, _FALLBACK, verdict.attempts, words=words))
        else:
            self._settle(Result(item.id, _WANTED, verdict.attempts, words=words, not_before=at if at > now else None))

    def _wait_for_composer(self, job: Job) -> None:
        """Not an attempt: wanted again, and claimed when the composer may be asked."""
        self._put_back([job], self._clock.now() + A_MOMENT)

    def _put_back(self, jobs: Sequence[Job], not_before: datetime | None = None) -> None:
        for job in jobs:
            self._settle(Result(job.item.id, _WANTED, job.item.attempts, not_before=not_before))

    def _use_template(self, jobs: Sequence[Job], words: str) -> None:
        for job in jobs:
            self._settle(Result(job.item.id, _FALLBACK, job.item.attempts, words=words))

    # ---- results ----

    def _settle(self, result: Result) -> None:
        self._results.append(result)
        self._writes.set()

    async def _write_for_ever(self) -> None:
        while True:
            await self._writes.wait()
            await asyncio.sleep(GATHER)
            await self._write()

    async def _write(self) -> None:
        """Writes the results there are, in one transaction. They are dropped from hand only when they are written:
        whoever cancels this in between writes them again, which changes nothing."""
        async with self._writing:
            while results := self._results[:]:
                released = await self._commit(results)
                del self._results[: len(results)]
                self._hand.difference_update(result.id for result in results)
                if released:
                    self._ring()
                self._news.set()
            self._writes.clear()

    async def _commit(self, results: list[Result]) -> int:
        try:
            return await self._database.commit(self._work.settle, self._lease, results)
        except Exception as error:
            logger.error("Composed texts cannot be written together, so one by one: %s", error)
        # What the database will never take must not cost its neighbours their words.
        return sum([await self._commit_alone(result) for result in results])

    async def _commit_alone(self, result: Result) -> int:
        try:
            return await self._database.commit(self._work.settle, self._lease, [result])
        except Exception:
            logger.exception("What came of delivery %d's words cannot be written; the template is used.", result.id)
        result = Result(result.id, _FALLBACK, result.attempts, words="what was composed could not be stored")
        return await self._database.commit(self._work.settle, self._lease, [result])


class NothingToCompose:
    """The stage where nothing is ever composed: the simulator's."""

    in_hand = 0

    async def run(self) -> None:
        """For ever."""
        await asyncio.get_running_loop().create_future()

    async def finish(self, grace: float) -> None:
        """Holds nothing."""

    async def due(self, batch_id: int) -> datetime | None:
        """Never."""
        return None

    def wake(self) -> None:
        """There is nothing."""
