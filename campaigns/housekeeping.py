"""What must not depend on anybody being awake: one look at everything, in a few statements, as often as you like."""

from datetime import timedelta

from django.db.models import Q, QuerySet
from django_q.models import Failure

from campaigns import control, firing, wake
from campaigns.callbacks import outbox
from campaigns.contacts import housekeeping as contacts
from campaigns.finish import runs_without_log
from campaigns.initialize import discard
from campaigns.models import Cluster, IdempotencyKey, Run, RunState
from campaigns.models.request import KEPT
from campaigns.signals import ticked
from campaigns.transitions import free_to_initialize
from delivery import owner
from delivery.models import Batch
from delivery.models.batch import BatchState
from delivery.queue import close_standing, composing, database_now, unblock
from delivery.queue import work as queue

FORGOTTEN_AFTER = timedelta(days=1)  # a cluster that was not stopped in order
FAILURES_KEPT = timedelta(days=30)
SOON = timedelta(seconds=60)  # until the next look


def tick() -> None:
    """Starts what is due, ends what is over, takes back what dead workers held, wakes whoever has something to do."""
    firing.fire_due(database_now())
    control.time_out_overdue()
    queue.reap()
    queue.promote()
    composing.take_back()
    composing.lapse()
    queue.finish_cancelled()
    close_standing(database_now())
    unblock()
    for batch_id in Batch.objects.filter(state=BatchState.OPEN).values_list("pk", flat=True):
        queue.finish_if_done(batch_id)
    _discard_what_nobody_fills()
    wake_all()
    contacts.forget(database_now())
    outbox.sweep()
    if outbox.due() is not None:
        wake.ask_for_callbacks()
    if runs_without_log().exists():
        wake.ask_for_logs()
    _forget()
    ticked.send(sender=None)


def wake_all() -> None:
    """Wakes the cluster for everything that somebody could work on now or before the next look."""
    for run_id in _to_initialize().values_list("pk", flat=True):
        wake.wake(run_id)
    contacts.wake_unattended(database_now())
    horizon = database_now() + SOON
    for batch_id in Batch.objects.filter(state=BatchState.OPEN).order_by("priority", "pk").values_list("pk", flat=True):
        dues = (queue.due(batch_id), composing.due(batch_id))
        if any(due is not None and due < horizon for due in dues):
            wake.wake_pumps()
            return


def _discard_what_nobody_fills() -> None:
    """What an initialiser wrote of a run that ended meanwhile, and that died before it saw that."""
    over = Run.objects.filter(state__in=(RunState.CANCELLED, RunState.FAILED), batch__state=BatchState.FILLING)
    for run in over.filter(free_to_initialize(database_now())):
        discard(run)


def _to_initialize() -> QuerySet[Run]:
    unfilled = Run.objects.filter(state__in=(RunState.INITIALIZING, RunState.SENDING), filled_at=None)
    gone = [run.pk for run in unfilled if run.initializer and owner.is_gone(run.initializer)]
    free = Q(pk__in=unfilled) & (free_to_initialize(database_now()) | Q(pk__in=gone))
    return Run.objects.filter(Q(state=RunState.QUEUED) | free)


def _forget() -> None:
    now = database_now()
    Cluster.objects.filter(beat_at__lt=now - FORGOTTEN_AFTER).delete()
    Failure.objects.filter(stopped__lt=now - FAILURES_KEPT).delete()
    IdempotencyKey.objects.filter(created_at__lt=now - KEPT).delete()
