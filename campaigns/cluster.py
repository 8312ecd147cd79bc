"""django-q2's cluster, made safe to kill.

What it does otherwise: a worker killed with -9 may take a queue's lock with it, and the whole cluster stands still but
looks alive; a killed head leaves its children running; a signal to the process group kills workers in the middle of
a task; a stop has no bound. Here any child that a signal ended brings the whole set down and a new one up, children die
with their parent, only the head listens to signals, and a stop ends after GRACE at the latest. The head keeps a
heartbeat row, and starts its set anew when that takes no work although there is some: what nobody foresaw.
"""

import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from importlib import import_module
from multiprocessing import RLock
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue

import django_q.cluster
from django.db import DatabaseError, connections
from django_q.cluster import Cluster as DjangoQ
from django_q.cluster import Sentinel
from django_q.conf import Conf
from django_q.models import Schedule
from django_q.worker import worker

from campaigns import drain, firing, signs, wake
from campaigns.callbacks import outbox
from campaigns.conf import conf
from campaigns.models import Cluster
from delivery import owner
from delivery.queue import database_now, oldest_expired

logger = logging.getLogger(__name__)

GRACE = 25  # seconds a stop may take: a worker's own grace and the commit after it
BEAT = 5.0  # seconds between two heartbeats
LOOK_FOR_SLOTS = 1.0  # seconds between two looks at whether the time of a slot has come: one look into an index
LOOK_FOR_CALLBACKS = 1.0  # seconds between two looks at whether somebody is to be told something: the same
LONGEST_PATIENCE = 60.0  # seconds at most until the workers are reminded of what is due
LOCK_PATIENCE = 0.5  # seconds that a worker's lock is waited for: what is done under it takes microseconds
LOOK = 0.2  # seconds between two looks at the sentinel, and at whether a signal came
RESTART_AFTER = 1.0
LONGEST_WAIT = 10.0  # between two tries to reach the database at the start
LOST = 75  # the sentinel's exit code when it gives its set up (EX_TEMPFAIL)
PR_SET_PDEATHSIG = 1  # prctl(2), Linux
TICK = "tick"


class Timer:
    """What django-q2's sentinel and one of its workers share, in place of a `multiprocessing.Value`: the seconds that
    the worker's task has left, or -1 for none, -2 for a worker that ends in order.

    A worker that is killed while it holds the lock holds it for ever, and the sentinel, which takes the lock before
    it looks whether the worker lives, would never see it. So nobody waits long for this lock.
    """

    def __init__(self) -> None:
        self._seconds = RawValue("f", -1)
        self._lock = RLock()

    @contextlib.contextmanager
    def get_lock(self) -> Iterator[None]:
        """Holds the lock for as long as it lasts; goes on without it when its holder does not give it back."""
        held = self._lock.acquire(timeout=LOCK_PATIENCE)
        try:
            yield
        finally:
            if held:
                self._lock.release()

    @property
    def value(self) -> float:
        return self._seconds.value

    @value.setter
    def value(self, seconds: float) -> None:
        with self.get_lock():
            self._seconds.value = seconds


