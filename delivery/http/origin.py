"""Where a URL leads: what was entered for one server is not for another."""

from urllib.parse import SplitResult, urlsplit

Origin = tuple[str, str, int | None]

_PORTS = {"http": 80, "https": 443}


def origin(parts: SplitResult) -> Origin:
    """Scheme, host and port (RFC 6454). Raises ValueError."""
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme)


def origin_of(url: str) -> Origin | str:
    """The origin of what somebody entered as a URL. What cannot be read is nobody's but its own."""
    try:
        return origin(urlsplit(url))
    except ValueError:
        return url
