"""When a deferred delivery is tried again, and when it is given up: by attempts and by time, for each class of trouble.

Knows no engine and no delivery, and draws no random number of its own.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class Trouble(StrEnum):
    """Whose trouble a retry waits out. They differ in what waiting can do."""

    ENGINE = "engine"  # the engine had trouble, and certainly did not take the mail
    MAILBOX = "mailbox"  # this recipient cannot be served for now: a full mailbox, greylisting
    UNKNOWN = "unknown"  # handed over and no answer read


class Growth(StrEnum):
    """How the wait grows from one try to the next."""

    IMMEDIATE = "immediate"
    CONSTANT = "constant"
    EXPONENTIAL = "exponential"


@dataclass(frozen=True, slots=True)
class Jitter:
    """The random part: the wait is drawn uniformly between `low` and `high` times what growth says."""

    low: float
    high: float


# Full jitter, because deliveries deferred together must not come back together. Source: the AWS Architecture Blog,
# "Exponential Backoff And Jitter".
FULL = Jitter(0.0, 1.0)
NONE = Jitter(1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before try n + 1: `base` if constant, `base * factor ** (n - 1)` if exponential, and never
    longer than `longest`."""

    growth: Growth = Growth.EXPONENTIAL
    base: timedelta = timedelta(seconds=60)
    factor: float = 4.0
    longest: timedelta = timedelta(hours=1)
    jitter: Jitter = FULL
    _seconds: tuple[float, float] = field(init=False, repr=False)  # of `base` and `longest`

    def __post_init__(self) -> None:
        object.__setattr__(self, "_seconds", (self.base.total_seconds(), self.longest.total_seconds()))

    def wait(self, attempts: int, rng: random.Random) -> timedelta:
        """The wait after `attempts` tries, at least one."""
        if self.growth is Growth.IMMEDIATE:
            return timedelta()
        seconds, most = self._seconds
        if self.growth is Growth.EXPONENTIAL:
            seconds = min(most, seconds * self.factor ** min(attempts - 1, 64))
        drawn = rng.uniform(self.jitter.low * seconds, self.jitter.high * seconds)
        return timedelta(seconds=min(most, drawn))


@dataclass(frozen=True, slots=True)
class RetryRule:
    """At most `max_attempts` tries in all, `backoff` apart."""

    max_attempts: int = 5
    backoff: Backoff = Backoff()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`rule` holds for every trouble that has no rule of its own in `special`; `max_age` from the first try holds for
    all."""

    rule: RetryRule = RetryRule()
    max_age: timedelta = timedelta(hours=24)
    special: Mapping[Trouble, RetryRule] = field(default_factory=dict)

    def next_at(
        self, trouble: Trouble, attempts: int, since: datetime, now: datetime, rng: random.Random
    ) -> datetime | None:
        """When to try again after `attempts` tries, the first of them at `since`; None: give up."""
        rule = self.special.get(trouble, self.rule) if self.special else self.rule
        if attempts >= rule.max_attempts:
            return None
        at = now + rule.backoff.wait(attempts, rng)
        return at if at - since <= self.max_age else None
