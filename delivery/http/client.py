"""The shared client: one pool of connections for each event loop, and so for each worker process.

Engines borrow it when they first need it and give it back when they are closed; the last one closes it. It also says
which failures were certainly never sent: everything else hangs on that.

Between an engine and the transport stands no httpx.AsyncClient: what it adds (cookies, redirects, authentication, a log
line with the whole URL) is not wanted, and costs as much as everything else together.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from weakref import WeakKeyDictionary

import httpx

from delivery.conf import conf
from delivery.core.answer import Answer
from delivery.http.networks import BlockedAddress

CONNECT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Call:
    """One request. URL and headers may hold credentials, so they are not shown."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes = field(default=b"", repr=False)


class Unreachable(Exception):
    """No answer. `sent`: whether the request may have arrived. `hopeless`: whether only a person can change that."""

    def __init__(self, words: str, *, sent: bool, hopeless: bool = False) -> None:
        super().__init__(words)
        self.sent = sent
        self.hopeless = hopeless


class Client:
    """One borrower's hold of the shared client. `connect`: seconds until there must be a connection."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None, *, connect: float = CONNECT) -> None:
        self._own = transport
        self._connect = connect
        self._transport: httpx.AsyncBaseTransport | None = None

    async def exchange(self, call: Call, timeout: float) -> Answer:
        """The answer to a call, within `timeout` seconds of the connection. Raises Unreachable when there is none."""
        if self._transport is None:
            self._transport = self._own or _borrow()
        request = _request(call, {"connect": self._connect, "pool": timeout, "read": timeout, "write": timeout})
        try:
            # The transport counts from one piece of the answer to the next; a server that drips must come to an end.
            async with asyncio.timeout(self._connect + timeout):
                response = await self._transport.handle_async_request(request)
                content = b"".join([piece async for piece in response.stream])  # decoded, as the transport gives it
        except TimeoutError:
            raise Unreachable(f"no answer within {timeout:g} s", sent=True) from None
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}
        return Answer(response.status_code, headers, content)

    async def close(self) -> None:
        """Gives the shared client back. Nothing may be under way."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            await _give_back(transport)


def _request(call: Call, timeout: dict[str, float]) -> httpx.Request:
    """Complete from the start: what httpx would add by itself costs four times as much. Raises Unreachable."""
    try:
        url = _parsed(call.url)
        headers = [
            (b"Host", url.netloc),
            (b"Content-Length", b"%d" % len(call.content)),
            *((name.encode("ascii"), value.encode("ascii")) for name, value in call.headers.items()),
        ]
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Unreachable(f"the request cannot be written: {error}", sent=False, hopeless=True) from error
    stream = httpx.ByteStream(call.content)
    return httpx.Request(call.method, url, headers=headers, stream=stream, extensions={"timeout": timeout})


@lru_cache(maxsize=256)
def _parsed(url: str) -> httpx.URL:
    return httpx.URL(url)


def _unreachable(error: Exception) -> Unreachable:
    words = str(error) or type(error).__name__
    match error:
        case httpx.ConnectError():
            return Unreachable(words, sent=False, hopeless=_is_blocked(error))
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return Unreachable(words, sent=False)
        case httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return Unreachable(words, sent=False, hopeless=True)
        case _:
            return Unreachable(words, sent=True)


def _is_blocked(error: BaseException | None) -> bool:
    """Whether the guard's refusal is at the bottom of this error."""
    while error is not None:
        if isinstance(error, BlockedAddress):
            return True
        error = error.__cause__ or error.__context__
    return False


# ---- the transports that are lent out ----


@dataclass(slots=True)
class _Lent:
    transport: httpx.AsyncBaseTransport
    borrowers: int = 0


_lent: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lent] = WeakKeyDictionary()


def _borrow() -> httpx.AsyncBaseTransport:
    # aiohttp takes a third of a second and 20 MB: a process that makes no call does without.
    from delivery.http.transport import AiohttpTransport

    loop = asyncio.get_running_loop()
    if loop not in _lent:
        _lent[loop] = _Lent(AiohttpTransport(conf().allowed_networks))
    _lent[loop].borrowers += 1
    return _lent[loop].transport


async def _give_back(transport: httpx.AsyncBaseTransport) -> None:
    loop = asyncio.get_running_loop()
    lent = _lent.get(loop)
    if lent is None or lent.transport is not transport:
        await transport.aclose()
        return
    lent.borrowers -= 1
    if not lent.borrowers:
        del _lent[loop]
        await transport.aclose()
