"""The warm-up of a new sending domain or address: few mails on the first day, more on each one after it.

Decides how many may go on a day, and how they are spread over it. Knows no engine. Receivers judge a new sender by its
first days; providers publish such tables (deliverability.md §5 lists them).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from delivery.core.throttle import Period, Rate

DAY = timedelta(days=1)
HOURS = 24  # a day's mails are spread over it: no more than an hour's worth goes at once


@dataclass(frozen=True, slots=True)
class Ramp:
    """The caps of the first days, from `since` on. After the last, each day's cap is `growth` times that of the day
    before, until it would reach `target`, where the ramp is over; without a target it is over after the last."""

    since: datetime
    caps: tuple[int, ...]
    growth: float = 1.4
    target: int | None = None

    def cap_at(self, now: datetime) -> int | None:
        """How many may go in a day, as of now; None when the ramp is over. Before `since` the first cap holds."""
        day = max(0, (now - self.since) // DAY)
        if day < len(self.caps):
            cap = self.caps[day]
        elif self.target is None:
            return None
        else:
            cap = _grown(self.caps[-1], self.growth, day - len(self.caps) + 1, self.target)
        return None if self.target is not None and cap >= self.target else cap

    @property
    def ends(self) -> bool:
        """False for one that never reaches its target: the growth of its last cap is less than one mail a day."""
        return self.target is None or self.caps[-1] >= self.target or int(self.caps[-1] * self.growth) > self.caps[-1]

    def rate_at(self, now: datetime) -> Rate | None:
        """The limit that keeps every 24 hours to the cap; None when the ramp is over."""
        cap = self.cap_at(now)
        if cap is None:
            return None
        return Rate.within(cap, Period.DAY, burst=max(1, cap // HOURS))


def _grown(cap: int, growth: float, days: int, target: int) -> int:
    """`cap` after so many days, rounded down each day, no further than `target`."""
    for _ in range(days):
        following = int(cap * growth)
        if following <= cap or following >= target:
            return target if following >= target else cap
        cap = following
    return cap
