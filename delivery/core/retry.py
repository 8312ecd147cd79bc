"""When a deferred delivery is tried again, and when it is given up.

Exponential backoff with full jitter: the wait before try n is uniform in [0, min(longest, base * factor ** (n - 1))].
Full jitter, because deliveries deferred together must not come back together.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits in attempts and in time; both hold."""

    max_attempts: int = 5
    base: timedelta = timedelta(seconds=60)
    factor: float = 4.0
    longest: timedelta = timedelta(hours=1)
    max_age: timedelta = timedelta(hours=24)

    def next_at(self, attempts: int, since: datetime, now: datetime, rng: random.Random) -> datetime | None:
        """When to try again after `attempts` tries of a delivery that is due since `since`; None: give up."""
        if attempts >= self.max_attempts:
            return None
        growth = self.factor ** max(0, attempts - 1)
        ceiling = min(self.longest.total_seconds(), self.base.total_seconds() * growth)
        at = now + timedelta(seconds=rng.uniform(0, ceiling))
        return at if at - since <= self.max_age else None
