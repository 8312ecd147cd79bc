"""An API that gives lists of people, on loopback, in a thread of its own: the sources that read it are not async.

What it says is a function of the request, `respond`; what only a socket can do (drip, reset, stay silent) is a conduct
of `tests.delivery.http_server`.
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from urllib.parse import parse_qsl, urlsplit

import pytest

from campaigns.audiences.exceptions import AudienceError, AudienceRefused
from campaigns.audiences.http_fetch import Surroundings
from campaigns.audiences.http_json import HttpJsonSource
from campaigns.audiences.http_settings import HttpSettings, problems_with
from campaigns.audiences.json_increment import Bookmark
from tests.delivery.http_server import Conduct, Received, Server, answer, serving

LOOPBACK = [ip_network("127.0.0.0/8")]
PAGE = 3  # people on each page
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def people(count: int, start: int = 1) -> list[dict[str, object]]:
    """So many people, each with a number."""
    return [{"id": n, "email": f"p{n}@example.test", "name": f"Person {n}"} for n in range(start, start + count)]


def addresses(count: int, start: int = 1) -> list[str]:
    """Their addresses."""
    return [str(person["email"]) for person in people(count, start)]


def asked(request: Received) -> dict[str, str]:
    """The query of a request."""
    return dict(parse_qsl(urlsplit(request.target).query, keep_blank_values=True))


@contextlib.contextmanager
def serving_here(conduct: Conduct) -> Iterator[Server]:
    """`serving`, in a thread with an event loop of its own, for as long as the block lasts."""
    ready: list[Server] = []
    up = threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(over.set))
        async with serving(conduct) as server:
            ready.append(server)
            up.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert up.wait(10)
    try:
        yield ready[0]
    finally:
        stop[0]()
        thread.join(10)


@contextlib.contextmanager
def api(respond: Callable[[Received], bytes]) -> Iterator[Server]:
    """A server that answers each request with what `respond` makes of it."""

    async def conduct(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(respond(request))
        await writer.drain()

    with serving_here(conduct) as server:
        yield server


def listing(document: object, **headers: str) -> Callable[[Received], bytes]:
    """Says the same to everybody."""
    return lambda request: answer(200, document, **headers)


@dataclass
class World:
    """What a source has around it in a test: time passes only while it sleeps, or when it is told to."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def surroundings(self, **given: object) -> Surroundings:
        usual = {
            "networks": LOOPBACK,
            "monotonic": lambda: self.now,
            "now": lambda: NOON,
            "sleep": self.sleep,
            "rng": random.Random(1),
        }
        return Surroundings(**usual | given)


def settings_of(options: dict[str, object], credential: str = "") -> HttpSettings:
    """The settings, which must be right."""
    secrets = {"credential": credential} if credential else {}
    assert problems_with(options, secrets, LOOPBACK) == {}
    return HttpSettings.of(options, secrets)


def source(
    url: str,
    *,
    credential: str = "",
    world: World | None = None,
    around: Surroundings | None = None,
    bookmark: Bookmark | None = None,
    reached: list[Bookmark] | None = None,
    address_field: str | None = None,
    name_field: str | None = None,
    **options: object,
) -> HttpJsonSource:
    """A source of the list at this URL; each bookmark that it comes to is put in `reached`."""
    return HttpJsonSource(
        settings_of({"url": url, **options}, credential),
        label="the people",
        address_field=address_field,
        name_field=name_field,
        bookmark=bookmark,
        read_to_the_end=(reached if reached is not None else []).append,
        around=around or (world or World()).surroundings(),
    )


def refusal(url: str, kind: type[AudienceError] = AudienceRefused, **options: object) -> str:
    """The words with which the list is refused."""
    with pytest.raises(kind) as refused:
        list(source(url, **options).rows())
    assert type(refused.value) is kind
    return str(refused.value)
