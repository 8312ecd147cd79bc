"""What was asked for from outside, and what was answered: requests for runs, and keys by which one counts once."""

import json
from datetime import timedelta

from django.db import models

from campaigns.models.run import Run
from campaigns.models.workflow import Workflow

KEPT = timedelta(hours=24)  # so long a key is remembered


class Mode(models.TextChoices):
    """How a run was asked for."""

    SYNC = "sync", "API, waiting"
    ASYNC = "async", "API"
    SCHEDULE = "schedule", "schedule"
    COMMAND = "command", "command line"
    ADMIN = "admin", "admin"


class Outcome(models.TextChoices):
    """What came of a request. What came of its run then says the run."""

    STARTED = "started", "started a run"
    REPEATED = "repeated", "had been answered before"
    REFUSED = "refused", "refused"


class RunRequest(models.Model):
    """One request for a run. Written by `campaigns.launch` and `campaigns.api.trigger` alone."""

    at = models.DateTimeField(auto_now_add=True)
    mode = models.CharField(max_length=8, choices=Mode)
    outcome = models.CharField(max_length=8, choices=Outcome)
    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, db_index=False, related_name="+")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, null=True, related_name="requests")
    by = models.CharField(max_length=150, blank=True)
    request_id = models.CharField(max_length=64, blank=True, help_text="In every log line about this request.")
    key = models.CharField(max_length=200, blank=True, help_text="Its Idempotency-Key.")
    recipients = models.PositiveIntegerField(null=True, help_text="How many were given with it. None: the audience.")
    seconds = models.FloatField(null=True, help_text="Until the answer.")
    words = models.CharField(max_length=500, blank=True, help_text="Why it was refused.")

    class Meta:
        ordering = ["-id"]
        verbose_name = "request"
        indexes = [
            models.Index(fields=["workflow", "-id"], name="request_of_workflow"),
            # Of the others there are so many that a list of them finds its page at once.
            models.Index(fields=["mode", "-id"], condition=~models.Q(mode="async"), name="request_of_mode"),
            models.Index(fields=["outcome", "-id"], condition=~models.Q(outcome="started"), name="request_of_outcome"),
        ]

    def __str__(self) -> str:
        return f"{self.mode} request for {self.workflow}: {self.outcome}"


class IdempotencyKey(models.Model):
    """A key that somebody sent with a request (Idempotency-Key), with what was answered: the same request again gets
    the same answer, for KEPT. Written by `campaigns.api.idempotency` alone."""

    owner = models.CharField(max_length=160)
    key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of address and body.")
    run_id = models.BigIntegerField(null=True, help_text="The run that it made, while it is waited for.")
    status = models.PositiveSmallIntegerField(null=True)
    # Text, for PostgreSQL would put the fields of a document in another order, and the answer is to be the same.
    answer = models.TextField(null=True, help_text="JSON.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "key"], name="idempotency_key_once")]
        indexes = [models.Index(fields=["created_at"], name="idempotency_key_age")]

    def __str__(self) -> str:
        return f"{self.key} of {self.owner}"

    @property
    def said(self) -> dict[str, object] | None:
        """What was answered, if it has been."""
        return None if self.answer is None else json.loads(self.answer)
