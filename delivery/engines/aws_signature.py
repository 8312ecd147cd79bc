"""AWS Signature Version 4: proves that a request comes from who holds the secret, and that nobody altered it.

Pure: takes the time. Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
_USUAL_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key. `session_token` comes with a temporary one."""

    key_id: str
    secret: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a signature counts."""

    region: str
    service: str


def signed(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    credentials: Credentials,
    scope: Scope,
    now: datetime,
) -> dict[str, str]:
    """`headers`, all of which are signed, with those that AWS wants to see beside them. Host, which is signed too, is
    left to whoever sends the request. The path of `url` has no empty and no dot segments."""
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "X-Amz-Date": stamp}
    if credentials.session_token:
        sent["X-Amz-Security-Token"] = credentials.session_token
    covered = {name.lower(): " ".join(value.split()) for name, value in sent.items()} | {"host": _host(url)}
    names = ";".join(sorted(covered))
    day = f"{stamp[:8]}/{scope.region}/{scope.service}/aws4_request"
    request = "\n".join([method, *_target(url), *_lines(covered), "", names, sha256(body).hexdigest()])
    to_sign = "\n".join([ALGORITHM, stamp, day, sha256(request.encode()).hexdigest()])
    key = f"AWS4{credentials.secret}".encode()
    for part in day.split("/"):
        key = _hmac(key, part)
    signature = _hmac(key, to_sign).hex()
    proof = f"{ALGORITHM} Credential={credentials.key_id}/{day}, SignedHeaders={names}, Signature={signature}"
    return {**sent, "Authorization": proof}


def _target(url: str) -> tuple[str, str]:
    """Path and query as they are signed: the path encoded once more than it is sent, the query's pairs in order."""
    parts = urlsplit(url)
    pairs = sorted(pair.partition("=")[::2] for pair in parts.query.split("&") if pair)
    return quote(parts.path or "/", safe="/~"), "&".join(f"{name}={value}" for name, value in pairs)


def _lines(headers: Mapping[str, str]) -> list[str]:
    return [f"{name}:{headers[name]}" for name in sorted(headers)]


def _host(url: str) -> str:
    """As it stands in the Host header."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return host if parts.port in (None, _USUAL_PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
