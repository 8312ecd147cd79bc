"""Who is called back: a small server that notes what came, when, and whether this installation had signed it."""

import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from aiohttp import web

from campaigns.callbacks import signing

FRESH = 300  # seconds that a timestamp may differ (Standard Webhooks)
MOST = 1024 * 1024  # octets of a body
OVER = ("run.completed", "run.failed", "run.cancelled")


@dataclass(frozen=True, slots=True)
class Heard:
    """One callback: of which trigger, when by the clock, what it says, and whether its signature is right."""

    number: int
    at: float
    type: str
    signed: bool


class Receiver:
    """Listens for as long as the `async with` block lasts, each trigger at an address of its own that nobody guesses.
    `keys`: those that this installation signs with."""

    def __init__(
        self, host: str, port: int, keys: Sequence[str] = (), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.heard: list[Heard] = []
        self._host, self._port, self._keys, self._clock = host, port, keys, clock
        self._word = secrets.token_urlsafe(12)

    async def __aenter__(self) -> Self:
        """Raises OSError when it cannot listen there."""
        app = web.Application(client_max_size=MOST)
        app.router.add_post(f"/{self._word}/{{number:[0-9]{{1,9}}}}", self._hear)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, self._host, self._port)
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    def address_of(self, number: int) -> str:
        """Where the trigger of this number is to call back."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/{self._word}/{number}"

    async def _hear(self, request: web.Request) -> web.Response:
        at = self._clock()
        body = await request.read()
        try:
            said = json.loads(body)
            kind = str(said["type"])
        except (ValueError, TypeError, KeyError):
            return web.Response(status=400)
        signed = is_signed(self._keys, request.headers, body, time.time())
        self.heard.append(Heard(int(request.match_info["number"]), at, kind, signed))
        return web.Response(status=204)


def is_signed(keys: Iterable[str], headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether one of these keys has signed it, as Standard Webhooks has it, and lately."""
    message, seconds = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    given = headers.get("webhook-signature", "").split()
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) < 12 and abs(int(seconds) - now) <= FRESH):
        return False
    right = signing.headers(keys, message, datetime.fromtimestamp(int(seconds), UTC), body)["webhook-signature"].split()
    return any(hmac.compare_digest(one.encode(), each.encode()) for one in right for each in given)
