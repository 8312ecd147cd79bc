"""Mails that the sandbox engine kept instead of sending them."""

from django.db import models
from django.db.models.functions import Now

from delivery.models.engine import Engine


class KeptMail(models.Model):
    """One mail as it would have gone out, complete with headers."""

    engine = models.ForeignKey(Engine, on_delete=models.CASCADE, related_name="kept")
    key = models.CharField(max_length=100, unique=True, help_text="The idempotency key: a mail is kept once.")
    recipient = models.CharField(max_length=320)
    subject = models.TextField()
    raw = models.BinaryField()
    kept_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        verbose_name = "sandbox mail"

    def __str__(self) -> str:
        return f"{self.recipient}: {self.subject}"
