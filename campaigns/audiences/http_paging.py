"""From one page of a list to the request for the next: by link, number, offset or cursor.

Decides what is asked for next and when the list has ended. Sends nothing; a list that goes in circles is an error.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from campaigns.audiences.http_url import LeadsElsewhere, followed, with_parameters
from campaigns.audiences.json_path import Path, find
from campaigns.audiences.json_types import shown

MAX_POINTER = 8_000  # characters: what servers take as the first line of a request
_LINK = re.compile(r'<(?P<target>[^>]*)>(?P<parameters>(?:[^,"<]|"[^"]*")*)')
_RELATION = re.compile(r';\s*rel\s*=\s*(?P<words>"[^"]*"|[^\s;,"]+)', re.IGNORECASE)


class Style(StrEnum):
    """How a list is cut in pages."""

    NONE = "none"
    LINK_HEADER = "link_header"  # RFC 8288: Link: <…>; rel="next"
    LINK_BODY = "link_body"
    PAGE = "page"
    OFFSET = "offset"
    CURSOR = "cursor"


STYLES = {
    Style.NONE.value: "none: one page holds all",
    Style.LINK_HEADER.value: "by the Link header (rel=next)",
    Style.LINK_BODY.value: "by a link in the page",
    Style.PAGE.value: "by page number",
    Style.OFFSET.value: "by offset",
    Style.CURSOR.value: "by a cursor in the page",
}


class PagingProblem(Exception):
    """The list cannot be read to its end. `problem` and `remedy` are parts of an AudienceError."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Paging:
    """How one list is paged. `parameter` takes number, offset or cursor; `next_path` is where a page has the link or
    the cursor; `first` is the number of the first page; `size` is asked for by `size_parameter`, if that has a name."""

    style: Style = Style.NONE
    next_path: Path = ()
    parameter: str = ""
    first: int = 1
    size_parameter: str = ""
    size: int = 100


@dataclass(frozen=True, slots=True)
class Page:
    """One page as it came: the URL that was asked for, the headers (names in lower case), the document, its items."""

    url: str
    headers: Mapping[str, str]
    document: object
    items: list


class Walk:
    """One way through a list, page by page."""

    def __init__(self, paging: Paging, url: str) -> None:
        self._paging = paging
        self._url = self._sized(url)
        self._number = paging.first
        self._offset = 0
        self._seen: set[bytes] = set()
        self._last_items = b""
        self._pages = 0

    def first(self) -> str:
        """The URL of the first page."""
        match self._paging.style:
            case Style.PAGE:
                url = self._asking(self._number)
            case Style.OFFSET:
                url = self._asking(0)
            case _:
                url = self._url
        self._seen.add(_digest(url))
        return url

    def after(self, page: Page) -> str | None:
        """The URL of the page after this one; None when it was the last. Raises `PagingProblem`."""
        self._pages += 1
        if self._paging.style is Style.NONE:
            return None
        by_count = self._paging.style in (Style.PAGE, Style.OFFSET)
        if by_count and not page.items:
            return None
        url = self._by_count(page) if by_count else self._by_pointer(page)
        if url is None:
            return None
        if _digest(url) in self._seen:
            if not page.items:  # there are APIs that give a cursor at the end, too: the same again
                return None
            raise PagingProblem(
                f"it says that the page after page {self._pages} is one that was read before",
                "The list goes in circles: see where a page says what comes next, or ask the API's operator",
            )
        self._seen.add(_digest(url))
        self._refuse_the_same(page)
        return url

    def _by_count(self, page: Page) -> str:
        self._number += 1
        self._offset += len(page.items)
        return self._asking(self._number if self._paging.style is Style.PAGE else self._offset)

    def _by_pointer(self, page: Page) -> str | None:
        if self._paging.style is Style.LINK_HEADER:
            return self._linked(page, _next_link(page.headers.get("link", "")))
        pointer = find(page.document, self._paging.next_path)
        if not isinstance(pointer, dict | list | str | int | float) or pointer is False or pointer == "":
            return None
        if self._paging.style is Style.LINK_BODY:
            return self._linked(page, pointer)
        written = str(pointer)
        if isinstance(pointer, dict | list | bool) or not written.isprintable() or len(written) > MAX_POINTER:
            raise PagingProblem(
                f"where the next cursor should be there is {shown(pointer)}", "Correct the path to the next cursor"
            )
        return self._asking(written)

    def _linked(self, page: Page, link: object) -> str | None:
        if link is None:
            return None
        if not isinstance(link, str) or len(link) > MAX_POINTER:
            raise PagingProblem(
                f"where the link to the next page should be there is {shown(link)}", "Correct the path to the next link"
            )
        try:
            return self._sized(followed(page.url, link))
        except LeadsElsewhere as error:
            raise PagingProblem(
                f"the link to the next page leads elsewhere, to {error}",
                "The credentials are for one host only: correct the URL, or page by number, offset or cursor",
            ) from None
        except ValueError:
            raise PagingProblem(
                f"the link to the next page is none: {shown(link)}", "Correct the path to the next link"
            ) from None

    def _asking(self, value: object) -> str:
        return with_parameters(self._url, [(self._paging.parameter, value)])

    def _sized(self, url: str) -> str:
        paging = self._paging
        if not paging.size_parameter or paging.style not in (Style.PAGE, Style.OFFSET, Style.CURSOR):
            return url
        return with_parameters(url, [(paging.size_parameter, paging.size)])

    def _refuse_the_same(self, page: Page) -> None:
        """A server that does not know the parameter gives its first page again and again, each under a URL of its
        own."""
        digest = _digest(json.dumps(page.items)) if page.items else b""
        if digest and digest == self._last_items:
            raise PagingProblem(
                f"page {self._pages} is the same as the page before it",
                "The API seems to ignore what asks for the next page: correct the paging",
            )
        self._last_items = digest


def _next_link(header: str) -> str | None:
    """The target of the first link in a Link header (RFC 8288 §3) that has `next` among its relations."""
    for link in _LINK.finditer(header):
        relation = _RELATION.search(link["parameters"])
        if relation and "next" in relation["words"].strip('"').lower().split():
            return link["target"]
    return None


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
