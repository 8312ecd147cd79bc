"""The load test: warmed up, stormed, and waited for until every callback is back or patience ends."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from campaigns.loadtest.caller import Caller, Said
from campaigns.loadtest.measures import Sample
from campaigns.loadtest.plan import ASYNC, SYNC, Bodies, Plan
from campaigns.loadtest.receiver import Receiver
from campaigns.loadtest.returned import Returned, all_back, returned
from campaigns.loadtest.storm import Stormed, storm
from campaigns.loadtest.target import Target

TAKEN = (201, 202)
ANSWER = 30.0  # seconds, beside what a trigger waits for its run
LOOK = 0.05
LISTED = 300  # characters of what was said with an error


class Refused(Exception):
    """The server does not take the very first trigger: the words are its own."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to be called back, with the keys that sign, and for how many seconds to wait after the last callback."""

    host: str
    port: int
    keys: Sequence[str] = ()
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. `words`: what was said first with each kind of error. `runs`: states of runs that were waited
    for. `stopped`: somebody ended it before its time."""

    plan: Plan
    url: str
    stormed: Stormed
    words: dict[int | str, str] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    returned: Returned | None = None
    stopped: bool = False

    @property
    def errors(self) -> int:
        return sum(not sample.good for sample in self.stormed.samples)

    @property
    def failed_runs(self) -> int:
        """Runs of which is known that they did not get through."""
        ends = self.returned.ends if self.returned else {}
        known = self.runs | {name.removeprefix("run."): n for name, n in ends.items()}
        return known.get("failed", 0) + known.get("cancelled", 0)

    @property
    def went_well(self) -> bool:
        lost = self.returned.missing + self.returned.unsigned if self.returned else 0
        return bool(self.stormed.samples) and not (self.errors or self.failed_runs or lost)


@dataclass(slots=True)
class Progress:
    """How far it is, for whoever watches."""

    answered: int = 0
    errors: int = 0
    back: int = 0


async def load(
    plan: Plan,
    target: Target,
    token: str,
    listening: Listening | None = None,
    *,
    stop: asyncio.Event | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Carries a plan out. Raises Refused, and OSError when it cannot listen."""
    stop = stop or asyncio.Event()
    patience = ANSWER + (plan.wait if plan.mode == SYNC else 0)
    caller = Caller(target.url, token, target.networks, patience)
    try:
        async with _receiving(plan, listening) as receiver:
            return await _Loading(plan, target, caller, receiver, listening, stop, watch).carry_out()
    finally:
        await caller.close()


@asynccontextmanager
async def _receiving(plan: Plan, listening: Listening | None) -> AsyncIterator[Receiver | None]:
    if plan.mode != ASYNC or listening is None:
        yield None
        return
    async with Receiver(listening.host, listening.port, listening.keys) as receiver:
        yield receiver


class _Loading:
    """One load test."""

    def __init__(
        self,
        plan: Plan,
        target: Target,
        caller: Caller,
        receiver: Receiver | None,
        listening: Listening | None,
        stop: asyncio.Event,
        watch: Callable[[Progress], None],
    ) -> None:
        self._plan, self._target, self._caller, self._stop, self._watch = plan, target, caller, stop, watch
        self._receiver, self._listening = receiver, listening
        self._path = f"/api/v1/workflows/{plan.workflow}/runs/"
        self._bodies = Bodies(plan)
        self._words: dict[int | str, str] = {}
        self._runs: Counter[str] = Counter()
        self._progress = Progress()

    async def carry_out(self) -> Result:
        await self._warm_up()
        plan = self._plan
        stormed = await storm(
            self._ask,
            count=plan.count,
            at_once=plan.at_once,
            seconds=plan.seconds,
            stop=self._stop,
            done=self._answered,
        )
        back = await self._await_callbacks(stormed) if self._receiver else None
        return Result(plan, self._target.url, stormed, self._words, dict(self._runs), back, self._stop.is_set())

    async def _warm_up(self) -> None:
        """Opens the connections, and makes the server's processes ready. Of the first trigger is seen whether it is
        taken at all."""
        first = await self._trigger(self._plan.count)
        if first.status not in TAKEN:
            raise Refused(_refusal(first))
        others = range(1, min(self._plan.at_once, self._plan.count))
        await asyncio.gather(*(self._trigger(self._plan.count + number) for number in others))

    async def _trigger(self, number: int) -> Said:
        return await self._caller.post(
            self._path, self._bodies.one(self._receiver.address_of(number) if self._receiver else "")
        )

    async def _ask(self, number: int) -> tuple[int | str, bool]:
        said = await self._trigger(number)
        good = said.status in TAKEN
        if not good:
            self._words.setdefault(said.status, _words(said))
        elif said.status == 201:
            self._runs[str(_fields(said).get("state", "unknown"))] += 1
        return said.status, good

    def _answered(self, sample: Sample) -> None:
        self._progress.answered += 1
        self._progress.errors += not sample.good
        self._look()

    def _look(self) -> None:
        if self._receiver:
            self._progress.back = len(self._receiver.heard)
        self._watch(self._progress)

    async def _await_callbacks(self, stormed: Stormed) -> Returned:
        """Waits while any comes."""
        heard, last, seen = self._receiver.heard, time.monotonic(), -1
        while not all_back(stormed.samples, heard) and not self._stop.is_set():
            if len(heard) > seen:
                seen, last = len(heard), time.monotonic()
            if time.monotonic() - last > self._listening.patience:
                break
            self._look()
            await asyncio.sleep(LOOK)
        return returned(stormed, heard)


def _fields(said: Said) -> dict[str, object]:
    try:
        found = json.loads(said.content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _words(said: Said) -> str:
    """What a problem document says; or what else was said."""
    return str(_fields(said).get("detail") or said.content.decode(errors="replace"))[:LISTED].strip()


def _refusal(said: Said) -> str:
    words = _words(said)
    hints = {
        401: "Make a token with `manage.py api_token make load-test --user NAME --scopes send`, and give it as --token "
        "or OUTREACH_API_TOKEN.",
        403: "The token needs the scope send, and its user the right to send workflows.",
        404: "--workflow takes the id or slug of a workflow that is there.",
        429: "OUTREACH_API_RATE of the server bounds how many a token may ask.",
    }
    if said.status == 400 and "callback_url" in said.content.decode(errors="replace"):
        hint = (
            "The server must be allowed to reach the receiver: set OUTREACH_ALLOWED_NETWORKS=127.0.0.1/32 for it and "
            "its workers, or say --no-callbacks."
        )
    else:
        hint = hints.get(said.status, "")
    how = f"answered {said.status}" if isinstance(said.status, int) else said.status
    return f"The first trigger was not taken: {how}. {words} {hint}".strip()
