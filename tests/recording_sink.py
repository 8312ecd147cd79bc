"""An SMTP server, run as a process of its own, that takes every message, notes it down, and only then says so.

    python -m tests.recording_sink --port 0 --log FILE

Prints its port. The log gets one JSON object per accepted message, in the file before the 250 is on the wire: whoever
was killed or cut off meanwhile, the log knows what was accepted. It can also misbehave, by options, as servers do. It
does not keep contents, and it does not check what a client must not do beyond the order of commands.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

EXTENSIONS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE", "ENHANCEDSTATUSCODES")
GREETING = b"220 recording-sink ESMTP\r\n"
EHLO_REPLY = b"250-recording-sink\r\n" + b"".join(
    f"250{' ' if name == EXTENSIONS[-1] else '-'}{name}\r\n".encode() for name in EXTENSIONS
)
END_OF_CONTENT = b"\r\n.\r\n"
PATH = re.compile(rb"(?i)(?:FROM|TO):\s*<([^>]*)>")
MESSAGE_ID = re.compile(rb"(?im)^Message-ID:\s*<?([^>\s]*)>?")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the sink treats its clients. Rates are probabilities from 0 to 1.

    `refuse_recipient` is a rate or a pattern (`*@dead.example`). By rate, an address is always refused or never: an
    address is dead for good. The other rates are drawn anew for every message, so a second try may succeed.
    `latency`: seconds by which every reply is late.
    """

    seed: int = 0
    latency: float = 0.0
    drop_before_dot: float = 0.0
    drop_after_dot: float = 0.0
    tempfail: float = 0.0
    refuse_recipient: str = ""

    def refuses(self, address: str) -> bool:
        """Whether this recipient is answered with 550."""
        if not self.refuse_recipient:
            return False
        try:
            rate = float(self.refuse_recipient)
        except ValueError:
            return fnmatchcase(address, self.refuse_recipient)
        return zlib.crc32(f"{self.seed} {address}".encode()) / 2**32 < rate


class Sink:
    """What all connections share: the log, the behaviour, the dice."""

    def __init__(self, behaviour: Behaviour, log: int) -> None:
        self.behaviour = behaviour
        self._log = log
        self._rng = random.Random(behaviour.seed)
        self._connections = 0

    def connected(self) -> int:
        """The number of a new connection, from 1."""
        self._connections += 1
        return self._connections

    def happens(self, rate: float) -> bool:
        """Draws whether something with this probability happens now."""
        return rate > 0 and self._rng.random() < rate

    def record(self, lines: list[bytes]) -> None:
        """Returns once the lines are in the file, where they survive the sink's own end."""
        pending = b"".join(lines)
        while pending:
            pending = pending[os.write(self._log, pending) :]


