"""An SMTP server that misbehaves on request: `python smtp_server.py SCRIPT.json`, and `serving(...)` to run one.

It is a process of its own, prints its port, and appends to a journal of JSON lines what it hears and what it accepts.

Script: `pipelining`, `smtputf8`, `eightbit` (booleans), `size`, `tls` ("" | "starttls" | "tls") with `certificate` and
`key`, `auth` (mechanisms), `username`, `password`, `data_anyway` (354 although every RCPT was refused), `drip` (seconds
between the bytes of each reply) and `faults`, a list of objects:
  at          greeting ehlo helo starttls auth mail rcpt data go content dot after rset quit
              (`data` replaces the 354, `go` comes after it, `content` in the middle of the content, `dot` replaces the
              answer to the content, `after` comes behind that answer)
  say         raw text to send; where a reply is due at that point, instead of it
  drop        close the connection;  reset: with an RST;  stall: read and say nothing more
  accept      at `dot`: the mail is taken nevertheless
  connection, message   only on that connection (from 1) or at that transaction of a connection (from 1)
Local parts `refuse-CODE` are refused at RCPT and `content-CODE` at the dot, in the words of REFUSALS.
"""

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

REFUSALS = {
    "550": "550 5.1.1 No such user",
    "450": "450 4.2.0 Greylisted, come back in 5 minutes",
    "452": "452 4.2.2 Mailbox full",
    "451": "451 4.3.0 Local trouble",
    "554": "554 5.6.0 Content refused",
}


