"""Callbacks: whom this installation tells what has happened, and what became of telling it.

A callback is written in the transaction that makes true what it says (`campaigns.callbacks.news`). Its state is written
by `campaigns.callbacks.outbox` alone, a webhook's by `campaigns.callbacks.webhooks`.
"""

import secrets
from datetime import datetime, timedelta

from django.db import models
from django.utils.timezone import now

from campaigns.models.run import Run
from delivery.secrets import Sealed, SealedField

KEEPS_TRYING = timedelta(hours=24)


def new_key() -> str:
    return f"msg_{secrets.token_urlsafe(18)}"


def gives_up_at() -> datetime:
    return now() + KEEPS_TRYING


class Webhook(models.Model):
    """A standing address that is told of certain events."""

    name = models.CharField(max_length=150, unique=True)
    url = models.CharField("URL", max_length=2000)
    secrets = SealedField(default=Sealed, blank=True, editable=False)
    events = models.JSONField(default=list, help_text="Which: names such as run.completed, or run.* for all of a kind.")
    enabled = models.BooleanField(default=True)
    failing_since = models.DateTimeField(null=True, editable=False, help_text="When it last began to fail.")
    failures = models.PositiveIntegerField(default=0, editable=False, help_text="Attempts since then.")
    switched_off_why = models.CharField(
        max_length=300, blank=True, editable=False, help_text="Why nobody is told any more, if no person decided that."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class WebhookEvent(models.Model):
    """One thing that was done to a webhook: what, by whom (empty: by this installation itself), why."""

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="history")
    what = models.CharField(max_length=300)
    by = models.CharField(max_length=150, blank=True)
    why = models.CharField(max_length=300, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.webhook_id}: {self.what}"


class CallbackState(models.TextChoices):
    WAITING = "waiting", "waiting"
    DELIVERED = "delivered", "delivered"
    DEAD = "dead", "dead letter"


class Callback(models.Model):
    """One message to one address: what is told, and how far that is.

    `next_at` is when it is due, or, while a sender has it, when somebody else may take it (`claim` tells whose answer
    counts). NULL while its webhook is switched off, and once it has ended.
    """

    key = models.CharField(max_length=40, unique=True, default=new_key, help_text="Its webhook-id, in every attempt.")
    # Without a constraint: what a run sends must not fail because somebody deletes a webhook in that moment. The id of
    # one that is gone stays: NULL is a run's own callback_url.
    webhook = models.ForeignKey(
        Webhook, on_delete=models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="callbacks"
    )
    run = models.ForeignKey(Run, on_delete=models.CASCADE, null=True, db_index=False, related_name="callbacks")
    url = models.CharField("URL", max_length=2000, help_text="A webhook's is that of when it was written.")
    type = models.CharField(max_length=40)
    body = models.TextField()
    state = models.CharField(max_length=9, choices=CallbackState, default=CallbackState.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(null=True, default=now)
    claim = models.CharField(max_length=32, blank=True)
    gives_up_at = models.DateTimeField(default=gives_up_at)
    words = models.CharField(max_length=300, blank=True, help_text="What was said last.")
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            # every second, each cluster, and each sender: what is due?
            models.Index(fields=["next_at"], condition=models.Q(state="waiting"), name="callback_due"),
            # lists; and what waits for a webhook that was switched off
            models.Index(fields=["state", "id"], name="callback_of_state"),
            models.Index(fields=["webhook", "state", "id"], name="callback_of_webhook"),
            models.Index(fields=["type", "id"], name="callback_of_type"),
            models.Index(fields=["run", "id"], condition=models.Q(run__isnull=False), name="callback_of_run"),
            # the tick: what was told so long ago that nobody asks for it?
            models.Index(fields=["ended_at"], condition=models.Q(state="delivered"), name="callback_over"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.key}"


class CallbackAttempt(models.Model):
    """One try to deliver a callback. `status` is NULL when there was no answer."""

    callback = models.ForeignKey(Callback, on_delete=models.CASCADE, related_name="tries")
    at = models.DateTimeField()
    seconds = models.FloatField()
    status = models.PositiveSmallIntegerField(null=True)
    words = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.callback_id}: {self.status or self.words}"


class CallbackSender(models.Model):
    """Who sends callbacks now, and until when others keep off: one process for the whole installation, so that no host
    is asked by many at once. One row."""

    owner = models.CharField(max_length=200, blank=True)
    until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.owner or "nobody"
