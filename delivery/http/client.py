"""The shared client: one httpx.AsyncClient for each event loop, and so for each worker process.

Engines borrow it when they first need it and give it back when they are closed; the last one closes it. It also says
which failures were certainly never sent: everything else hangs on that.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import httpx

from delivery.conf import conf
from delivery.core.answer import Answer
from delivery.http.networks import BlockedAddress
from delivery.http.transport import AiohttpTransport

USER_AGENT = "Outreach"  # Resend answers 403 to requests without one
CONNECT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Call:
    """One request. Header values may hold credentials, so they are not shown."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes = field(default=b"", repr=False)


class Unreachable(Exception):
    """No answer. `sent`: whether the request may have arrived. `hopeless`: whether only a person can change that."""

    def __init__(self, words: str, *, sent: bool, hopeless: bool = False) -> None:
        super().__init__(words)
        self.sent = sent
        self.hopeless = hopeless


class Client:
    """One borrower's hold of the shared client."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    async def exchange(self, call: Call, timeout: float) -> Answer:
        """The answer to a call, within `timeout` seconds. Raises Unreachable when there is none."""
        if self._client is None:
            self._client = _borrow(self._transport)
        try:
            # httpx counts from one piece of the answer to the next; a server that drips must come to an end too.
            async with asyncio.timeout(CONNECT + timeout):
                response = await self._client.request(
                    call.method,
                    call.url,
                    headers=call.headers,
                    content=call.content,
                    timeout=httpx.Timeout(timeout, connect=CONNECT),
                )
        except TimeoutError:
            raise Unreachable(f"no answer within {timeout:g} s", sent=True) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unreachable(error) from error
        return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content)

    async def close(self) -> None:
        """Gives the shared client back. Nothing may be under way."""
        if self._client is not None:
            client, self._client = self._client, None
            await _give_back(client)


def _unreachable(error: Exception) -> Unreachable:
    words = str(error) or type(error).__name__
    match error:
        case httpx.ConnectError():
            return Unreachable(words, sent=False, hopeless=_is_blocked(error))
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return Unreachable(words, sent=False)
        case httpx.UnsupportedProtocol() | httpx.InvalidURL() | httpx.LocalProtocolError():
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


# ---- the clients that are lent out ----


@dataclass(slots=True)
class _Lent:
    client: httpx.AsyncClient
    borrowers: int = 0


_lent: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lent] = WeakKeyDictionary()


def _borrow(transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    if transport is not None:
        return _client(transport)
    loop = asyncio.get_running_loop()
    if loop not in _lent:
        _lent[loop] = _Lent(_client(AiohttpTransport(conf().allowed_networks)))
    _lent[loop].borrowers += 1
    return _lent[loop].client


def _client(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport, headers={"User-Agent": USER_AGENT}, follow_redirects=False, trust_env=False
    )


async def _give_back(client: httpx.AsyncClient) -> None:
    loop = asyncio.get_running_loop()
    lent = _lent.get(loop)
    if lent is None or lent.client is not client:
        await client.aclose()
        return
    lent.borrowers -= 1
    if not lent.borrowers:
        del _lent[loop]
        await client.aclose()
