"""How much longer a query may take.

Decides when a query is too slow. How the database is made to stop is the driver's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from campaigns.audiences.exceptions import AudienceTooSlow


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long a query may take to its first row, and to its last, the time of whoever takes the rows included."""

    first_row: timedelta = timedelta(seconds=60)
    total: timedelta = timedelta(minutes=30)


class Deadline:
    """The limits of one query, counted from the making of this object by a clock that never goes back."""

    def __init__(self, where: str, limits: TimeLimits, monotonic: Callable[[], float]) -> None:
        self._where = where
        self.limits = limits
        self._monotonic = monotonic
        self._started = monotonic()
        self._first_row_read = False

    def first_row_read(self) -> None:
        """From now on the limit for the whole counts."""
        self._first_row_read = True

    def seconds_left(self) -> float:
        """Until the query must have answered; not above zero when it is too late."""
        limit = self.limits.total if self._first_row_read else min(self.limits.first_row, self.limits.total)
        return self._started + limit.total_seconds() - self._monotonic()

    def check(self) -> None:
        """Raises `AudienceTooSlow` when it is too late."""
        if self.seconds_left() <= 0:
            raise self.too_slow()

    def too_slow(self) -> AudienceTooSlow:
        """The error to raise when the database was stopped."""
        if self._first_row_read:
            problem = f"not all rows were there within {self.limits.total.total_seconds():g} s"
        else:
            problem = f"there was no row within {self.limits.first_row.total_seconds():g} s"
        return AudienceTooSlow(self._where, problem, "Make the query faster (an index, fewer rows) or raise its limit")
