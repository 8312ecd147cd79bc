"""django-q2's cluster, made safe to kill.

What it does otherwise: a worker killed with -9 may take a queue's lock with it, and the whole cluster stands still but
looks alive; a killed head leaves its children running; a signal to the process group kills workers in the middle of
a task; a stop has no bound. Here any child that a signal ended brings the whole set down and a new one up, children die
with their parent, only the head listens to signals, and a stop ends after GRACE at the latest.
"""

import ctypes
import logging
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import django_q.cluster
from django.db import connections
from django_q.cluster import Cluster, Sentinel

from campaigns import drain
from campaigns.wake import wake_unfinished

logger = logging.getLogger(__name__)

GRACE = 25  # seconds a stop may take: a worker's own grace and the commit after it
RESTART_AFTER = 1.0
LOST = 75  # the sentinel's exit code when it gives its set up (EX_TEMPFAIL)
PR_SET_PDEATHSIG = 1  # prctl(2), Linux


class SafeSentinel(Sentinel):
    """The guard of one set of processes."""

    def spawn_cluster(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # inherited by all it forks: a group's SIGTERM reaches the head
        super().spawn_cluster()

    def stop(self) -> None:
        drain.begin()
        signal.signal(signal.SIGALRM, lambda *_: self._give_up(0))
        signal.alarm(GRACE)
        super().stop()

    def reincarnate(self, process: BaseProcess) -> None:
        code = process.exitcode
        timed_out = hasattr(process, "timer") and process.timer.value == 0
        if code is not None and code < 0 and not timed_out:
            logger.error("Process %s was ended by signal %s; starting the cluster anew.", process.pid, -code)
            self._give_up(LOST)
        super().reincarnate(process)
        if timed_out:
            process.kill()  # it does not listen to SIGTERM

    def _give_up(self, code: int) -> None:
        for process in (*self.pool, self.monitor, self.pusher):
            if process.is_alive():
                process.kill()
        os._exit(code)


def run() -> None:
    """Runs the cluster in this process until SIGTERM or SIGINT; starts it anew whenever it is lost."""
    os.register_at_fork(after_in_child=_die_with_parent)
    django_q.cluster.Sentinel = SafeSentinel
    stopping = False

    def note(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    while not stopping:
        drain.reset()
        wake_unfinished()
        connections.close_all()  # what is open now would be shared by all that is forked
        cluster = _Cluster(note)
        cluster.start()
        while cluster.sentinel.is_alive():
            time.sleep(0.2)
        if not stopping and cluster.sentinel.exitcode == 0:
            return
        if not stopping:
            time.sleep(RESTART_AFTER)


class _Cluster(Cluster):
    """Tells its maker of signals before it acts on them."""

    def __init__(self, note: Callable[[int, object], None]) -> None:
        super().__init__()
        self._note = note
        self._stopping = False

    def sig_handler(self, signum: int, frame: object) -> None:
        # A second signal would run this inside itself, and wait for a lock that the first one holds.
        if self._stopping:
            return
        self._stopping = True
        self._note(signum, frame)
        super().sig_handler(signum, frame)


def _die_with_parent() -> None:
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
