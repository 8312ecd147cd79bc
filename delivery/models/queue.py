"""The durable queue: deliveries, leases on them, and what did not succeed.

A delivery is at once the queue's row and the per-recipient log. Its state is written by `delivery.queue` alone.
"""

from datetime import UTC, datetime

from django.db import models
from django.db.models.functions import Now

from delivery.core.envelope import MAX_WORDS, Kind
from delivery.models.batch import Batch, Message
from delivery.models.engine import Engine

# "None" as a value that sorts: databases disagree about where NULL goes, and an index must give the order by itself.
NO_DEADLINE = datetime(9999, 1, 1, tzinfo=UTC)


class DeliveryState(models.TextChoices):
    WAITING = "waiting", "waiting"  # for its time
    READY = "ready", "ready"  # may go now
    LEASED = "leased", "leased"  # a worker has it
    SENDING = "sending", "sending"  # marked: handed over, or just about to be
    ACCEPTED = "accepted", "accepted"
    REJECTED = "rejected", "rejected"
    SUPPRESSED = "suppressed", "suppressed"
    EXPIRED = "expired", "expired"
    SKIPPED = "skipped", "skipped"
    CANCELLED = "cancelled", "cancelled"
    DEAD = "dead", "dead letter"
    UNCERTAIN = "uncertain", "uncertain"


OPEN_STATES = (DeliveryState.WAITING, DeliveryState.READY, DeliveryState.LEASED, DeliveryState.SENDING)


class Lease(models.Model):
    """One worker's sole right to the deliveries that point here, until `expires_at`.

    The worker extends this one row instead of thousands; `owner` tells whether the process still lives.
    """

    owner = models.CharField(max_length=200)
    acquired_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.owner


class Delivery(models.Model):
    """One message for one recipient.

    The references have no database constraint: each would be checked again for every row of every group commit, and
    batches and messages are only ever deleted together with their deliveries.
    """

    batch = models.ForeignKey(Batch, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    message = models.ForeignKey(Message, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    address = models.CharField(max_length=320)
    identity = models.CharField(max_length=320, help_text="The address in the form in which addresses are compared.")
    key = models.CharField(
        max_length=200,
        db_default="",
        help_text="Its name among the deliveries of its message, where others may wait for it.",
    )
    name = models.CharField(max_length=200, db_default="")
    data = models.JSONField(help_text="What the template may use.")
    state = models.CharField(max_length=10, choices=DeliveryState, db_default=DeliveryState.READY)
    priority = models.SmallIntegerField(db_default=0, help_text="Of equal deadlines the lowest goes first.")
    deadline = models.DateTimeField(db_default=NO_DEADLINE)
    not_before = models.DateTimeField(null=True)
    pending = models.SmallIntegerField(db_default=0, help_text="How many things it waits for, beside its time.")
    thread = models.TextField(db_default="", help_text="The keys of the mails it follows, the first one first.")
    lease = models.ForeignKey(Lease, on_delete=models.DO_NOTHING, null=True, db_constraint=False, db_index=False)
    engine = models.ForeignKey(Engine, on_delete=models.DO_NOTHING, null=True, db_constraint=False, db_index=False)
    pinned = models.BooleanField(db_default=False, help_text="Only its last engine may be asked again.")
    turn = models.IntegerField(db_default=0, help_text="How often it was leased: an outcome is of one turn.")
    attempts = models.SmallIntegerField(db_default=0)
    resends = models.SmallIntegerField(db_default=0, help_text="Tries after an uncertain one.")
    tried_at = models.DateTimeField(null=True, help_text="When it was first handed over, or about to be.")
    settled_at = models.DateTimeField(null=True)
    code = models.CharField(max_length=40, db_default="")
    words = models.CharField(max_length=MAX_WORDS, db_default="")
    provider_id = models.CharField(max_length=255, db_default="")

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [
            # One delivery per recipient and message, whatever happens to the process that writes them; and, the
            # address leading, the index behind "what did this person get?".
            models.UniqueConstraint(fields=["identity", "message", "key"], name="delivery_once"),
            models.UniqueConstraint(fields=["message", "key"], condition=~models.Q(key=""), name="delivery_key_once"),
        ]
        indexes = [
            # lease: the next ones of a batch, earliest deadline first
            models.Index(
                fields=["batch", "deadline", "priority", "id"], condition=models.Q(state="ready"), name="delivery_ready"
            ),
            # promote: whose time has come
            models.Index(
                fields=["not_before"], condition=models.Q(state="waiting", pending__lte=0), name="delivery_waiting"
            ),
            # cancel: what waits for others (the index above lists what waits for nothing but its time)
            models.Index(fields=["batch", "id"], condition=models.Q(pending__gt=0), name="delivery_pending"),
            # reap and release: what a worker has
            models.Index(fields=["lease"], condition=models.Q(lease__isnull=False), name="delivery_leased"),
            # lists of what did not go as it should; accepted ones are found by the batch's range of ids
            models.Index(
                fields=["batch", "state", "id"],
                condition=models.Q(
                    state__in=["rejected", "suppressed", "expired", "skipped", "cancelled", "dead", "uncertain"]
                ),
                name="delivery_not_accepted",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.address}: {self.state}"


class Dependency(models.Model):
    """A delivery that goes only when another one of its message is accepted. `on_key` is how the audience names that
    one; `predecessor` is there once all are read. `met`: it is waited for no longer."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, db_constraint=False, related_name="dependencies")
    on_key = models.CharField(max_length=200)
    predecessor = models.ForeignKey(
        Delivery, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, null=True, related_name="dependents"
    )
    met = models.BooleanField(db_default=False)

    class Meta:
        verbose_name_plural = "dependencies"
        constraints = [models.UniqueConstraint(fields=["delivery", "on_key"], name="dependency_once")]
        indexes = [
            # release: who waits for these?
            models.Index(fields=["predecessor"], condition=models.Q(met=False), name="dependency_unmet"),
            # resolve: those of a batch whose predecessor is not known so far
            models.Index(fields=["batch"], condition=models.Q(predecessor=None), name="dependency_unresolved"),
        ]

    def __str__(self) -> str:
        return f"{self.delivery_id} after {self.on_key}"


class EventKind(models.TextChoices):
    """What is heard of a delivery after an engine has accepted it."""

    DELIVERED = "delivered", "delivered"
    BOUNCED = "bounced", "bounced"
    OPENED = "opened", "opened"
    CLICKED = "clicked", "clicked"
    REPLIED = "replied", "replied"


class Event(models.Model):
    """Something that was heard of a delivery. Written by `delivery.queue.events` alone."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    kind = models.CharField(max_length=9, choices=EventKind)
    at = models.DateTimeField()
    source = models.CharField(max_length=200, blank=True, help_text="Where this is known from.")

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["delivery", "kind", "at"], name="event_once")]

    def __str__(self) -> str:
        return f"{self.delivery_id} {self.kind}"


class Attempt(models.Model):
    """A try that did not succeed, with the provider's own words."""

    delivery = models.ForeignKey(
        Delivery, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="failures"
    )
    engine = models.ForeignKey(Engine, on_delete=models.SET_NULL, null=True, db_constraint=False)
    kind = models.CharField(max_length=10, choices=[(k.value, k.value) for k in Kind])
    code = models.CharField(max_length=40, blank=True)
    words = models.CharField(max_length=MAX_WORDS, blank=True)
    seconds = models.FloatField(help_text="From the hand-over to the answer.")
    at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        constraints = [
            # A group commit whose answer got lost is written again; the same failure is not.
            models.UniqueConstraint(fields=["delivery", "at"], name="attempt_once"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.code}"
