"""Signatures as Standard Webhooks has them (standardwebhooks.com, version 1): HMAC-SHA256 over id, timestamp and body.

A receiver's library verifies them with the secret, `whsec_…`. Several secrets may sign: while one is replaced by
another, receivers of both find theirs.
"""

import base64
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from delivery.conf import conf
from delivery.secrets import Sealed

PREFIX = "whsec_"
OVERLAP = timedelta(days=1)  # so long a secret that was replaced signs beside the new one
_PURPOSE = b"outreach: callbacks of runs, 1"


def new_secret() -> str:
    """A secret of 32 random octets."""
    return _written(secrets.token_bytes(32))


def headers(keys: Iterable[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three headers of a message, signed with each of these secrets."""
    seconds = str(int(at.timestamp()))
    signed = b".".join((message_id.encode(), seconds.encode(), body))
    signatures = (base64.b64encode(hmac.digest(_read(key), signed, "sha256")).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def installation_secrets() -> list[str]:
    """The secrets that sign what a run's own callback_url is told: one from each of OUTREACH_SECRET_KEYS, the first of
    them first, so that keys can be rotated here, too."""
    return [_written(hmac.digest(base64.urlsafe_b64decode(key), _PURPOSE, "sha256")) for key in conf().secret_keys]


# ---- a webhook's own ----


def fresh() -> Sealed:
    """A first secret."""
    return Sealed.seal({"secret": new_secret()})


def replaced(sealed: Sealed, now: datetime) -> Sealed:
    """A new secret; the present one signs beside it for OVERLAP."""
    before = sealed.open().get("secret", "")
    return Sealed.seal({"secret": new_secret(), "before": before, "before_until": (now + OVERLAP).isoformat()})


def current(sealed: Sealed) -> str:
    """The secret, to be shown once."""
    return sealed.open()["secret"]


def signing(sealed: Sealed, now: datetime) -> list[str]:
    """The secrets that sign now. Raises SecretUnreadable."""
    kept = sealed.open()
    keys = [kept["secret"]]
    if kept.get("before") and now < datetime.fromisoformat(kept["before_until"]):
        keys.append(kept["before"])
    return keys


def _written(key: bytes) -> str:
    return PREFIX + base64.b64encode(key).decode()


def _read(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(PREFIX))
