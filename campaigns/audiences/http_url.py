"""URLs of a list and of its further pages: parameters, and links that must not lead elsewhere."""

from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from delivery.http.origin import origin, origin_of

Parameters = list[tuple[str, str]]

ELSEWHERE = "The URL leads elsewhere now: enter the credential for it, or choose no authentication."


class LeadsElsewhere(ValueError):
    """A link to another origin than the list's: the credentials must not go there. The message says where to."""


def parameters(text: str) -> Parameters:
    """The query parameters of lines `name=value`; a value ends with its line. Raises ValueError, with a sentence."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = (piece.strip() for piece in line.partition("="))
        if not line.strip():
            continue
        if not equals or not name or not line.strip().isprintable():
            raise ValueError(f"Line {number} is no parameter: write name=value, such as status=active.")
        found.append((name, value))
    return found


def with_parameters(url: str, given: Iterable[tuple[str, object]]) -> str:
    """The URL with these parameters in place of those of the same names. What else is in its query stays as written."""
    given = [(name, str(value)) for name, value in given]
    if not given:
        return url
    parts = urlsplit(url)
    names = {name for name, _ in given}
    kept = [piece for piece in parts.query.split("&") if piece and _name_of(piece) not in names]
    return urlunsplit(parts._replace(query="&".join([*kept, urlencode(given, quote_via=quote)])))


def _name_of(piece: str) -> str:
    return next((name for name, _ in parse_qsl(piece, keep_blank_values=True)), "")


def followed(url: str, link: str) -> str:
    """The URL to which a link on the page at `url` leads. Raises `LeadsElsewhere`, ValueError for what is no link."""
    link = link.strip()
    # Parsers disagree about the host of a URL with such characters in it.
    if not link.isprintable() or any(letter in ' \\"<>' for letter in link):
        raise ValueError("it has characters that no URL has")
    here, there = urlsplit(url), urlsplit(urljoin(url, link))
    if origin(there) != origin(here) or "@" in there.netloc:
        raise LeadsElsewhere(f"{there.scheme}://{there.netloc.rpartition('@')[2]}")
    # The host is taken from what the operator entered, not from the link, so that there is nothing to disagree about.
    return urlunsplit((here.scheme, here.netloc, there.path, there.query, ""))


def leads_elsewhere(before: str, after: str) -> bool:
    """Whether two URLs that were entered one after the other have not the same origin: what was entered for the one is
    not for the other. One that cannot be read is nobody's but its own."""
    return origin_of(before) != origin_of(after)


def without_query(url: str) -> str:
    """The URL as far as it can be shown: a query may hold a key."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
