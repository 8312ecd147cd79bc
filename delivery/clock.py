"""The time as a thing that is passed in: the system's for a worker, a virtual one for the simulator."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """`now` is what the calendar says; `monotonic` and `monotonic_ns` only ever grow, and measure durations."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def monotonic_ns(self) -> int: ...


class SystemClock:
    """This machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    monotonic_ns = staticmethod(time.monotonic_ns)

    @staticmethod
    def now() -> datetime:
        return datetime.now(UTC)


SYSTEM = SystemClock()