class SafeSentinel(Sentinel):
    """The guard of one set of processes."""

    def spawn_cluster(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # inherited by all it forks: a group's SIGTERM reaches the head
        super().spawn_cluster()

    def spawn_worker(self) -> None:
        self.spawn_process(worker, self.task_queue, self.result_queue, Timer(), self.timeout)

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
    _Head().run()


class _Head:
    """The process that operators start and stop."""

    def __init__(self) -> None:
        self._stopping = False
        self._starts = 0
        self._heart = _Heart()
        self._watches = (
            _Watch(lambda: firing.latest_due(database_now()), wake.ask_for_fire, LOOK_FOR_SLOTS),
            _Watch(oldest_expired, wake.ask_for_tick, BEAT),
            _Watch(outbox.due, wake.ask_for_callbacks, LOOK_FOR_CALLBACKS),
        )

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        while not self._stopping and self._ready():
            self._starts += 1
            if self._one_set() and not self._stopping:
                break
            if not self._stopping:
                time.sleep(RESTART_AFTER)
        self._heart.stop()

    def _note(self, number: int, frame: object) -> None:
        self._stopping = True

    def _ready(self) -> bool:
        """Puts everything in place as soon as the database is there. False when the stop came first."""
        wait = RESTART_AFTER
        while not self._stopping:
            try:
                self._heart.start(restarts=self._starts)
                _keep_one_tick()
                wake.ask_for_tick()  # wake-ups may have been lost with the last cluster
                return True
            except DatabaseError as error:
                logger.error("The database cannot be used, trying again in %.0f s: %s", wait, str(error).strip())
                connections.close_all()
                time.sleep(wait)
                wait = min(LONGEST_WAIT, wait * 2)
        return False

    def _one_set(self) -> bool:
        """Runs one set of processes. True when it ended by itself in order."""
        drain.reset()
        signs.reset()
        connections.close_all()  # what is open now would be shared by all that is forked
        _share_memory()
        cluster = _Set(self._note)
        try:
            cluster.start()
        except RuntimeError as error:  # the sentinel ended before it was ready: the broker is away, for instance
            logger.error("The worker processes could not be started: %s", error)
            return False
        while cluster.sentinel.is_alive():
            if self._stopping:
                self._heart.say_stopping()
                cluster.stop()
            elif not self._heart.beat():
                cluster.sentinel.kill()  # and with it all of its children
            else:
                for watch in self._watches:
                    watch.look()
                time.sleep(LOOK)
        return cluster.sentinel.exitcode == 0


class _Set(DjangoQ):
    """django-q2's cluster, which is stopped by a call: a signal only tells the head."""

    def __init__(self, note: Callable[[int, object], None]) -> None:
        self._note = note
        super().__init__()

    def sig_handler(self, signum: int, frame: object) -> None:
        self._note(signum, frame)


class _Heart:
    """The cluster's row in the database, and whether its workers take work."""

    def __init__(self) -> None:
        self._name = owner.name()
        self._beat_at = 0.0
        self._idle_since: float | None = None  # since when tasks wait and nobody takes them

    def start(self, restarts: int) -> None:
        now = database_now()
        started = {"host": socket.gethostname()[:100], "workers": Conf.WORKERS, "started_at": now}
        Cluster.objects.update_or_create(
            owner=self._name,
            defaults={"beat_at": now, "restarts": restarts, "stopping": False},
            create_defaults={"beat_at": now, **started},
        )

    def beat(self) -> bool:
        """Writes the heartbeat when it is time. False when the workers are found to stand still."""
        now = time.monotonic()
        if now - self._beat_at < BEAT:
            return True
        self._beat_at = now
        try:
            self._write(beat_at=database_now(), worked_at=_last_sign())
            waiting = wake.tasks_waiting()
        except wake.away() as error:
            logger.warning("No heartbeat, the database or the broker is away: %s", str(error).strip())
            connections.close_all()
            self._idle_since = None
            return True
        return self._works(waiting, now)

    def _works(self, waiting: int, now: float) -> bool:
        silent = signs.seconds_since_last()
        if not waiting or signs.busy() >= Conf.WORKERS or (silent is not None and silent < BEAT):
            self._idle_since = None
            return True
        self._idle_since = self._idle_since or now
        if now - self._idle_since < conf().stuck_seconds:
            return True
        logger.error("%d tasks wait and no worker takes one; starting the cluster anew.", waiting)
        self._idle_since = None
        return False

    def say_stopping(self) -> None:
        self._quietly(lambda: self._write(stopping=True))

    def stop(self) -> None:
        """The cluster has ended in order: nobody need look for it."""
        self._quietly(lambda: Cluster.objects.filter(owner=self._name).delete())

    def _write(self, **fields: object) -> None:
        Cluster.objects.filter(owner=self._name).update(**fields)

    @staticmethod
    def _quietly(deed: Callable[[], object]) -> None:
        with contextlib.suppress(DatabaseError):  # a stop does not depend on it; the row grows old by itself
            deed()


class _Watch:
    """Tells the workers of something that has come due, as soon as it has: they look by themselves once a minute.

    `due` names what is due, or returns None; `ask` asks the workers to see to it. It is one look into an index.
    """

    def __init__(self, due: Callable[[], object | None], ask: Callable[[], None], every: float) -> None:
        self._due = due
        self._ask = ask
        self._every = every
        self._looks_at = 0.0
        self._reminds_at = 0.0
        self._patience = BEAT
        self._told: object | None = None

    def look(self) -> None:
        """Asks for what is due: at once for something new, and less and less often for what is still due although it
        was asked for. The workers may be busy."""
        now = time.monotonic()
        if now < self._looks_at:
            return
        self._looks_at = now + self._every
        try:
            due = self._due()
        except DatabaseError:  # the heart says so
            connections.close_all()
            self._looks_at = now + BEAT
            return
        if due is not None and (due != self._told or now >= self._reminds_at):
            self._ask()
            self._patience = BEAT if due != self._told else min(self._patience * 2, LONGEST_PATIENCE)
            self._reminds_at = now + self._patience
        self._told = due


def _last_sign() -> datetime | None:
    silent = signs.seconds_since_last()
    return None if silent is None else database_now() - timedelta(seconds=silent)


def _keep_one_tick() -> None:
    """The one schedule there is: it asks for a tick every minute, whichever cluster is there to do it."""
    ours = Schedule.objects.filter(name=TICK)
    first = ours.order_by("pk").first()
    if first is None:
        first = Schedule.objects.create(name=TICK, schedule_type=Schedule.MINUTES, minutes=1, repeats=-1)
    Schedule.objects.filter(pk=first.pk).update(func="campaigns.tasks.tick", schedule_type=Schedule.MINUTES, minutes=1)
    Schedule.objects.exclude(pk=first.pk).delete()  # two clusters may have started at once; others are not ours


def _share_memory() -> None:
    """What the workers need is loaded before they are forked, and the collector never looks at it again: else each
    would soon have a copy of its own, for to look is to write."""
    for name in ("campaigns.tasks", "sqlglot"):
        import_module(name)
    gc.collect()
    gc.freeze()


def _die_with_parent() -> None:
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
