"""The words that a model writes for a delivery: wanted, composed, perhaps reviewed, and kept, so that every try of the
mail says the same. Written by `delivery.queue.composing` alone.
"""

from django.db import models

from delivery.core.envelope import MAX_WORDS
from delivery.models.batch import Batch
from delivery.models.engine import Engine
from delivery.models.queue import NO_DEADLINE, Delivery, Lease


class CompositionState(models.TextChoices):
    WANTED = "wanted", "wanted"  # to be composed, at once or at `not_before`
    CLAIMED = "claimed", "being composed"  # a worker has it
    REVIEW = "review", "waits for review"  # composed; a person decides
    DONE = "done", "composed"
    FALLBACK = "fallback", "template used"
    REJECTED = "rejected", "rejected"  # a person said that nothing is sent
    LAPSED = "lapsed", "lapsed"  # its delivery came to its end before there were words that may be sent


class Composition(models.Model):
    """One delivery's words. References have no database constraint, as those of a delivery have none."""

    delivery = models.OneToOneField(
        Delivery, on_delete=models.CASCADE, primary_key=True, db_constraint=False, related_name="composition"
    )
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    engine = models.ForeignKey(
        Engine, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, help_text="Who composes it."
    )
    state = models.CharField(max_length=8, choices=CompositionState, db_default=CompositionState.WANTED)
    deadline = models.DateTimeField(db_default=NO_DEADLINE, help_text="Of its delivery.")
    not_before = models.DateTimeField(null=True)
    lease = models.ForeignKey(Lease, on_delete=models.DO_NOTHING, null=True, db_constraint=False, db_index=False)
    attempts = models.SmallIntegerField(db_default=0)
    text = models.TextField(db_default="")
    words = models.CharField(max_length=MAX_WORDS, db_default="", help_text="What went wrong last.")
    composed_at = models.DateTimeField(null=True)
    reviewed_by = models.CharField(max_length=150, db_default="")
    reviewed_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = "composed text"
        indexes = [
            # claim: the next ones of a batch for one composer, earliest deadline first
            models.Index(
                fields=["batch", "engine", "deadline", "delivery"],
                condition=models.Q(state="wanted"),
                name="composition_wanted",
            ),
            # the review list, and whose time for it is over
            models.Index(
                fields=["deadline", "delivery"], condition=models.Q(state="review"), name="composition_review"
            ),
            # give back and take back: what a worker has
            models.Index(fields=["lease"], condition=models.Q(lease__isnull=False), name="composition_claimed"),
        ]

    def __str__(self) -> str:
        return f"delivery {self.delivery_id}: {self.get_state_display()}"
