"""Runs: one execution of a workflow each, with its history and with what was wrong in its audience.

A run's state is written by `campaigns.transitions` alone.
"""

import secrets

from django.db import models

from campaigns.models.workflow import Workflow
from delivery.models import Batch


class RunState(models.TextChoices):
    QUEUED = "queued", "queued"
    INITIALIZING = "initializing", "initializing"
    SENDING = "sending", "sending"
    PAUSED = "paused", "paused"
    COMPLETED = "completed", "completed"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled"


class Trigger(models.TextChoices):
    COMMAND = "command", "command line"
    ADMIN = "admin", "admin"
    API = "api", "API"
    SCHEDULE = "schedule", "schedule"


def new_correlation_id() -> str:
    return secrets.token_hex(8)


class Run(models.Model):
    """One execution of a workflow. `key` makes it unique: the same key never makes a second run."""

    workflow = models.ForeignKey(Workflow, on_delete=models.PROTECT, db_index=False, related_name="runs")
    # NULL and not "": any number of runs may have no key, but no two the same one.
    key = models.CharField(max_length=200, unique=True, null=True, editable=False)
    correlation_id = models.CharField(
        max_length=32, default=new_correlation_id, editable=False, help_text="In every log line about this run."
    )
    state = models.CharField(max_length=12, choices=RunState, default=RunState.QUEUED)
    trigger = models.CharField(max_length=8, choices=Trigger)
    triggered_by = models.CharField(max_length=150, blank=True)
    test_limit = models.PositiveIntegerField(
        null=True, help_text="A test: only so many recipients, into the sandbox instead of the pool."
    )
    callback_url = models.CharField(max_length=2000, blank=True, help_text="Who is told of its pauses and its end.")
    priority = models.SmallIntegerField(default=0, help_text="The lowest goes first.")
    overrides = models.JSONField(
        default=dict, help_text="What it has beside or in place of the workflow's (campaigns.overrides)."
    )
    batch = models.OneToOneField(Batch, on_delete=models.PROTECT, null=True, related_name="run")
    frozen = models.JSONField(default=dict, help_text="The workflow's settings as they were when the run began.")
    # Who initialises it, and until when others keep off.
    initializer = models.CharField(max_length=200, blank=True)
    initializer_until = models.DateTimeField(null=True)
    filled_at = models.DateTimeField(null=True, help_text="When the last delivery was written.")
    times_out_at = models.DateTimeField(null=True, help_text="When it fails if it is not through.")
    rows_read = models.PositiveBigIntegerField(default=0)
    problem_counts = models.JSONField(default=dict, help_text="How many rows had which problem.")
    counts = models.JSONField(default=dict, help_text="Deliveries by end state, set when the run has ended.")
    error = models.TextField(blank=True, help_text="Why it failed.")
    created_at = models.DateTimeField(auto_now_add=True)
    initializing_at = models.DateTimeField(null=True)
    sending_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    log_path = models.CharField(max_length=500, blank=True, help_text="The execution log.")

    class Meta:
        ordering = ["-id"]
        indexes = [
            # the tick and the commands: which runs are still going?
            models.Index(
                fields=["workflow"],
                condition=models.Q(state__in=["queued", "initializing", "sending", "paused"]),
                name="run_unfinished",
            ),
            # the workers: which is to be initialised next?
            models.Index(fields=["priority", "id"], condition=models.Q(state="queued"), name="run_queued"),
            # Lists, newest first. Of what is left out there is so much that a list finds its page at once.
            models.Index(fields=["workflow", "-id"], name="run_of_workflow"),
            models.Index(fields=["state", "-id"], condition=~models.Q(state="completed"), name="run_of_state"),
            models.Index(fields=["trigger", "-id"], condition=~models.Q(trigger="api"), name="run_of_trigger"),
            models.Index(fields=["-id"], condition=models.Q(test_limit__isnull=False), name="run_test"),
            models.Index(fields=["created_at"], name="run_created"),
        ]

    def __str__(self) -> str:
        return f"Run {self.pk} of {self.workflow}"

    @property
    def is_over(self) -> bool:
        return self.state in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)


class RunRecipients(models.Model):
    """The recipients that were given with a run, in place of its workflow's audience: rows, as JSON, compressed. Gone
    once they are deliveries."""

    run = models.OneToOneField(Run, on_delete=models.CASCADE, primary_key=True, related_name="recipients")
    content = models.BinaryField()

    def __str__(self) -> str:
        return f"recipients of run {self.run_id}"


class RunEvent(models.Model):
    """One change of a run's state: when, by whom, why."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events")
    state = models.CharField(max_length=12, choices=RunState)
    by = models.CharField(max_length=150, blank=True)
    why = models.CharField(max_length=500, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.run_id}: {self.state}"


class ProblemKind(models.TextChoices):
    BAD_ROW = "bad_row", "bad row"
    RENDERING = "rendering", "cannot be rendered"


class RunProblem(models.Model):
    """A row of the audience that will not get mail, with its reason. Listed up to OUTREACH_LISTED_PROBLEMS of each
    kind; `Run.problem_counts` counts all."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="problems")
    kind = models.CharField(max_length=9, choices=ProblemKind)
    reason = models.CharField(max_length=40)
    position = models.PositiveBigIntegerField(help_text="The row's number in the audience.")
    address = models.CharField(max_length=320, blank=True)
    detail = models.CharField(max_length=500)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"row {self.position}: {self.detail}"