class Connection(asyncio.Protocol):
    """One client. Commands that arrive together are answered together, in order (PIPELINING)."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._behaviour = sink.behaviour
        self._number = sink.connected()
        self._buffer = bytearray()
        self._scanned = 0  # of the buffer, already searched for the end of the content
        self._replies: list[bytes] = []
        self._records: list[bytes] = []
        self._late: deque[tuple[bytes, bool]] = deque()  # (reply, whether it is the last), waiting for the latency
        self._greeted = False
        self._in_content = False
        self._drop_this = False  # the content that is coming in
        self._ended = False
        self._forget_transaction()

    def _forget_transaction(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._peer = (transport.get_extra_info("peername") or [""])[0]
        self._answer(GREETING)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._buffer += data
        while not self._ended and (self._take_content() if self._in_content else self._take_command()):
            pass
        if self._records:
            self._sink.record(self._records)
            self._records = []
        if self._replies or self._ended:
            self._answer(b"".join(self._replies))
            self._replies = []

    def _answer(self, reply: bytes) -> None:
        if not self._behaviour.latency:
            self._put(reply, self._ended)
            return
        # A queue, because timers that are due together promise no order.
        self._late.append((reply, self._ended))
        asyncio.get_running_loop().call_later(self._behaviour.latency, lambda: self._put(*self._late.popleft()))

    def _put(self, reply: bytes, last: bool) -> None:
        if self._transport.is_closing():
            return  # the client was killed before the reply was due
        if reply:
            self._transport.write(reply)
        if last:
            self._transport.close()

    def _take_command(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(self._buffer[:end])
        verb = line[:4].upper()
        command = COMMANDS.get(verb)
        reply = command(self, line) if command else b"500 5.5.2 unknown command\r\n"
        self._replies.append(reply)
        # The line end of DATA stays: it is the first half of the dot that ends a content of no lines.
        del self._buffer[: end if self._in_content else end + 2]
        return True

    def _take_content(self) -> bool:
        if len(self._buffer) > 2 and self._drop_this:
            self._ended = True
            return False
        end = self._buffer.find(END_OF_CONTENT, max(self._scanned - len(END_OF_CONTENT), 0))
        if end < 0:
            self._scanned = len(self._buffer)
            return False
        header_end = self._buffer.find(b"\r\n\r\n", 0, end)
        header = bytes(self._buffer[: header_end if header_end >= 0 else end])
        del self._buffer[: end + len(END_OF_CONTENT)]
        self._in_content = False
        self._accept(header)
        return True

    def _accept(self, header: bytes) -> None:
        if self._sink.happens(self._behaviour.tempfail):
            self._replies.append(b"451 4.3.0 not now\r\n")
        else:
            self._records.append(self._line(header))
            if self._sink.happens(self._behaviour.drop_after_dot):
                self._ended = True
            else:
                self._replies.append(b"250 2.0.0 noted down\r\n")
        self._forget_transaction()

    def _line(self, header: bytes) -> bytes:
        message_id = MESSAGE_ID.search(header)
        fields = {
            "at_ns": time.monotonic_ns(),
            "message_id": message_id[1].decode(errors="replace") if message_id else "",
            "sender": self._sender,
            "recipients": self._recipients,
            "connection": self._number,
            "peer": self._peer,
        }
        return json.dumps(fields).encode() + b"\n"

    def _ehlo(self, line: bytes) -> bytes:
        self._greeted = True
        self._forget_transaction()
        return EHLO_REPLY

    def _helo(self, line: bytes) -> bytes:
        self._greeted = True
        self._forget_transaction()
        return b"250 recording-sink\r\n"

    def _mail(self, line: bytes) -> bytes:
        path = PATH.search(line)
        if not self._greeted or self._sender is not None:
            return b"503 5.5.1 not now\r\n"
        if path is None:
            return b"501 5.5.4 MAIL FROM:<address>\r\n"
        self._sender = path[1].decode()
        return b"250 2.1.0 ok\r\n"

    def _rcpt(self, line: bytes) -> bytes:
        path = PATH.search(line)
        if self._sender is None:
            return b"503 5.5.1 MAIL first\r\n"
        if path is None:
            return b"501 5.5.4 RCPT TO:<address>\r\n"
        address = path[1].decode()
        if self._behaviour.refuses(address):
            return b"550 5.1.1 no such mailbox\r\n"
        self._recipients.append(address)
        return b"250 2.1.5 ok\r\n"

    def _data(self, line: bytes) -> bytes:
        if self._sender is None:
            return b"503 5.5.1 MAIL first\r\n"
        if not self._recipients:
            return b"554 5.5.1 no valid recipients\r\n"
        self._in_content = True
        self._scanned = 0
        self._drop_this = self._sink.happens(self._behaviour.drop_before_dot)
        return b"354 go ahead\r\n"

    def _rset(self, line: bytes) -> bytes:
        self._forget_transaction()
        return b"250 2.0.0 ok\r\n"

    def _noop(self, line: bytes) -> bytes:
        return b"250 2.0.0 ok\r\n"

    def _quit(self, line: bytes) -> bytes:
        self._ended = True
        return b"221 2.0.0 bye\r\n"


COMMANDS: dict[bytes, Callable[[Connection, bytes], bytes]] = {
    b"EHLO": Connection._ehlo,
    b"HELO": Connection._helo,
    b"MAIL": Connection._mail,
    b"RCPT": Connection._rcpt,
    b"DATA": Connection._data,
    b"RSET": Connection._rset,
    b"NOOP": Connection._noop,
    b"QUIT": Connection._quit,
}


async def serve(address: str, port: int, log: int, behaviour: Behaviour) -> None:
    """Runs the sink until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    sink = Sink(behaviour, log)
    server = await loop.create_server(lambda: Connection(sink), address, port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stopped.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.recording_sink", description=__doc__.split("\n")[0])
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    for rate in ("--drop-before-dot", "--drop-after-dot", "--tempfail"):
        parser.add_argument(rate, type=float, default=0.0, metavar="RATE")
    parser.add_argument("--refuse-recipient", default="", metavar="RATE|PATTERN")
    options = vars(parser.parse_args())
    address, port = options.pop("address"), options.pop("port")
    log = os.open(options.pop("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        runner.run(serve(address, port, log, Behaviour(**options)))


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
