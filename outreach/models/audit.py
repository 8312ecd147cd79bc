"""Who did what over the API."""

from django.db import models


class AuditEntry(models.Model):
    """One request that was no read. Names and ids are copies: the entry outlives whom it names. Written by
    `outreach.access.audit` alone."""

    at = models.DateTimeField(auto_now_add=True)
    user_name = models.CharField("user", max_length=150)
    user_id = models.BigIntegerField()
    token_name = models.CharField("token", max_length=100, blank=True, help_text="Empty: in a browser.")
    token_id = models.BigIntegerField(null=True)
    method = models.CharField(max_length=7)
    route = models.CharField(max_length=200, help_text="The pattern of its address.")
    path = models.CharField(max_length=500)
    thing = models.CharField("object", max_length=100, blank=True, help_text="By the id or slug in the address.")
    status = models.PositiveSmallIntegerField()
    request_id = models.CharField(max_length=64, blank=True, help_text="In every log line about this request.")
    body_fields = models.JSONField(default=list, help_text="Names of the body's fields; their values are not kept.")
    address = models.GenericIPAddressField(null=True, help_text="From where it came.")

    class Meta:
        verbose_name = "audit entry"
        verbose_name_plural = "audit trail"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["user_name", "-id"], name="audit_of_user"),
            # POST is most of it, and a list of those finds its page at once.
            models.Index(fields=["method", "-id"], condition=~models.Q(method="POST"), name="audit_of_method"),
        ]

    def __str__(self) -> str:
        return f"{self.user_name}: {self.method} {self.path}"
