"""From the greeting to a connection that takes mail: EHLO, STARTTLS and AUTH, as one generator without I/O.

It yields steps and is sent replies, and returns what the server can do, or the Refusal that every envelope meets here.
Decides when a password may be shown and that nothing goes on in clear text where TLS is demanded. How TLS is made is
the driver's business.
"""

import base64
import re
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import NamedTuple

from delivery.core.classify import Stage, classify_reply
from delivery.core.envelope import Kind, Outcome
from delivery.engines.smtp.commands import Capabilities, read_capabilities
from delivery.engines.smtp.replies import Reply

MECHANISMS = ("PLAIN", "LOGIN", "XOAUTH2")  # in order of preference
HIDDEN = "[hidden]"
ENOUGH_TO_TELL = 6  # characters by which a piece of an encoded credential is told from a word
_ENCODED_WORD = re.compile(rf"[A-Za-z0-9+/=]{{{ENOUGH_TO_TELL},}}")
NO_EXTENSIONS = (500, 502)  # what a server from before EHLO answers it


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials and how to present them. `mechanism` is "auto" or one of MECHANISMS in small letters."""

    username: str
    password: str = field(repr=False)
    mechanism: str = "auto"
    in_clear: bool = False

    def hidden_from(self, words: str) -> str:
        """The words without the password, for a server that repeats what it was told, whole or cut off."""
        words = re.sub(re.escape(self.password), HIDDEN, words, flags=re.IGNORECASE)
        encoded = [_base64(each).decode().lower() for each in (self.password.encode(), _plain(self), _xoauth2(self))]

        def hide(match: re.Match[str]) -> str:
            start = match[0][:ENOUGH_TO_TELL].lower()
            return HIDDEN if any(start in each for each in encoded) else match[0]

        return _ENCODED_WORD.sub(hide, words)


@dataclass(frozen=True, slots=True)
class Profile:
    """What this client says of itself and demands of the server."""

    helo_name: str
    starttls: bool = False
    encrypted: bool = False
    login: Login | None = None


class Step(NamedTuple):
    """A command to write, and the stage its reply belongs to. The greeting is awaited without a command."""

    stage: Stage
    command: bytes


class StartTls(NamedTuple):
    """TLS has to be made now; the handshake goes on once it stands."""


class Refusal(NamedTuple):
    """Why no mail can be handed over on this connection. `stage` is None when the server was not even spoken to."""

    outcome: Outcome
    stage: Stage | None = None


Steps = Generator[Step | StartTls, Reply, Capabilities | Refusal]


def handshake(profile: Profile) -> Steps:
    """All that comes before the first envelope."""
    reply = yield Step(Stage.GREETING, b"")
    if reply.code != 220:
        return _refused(Stage.GREETING, reply)
    server = yield from _hello(profile)
    encrypted = profile.encrypted
    if profile.starttls and isinstance(server, Capabilities):
        if not server.starttls:
            return Refusal(Outcome(Kind.TRANSIENT, text="The server does not offer STARTTLS."), Stage.STARTTLS)
        reply = yield Step(Stage.STARTTLS, b"STARTTLS\r\n")
        if reply.code != 220:
            return _refused(Stage.STARTTLS, reply)
        yield StartTls()
        encrypted = True
        server = yield from _hello(profile)
    if profile.login and isinstance(server, Capabilities):
        refusal = yield from _log_in(profile.login, server, encrypted)
        return refusal or server
    return server


def _hello(profile: Profile) -> Steps:
    name = profile.helo_name.encode("ascii")
    reply = yield Step(Stage.EHLO, b"EHLO %b\r\n" % name)
    if reply.code // 100 == 2:
        return read_capabilities(reply.words)
    if reply.code not in NO_EXTENSIONS:
        return _refused(Stage.EHLO, reply)
    reply = yield Step(Stage.EHLO, b"HELO %b\r\n" % name)
    return Capabilities() if reply.code // 100 == 2 else _refused(Stage.EHLO, reply)


def _log_in(login: Login, server: Capabilities, encrypted: bool) -> Generator[Step, Reply, Refusal | None]:
    """None once the server knows us."""
    if not (encrypted or login.in_clear):
        return _unable("The password is not sent over an unencrypted connection.")
    wanted = MECHANISMS if login.mechanism == "auto" else (login.mechanism.upper(),)
    mechanism = next((each for each in wanted if each in server.auth), None)
    if mechanism is None:
        offered = ", ".join(server.auth) or "none"
        return _unable(f"The server offers no usable login: wanted {' or '.join(wanted)}, offered {offered}.")

    first, *answers = _exchange(login, mechanism)
    reply = yield Step(Stage.AUTH, first)
    for answer in answers:
        if reply.code != 334:
            break
        reply = yield Step(Stage.AUTH, answer)
    if reply.code == 235:
        return None
    return _refused(Stage.AUTH, Reply(reply.code, login.hidden_from(reply.words).encode()))


def _exchange(login: Login, mechanism: str) -> list[bytes]:
    """The command, and the answers to the 334 replies that may follow."""
    match mechanism:
        case "PLAIN":
            payload = _base64(_plain(login))
            return [b"AUTH PLAIN " + payload + b"\r\n", payload + b"\r\n"]
        case "LOGIN":
            return [b"AUTH LOGIN\r\n", *(_base64(each.encode()) + b"\r\n" for each in (login.username, login.password))]
        case _:
            # A 334 holds the error here; the empty answer asks for the 535 that ends it.
            return [b"AUTH XOAUTH2 " + _base64(_xoauth2(login)) + b"\r\n", b"\r\n"]


def _plain(login: Login) -> bytes:
    return f"\0{login.username}\0{login.password}".encode()


def _xoauth2(login: Login) -> bytes:
    return f"user={login.username}\1auth=Bearer {login.password}\1\1".encode()


def _base64(raw: bytes) -> bytes:
    return base64.b64encode(raw)


def _unable(sentence: str) -> Refusal:
    return Refusal(Outcome(Kind.ENGINE, text=sentence), Stage.AUTH)


def _refused(stage: Stage, reply: Reply) -> Refusal:
    return Refusal(classify_reply(stage, reply.code, reply.words), stage)
