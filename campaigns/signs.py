"""Signs of life from the worker processes to the cluster's head, in memory that all of them share.

Made before the workers are forked, without a lock: a lock could be lost with a killed process. Two workers whose
process ids share a place overwrite each other's sign; that costs a little accuracy and nothing else.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray

PLACES = 1024

_busy = RawArray("b", PLACES)  # 1: the process in this place works on a task
_last = RawArray("d", PLACES)  # when it last gave a sign, on the monotonic clock, which all processes share


def give() -> None:
    """This process is alive and at work."""
    _last[os.getpid() % PLACES] = time.monotonic()


@contextmanager
def at_work() -> Iterator[None]:
    """Says for as long as it lasts that this process works on a task."""
    place = os.getpid() % PLACES
    _busy[place] = 1
    give()
    try:
        yield
    finally:
        give()
        _busy[place] = 0


def busy() -> int:
    """How many processes work on a task."""
    return sum(_busy)


def seconds_since_last() -> float | None:
    """How long ago any process gave a sign; None: none ever did."""
    last = max(_last)
    return time.monotonic() - last if last else None


def reset() -> None:
    """For a new set of workers: those that were killed did not say goodbye."""
    for place in range(PLACES):
        _busy[place] = 0