class Conversation:
    """One connection, from greeting to end."""

    def __init__(self, server: "Server", number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.server = server
        self.script = server.script
        self.number = number
        self.reader = reader
        self.writer = writer
        self.message = 1
        self.logins = 0
        self.start_over()

    def start_over(self) -> None:
        self.mail = ""
        self.recipients: list[str] = []
        self.refused = 0

    async def run(self) -> None:
        await self.answer("greeting", "220 misbehaving.example ESMTP")
        while line := await self.reader.readline():
            command = line.decode().removesuffix("\r\n")
            self.server.note(event="command", connection=self.number, line=command)
            verb = command[:4].upper().strip().lower()
            await getattr(self, f"on_{'starttls' if verb == 'star' else verb}")(command)

    # Faults

    def fault(self, at: str) -> dict | None:
        for fault in self.script.get("faults", ()):
            here = fault.get("connection", self.number) == self.number
            if fault["at"] == at and here and fault.get("message", self.message) == self.message:
                return fault
        return None

    async def suffer(self, at: str) -> str | None:
        """Does what the script wants at this point, and gives the text said in place of a reply."""
        fault = self.fault(at)
        if fault is None:
            return None
        if "say" in fault:
            await self.say(fault["say"])
        if fault.get("reset"):
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if fault.get("drop") or fault.get("reset"):
            raise ConnectionAbortedError
        if fault.get("stall"):
            await asyncio.Event().wait()
        return fault.get("say")

    async def say(self, text: str) -> None:
        raw = text.encode("utf-8", "surrogateescape")
        pieces = [raw[i : i + 1] for i in range(len(raw))] if self.script.get("drip") else [raw]
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(self.script["drip"])

    async def answer(self, at: str, regular: str) -> str:
        said = await self.suffer(at)
        if said is None:
            await self.say(regular + "\r\n")
        return said if said is not None else regular

    # Commands

    async def on_ehlo(self, command: str) -> None:
        script = self.script
        lines = ["misbehaving.example"]
        lines += ["PIPELINING"] * script.get("pipelining", True) + ["8BITMIME"] * script.get("eightbit", True)
        lines += ["SMTPUTF8"] * script.get("smtputf8", False)
        lines += [f"SIZE {script['size']}"] if "size" in script else []
        encrypted = self.writer.get_extra_info("ssl_object") is not None
        lines += ["STARTTLS"] if script.get("tls") == "starttls" and not encrypted else []
        lines += [f"AUTH {script['auth']}"] if "auth" in script else []
        marks = ["-"] * (len(lines) - 1) + [" "]
        await self.answer("ehlo", "\r\n".join(f"250{mark}{line}" for mark, line in zip(marks, lines, strict=True)))

    async def on_helo(self, command: str) -> None:
        await self.answer("helo", "250 misbehaving.example")

    async def on_starttls(self, command: str) -> None:
        if (await self.answer("starttls", "220 go ahead")).startswith("220"):
            await self.writer.start_tls(self.server.context)

    async def on_auth(self, command: str) -> None:
        self.logins += 1
        _, mechanism, *initial = command.split(" ")
        user, password = self.script["username"], self.script["password"]
        if mechanism == "PLAIN":
            right = base64.b64decode(initial[0]) == f"\0{user}\0{password}".encode()
        elif mechanism == "LOGIN":
            right = [await self.ask("Username:"), await self.ask("Password:")] == [user.encode(), password.encode()]
        else:
            right = base64.b64decode(initial[0]) == f"user={user}\1auth=Bearer {password}\1\1".encode()
            if not right:
                await self.ask('{"status":"401"}')
        self.server.note(event="login", connection=self.number, mechanism=mechanism, right=right)
        await self.answer("auth", "235 2.7.0 welcome" if right else f"535 5.7.8 wrong: {command}")

    async def ask(self, prompt: str) -> bytes:
        await self.say(f"334 {base64.b64encode(prompt.encode()).decode()}\r\n")
        return base64.b64decode((await self.reader.readline()).strip())

    async def on_mail(self, command: str) -> None:
        self.mail = command
        if (await self.answer("mail", "250 2.1.0 ok")).startswith(("4", "5")):
            self.mail = ""

    async def on_rcpt(self, command: str) -> None:
        address = command.partition("<")[2].partition(">")[0]
        refusal = REFUSALS.get(address.partition("@")[0].removeprefix("refuse-"))
        if not self.mail:
            refusal = "503 5.5.1 MAIL first"
        said = await self.answer("rcpt", refusal or "250 2.1.5 ok")
        if said.startswith("2"):
            self.recipients.append(address)

    async def on_data(self, command: str) -> None:
        if not self.recipients and not self.script.get("data_anyway"):
            await self.answer("data", "503 5.5.1 no recipients")
            self.message += 1
            return
        if not (await self.answer("data", "354 go ahead")).startswith("354"):
            self.message += 1
            return
        await self.suffer("go")
        content = await self.read_content()
        if content is not None:
            await self.take(content)
            await self.suffer("after")
            self.message += 1
            self.start_over()

    async def read_content(self) -> bytes | None:
        lines = []
        while (line := await self.reader.readline()) != b".\r\n":
            if not line.endswith(b"\r\n"):
                return None
            lines.append(line.removeprefix(b"."))
            if len(lines) == 3:
                await self.suffer("content")
        return b"".join(lines)

    async def take(self, content: bytes) -> None:
        fault = self.fault("dot")
        refusal = None
        if not self.recipients:
            refusal = self.script["data_anyway"]
        elif (local := self.recipients[0].partition("@")[0]).startswith("content-"):
            refusal = REFUSALS[local.removeprefix("content-")]
        if refusal is None and (fault is None or fault.get("accept")):
            raw = base64.b64encode(content).decode()
            for recipient in self.recipients:
                self.server.note(
                    event="accepted", connection=self.number, mail=self.mail, recipient=recipient, content=raw
                )
        await self.answer("dot", refusal or f"250 2.0.0 Ok: queued as {self.number}-{self.message}")

    async def on_rset(self, command: str) -> None:
        self.start_over()
        await self.answer("rset", "250 2.0.0 ok")

    async def on_quit(self, command: str) -> None:
        await self.answer("quit", "221 2.0.0 bye")
        raise ConnectionAbortedError


class Server:
    """All conversations, and the journal they share."""

    def __init__(self, script: dict) -> None:
        self.script = script
        self.connections = 0
        self.journal = Path(script["journal"]).open("a")  # noqa: SIM115 (open as long as the process lives)
        self.context = None
        if script.get("tls"):
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(script["certificate"], script["key"])

    def note(self, **line: object) -> None:
        self.journal.write(json.dumps(line) + "\n")
        self.journal.flush()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self.note(event="connected", connection=number)
        try:
            await Conversation(self, number, reader, writer).run()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()
            self.note(event="gone", connection=number)

    async def serve(self) -> None:
        context = self.context if self.script.get("tls") == "tls" else None
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0, limit=2**17, ssl=context)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


class Served:
    """A running server, as a test sees it."""

    def __init__(self, port: int, journal: Path, process: subprocess.Popen) -> None:
        self.port = port
        self.journal = journal
        self.process = process

    def lines(self, event: str) -> list[dict]:
        lines = map(json.loads, self.journal.read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    @property
    def accepted(self) -> list[dict]:
        """The accepted mails, their content decoded."""
        return [{**line, "content": base64.b64decode(line["content"])} for line in self.lines("accepted")]

    @property
    def recipients(self) -> list[str]:
        return [line["recipient"] for line in self.lines("accepted")]

    def commands(self, connection: int = 1) -> list[str]:
        return [line["line"] for line in self.lines("command") if line["connection"] == connection]


@contextlib.contextmanager
def serving(**script: object) -> Iterator[Served]:
    """A server process with that script."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        journal.touch()
        (Path(folder) / "script.json").write_text(json.dumps({**script, "journal": str(journal)}))
        command = [sys.executable, "-S", "-E", __file__, str(Path(folder) / "script.json")]  # starts in half the time
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                yield Served(int(process.stdout.readline()), journal, process)
            finally:
                process.terminate()


if __name__ == "__main__":
    asyncio.run(Server(json.loads(Path(sys.argv[1]).read_text())).serve())
