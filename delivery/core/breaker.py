"""The circuit breaker of one engine: closed, open, half-open.

Decides from a history of successes and faults whether an engine may be asked. Knows no engine, no store and no clock.
Only the engine's own faults are recorded here; a recipient's refusal is a success of the engine.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"  # all pass
    OPEN = "open"  # none pass until probe_at
    HALF_OPEN = "half_open"  # one probe is out; if nothing is heard of it by probe_at, the next may go


# While a probe is out it makes sense to ask again soon: when it comes back well, nobody need wait the whole cool-off.
PROBE_HEARD = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """`threshold` faults in a row open the circuit; it cools off for `cool_off`, doubled each time a probe fails, up
    to `longest`. None: it never opens."""

    threshold: int | None = 5
    cool_off: timedelta = timedelta(seconds=15)
    longest: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state, and the transitions as methods that return the next state."""

    state: State = State.CLOSED
    faults: int = 0
    cool_off: timedelta = timedelta()
    probe_at: datetime | None = None

    def able_at(self, now: datetime) -> datetime | None:
        """When a mail may be handed to this engine: `now`, a later instant, or None when nothing says when."""
        if self.state is State.CLOSED:
            return now
        if self.probe_at is None:
            return None
        if self.state is State.HALF_OPEN and now < self.probe_at:
            return min(self.probe_at, now + PROBE_HEARD)
        return max(now, self.probe_at)

    def claim_probe(self, now: datetime, policy: BreakerPolicy) -> "Breaker | None":
        """The state in which the caller holds the one probe, or None when it may not probe now.

        Who stores this state must do so conditionally on the one it read: then one process gets the probe.
        """
        if self.state is State.CLOSED or self.probe_at is None or now < self.probe_at:
            return None
        return replace(self, state=State.HALF_OPEN, probe_at=now + (self.cool_off or policy.cool_off))

    def record_success(self) -> "Breaker":
        """The engine answered as it should. An open circuit stays open: what was in flight when it tripped proves
        nothing; only the probe closes it."""
        if self.state is State.OPEN:
            return self
        return Breaker()

    def record_fault(self, now: datetime, policy: BreakerPolicy, *, fatal: bool = False) -> "Breaker":
        """The engine failed. `fatal`: nothing will work there until a person acts, so the circuit opens at once."""
        if self.state is State.OPEN or policy.threshold is None:
            return self
        faults = self.faults + 1
        if self.state is State.CLOSED and faults < policy.threshold and not fatal:
            return replace(self, faults=faults)
        grown = self.cool_off * 2 if self.state is State.HALF_OPEN else policy.cool_off
        cool_off = min(grown or policy.cool_off, policy.longest)
        return Breaker(State.OPEN, faults, cool_off, now + cool_off)
