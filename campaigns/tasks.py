"""What the cluster is asked to do. Arguments are ids, results are None, and any of it may come twice, late or never:
each looks in the database for what there is to do, and each piece of work is claimed there.
"""

import asyncio
import logging
import random
import time
from datetime import timedelta

from django.db.models import Q, QuerySet

from campaigns import drain, firing, housekeeping, signs
from campaigns.callbacks import outbox
from campaigns.callbacks.sending import send_due
from campaigns.contacts import work as contacts
from campaigns.execution_log import Stopped
from campaigns.finish import runs_without_log, write_missing_logs
from campaigns.initialize import Stopping, initialize
from campaigns.models import Run, RunState
from campaigns.transitions import free_to_initialize
from campaigns.wake import ask_for_callbacks, ask_for_logs, ask_to_import, wake, wake_pumps, workers
from campaigns.work import pump
from delivery import owner
from delivery.models import Lease
from delivery.queue import database_now
from delivery.worker import Database, Pump, Until

logger = logging.getLogger(__name__)

SLICE = 15.0  # seconds of pumping, far inside the cluster's timeout
LOOK = 1.0  # seconds between two looks at what else there is to do
ROUND = 2.0  # seconds of initialising one small run after the other
LEAST_SLICE = 3.0  # seconds before a pump makes room for a run that waits to be initialised
OVERDUE = timedelta(seconds=3)  # of a callback that no worker has found time for
FIRST_CHUNK = 1000  # deliveries that a pump is good for before another one helps


def initialize_run(run_id: int) -> None:
    """Takes a run from queued to sending, if nobody else does and there is room, and then others that wait: of many
    small ones each would take less than its wake-up."""
    with signs.at_work():
        begun = time.monotonic()
        while _may_initialize():
            _initialize(run_id)
            following = waiting_runs().values_list("pk", flat=True).first()
            if following is None or following == run_id:
                return
            if drain.begun() or time.monotonic() - begun > ROUND:
                wake(following)
                return
            run_id = following
        wake_pumps()  # what is ready elsewhere must not wait for audiences


def pump_slice() -> None:
    """Sends what is ready, whichever run it belongs to, for one slice; asks for the next if something is left.

    Before that, initialises the run that waits most urgently: its own wake-up may have been lost. One that fails asks
    for nothing, or it would fail again and again at once: the next tick does.
    """
    with signs.at_work():
        run_id = waiting_runs().values_list("pk", flat=True).first()
        if run_id is not None and _may_initialize():
            _initialize(run_id)
            following = waiting_runs().values_list("pk", flat=True).first()
            if following is not None:
                wake(following)
        if drain.begun():
            return
        idle = pump(until=Until.IDLE, seconds=SLICE, watch=_watch)
        if not idle:
            wake_pumps()
        if runs_without_log().exists():
            ask_for_logs()


def write_logs() -> None:
    """Writes the execution logs of runs that have ended."""
    with signs.at_work():
        try:
            write_missing_logs(_stop_or_give_sign)
        except Stopped:
            ask_for_logs()


def import_contacts(import_id: int) -> None:
    """Brings an import of contacts on: its check, the import itself, or its undoing."""
    with signs.at_work():
        try:
            contacts.work_on(import_id, between=_stop_or_go_on)
        except contacts.Stopping:
            ask_to_import(import_id)


def fire_slots() -> None:
    """Starts the runs of slots whose time has come."""
    with signs.at_work():
        firing.fire_due(database_now())


def deliver_callbacks() -> None:
    """Tells others what is due to be told, unless another worker does."""
    with signs.at_work():
        if send_due(should_stop=drain.begun, beat=signs.give):
            ask_for_callbacks()


def tick() -> None:
    """Looks at everything once: slots, retries, expired leases, stuck runs, runs whose time is up, lost wake-ups."""
    with signs.at_work():
        housekeeping.tick()


# ---- initialising ----


def waiting_runs() -> QuerySet[Run]:
    """Runs whose deliveries nobody writes now, the most urgent first."""
    unfilled = Q(state__in=(RunState.INITIALIZING, RunState.SENDING), filled_at=None)
    waiting = Q(state=RunState.QUEUED) | unfilled & free_to_initialize(database_now())
    return Run.objects.filter(waiting).order_by("priority", "pk")


def _may_initialize() -> bool:
    """Whether a worker is left for sending while another audience is read."""
    reading = Run.objects.filter(
        initializer_until__gt=database_now(),
        filled_at=None,
        state__in=(RunState.INITIALIZING, RunState.SENDING, RunState.PAUSED),
    )
    holders = reading.values_list("initializer", flat=True)
    return sum(not owner.is_gone(holder) for holder in holders) < max(1, workers() - 1)


def _initialize(run_id: int) -> None:
    try:
        initialize(run_id, between=_Between(run_id))
    except Stopping:
        wake(run_id)
        return
    run = Run.objects.select_related("batch").get(pk=run_id)
    if run.state == RunState.SENDING:
        wake_pumps(1 + run.batch.total // FIRST_CHUNK)
    elif run.is_over:
        ask_for_logs()


class _Between:
    """What happens between two chunks of an audience: a stop is heard, and a more urgent run goes first."""

    def __init__(self, run_id: int) -> None:
        self._priority = Run.objects.values_list("priority", flat=True).get(pk=run_id)
        self._looked_at = time.monotonic()

    def __call__(self) -> None:
        signs.give()
        if drain.begun():
            raise Stopping
        if time.monotonic() - self._looked_at < LOOK:
            return
        urgent = waiting_runs().filter(priority__lt=self._priority).values_list("pk", flat=True).first()
        if urgent is not None:
            logger.info("Run %d is more urgent and goes first.", urgent)
            _initialize(urgent)
        self._looked_at = time.monotonic()


# ---- pumping ----


def _watch(pumping: Pump, database: Database) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(_Watch(pumping, database).run())


class _Watch:
    """Goes on beside a pump: gives signs of life, hears of a stop, calls for help, makes room for a run that waits."""

    def __init__(self, pumping: Pump, database: Database) -> None:
        self._pumping = pumping
        self._database = database

    async def run(self) -> None:
        begun = time.monotonic()
        # Not all pumps in the same moment: one of them is enough to make room.
        looks_at = begun + LOOK * random.uniform(1, 2)  # noqa: S311
        while not drain.begun():
            signs.give()
            await asyncio.sleep(0.2)
            now = time.monotonic()
            if now >= looks_at:
                looks_at = now + LOOK
                await self._database.ask(self._call_for_help)
                if now - begun > LEAST_SLICE and await self._database.ask(_makes_room):
                    break
        self._pumping.stop.set()

    def _call_for_help(self) -> None:
        if self._pumping.is_full and Lease.objects.filter(expires_at__gt=database_now()).count() < workers():
            wake_pumps()


def _makes_room() -> bool:
    """Whether there is something that only another task does: a run to be initialised, somebody to be told."""
    if waiting_runs().exists() and _may_initialize():
        return True
    return outbox.due(OVERDUE) is not None and not outbox.somebody_sends()


def _stop_or_go_on() -> None:
    """Between two chunks of an import."""
    if _stop_or_give_sign():
        raise contacts.Stopping


def _stop_or_give_sign() -> bool:
    signs.give()
    return drain.begun()
