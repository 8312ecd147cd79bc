"""Which addresses may be called back: judged when they are entered, and again when they are connected to."""

from urllib.parse import urlsplit

from delivery.conf import conf
from delivery.http import problem_with_url

LONGEST = 2000


def refuse_bad_url(url: str) -> None:
    """Raises ValueError, with a sentence, for what is no URL that may be called."""
    if len(url) > LONGEST:
        raise ValueError(f"A URL has at most {LONGEST} characters, not {len(url)}.")
    # Parsers disagree about the host of a URL with such characters in it.
    if not url.isascii() or not url.isprintable() or any(letter in ' \\"<>' for letter in url):
        raise ValueError("It has characters that no URL has: write it as https://host/path.")
    if problem := problem_with_url(url, conf().allowed_networks):
        raise ValueError(problem)
    if urlsplit(url).fragment:
        raise ValueError("What stands behind # is never sent: leave it out.")


def host_of(url: str) -> str:
    """Whom a URL asks; "" when it names nobody."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""
