"""The words of an SMTP client: capabilities read, MAIL, RCPT and the content written.

Decides which parameters an envelope needs and refuses what this server cannot carry. Knows no order of commands.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import idna

from delivery.core.envelope import Kind, Outcome

DATA = b"DATA\r\n"
RSET = b"RSET\r\n"
QUIT = b"QUIT\r\n"
LONE_DOT = b".\r\n"
END_OF_CONTENT = b"\r\n.\r\n"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server announced in its last EHLO. `auth` holds mechanisms in capitals; `size` is None when the
    extension is absent, as its parameter may then not be used."""

    pipelining: bool = False
    starttls: bool = False
    eightbit: bool = False
    smtputf8: bool = False
    size: int | None = None
    auth: tuple[str, ...] = ()


def read_capabilities(text: str) -> Capabilities:
    """The capabilities in the text of an EHLO reply, whose first line is the server's name."""
    keywords: dict[str, list[str]] = {}
    for line in text.upper().split("\n")[1:]:
        keyword, *parameters = line.replace("AUTH=", "AUTH ").split() or [""]
        keywords.setdefault(keyword, []).extend(parameters)
    size = keywords.get("SIZE")
    return Capabilities(
        pipelining="PIPELINING" in keywords,
        starttls="STARTTLS" in keywords,
        eightbit="8BITMIME" in keywords,
        smtputf8="SMTPUTF8" in keywords,
        size=None if size is None else int(size[0]) if size and size[0].isdecimal() else 0,
        auth=tuple(keywords.get("AUTH", ())),
    )


@dataclass(frozen=True, slots=True)
class Commands:
    """MAIL and RCPT of one envelope. `optional` tells that MAIL bears parameters it could also do without."""

    mail: bytes
    rcpt: bytes
    optional: bool


def compose(sender: str, recipient: str, content: bytes, server: Capabilities) -> Commands | Outcome:
    """The commands that announce this mail to that server, or why it cannot be announced."""
    mail_from = _return_path(sender) if sender else b""
    rcpt_to = wire_address(recipient)
    if mail_from is None:
        return Outcome(Kind.MESSAGE, "5.1.7", "the return path is not an address")
    if rcpt_to is None:
        return Outcome(Kind.RECIPIENT, "5.1.3", "the recipient is not an address")
    parameters = _parameters(mail_from, rcpt_to, content, server)
    if isinstance(parameters, Outcome):
        return parameters
    command = b"MAIL FROM:<%b>%b\r\n" % (mail_from, parameters)
    return Commands(command, b"RCPT TO:<%b>\r\n" % rcpt_to, optional=b"=" in parameters)


def _parameters(sender: bytes, recipient: bytes, content: bytes, server: Capabilities) -> bytes | Outcome:
    parameters = b"" if server.size is None else b" SIZE=%d" % len(content)
    if content.isascii() and sender.isascii() and recipient.isascii():
        return parameters

    header = content.partition(b"\r\n\r\n")[0]
    if not (sender.isascii() and recipient.isascii() and header.isascii()):
        if not server.smtputf8:
            return Outcome(Kind.MESSAGE, "5.6.7", "the server takes no address with a local part outside ASCII")
        parameters += b" SMTPUTF8"
    if not content.isascii():
        if not server.eightbit:
            return Outcome(Kind.MESSAGE, "5.6.3", "the mail has 8-bit content and the server takes none")
        parameters += b" BODY=8BITMIME"
    return parameters


_BEYOND_ASCII = "\u00a1-\ud7ff\ue000-\U0010ffff"  # RFC 6531 §3.3, without controls and surrogates
_LOCAL = rf"[\w!#$%&'*+/=?^`{{|}}~.{_BEYOND_ASCII}-]+"
_QUOTED_LOCAL = rf'"(?:[ !#-\[\]-~{_BEYOND_ASCII}]|\\[ -~])*"'
_DOMAIN = rf"[\w.{_BEYOND_ASCII}-]+|\[[0-9A-Za-z.:]+\]"
_ADDRESS = re.compile(rf"({_LOCAL}|{_QUOTED_LOCAL})@({_DOMAIN})")


def wire_address(address: str) -> bytes | None:
    """The address as it stands in a command, its domain in A-labels; None when it is none, and so might break out of
    the command."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return None
    local, domain = match.groups()
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError:
            return None
    return f"{local}@{domain}".encode()


_return_path = lru_cache(maxsize=64)(wire_address)  # one for a whole message, as a rule


_DOT_AT_LINE_START = re.compile(rb"\n\.")  # half the time of `b"\r\n." in content`, whose first byte ends every line


def dot_stuffed(content: bytes) -> bytes:
    """The content as DATA wants it (RFC 5321 §4.5.2), with the final dot. Its lines end in CRLF already."""
    if _DOT_AT_LINE_START.search(content):
        content = content.replace(b"\r\n.", b"\r\n..")
    if content.startswith(b"."):
        content = b"." + content
    return content + (LONE_DOT if content.endswith(b"\r\n") or not content else END_OF_CONTENT)
