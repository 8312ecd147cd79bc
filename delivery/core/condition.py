"""The condition of one engine, as all workers share it: its circuit, its pace, a pause, what it said last.

Decides what an outcome changes in it. Knows no store: whoever keeps a Condition writes the next one only if it is still
the one that was read, so that no worker undoes another's news and one process gets the one probe.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from delivery.core.breaker import Breaker, BreakerPolicy, State
from delivery.core.throttle import QUIET, SLOW_ONCE_IN, recovered, slower

KEPT_ERROR = 600  # characters of the last error


class Health(StrEnum):
    """What an outcome says of the engine."""

    GOOD = "good"
    FAULT = "fault"
    FATAL = "fatal"  # nothing will work there until a person acts
    SLOW_DOWN = "slow_down"


@dataclass(frozen=True, slots=True)
class News:
    """What one outcome says of an engine. `pause`: it asked to be left alone that long."""

    health: Health
    words: str = ""
    pause: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """`pace` is the share of its limits that an engine gets; `pace_changed_at` when it last changed."""

    breaker: Breaker = field(default_factory=Breaker)
    pace: float = 1.0
    pace_changed_at: datetime | None = None
    paused_until: datetime | None = None
    last_error: str = ""
    last_error_at: datetime | None = None

    def hearing(self, news: Iterable[News], now: datetime, policy: BreakerPolicy) -> "Condition":
        """The condition after some outcomes, in their order."""
        condition = self
        for piece in news:
            condition = condition._after(piece, now, policy)
        return condition

    def _after(self, news: News, now: datetime, policy: BreakerPolicy) -> "Condition":
        if news.health is Health.GOOD:
            return replace(self, breaker=self.breaker.record_success())
        condition = replace(self, last_error=news.words[:KEPT_ERROR], last_error_at=now)
        if news.health is Health.SLOW_DOWN:
            return condition._slowed(news.pause, now)
        fatal = news.health is Health.FATAL
        return replace(condition, breaker=self.breaker.record_fault(now, policy, fatal=fatal))

    def _slowed(self, pause: timedelta | None, now: datetime) -> "Condition":
        if self.breaker.state is State.HALF_OPEN:  # whoever says so to a probe is there again
            return replace(self, breaker=self.breaker.record_success())._slowed(pause, now)
        until = max(filter(None, (self.paused_until, now + pause if pause else None)), default=None)
        if self.pace_changed_at is not None and now - self.pace_changed_at < SLOW_ONCE_IN:
            return replace(self, paused_until=until)
        return replace(self, paused_until=until, pace=slower(self.pace), pace_changed_at=now)

    def probing(self, now: datetime, policy: BreakerPolicy) -> "Condition | None":
        """The condition in which the caller holds the one probe; None when it may not probe now."""
        claimed = self.breaker.claim_probe(now, policy)
        return replace(self, breaker=claimed) if claimed else None

    def recovering(self, now: datetime) -> "Condition":
        """A slowed engine comes back to its pace, a step for each quiet period."""
        if self.pace >= 1 or self.pace_changed_at is None or now - self.pace_changed_at < QUIET:
            return self
        return replace(self, pace=recovered(self.pace, now - self.pace_changed_at), pace_changed_at=now)
