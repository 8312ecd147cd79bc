"""What a worker counts and says of what it does: numbers for whoever watches, lines for whoever searches.

Decides nothing. An accepted mail costs a few additions in memory and no line, unless DEBUG is on.
"""

import logging

from delivery import metrics
from delivery.clock import Clock
from delivery.core.dispatch import End
from delivery.core.envelope import Kind, Outcome
from delivery.metrics import Count, Meter
from delivery.queue.leasing import Leased
from delivery.queue.outcomes import ENDED
from delivery.redaction import without_addresses

logger = logging.getLogger("delivery.attempts")

FLUSH_EVERY = 5.0  # seconds: what a worker that is killed had counted since is lost to the metrics, and to nothing else

_ACCEPTED = Kind.ACCEPTED


class _Engine:
    """The series of one engine that are counted with each mail."""

    __slots__ = ("accepted", "name", "seconds", "taken")

    def __init__(self, meter: Meter, engine_id: int, name: str) -> None:
        self.name = name
        self.taken = meter.counter(metrics.ATTEMPTS, kind=_ACCEPTED.value, engine=engine_id)
        self.accepted = meter.counter(metrics.SETTLED, state=End.ACCEPTED.value, engine=engine_id)
        self.seconds = meter.histogram(metrics.ATTEMPT_SECONDS, engine=engine_id)


class Record:
    """One session's. Whether DEBUG is on is asked once: at its beginning."""

    def __init__(self, meter: Meter, clock: Clock) -> None:
        self._meter = meter
        self._clock = clock
        self._engines: dict[int, _Engine] = {}
        self._every = logger.isEnabledFor(logging.DEBUG)
        self._seconds = {
            busy: meter.counter(metrics.PUMP_SECONDS, state="busy" if busy else "idle") for busy in (False, True)
        }
        self._busy = False
        self._since = self._flushed_at = clock.monotonic()

    def engine(self, engine_id: int, name: str) -> Count:
        """An engine that deliveries are about to go through. Returns where its lane counts the seconds that it waits
        for tokens."""
        self._engines[engine_id] = _Engine(self._meter, engine_id, name)
        return self._meter.counter(metrics.TOKEN_WAIT, engine=engine_id)

    def attempt(
        self, leased: Leased, reference: str, engine_id: int, outcome: Outcome, seconds: float, end: End | None
    ) -> None:
        """What an engine answered, and the end that this was for the delivery, if it was one."""
        engine = self._engines[engine_id]
        engine.seconds.observe(seconds)
        if outcome.kind is _ACCEPTED:
            engine.taken.value += 1
            engine.accepted.value += 1
            if self._every:
                self._say(logging.DEBUG, leased, reference, engine_id, outcome, seconds, end)
            return
        self._meter.count(metrics.ATTEMPTS, kind=outcome.kind.value, engine=engine_id)
        if end is not None:
            self._meter.count(metrics.SETTLED, state=end.value, engine=engine_id)
        self._say(logging.INFO, leased, reference, engine_id, outcome, seconds, end)

    def ended(self, state: str) -> None:
        """A delivery came into this state without having been handed over; only end states count."""
        if state in ENDED:
            self._meter.count(metrics.SETTLED, state=str(state), engine=None)

    def _say(
        self,
        level: int,
        leased: Leased,
        reference: str,
        engine_id: int,
        outcome: Outcome,
        seconds: float,
        end: End | None,
    ) -> None:
        logger.log(
            level,
            "attempt: %s",
            outcome.kind.value,
            extra={
                "reference": reference,
                "delivery": leased.id,
                "engine": self._engines[engine_id].name,
                "engine_id": engine_id,
                "kind": outcome.kind.value,
                "code": outcome.code,
                # Servers repeat the recipient's address in what they say.
                "words": without_addresses(outcome.text),
                "seconds": round(seconds, 4),
                "attempts": leased.attempts + 1,
                "end": end.value if end is not None else None,
            },
        )

    def beat(self, in_hand: int) -> None:
        """Counts the time since the last beat as busy or idle. To be called whenever the first delivery comes into
        hand, the last one goes out of it, and before what was counted is written."""
        now = self._clock.monotonic()
        self._seconds[self._busy].value += now - self._since
        self._since, self._busy = now, in_hand > 0

    def is_due(self) -> bool:
        """Whether what was counted is to be written now; true once in FLUSH_EVERY."""
        now = self._clock.monotonic()
        if now - self._flushed_at < FLUSH_EVERY:
            return False
        self._flushed_at = now
        return True
