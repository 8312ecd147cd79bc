"""Waiting for the end of a run, for those who asked for it and want to know what came of it."""

import threading
import time

from campaigns.models import Run

LONGEST = 60  # seconds
LOOKS = (0.05, 0.1, 0.2, 0.3)  # seconds between two looks at the run; the last one again and again
MOST = 4  # who wait at the same time in one process: its other threads are for those who do not

places = threading.BoundedSemaphore(MOST)


def is_over_within(run: Run, seconds: float) -> bool:
    """Whether the run is over after so many seconds at most. Nobody waits when too many do already."""
    if not places.acquire(blocking=False):
        return False
    try:
        deadline = time.monotonic() + seconds
        looks = iter(LOOKS)
        while not run.is_over and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(next(looks, LOOKS[-1]), left))
            run.refresh_from_db(fields=["state"])
        return run.is_over
    finally:
        places.release()
