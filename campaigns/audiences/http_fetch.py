"""Pages over HTTP: one GET at a time, repeated where that may help, within limits of time and size.

Decides what an answer's status means for an audience and when to try again. What is in a page, and which is next, is
not known here. Nobody is told the credentials: every message passes through `_Redaction`.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from urllib.parse import parse_qsl, quote, quote_plus

import httpx

from campaigns.audiences.exceptions import AudienceRefused, AudienceTooSlow, AudienceUnreachable
from campaigns.audiences.http_settings import HttpSettings
from campaigns.audiences.http_url import followed, with_parameters, without_query
from delivery.core.answer import Answer, told_to_wait
from delivery.core.retry import Backoff, Jitter
from delivery.http import Call, Client, Unreachable
from delivery.http.networks import IPNetwork
from delivery.redaction import HIDDEN

BACKOFF = Backoff(
    base=timedelta(seconds=1), factor=3.0, longest=timedelta(seconds=30), jitter=Jitter(0.5, 1.5)
)  # 1, 3, 9 seconds between the usual four tries
# A server that says when to come back is waited for so long at most: a run that waits keeps a worker waiting.
LONGEST_WAIT = 60.0  # seconds
CONNECT = 10.0  # seconds
_LOOKED_AT = 20_000  # octets of an answer's text that a message is made of
_MAY_PASS = frozenset({408, 425, 429})  # beside 5xx
_JUST_MAYBE = frozenset({202, 206})  # "accepted, later" and "a part of it" are no page


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is outside: which networks may be reached beside the public internet, two clocks, a way to wait, chance,
    and, for tests, another way to carry requests."""

    networks: Sequence[IPNetwork] = ()
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    rng: random.Random = field(default_factory=random.Random)
    transport: httpx.AsyncBaseTransport | None = None


