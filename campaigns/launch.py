"""Starts a run: one row, made unique by its key. Everything else follows from that row."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from campaigns.exceptions import KeyTaken, NotReady
from campaigns.models import Mode, Outcome, Run, RunEvent, RunRequest, RunState, Trigger, Workflow
from campaigns.overrides import NONE, Overrides, keep_recipients
from campaigns.transitions import tell
from campaigns.wake import ask_to_initialize
from delivery.logs import bound

MODES = {
    Trigger.API: Mode.ASYNC,
    Trigger.SCHEDULE: Mode.SCHEDULE,
    Trigger.COMMAND: Mode.COMMAND,
    Trigger.ADMIN: Mode.ADMIN,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """How a run was asked for. `since`: when, by this process's monotonic clock; `recipients`: how many were given."""

    mode: Mode
    request_id: str = ""
    key: str = ""
    since: float | None = None
    recipients: int | None = None

    @property
    def seconds(self) -> float | None:
        """How long ago that was."""
        return None if self.since is None else round(time.monotonic() - self.since, 6)

    def record(self, workflow: Workflow, run: Run | None, by: str, outcome: Outcome, words: str = "") -> RunRequest:
        """Writes down what was asked for and what came of it."""
        return RunRequest.objects.create(
            mode=self.mode,
            outcome=outcome,
            workflow=workflow,
            run=run,
            by=by[:150],
            request_id=self.request_id[:64],
            key=self.key[:200],
            recipients=self.recipients,
            seconds=self.seconds,
            words=words[:500],
        )


def launch(
    workflow: Workflow,
    *,
    trigger: Trigger,
    by: str = "",
    key: str | None = None,
    test_limit: int | None = None,
    here: bool = False,
    overrides: Overrides = NONE,
    callback_url: str = "",
    asked: Asked | None = None,
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
    asked = asked or Asked(MODES[trigger], key=key or "")
    try:
        with transaction.atomic(savepoint=bool(key)):
            run = Run.objects.create(
                workflow=workflow,
                key=key or None,
                trigger=trigger,
                triggered_by=by[:150],
                test_limit=test_limit,
                priority=workflow.priority if overrides.priority is None else overrides.priority,
                overrides=overrides.as_json(),
                callback_url=callback_url,
                times_out_at=_times_out_at(workflow),
            )
            if overrides.recipients is not None:
                keep_recipients(run, overrides.recipients)
            why = f"triggered by {trigger.label}"
            RunEvent.objects.create(run=run, state=RunState.QUEUED, by=by[:150], why=why)
            asked.record(workflow, run, by, Outcome.STARTED)
            tell(run.pk, RunState.QUEUED, by, why, correlation_id=run.correlation_id)
            if not here:
                transaction.on_commit(lambda: _wake(run))
    except IntegrityError:
        run = Run.objects.filter(key=key).first()
        if run is None:
            raise
        if run.workflow_id != workflow.pk:
            raise KeyTaken(f"The key {key!r} started a run of another workflow; choose another key.") from None
        asked.record(workflow, run, by, Outcome.REPEATED)
    return run


def _times_out_at(workflow: Workflow) -> datetime | None:
    limit = workflow.time_limit_minutes
    return None if limit is None else timezone.now() + timedelta(minutes=limit)


def _wake(run: Run) -> None:
    with bound(run=run.pk, correlation_id=run.correlation_id):
        ask_to_initialize(run.pk)
