"""An HTTP server that does as it is told, on loopback, in the event loop of the test itself.

`async with serving(conduct) as server`: `conduct` gets each request and the connection, and says or does whatever a
server might. What is below makes the usual ones.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Received:
    """One request. Header names are in lower case; `connection` counts from 1."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def json(self) -> object:
        return json.loads(self.body)


Conduct = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A running server, as a test sees it."""

    port: int = 0
    scheme: str = "http"
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/"


@contextlib.asynccontextmanager
async def serving(
    conduct: Conduct, *, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """A server for as long as the block lasts."""
    told = Server(scheme="https" if context else "http")
    writers = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.connections += 1
        number = told.connections
        writers.add(writer)
        try:
            while (request := await _request(reader, number)) is not None:
                told.received.append(request)
                await conduct(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(converse, host, port, ssl=context)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def _request(reader: asyncio.StreamReader, connection: int) -> Received | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, target, headers, body, connection)


def answer(status: int = 200, body: object = b"{}", **headers: str) -> bytes:
    """An answer as it goes over the wire; what is no octets is written as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"HTTP/1.1 {status} Some\r\nContent-Length: {len(content)}\r\n{lines}\r\n".encode() + content


def says(*answers: bytes) -> Conduct:
    """Gives these answers, the last one again and again."""
    left = list(answers)

    async def conduct(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()

    return conduct


def says_and_closes(raw: bytes = b"") -> Conduct:
    """Reads the request, says this much, and hangs up."""

    async def conduct(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        raise ConnectionAbortedError

    return conduct


async def resets(request: Received, writer: asyncio.StreamWriter) -> None:
    """Reads the request, and ends the connection with an RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionAbortedError


async def stays_silent(request: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drips(request: Received, writer: asyncio.StreamWriter) -> None:
    """Always a little more of an answer, never the end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.01)
