"""Wakes the cluster for what many requests ask for at the same time: at once for the first, and once more for all that
come within a moment after it.

A wake-up costs a row that a worker has to take; what there is to do stands in the database, so one does for many.
"""

import threading
import time
from collections.abc import Callable

from django.db import connection

from campaigns import wake

PAUSE = 0.1  # seconds between two wake-ups of one process


class Soon:
    """A deed that is done at once when it was not done lately, and else a moment later, once for all who ask."""

    def __init__(self, deed: Callable[..., None], pause: float = PAUSE) -> None:
        self._deed = deed
        self._pause = pause
        self._lock = threading.Lock()
        self._done_at = -pause
        self._timer: threading.Timer | None = None

    def ask(self, *arguments: object) -> None:
        """Does the deed with these arguments, or with those of somebody who asks meanwhile."""
        with self._lock:
            if self._timer is not None:
                return
            left = self._done_at + self._pause - time.monotonic()
            if left > 0:
                self._timer = threading.Timer(left, self._do_later, arguments)
                self._timer.start()
                return
            self._done_at = time.monotonic()
        self._deed(*arguments)

    def _do_later(self, *arguments: object) -> None:
        with self._lock:
            self._timer = None
            self._done_at = time.monotonic()
        try:
            self._deed(*arguments)
        finally:
            connection.close()  # of this thread, which ends


initialize = Soon(wake.ask_to_initialize).ask
pumps = Soon(wake.wake_pumps).ask
