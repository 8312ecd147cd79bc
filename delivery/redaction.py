"""What must not be read in a log line or an execution log: secrets by the name they stand under, credentials in URLs
and headers, and people's addresses in what a provider says."""

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from uuid import UUID

HIDDEN = "***"

# The last word of a name: `smtp_password`, `X-Api-Key`, `clientSecret`; not `keyword`, `token_url` or `key_name`.
_SECRET_NAME = re.compile(
    r"(?:^|[^a-z])(?:pass(?:word|wd|phrase)?|pw|secrets?|tokens?|credentials?|authorization|cookies?|dsn"
    r"|api[_-]?keys?|(?:access|private|secret|signing|sending)[_-]?keys?(?:[_-]?id)?)$",
    re.IGNORECASE,
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Most text holds nothing of the kind, and is looked at once.
_PERHAPS = re.compile(r"://|/u/|pass|secret|token|key|authorization|bearer|basic|outreach_", re.IGNORECASE)
_SECRET_TEXT = (
    re.compile(r"(://)[^\s/@'\"]+(?=@)"),
    re.compile(r"(authorization['\"]?\s*[=:]\s*['\"]?)[^\n'\"]+", re.IGNORECASE),
    re.compile(r"(\b(?:bearer|basic) )[A-Za-z0-9+/=._~-]{6,}", re.IGNORECASE),
    # `password=…`, `"api_key": "…"`, `X-Api-Key: …`
    re.compile(r"((?:password|passwd|secret|token|api[_-]?key)['\"]?\s*[=:]\s*['\"]?)[^\s'\",;&)}\]]+", re.IGNORECASE),
    re.compile(r"(outreach_)[A-Za-z0-9]{40}"),  # a token of the API, wherever it stands
    re.compile(r"(/u/)[^\s/?'\"]{8,}"),  # who has an unsubscribe link may use it
)
SHORTEST = 7  # characters: `token=1`
_ADDRESS = re.compile(r"[^\s<>()\[\]{}:;,'\"=]+@[^\s<>()\[\]{}:;,'\"]+\w")


@lru_cache(1000)
def is_secret_name(name: str) -> bool:
    """Whether what stands under this name is to be hidden."""
    return bool(_SECRET_NAME.search(_HUMP.sub("_", name)))


def without_secrets(text: str) -> str:
    """`text` with the credentials hidden that can be told by what stands before them: in URLs, headers, assignments."""
    if len(text) >= SHORTEST and _PERHAPS.search(text):
        for pattern in _SECRET_TEXT:
            text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text


def without_addresses(text: str) -> str:
    """`text` with every mail address hidden: providers repeat the recipient's in what they say."""
    return _ADDRESS.sub(HIDDEN, text) if "@" in text else text


def redacted(value: object) -> object:
    """A copy of plain data (mappings, sequences, text, numbers) in which no secret can be read. What is nothing of the
    kind becomes the text that represents it."""
    kind = type(value)
    if kind is str:
        return without_secrets(value)
    if value is None or kind in (int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {
            str(name): HIDDEN if inner and is_secret_name(str(name)) else redacted(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(inner) for inner in value]
    return without_secrets(str(value) if isinstance(value, str | date | UUID) else repr(value))
