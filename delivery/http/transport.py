"""httpx's requests, carried by aiohttp.

httpx's own pool looks through all its connections for every request: at a concurrency of 100 that costs nine times what
aiohttp costs (`make bench-http`). What is kept is httpx's interface and its exceptions, with one meaning each: a
ConnectError or ConnectTimeout was certainly never sent; after anything else the request may have arrived.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from delivery.http.networks import BlockedAddress, IPNetwork, as_address, is_allowed, refuse

MAX_ANSWER = 1024 * 1024  # octets of an answer that are read; Brevo's to a thousand mails has some 80,000
# Shorter than any server's patience: a connection that the server closes while a request is on its way leaves open
# whether it arrived.
KEPT_IDLE = 4.0  # seconds
NAMES_KEPT = 10  # seconds for which a host name's addresses are remembered


class GuardedResolver(AbstractResolver):
    """Host names -> addresses, without those that may not be reached. What is answered here is what is connected to."""

    def __init__(self, networks: Sequence[IPNetwork], inner: AbstractResolver | None = None) -> None:
        self._networks = networks
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [each for each in found if is_allowed(each["host"], self._networks)]
        if found and not allowed:
            raise refuse(f"{host} ({found[0]['host']})")
        return allowed

    async def close(self) -> None:
        await self._inner.close()


class AiohttpTransport(httpx.AsyncBaseTransport):
    """See the module. Follows no redirect, keeps no cookie, reads no proxy from the environment."""

    def __init__(self, networks: Sequence[IPNetwork] = (), *, resolver: AbstractResolver | None = None) -> None:
        self._networks = networks
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0,  # the lanes bound how many calls are under way
                resolver=GuardedResolver(self._networks, self._resolver),
                ttl_dns_cache=NAMES_KEPT,
                keepalive_timeout=KEPT_IDLE,
                ssl=ssl.create_default_context(),
            )
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=True
            )
        return self._session

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        address = as_address(request.url.host)
        if address and not is_allowed(address, self._networks):
            raise httpx.ConnectError(str(refuse(address)), request=request) from refuse(address)
        given = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=given.get("connect"), connect=given.get("pool"), sock_read=given.get("read")
        )
        try:
            return await self._exchange(request, timeout)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _translated(error, request) from error

    async def _exchange(self, request: httpx.Request, timeout: aiohttp.ClientTimeout) -> httpx.Response:
        body = await request.aread()
        async with self._open().request(
            request.method,
            str(request.url),
            data=body or None,
            headers=[
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in request.headers.raw
                if name.lower() != b"content-length"  # aiohttp writes that itself
            ],
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            allow_redirects=False,
            timeout=timeout,
        ) as response:
            content = await _read(response.content)
            headers = [
                (name, value)
                for name, value in response.raw_headers
                if name.lower() not in (b"content-encoding", b"content-length", b"transfer-encoding")
            ]
            return httpx.Response(response.status, headers=headers, content=content, request=request)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read(stream: aiohttp.StreamReader) -> bytes:
    """The body, as far as MAX_ANSWER. What is longer is cut: no answer of a mail API is."""
    chunks = []
    room = MAX_ANSWER
    async for chunk in stream.iter_any():
        chunks.append(chunk[:room])
        room -= len(chunk)
        if room <= 0:
            break
    return b"".join(chunks)


def _translated(error: Exception, request: httpx.Request) -> httpx.HTTPError | httpx.InvalidURL:
    """The exception of httpx that says the same. The order matters: aiohttp's classes overlap."""
    words = str(error) or type(error).__name__
    match error:
        case aiohttp.InvalidURL():
            return httpx.UnsupportedProtocol(words, request=request)
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout(words, request=request)
        case aiohttp.SocketTimeoutError() | asyncio.TimeoutError():
            return httpx.ReadTimeout(words, request=request)
        case BlockedAddress() | aiohttp.ClientConnectorError():  # refused, no such name, TLS
            return httpx.ConnectError(words, request=request)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError(words, request=request)
        case aiohttp.ClientOSError() | OSError():
            return httpx.ReadError(words, request=request)
        case ValueError():  # a header value that HTTP cannot carry
            return httpx.LocalProtocolError(words, request=request)
        case _:
            return httpx.RemoteProtocolError(words, request=request)
