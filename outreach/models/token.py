"""A token of the API: what a program shows in place of a person's login."""

from datetime import datetime

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models


class Scope(models.TextChoices):
    """What a token may be used for, of what its user may do."""

    READ = "read", "read: look at everything its user may see"
    EDIT = "edit", "edit: set up and change"
    SEND = "send", "send: start, pause, cancel and replay runs, send mails, hold engines"


SCOPES = tuple(Scope.values)
NAME_SOME = f"Name one or more of {', '.join(SCOPES)}."


def refuse_bad_scopes(scopes: object) -> None:
    """Raises ValidationError."""
    if not isinstance(scopes, list) or not scopes or not all(each in SCOPES for each in scopes):
        raise ValidationError(NAME_SOME)


class ApiToken(models.Model):
    """A token without its text, of which only the hash is kept. Written by `outreach.access.tokens` alone."""

    name = models.CharField(max_length=100, help_text="For which program, on which machine: shop, production.")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="api_tokens",
        help_text="Whose rights it has, at most.",
    )
    scopes = models.JSONField(default=list, validators=[refuse_bad_scopes])
    prefix = models.CharField(max_length=20, help_text="How its text begins, to recognise it by.")
    # SHA-256 and nothing slow: the text has 238 random bits, of which nobody guesses any, however quick the hash is.
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Until when it is valid. Empty: until revoked.")
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="To the minute.")
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.CharField(max_length=150, blank=True)

    class Meta:
        verbose_name = "API token"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    def why_invalid(self, now: datetime) -> str | None:
        """Why it opens nothing at this instant; None when it does."""
        if self.revoked_at is not None:
            return "This token was revoked."
        if self.expires_at is not None and self.expires_at <= now:
            return "This token has expired."
        if not self.user.is_active:
            return "The user of this token is not active."
        return None
