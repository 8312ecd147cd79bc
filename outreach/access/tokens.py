"""Tokens of the API: made, found again by their text, revoked."""

import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db.models import Q

from outreach.models import SCOPES, ApiToken
from outreach.models.token import NAME_SOME

BEGINNING = "outreach_"  # by it a token is found where it should not be
LENGTH = 40
SHOWN = len(BEGINNING) + 6  # what is left unknown still has 202 bits
ALPHABET = string.ascii_letters + string.digits
WELL_FORMED = re.compile(rf"{BEGINNING}[A-Za-z0-9]{{{LENGTH}}}")
USE_WRITTEN_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Made:
    """A new token with its text, which nobody can be told again."""

    token: ApiToken
    text: str


def make(
    name: str, user: AbstractBaseUser, scopes: Iterable[str], *, by: str, expires_at: datetime | None = None
) -> Made:
    """A new token. Raises ValidationError."""
    wanted = set(scopes)
    if not wanted:
        raise ValidationError({"scopes": NAME_SOME})
    text = BEGINNING + "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
    token = ApiToken(
        name=name,
        user=user,
        scopes=[each for each in SCOPES if each in wanted] + sorted(wanted - set(SCOPES)),
        prefix=text[:SHOWN],
        digest=_digest(text),
        created_by=by,
        expires_at=expires_at,
    )
    token.full_clean()
    token.save(force_insert=True)
    return Made(token, text)


def find(text: str) -> ApiToken | None:
    """The token of this text with its user, whether it is valid or not. It is read anew each time: what is revoked is
    revoked everywhere at once."""
    if not WELL_FORMED.fullmatch(text):
        return None
    return ApiToken.objects.select_related("user").filter(digest=_digest(text)).first()


def note_use(token: ApiToken, now: datetime) -> None:
    """Writes down that it was used: once a minute, whoever comes first."""
    due = now - USE_WRITTEN_EVERY
    if token.last_used_at is None or token.last_used_at <= due:
        unwritten = Q(last_used_at=None) | Q(last_used_at__lte=due)
        ApiToken.objects.filter(unwritten, pk=token.pk).update(last_used_at=now)


def revoke(token: ApiToken, by: str, now: datetime) -> bool:
    """Ends it for good. Whether it was not revoked before."""
    done = ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=now, revoked_by=by)
    token.refresh_from_db(fields=["revoked_at", "revoked_by"])
    return bool(done)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
