"""The unguessable part of an unsubscribe link: it names one delivery, and by it recipient and list.

A token is the delivery's id and a tag over it (HMAC-SHA256, cut to 16 octets as RFC 2104 §5 allows). It never expires:
a link in an old mail must work. Every key in OUTREACH_SECRET_KEYS is tried, so that rotating keys breaks no link.
"""

import base64
import hashlib
import hmac
from functools import cache

from delivery.conf import conf

TAG = 16


@cache
def _key(secret: str) -> bytes:
    return hashlib.sha256(b"outreach unsubscribe " + secret.encode()).digest()


def _tag(secret: str, body: bytes) -> bytes:
    return hmac.digest(_key(secret), body, "sha256")[:TAG]


def token_for(delivery_id: int) -> str:
    """The token of a delivery: 32 characters, safe in a URL."""
    body = delivery_id.to_bytes(8)
    return base64.urlsafe_b64encode(body + _tag(conf().secret_keys[0], body)).decode()


def delivery_of(token: str) -> int | None:
    """The delivery that a token names; None for a forged or mangled one."""
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except ValueError:
        return None
    body, tag = raw[:8], raw[8:]
    if len(tag) != TAG or not any(hmac.compare_digest(tag, _tag(secret, body)) for secret in conf().secret_keys):
        return None
    return int.from_bytes(body)
