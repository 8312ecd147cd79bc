"""Starts a run: one row, made unique by its key. Everything else follows from that row."""

from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from campaigns.exceptions import KeyTaken, NotReady
from campaigns.models import Run, RunEvent, RunState, Trigger, Workflow
from campaigns.transitions import tell
from campaigns.wake import wake
from delivery.logs import bound


def launch(
    workflow: Workflow,
    *,
    trigger: Trigger,
    by: str = "",
    key: str | None = None,
    test_limit: int | None = None,
    here: bool = False,
) -> Run:
    """A queued run of `workflow`. With a `key` that was used before, the run it made then.

    `test_limit`: only so many recipients, into the sandbox. `here`: the caller works on it in this process, so the
    cluster is not woken. Raises NotReady, KeyTaken.
    """
    if not workflow.steps.exists():
        raise NotReady(f"Workflow {workflow.slug} has no step: add one with a template.")
    if test_limit is not None and test_limit < 1:
        raise NotReady("A test needs at least one recipient.")
    longest = Run._meta.get_field("key").max_length
    if key and len(key) > longest:
        raise NotReady(f"An idempotency key has at most {longest} characters, not {len(key)}: choose a shorter one.")
    try:
        with transaction.atomic():
            run = Run.objects.create(
                workflow=workflow,
                key=key or None,
                trigger=trigger,
                triggered_by=by[:150],
                test_limit=test_limit,
                times_out_at=_times_out_at(workflow),
            )
            why = f"triggered by {trigger.label}"
            RunEvent.objects.create(run=run, state=RunState.QUEUED, by=by[:150], why=why)
            tell(run.pk, RunState.QUEUED, by, why)
            if not here:
                transaction.on_commit(lambda: _wake(run))
    except IntegrityError:
        run = Run.objects.filter(key=key).first()
        if run is None:
            raise
        if run.workflow_id != workflow.pk:
            raise KeyTaken(f"The key {key!r} started a run of another workflow; choose another key.") from None
    return run


def _times_out_at(workflow: Workflow) -> datetime | None:
    limit = workflow.time_limit_minutes
    return None if limit is None else timezone.now() + timedelta(minutes=limit)


def _wake(run: Run) -> None:
    with bound(run=run.pk, correlation_id=run.correlation_id):
        wake(run.pk)
