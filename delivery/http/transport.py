"""httpx's requests, carried by aiohttp.

httpx's own pool looks through all its connections for every request: at a concurrency of 100 a call costs twenty times
what it costs with aiohttp (`make bench-http`). What is kept is httpx's interface and its exceptions, with one meaning
each: a ConnectError or ConnectTimeout was certainly never sent; after anything else the request may have arrived.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from functools import cache

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from delivery.http.networks import BlockedAddress, IPNetwork, is_allowed, refuse

USER_AGENT = "Outreach"  # Resend answers 403 to requests without one
MAX_ANSWER = 1024 * 1024  # octets of an answer that are read; Brevo's to a thousand mails has some 80,000
# Shorter than any server's patience: a connection that the server closes while a request is on its way leaves open
# whether it arrived.
KEPT_IDLE = 4.0  # seconds
NAMES_KEPT = 10  # seconds for which a host name's addresses are remembered
_WRITTEN_BY_AIOHTTP = b"content-length"
_ABOUT_THE_TRANSFER = (b"content-encoding", b"content-length", b"transfer-encoding")  # the content comes decoded

AddressInfo = tuple[int, int, int, str, tuple]


@cache
def system_trust() -> ssl.SSLContext:
    """TLS as this system's authorities vouch for it. Reading them all takes a while."""
    return ssl.create_default_context()


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
    """See the module. Follows no redirect, keeps no cookie, reads no proxy from the environment. `max_answer`: octets
    of an answer, decoded, after which it is cut."""

    def __init__(
        self,
        networks: Sequence[IPNetwork] = (),
        *,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        max_answer: int = MAX_ANSWER,
    ) -> None:
        self._networks = networks
        self._max_answer = max_answer
        self._resolver = resolver
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0,  # the lanes bound how many calls are under way
                resolver=GuardedResolver(self._networks, self._resolver),
                socket_factory=self._socket,
                ttl_dns_cache=NAMES_KEPT,
                keepalive_timeout=KEPT_IDLE,
                ssl=self._tls or system_trust(),
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers={"User-Agent": USER_AGENT},
                skip_auto_headers=("Content-Type",),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=True,
            )
            # aiohttp repeats a PUT whose connection broke, arrived or not, and has no public switch for it.
            self._session._retry_connection = False
        return self._session

    def _socket(self, info: AddressInfo) -> socket.socket:
        """A socket for the address that is about to be connected to: the last look, which a URL with an address in it
        meets without any look-up of a name."""
        family, kind, protocol, _, (address, *_) = info
        if not is_allowed(address, self._networks):
            raise refuse(address)
        return socket.socket(family, kind, protocol)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
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
                if name.lower() != _WRITTEN_BY_AIOHTTP
            ],
            allow_redirects=False,
            timeout=timeout,
        ) as response:
            content = await _read(response.content, self._max_answer)
            headers = [each for each in response.raw_headers if each[0].lower() not in _ABOUT_THE_TRANSFER]
            stream = httpx.ByteStream(content)
            return httpx.Response(response.status, headers=headers, stream=stream, request=request)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read(stream: aiohttp.StreamReader, room: int) -> bytes:
    """The body, as far as `room`. What is longer is cut: no answer of a mail API is."""
    chunks = []
    async for chunk in stream.iter_any():
        chunks.append(chunk[:room])
        room -= len(chunk)
        if room <= 0:
            break
    return b"".join(chunks)


def _translated(error: Exception, request: httpx.Request) -> httpx.HTTPError:
    """The exception of httpx that says the same. The order matters: aiohttp's classes overlap."""
    words = str(error) or type(error).__name__
    match error:
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return httpx.UnsupportedProtocol(words, request=request)
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout(words, request=request)
        case aiohttp.SocketTimeoutError() | asyncio.TimeoutError():
            return httpx.ReadTimeout(words, request=request)
        case aiohttp.ClientConnectorError():  # refused, no such name, TLS
            return httpx.ConnectError(_why_not_connected(error), request=request)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError(words, request=request)
        case aiohttp.ClientOSError() | OSError():
            return httpx.ReadError(words, request=request)
        case ValueError():  # a header value that HTTP cannot carry
            return httpx.LocalProtocolError(words, request=request)
        case _:
            return httpx.RemoteProtocolError(words, request=request)


def _why_not_connected(error: aiohttp.ClientConnectorError) -> str:
    """A sentence: aiohttp's own has the address of an object in it, and not the words of a BlockedAddress."""
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
    if isinstance(cause, BlockedAddress):
        return str(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = f"its certificate cannot be trusted: {cause.verify_message}"
    elif isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and (cause.errno or 0) > 0:
        reason = os.strerror(cause.errno)  # asyncio's own text would name the address once more
    else:
        reason = getattr(cause, "strerror", None) or str(cause)
    return f"no connection to {error.host}:{error.port}: {reason}"
