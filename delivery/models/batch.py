"""What many deliveries share: the batch they belong to, the message they carry, the tally of their ends."""

from django.db import models

from delivery.core.dispatch import UncertainPolicy
from delivery.models.engine import UNCERTAIN_CHOICES, Pool


class BatchState(models.TextChoices):
    FILLING = "filling", "filling"  # deliveries are still being written; none may be leased
    OPEN = "open", "open"
    HELD = "held", "held"
    CANCELLED = "cancelled", "cancelled"
    DONE = "done", "done"  # every delivery has an end state


class Batch(models.Model):
    """Deliveries that are held, cancelled and finished together. `reference` is the caller's own word, handed back
    untouched; `scope` names the list whose unsubscribes count here, beside those from everything."""

    label = models.CharField(max_length=200)
    reference = models.CharField(max_length=100, unique=True)
    scope = models.CharField(max_length=100, blank=True)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="batches")
    state = models.CharField(max_length=9, choices=BatchState, default=BatchState.FILLING)
    hold_reason = models.CharField(max_length=200, blank=True)
    growing = models.BooleanField(default=False, help_text="Deliveries are still added while the first ones go out.")
    standing = models.BooleanField(
        db_default=False, help_text="It is filled one by one, and not done before it is closed."
    )
    left_as = models.CharField(
        max_length=10, default="cancelled", help_text="How deliveries end that a cancelled batch leaves unsent."
    )
    priority = models.SmallIntegerField(default=0, help_text="The lowest goes first.")
    deadline = models.DateTimeField(null=True, help_text="When all of it should be through.")
    sequenced = models.BooleanField(default=False, help_text="Messages of it follow others of it.")
    ordered = models.BooleanField(default=False, help_text="Deliveries of it wait for others of it.")
    stops_on = models.JSONField(default=list, help_text="A recipient of whom one of these is heard gets no more of it.")
    uncertain_policy = models.CharField(max_length=6, choices=UNCERTAIN_CHOICES, default=UncertainPolicy.HOLD)
    total = models.PositiveBigIntegerField(default=0, help_text="Follow-ups are not in it.")
    # The ids of its deliveries lie in this range: lists of one batch read a slice of the primary key, no more.
    first_id = models.BigIntegerField(null=True)
    last_id = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    done_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "batches"
        indexes = [
            # The worker's first question: which batches have work?
            models.Index(fields=["priority", "id"], condition=models.Q(state="open"), name="batch_open"),
            # the tick: which are to be closed?
            models.Index(fields=["created_at"], condition=models.Q(standing=True), name="batch_standing"),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def size(self) -> int:
        """How many deliveries there are, follow-ups included."""
        if not self.sequenced:
            return self.total
        return self.total + (self.tallies.filter(state=FOLLOWED).aggregate(n=models.Sum("count"))["n"] or 0)

    def rows(self) -> models.QuerySet:
        """Its deliveries, found by the slice of the primary key that they lie in."""
        from delivery.models.queue import Delivery  # imports this module

        return Delivery.objects.filter(batch=self.pk, id__gte=self.first_id or 0, id__lte=self.last_id or 0)


class Message(models.Model):
    """Immutable content for many: templates and header values, frozen when the batch was made. Also the record of
    what was sent."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="messages")
    token = models.CharField(max_length=32, unique=True, help_text="The random part of its Message-IDs.")
    subject = models.TextField()
    text = models.TextField(blank=True)
    html = models.TextField(blank=True)
    headers = models.JSONField(default=dict)
    from_name = models.CharField(max_length=200, blank=True)
    from_address = models.CharField(max_length=320)
    reply_to = models.CharField(max_length=320, blank=True)
    return_path = models.CharField(max_length=320)
    unsubscribe = models.BooleanField(default=True, help_text="Carries a one-click unsubscribe link.")
    window = models.JSONField(null=True, help_text="When it may go out (delivery.core.window). None: at any time.")
    position = models.PositiveSmallIntegerField(default=1, help_text="Its number among the messages of its batch.")
    rules = models.JSONField(default=dict, help_text="What it waits for, and until when (delivery.core.sequence).")
    composing = models.JSONField(
        null=True, help_text="Who composes its text: engine, prompt, and whether a person reviews it. None: nobody."
    )

    def __str__(self) -> str:
        return self.subject


# What a tally counts beside the end states: deliveries that were made because others ended, and accepted ones that
# missed their deadline.
FOLLOWED = "followed"
LATE = "late"


class Tally(models.Model):
    """How many deliveries of a batch are in an end state, or were made because others ended, or were late. Kept in
    shards, one a worker, so that group commits of several workers do not wait for each other's row."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="tallies")
    state = models.CharField(max_length=10)
    shard = models.SmallIntegerField()
    count = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "tallies"
        constraints = [models.UniqueConstraint(fields=["batch", "state", "shard"], name="tally_cell")]

    def __str__(self) -> str:
        return f"{self.batch_id} {self.state}: {self.count}"
