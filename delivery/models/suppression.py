"""Addresses that must not be mailed. The gate that asks this table stands in `delivery.queue`, at the mark."""

from django.db import models
from django.db.models.functions import Now


class SuppressionReason(models.TextChoices):
    HARD_BOUNCE = "hard_bounce", "hard bounce"
    COMPLAINT = "complaint", "complaint"
    UNSUBSCRIBE = "unsubscribe", "unsubscribe"
    MANUAL = "manual", "entered by hand"
    REPLIED = "replied", "replied"
    BOUNCED = "bounced", "bounced"


class Suppression(models.Model):
    """One address that must not get mail: any mail, or that of one scope."""

    address = models.CharField(max_length=320)
    identity = models.CharField(max_length=320, editable=False, help_text="The form in which addresses are compared.")
    scope = models.CharField(
        max_length=100,
        blank=True,
        help_text="Empty: no mail at all. Else only the mail of this workflow (its slug), or run.",
    )
    reason = models.CharField(max_length=12, choices=SuppressionReason, default=SuppressionReason.MANUAL)
    source = models.CharField(max_length=200, blank=True, help_text="Where this is known from.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-id"]
        indexes = [
            # the API's lists: of one reason or one scope, the last ones first
            models.Index(fields=["reason", "id"], name="suppression_reason"),
            models.Index(fields=["scope", "id"], name="suppression_scope"),
        ]
        constraints = [models.UniqueConstraint(fields=["identity", "scope"], name="suppressed_once_per_scope")]

    def __str__(self) -> str:
        return self.address
