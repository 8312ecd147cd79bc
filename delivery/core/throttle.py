"""The token bucket as a generic cell rate algorithm (GCRA): one number of state, no timer, any grant size.

Decides how many messages may go now and when the next may. Does not know who asks, where the number is stored, or
what the time is. Times are integers in nanoseconds, so that stores on different machines compute the same.

Source of the algorithm: ITU-T I.371, annex A (virtual scheduling).
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

SECOND = 1_000_000_000  # nanoseconds

# A token may be used this long after it was drawn, at no cost. What is used late crowds what is drawn next, so the
# store is asked for less (see `Rate.guarded`). A quarter of a second covers one group commit on a busy disk.
MAX_LATENESS = SECOND // 4


class Period(StrEnum):
    """The unit of a limit, as providers publish theirs."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def nanoseconds(self) -> int:
        return {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[self.value] * SECOND


@dataclass(frozen=True, slots=True)
class Rate:
    """`interval` nanoseconds for each token, and `burst` tokens at once: in t ns at most burst + t / interval pass.

    `toll`, in nanoseconds, is paid once for each grant: by who may use its tokens later than `lateness` says.
    """

    interval: int
    burst: int
    toll: int = 0

    @classmethod
    def of(cls, quantity: int, period: Period, burst: int | None = None) -> "Rate":
        """`quantity` tokens in each `period`. The interval is rounded up: never faster than allowed. Without `burst`
        one second's worth may go at once, at least one."""
        interval = -(-period.nanoseconds // quantity)
        return cls(interval, burst or max(1, SECOND // interval))

    @classmethod
    def within(cls, quantity: int, period: Period, burst: int) -> "Rate":
        """A rate by which no window shorter than one `period` holds more than `quantity` tokens, the burst included."""
        burst = min(burst, quantity)
        return cls(-(-period.nanoseconds // (quantity - burst + 1)), burst)

    @property
    def lateness(self) -> int:
        """How long after its grant a token may be used at no further cost, in nanoseconds: what half the burst can make
        up for, or a tenth of the interval."""
        return min(MAX_LATENESS, max((self.burst - 1) * self.interval // 2, self.interval // 10))

    def guarded(self, lateness: int = 0) -> "Rate":
        """The rate to ask the store for, so that tokens used up to `self.lateness` late still keep to this rate.

        Tokens used in a window of t were granted in t + lateness. With a burst, that much is taken off the burst;
        without one, the interval is stretched by it. All users of a bucket do the same. Who needs more, `lateness` in
        all, pays the rest as a toll: what is granted after his tokens is granted so much later.
        """
        toll = max(0, lateness - self.lateness)
        crowd = -(-self.lateness // self.interval)
        if self.burst > crowd:
            return Rate(self.interval, self.burst - crowd, toll)
        return Rate(self.interval + self.lateness, self.burst, toll)

    def slowed(self, pace: float) -> "Rate":
        """This rate times `pace` (0 < pace <= 1), the burst shrunk alike."""
        if pace >= 1:
            return self
        return Rate(int(self.interval / pace), max(1, int(self.burst * pace)))


# How far ahead of the clock no grant leaves a bucket: beyond its span, as it is at the slowest pace, and the tolls.
CLOCK_STEP = 2 * SECOND
SLOWEST = 64


class Grant(NamedTuple):
    """`tokens` may go now; `state` is the bucket's next state; `wait` is how long until one more token is there."""

    tokens: int
    state: int
    wait: int

    @property
    def delay(self) -> timedelta:
        return timedelta(microseconds=self.wait // 1000 + 1)


def draw(rate: Rate, state: int, now: int, wanted: int) -> Grant:
    """Up to `wanted` tokens at `now`. `state` is the theoretical arrival time of the bucket, 0 for a fresh one; the
    next one is to be kept, also when there are no tokens."""
    interval = rate.interval
    span = rate.burst * interval
    if state > now + SLOWEST * span + rate.toll + CLOCK_STEP:
        state = now + span  # the store's clock was set back: the bucket is empty, and not shut until it has caught up
    start = state if state > now else now
    tokens = (now + span - start) // interval
    if tokens > wanted:
        tokens = wanted
    if tokens <= 0:
        tokens, following = 0, state
    else:
        following = start + tokens * interval + rate.toll
    wait = (following if following > now else now) + interval - span - now
    return Grant(tokens, following, wait if wait > 0 else 0)


def given_back(rate: Rate, state: int, left: int, tokens: int) -> int:
    """The bucket's next state when `tokens` of a grant that left it at `left` come back, certainly not used.

    Only while nobody has drawn since: then it is as if they had never been drawn. Later a bucket that has been full in
    between, or would have been, would hand them out a second time; so they lapse.
    """
    return state - tokens * rate.interval if state == left else state


# ---- the pace: what a provider's "slow down" does to an engine ----

PACE_FLOOR = 1 / SLOWEST
PACE_STEP = 0.05  # added for each quiet period
QUIET = timedelta(seconds=10)
SLOW_ONCE_IN = timedelta(seconds=1)  # answers to what was already in flight say the same thing again


def slower(pace: float) -> float:
    """Multiplicative decrease, after the provider said to slow down."""
    return max(PACE_FLOOR, pace / 2)


def recovered(pace: float, quiet_for: timedelta) -> float:
    """Additive increase: one step for each quiet period since the pace last changed."""
    return min(1.0, pace + PACE_STEP * (quiet_for // QUIET))
