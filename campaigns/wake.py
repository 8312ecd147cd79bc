"""Wakes the cluster. A wake-up is a hint: what there is to do stands in the database, so a lost one costs the wait for
the next tick, and a doubled one an empty look."""

import logging

from django.db import DatabaseError
from django.db.models import Sum
from django_q.brokers import get_broker
from django_q.conf import Conf
from django_q.tasks import async_task

from campaigns.callbacks import outbox
from campaigns.models import Cluster, Run, RunState
from delivery.queue import database_now

logger = logging.getLogger(__name__)

INITIALIZING = (RunState.QUEUED, RunState.INITIALIZING)
# Longer than the cluster's usual limit: a large audience takes its time. The claim on the run keeps a second one off.
LONG = 6 * 3600  # seconds


def wake(run_id: int) -> None:
    """Asks the cluster to work on a run."""
    run = Run.objects.filter(pk=run_id).first()
    if run is None:
        return
    if run.state in INITIALIZING or (run.state == RunState.SENDING and run.filled_at is None):
        ask_to_initialize(run_id)
    if run.state not in INITIALIZING:
        wake_pumps()


def ask_to_initialize(run_id: int) -> None:
    """Asks a worker to begin with a run."""
    _enqueue("campaigns.tasks.initialize_run", run_id, task_name=f"initialize run {run_id}", timeout=LONG)


def wake_pumps(count: int = 1) -> None:
    """Asks for so many workers to send what is ready, unless as many are on their way already. Without a cluster nobody
    is asked: one that starts looks for work by itself."""
    try:
        waiting = tasks_waiting()
    except away() as error:
        logger.warning("A wake-up is lost, the next tick makes up for it: %s", str(error).strip())
        return
    alive = workers()
    for _ in range(min(count, alive, 2 * alive - waiting)):
        # A slice ends itself after seconds, but before that it may have to read an audience whose own wake-up was lost.
        _enqueue("campaigns.tasks.pump_slice", task_name="pump", timeout=LONG)


def ask_for_logs() -> None:
    """Asks for the execution logs that are still to be written."""
    _enqueue("campaigns.tasks.write_logs", task_name="write logs", timeout=LONG)


def ask_for_fire() -> None:
    """Asks for the runs of slots whose time has come."""
    _enqueue("campaigns.tasks.fire_slots", task_name="fire slots")


def ask_for_callbacks() -> None:
    """Asks for what is due to be told, unless a process is at it."""
    if not outbox.somebody_sends():
        _enqueue("campaigns.tasks.deliver_callbacks", task_name="deliver callbacks")


def ask_for_tick() -> None:
    """Asks for a look at everything."""
    _enqueue("campaigns.tasks.tick", task_name="tick")


def ask_to_import(import_id: int) -> None:
    """Asks a worker to go on with an import of contacts."""
    _enqueue("campaigns.tasks.import_contacts", import_id, task_name=f"import contacts {import_id}", timeout=LONG)


def workers() -> int:
    """How many worker processes there are, on all hosts."""
    return Cluster.objects.alive(database_now()).aggregate(n=Sum("workers"))["n"] or 0


def tasks_waiting() -> int:
    """How many tasks wait for a worker. Raises what the broker raises."""
    return get_broker().queue_size()


def away() -> tuple[type[Exception], ...]:
    """What the broker raises when it cannot be reached."""
    if Conf.ORM:
        return (DatabaseError,)
    import redis  # not before it is needed: it costs every process a tenth of a second

    return (DatabaseError, redis.RedisError, OSError)


def _enqueue(function: str, *args: int, **options: object) -> None:
    try:
        async_task(function, *args, **options)
    except away() as error:
        logger.warning("A wake-up is lost, the next tick makes up for it: %s", str(error).strip())