class Fetcher:
    """Fetches the pages of one list, one after the other, on kept connections. Use as `with fetching(…) as fetcher`."""

    def __init__(self, settings: HttpSettings, label: str, around: Surroundings, runner: asyncio.Runner) -> None:
        self._settings = settings
        self._label = label
        self._around = around
        self._runner = runner
        self._redaction = _Redaction(settings.hidden)
        self._client = Client(self._transport(), connect=min(CONNECT, settings.limits.timeout))
        self._ends = around.monotonic() + settings.limits.total

    def get(self, url: str, page: int) -> Answer:
        """The answer for this URL, a successful one, whole. `page` is its number in messages, from 1. Raises
        AudienceError."""
        where = f"{self._label}, page {page}"
        tries = self._settings.limits.attempts
        for attempt in range(1, tries + 1):
            answer, problem = self._try(url, where)
            if answer is not None and not _may_pass(answer.status):
                return self._judged(answer, where, page)
            if attempt == tries:
                raise AudienceUnreachable(
                    where, f"{problem} (tries: {attempt})", "See whether the API is up, then start again"
                )
            self._wait(answer, attempt, where, problem)
        raise AssertionError("at least one try")

    def show(self, text: str) -> str:
        """The text without the credentials."""
        return self._redaction(text)

    def close(self) -> None:
        """Gives the connections back."""
        self._runner.run(self._client.close())

    def _transport(self) -> httpx.AsyncBaseTransport:
        if self._around.transport is not None:
            return _OneLink(self._around.transport)
        # aiohttp takes a third of a second and 20 MB: a process that reads no such audience does without.
        from delivery.http.transport import AiohttpTransport

        # One octet more than is allowed, to see that there is more.
        room = self._settings.limits.page_octets + 1
        return _OneLink(AiohttpTransport(self._around.networks, max_answer=room))

    def _try(self, url: str, where: str) -> tuple[Answer | None, str]:
        """An answer, and what is wrong with it if anything is; or no answer, and why."""
        left = self._left(where)
        headers = {**self._settings.headers, **self._settings.proof.headers}
        if "accept" not in map(str.lower, headers):
            headers["Accept"] = "application/json"
        call = Call("GET", _with_key(url, self._settings), headers)
        try:
            answer = self._runner.run(self._client.exchange(call, min(self._settings.limits.timeout, left)))
        except Unreachable as error:
            words = self._redaction(str(error))
            if error.hopeless:
                raise AudienceRefused(where, words, "Correct the URL or the settings") from None
            return None, words
        return answer, f"it answered {answer.status} {self._words(answer)}".rstrip()

    def _wait(self, answer: Answer | None, attempt: int, where: str, problem: str) -> None:
        told = told_to_wait(answer.headers, self._around.now(), ("retry-after",)) if answer else None
        drawn = BACKOFF.wait(attempt, self._around.rng).total_seconds()
        # Who was told to come back at the same time as others comes a little later, never earlier.
        seconds = drawn if told is None else told.total_seconds() + self._around.rng.uniform(0, 1)
        if told is not None and told.total_seconds() > LONGEST_WAIT:
            raise AudienceUnreachable(
                where, f"{problem}; it wants to be asked again in {told.total_seconds():,.0f} s", "Start again then"
            )
        if seconds >= self._left(where):
            raise self._too_slow(where)
        self._around.sleep(seconds)

    def _left(self, where: str) -> float:
        left = self._ends - self._around.monotonic()
        if left <= 0:
            raise self._too_slow(where)
        return left

    def _too_slow(self, where: str) -> AudienceTooSlow:
        total = self._settings.limits.total
        return AudienceTooSlow(
            where, f"not all pages were there within {total / 60:g} minutes", "Ask for larger pages, or raise the limit"
        )

    def _judged(self, answer: Answer, where: str, page: int) -> Answer:
        """The answer when it is a page. Raises AudienceRefused."""
        limit = self._settings.limits.page_octets
        if len(answer.body) > limit:
            raise AudienceRefused(
                where, f"the page is larger than {limit:,} octets", "Ask for smaller pages, or raise the limit"
            )
        if answer.is_success and answer.status not in _JUST_MAYBE:
            return answer
        said = f"it answered {answer.status} {self._words(answer)}".rstrip()
        match answer.status:
            case 401 | 403 | 407:
                remedy = "Enter the credentials again, or ask the API's operator for the right to read this"
            case 404 | 410 if page == 1:
                remedy = "Correct the URL"
            case 404 | 410:
                remedy = "If the API says so after its last page, page by a link or a cursor instead"
            case status if 300 <= status <= 399:
                said = f"it redirects ({answer.status}) to {self._leads_to(answer)}"
                remedy = "Redirects are not followed: set the URL to that if it is the right one"
            case _:
                remedy = "Correct the URL, the parameters or the headers"
        raise AudienceRefused(where, said, remedy)

    def _words(self, answer: Answer) -> str:
        # Redacted before it is cut: half a secret is still one.
        text = self._redaction(answer.body[:_LOOKED_AT].decode("utf-8", "replace"))
        return "" if answer.is_success else Answer(answer.status, {}, text.encode("utf-8", "replace")).words()

    def _leads_to(self, answer: Answer) -> str:
        location = answer.headers.get("location", "")
        try:
            shown = without_query(followed(self._settings.url, location))
        except ValueError:
            shown = location.partition("?")[0][:200]
        return self._redaction(shown) or "nowhere"


@contextmanager
def fetching(settings: HttpSettings, label: str, around: Surroundings) -> Iterator[Fetcher]:
    """A fetcher with an event loop of its own, which runs only while a page is fetched. Not to be used where another
    event loop is running in the same thread."""
    with asyncio.Runner() as runner:
        fetcher = Fetcher(settings, label, around, runner)
        try:
            yield fetcher
        finally:
            fetcher.close()


def _may_pass(status: int) -> bool:
    return status in _MAY_PASS or 500 <= status <= 599


def _with_key(url: str, settings: HttpSettings) -> str:
    """The URL with the key in it, if that is where the key goes: once, also when the API's own link repeats it."""
    return with_parameters(url, parse_qsl(settings.proof.query, keep_blank_values=True))


class _OneLink(httpx.AsyncBaseTransport):
    """Several Link headers as one (RFC 9110 §5.3): an Answer has one value for each name."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        links = response.headers.get_list("link")
        if len(links) > 1:
            response.headers["link"] = ", ".join(links)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Redaction:
    """Takes secrets out of a text, in every spelling in which an API or an error might repeat them."""

    def __init__(self, secrets: Sequence[str]) -> None:
        spellings = {
            spelling
            for secret in secrets
            for spelling in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), escape(secret),
                             json.dumps(secret)[1:-1])
        }  # fmt: skip
        self._spellings = sorted(filter(None, spellings), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for spelling in self._spellings:
            text = text.replace(spelling, HIDDEN)
        return text
