"""Envelope -> the octets of a mail (RFC 5322, MIME): compiled once per frame, spliced per recipient.

Decides the part structure, the transfer encodings, how headers are encoded and folded, and what no header may hold.
Every line ends in CRLF and everything is 7-bit; the one exception is an address whose local part is not ASCII, which
stays UTF-8 in its header, as RFC 6532 has it: such a mail may only go to a server that announces SMTPUTF8. Dot-stuffing
is left to SMTP. Knows no engine, no clock and no chance: the same envelope gives the same octets on every attempt.

A value that no header can carry is a ValueError that names the header. Spaces around a header value or a file name are
dropped; everything else arrives as it was written, bodies with a line end after their last line.
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b

import idna

from delivery.core.envelope import Attachment, Envelope, Frame, Mailbox

Headers = tuple[tuple[str, str], ...]
Word = tuple[str, str, bool]  # the spaces before it, the word, whether it must be encoded

FOLD_AT = 76  # RFC 2047 §2 for a line with encoded-words; RFC 5322 would allow the others 78
ENCODED_WORD = 75  # RFC 2047 §2
SHORTEST_ENCODED_WORD = 24  # =?utf-8?q??= around the twelve characters of a four-octet character
LONGEST_WORD = 900  # leaves room for a header's name in a line of 998 octets
LONGEST_TEXT_WORD = 60  # longer words of free text are split by encoding them, so that their lines can be folded
LONGEST_GAP = 16  # longer runs of spaces are encoded: a line must not consist of them
LONGEST_ADDRESS = 320  # 64 + 1 + 255, RFC 5321 §4.5.3.1

# What is written once from Envelope and Frame, or says something about other recipients or hops.
OWNED_HEADERS = frozenset(
    ("date", "from", "to", "reply-to", "subject", "message-id", "mime-version", "bcc", "return-path", "received")
)
# RFC 5322 §3.6, RFC 2369 §3, RFC 2919 §3, RFC 8058 §3.1; one Feedback-ID by Gmail's rules.
SINGLE_HEADERS = frozenset(
    ("sender", "cc", "in-reply-to", "references", "precedence", "auto-submitted", "feedback-id", "list-id")
) | {
    f"list-{subject}"
    for subject in ("unsubscribe", "unsubscribe-post", "help", "subscribe", "post", "owner", "archive")
}

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HEADER_NAME = re.compile(r"[!-9;-~]{1,70}")
_WORD = re.compile("( *)([^ ]+)")
_UNFOLDABLE = re.compile(f"[^ ]{{{LONGEST_TEXT_WORD + 1}}}| {{{LONGEST_GAP + 1}}}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")  # atoms, RFC 5322
_ATOM = r"""[^\s"(),:;<>@\[\\\]\x00-\x1f\x7f-\x9f\ud800-\udfff]+"""
_ADDRESS = re.compile(rf'(?:{_ATOM}|"(?:[ !#-\[\]-~]|\\[ -~])*")@(?:{_ATOM}|\[[!-Z^-~]+\])')
_MESSAGE_ID = re.compile(r"[!-;=?-~]{1,900}")
_CONTENT_TYPE = re.compile(r"([\w!#$&^.+-]+)/[\w!#$&^.+-]+(?: *;[ -~]*)?", re.ASCII)
_PLAIN_FILENAME = re.compile(r"(?!.*=\?)[ !#-\[\]-~]{1,60}")

_PLAIN_OCTETS = bytes(range(32, 127)) + b"\t\r\n"
# RFC 2047 §5 (3): what may stand for itself in an encoded-word of a display name may do so anywhere.
_Q_LITERAL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/"
_Q_UNESCAPED = _Q_LITERAL + b" "
_Q = ["_" if octet == 32 else chr(octet) if octet in _Q_LITERAL else f"={octet:02X}" for octet in range(256)]
# RFC 2231 §7, attribute-char.
_PARAMETER_LITERAL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~"
_PERCENT = [chr(octet) if octet in _PARAMETER_LITERAL else f"%{octet:02X}" for octet in range(256)]

_OVERLONG_QP_LINE = re.compile(rb"^(.{74})(=20|=09)\r$", re.MULTILINE)
_FROM_AT_LINE_START = re.compile(rb"^From ", re.MULTILINE)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SLOT = b"\0"  # where a body goes; no compiled octet is NUL


@dataclass(slots=True)
class CompiledFrame:
    """What the mails of one message have in common, encoded. Made by `compile_frame`."""

    sender: bytes
    reply_to: bytes
    headers: bytes
    single: frozenset[str]
    inline: tuple[bytes, ...]
    attached: tuple[bytes, ...]
    digest: str
    _skeletons: dict[tuple[bool, bool], list[bytes]] = field(default_factory=dict)

    def build(self, envelope: Envelope) -> bytes:
        """The complete mail for one recipient. Raises ValueError when the envelope holds what no mail can carry."""
        chunks = [
            _date_header(envelope.date.replace(microsecond=0)),
            self.sender,
            mailbox_header("To", envelope.recipient),
            self.reply_to,
            text_header("Subject", envelope.subject),
            _message_id_header(envelope.message_id),
            self.headers,
        ]
        if envelope.headers:
            chunks.append(_extra_headers(envelope.headers, self.single)[0])
        bodies = []
        if envelope.text or not envelope.html:
            bodies.append(_text_part("plain", envelope.text))
        if envelope.html:
            bodies.append(_text_part("html", envelope.html))
        before, *rest = self._skeleton(bool(envelope.text), bool(envelope.html))
        chunks.append(before)
        for body, after in zip(bodies, rest, strict=True):
            chunks += body
            chunks.append(after)
        return b"".join(chunks)

    def _skeleton(self, has_text: bool, has_html: bool) -> list[bytes]:
        """The octets before, between and after the bodies, for mails with these bodies."""
        known = self._skeletons.get((has_text, has_html))
        if known is None:
            known = self._skeletons[has_text, has_html] = self._tree(has_text, has_html).split(_SLOT)
        return known

    def _tree(self, has_text: bool, has_html: bool) -> bytes:
        content, attached = _SLOT, self.attached
        if has_html and self.inline:
            content = self._multipart("related", content, *self.inline)
        elif self.inline:  # no HTML refers to them: they go as files
            attached = self.inline + attached
        if has_text and has_html:
            content = self._multipart("alternative", _SLOT, content)
        if attached:
            content = self._multipart("mixed", content, *attached)
        return content

    def _multipart(self, kind: str, *parts: bytes) -> bytes:
        # "=_" occurs neither in quoted-printable nor in base64, and no body with it is left as it is (_text_part).
        boundary = f"=_{kind}_{self.digest}"
        root = ' type="text/html";' if kind == "related" else ""  # RFC 2387 §3.1
        delimiter = f"\r\n--{boundary}".encode()
        opening = f'Content-Type: multipart/{kind};{root}\r\n boundary="{boundary}"\r\n'.encode()
        return opening + b"".join(delimiter + b"\r\n" + part for part in parts) + delimiter + b"--\r\n"


def compile_frame(frame: Frame) -> CompiledFrame:
    """The frame with its headers and attachments encoded. Raises ValueError when a mail cannot carry them."""
    headers, single = _extra_headers(frame.headers, frozenset())
    parts = [(bool(attachment.content_id), _attachment_part(attachment)) for attachment in frame.attachments]
    named = (frame.sender, frame.return_path, frame.reply_to, frame.headers)
    return CompiledFrame(
        sender=mailbox_header("From", frame.sender),
        reply_to=mailbox_header("Reply-To", frame.reply_to) if frame.reply_to else b"",
        headers=b"MIME-Version: 1.0\r\n" + headers,
        single=single,
        inline=tuple(part for is_inline, part in parts if is_inline),
        attached=tuple(part for is_inline, part in parts if not is_inline),
        # From the content, not from chance: a repeated attempt hands over the same octets.
        digest=blake2b(repr(named).encode(), digest_size=12).hexdigest(),
    )


class Builder:
    """Envelope -> octets, for an SMTP engine. Compiles each frame once and keeps the `keep` last used."""

    def __init__(self, *, keep: int = 16, compile_frame: Callable[[Frame], CompiledFrame] = compile_frame) -> None:
        # A frame is hashed by identity, and the cache holds it, so that its id cannot come to mean another frame.
        self._compiled = lru_cache(maxsize=keep)(compile_frame)

    def __call__(self, envelope: Envelope) -> bytes:
        """The complete mail. Raises ValueError, as `compile_frame` and `CompiledFrame.build` do."""
        return self._compiled(envelope.frame).build(envelope)


def text_header(name: str, value: str) -> bytes:
    """A header of free text, folded; in encoded-words (RFC 2047) when it cannot stand as it is."""
    _refuse_controls(name, value)
    value = value.strip(" ")
    return _simple(f"{name}: {value}\r\n") or _folded(name, _text_words(value))


def mailbox_header(name: str, mailbox: Mailbox) -> bytes:
    """A header with one mailbox. A domain goes as A-label, unless the local part needs SMTPUTF8 in any case."""
    address = _address(name, mailbox.address)
    _refuse_controls(name, mailbox.name)
    display = mailbox.name.strip(" ")
    if not display:
        return f"{name}: {address}\r\n".encode()
    if display.isascii() and "=?" not in display:  # which some readers would decode even within quotes
        phrase = display if _PLAIN_NAME.fullmatch(display) else _quoted(display)
        if line := _simple(f"{name}: {phrase} <{address}>\r\n"):
            return line
        words = _text_words(phrase)
        if not words[0][2]:
            return _folded(name, [*words, (" ", f"<{address}>", False)])
    return _folded(name, [("", display, True), (" ", f"<{address}>", False)])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _address(header: str, address: str) -> str:
    if len(address) > LONGEST_ADDRESS or not _ADDRESS.fullmatch(address):
        raise ValueError(f"header {header} cannot hold {address!r}: not an e-mail address")
    if address.isascii():
        return address
    local, _, domain = address.rpartition("@")
    if not local.isascii():
        return address
    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode()}"
    except idna.IDNAError as error:
        raise ValueError(f"header {header} cannot hold {address!r}: {error}") from error


@lru_cache(maxsize=16)  # neighbours leave in the same second
def _date_header(date: datetime) -> bytes:
    if date.tzinfo is None:
        raise ValueError("header Date needs an aware datetime")
    iso = date.isoformat(" ", "seconds")  # 2026-08-31 09:30:00+02:00, at a tenth of the cost of strftime
    day, month = _DAYS[date.weekday()], _MONTHS[date.month - 1]
    return f"Date: {day}, {date.day} {month} {iso[:4]} {iso[11:19]} {iso[19:22]}{iso[23:25]}\r\n".encode()


def _message_id_header(message_id: str) -> bytes:
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"header Message-ID cannot hold {message_id!r}: printable ASCII without spaces and <> only")
    return f"Message-ID: <{message_id}>\r\n".encode()


def _extra_headers(headers: Headers, taken: frozenset[str]) -> tuple[bytes, frozenset[str]]:
    """The header lines, and the names among them and `taken` that must not come again."""
    lines = []
    for name, value in headers:
        key = _extra_header_key(name)
        if key in SINGLE_HEADERS:
            if key in taken:
                raise ValueError(f"header {name} is given twice; a mail has it at most once")
            taken |= {key}
        lines.append(_extra_header(name, value))
    return b"".join(lines), taken


@lru_cache(maxsize=256)
def _extra_header_key(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"header {name!r} is not a header name: 1 to 70 characters of ASCII without space and colon")
    key = name.lower()
    if key in OWNED_HEADERS or key.startswith("content-"):
        raise ValueError(f"header {name} is written by the envelope itself and cannot be an extra header")
    return key


def _extra_header(name: str, value: str) -> bytes:
    _refuse_controls(name, value)
    value = value.strip(" ")
    return _simple(f"{name}: {value}\r\n") or _folded(name, _structured_words(name, value))


def _refuse_controls(header: str, value: str) -> None:
    if found := _FORBIDDEN.search(value):
        raise ValueError(f"header {header} cannot hold the control character U+{ord(found[0]):04X}")


def _simple(line: str) -> bytes:
    """The line, if it needs neither folding nor encoding; else b""."""
    return line.encode() if len(line) <= FOLD_AT + 2 and line.isascii() and "=?" not in line else b""


def _text_words(value: str) -> list[Word]:
    if not value.isascii() or "=?" in value or _UNFOLDABLE.search(value):
        return [("", value, True)]
    return [(gap, word, False) for gap, word in _WORD.findall(value)]


def _structured_words(name: str, value: str) -> list[Word]:
    """Encodes no more than it must, so that the other words (List-Id: Näme <id>) keep their meaning. Neighbours that
    must be encoded are joined, as the gap between two encoded-words is not part of the text (RFC 2047 §6.2)."""
    words: list[Word] = []
    for gap, word in _WORD.findall(value):
        encoded = not word.isascii() or "=?" in word or len(gap) > LONGEST_GAP
        if encoded and words and words[-1][2]:
            words[-1] = (words[-1][0], words[-1][1] + gap + word, True)
        elif encoded:
            words.append((" ", gap[1:] + word, True))
        elif len(word) > LONGEST_WORD:
            raise ValueError(f"header {name} has a word of {len(word)} characters; {LONGEST_WORD} fit in a line")
        else:
            words.append((gap, word, False))
    return words


def _folded(name: str, words: list[Word]) -> bytes:
    lines, line = [], f"{name}:"
    for gap, word, encoded in words:
        gap = gap or " "
        if encoded:
            room = FOLD_AT - len(line) - len(gap)
            if room < SHORTEST_ENCODED_WORD:
                lines.append(line)
                line, room = "", ENCODED_WORD
            first, *others = _encoded_words(word, room)
            lines += [line + gap + first, *(f" {other}" for other in others)]
            line = lines.pop()
        elif len(line) + len(gap) + len(word) > FOLD_AT and [*lines, line] != [f"{name}:"]:
            lines.append(line)
            line = gap + word
        else:
            line += gap + word
    return ("\r\n".join([*lines, line]) + "\r\n").encode()


def _encoded_words(text: str, room: int) -> list[str]:
    """RFC 2047: the first encoded-word fills at most `room` characters, the others 75; no character is split."""
    first, rest = room - len("=?utf-8?q??="), ENCODED_WORD - len("=?utf-8?q??=")
    data = text.encode()
    q_size, b_size = len(data) + 2 * len(data.translate(None, _Q_UNESCAPED)), (len(data) + 2) // 3 * 4
    if q_size <= b_size:
        pieces = [text] if q_size <= first else _cut(text, _q_length, first, rest)
        return [f"=?utf-8?q?{_escaped(piece, _Q)}?=" for piece in pieces]
    pieces = [text] if b_size <= first else _cut(text, _utf8_length, first // 4 * 3, rest // 4 * 3)
    return [f"=?utf-8?b?{b2a_base64(piece.encode(), newline=False).decode()}?=" for piece in pieces]


@lru_cache(maxsize=4096)  # of letters: asked for each one of each subject
def _q_length(letter: str) -> int:
    return len(_escaped(letter, _Q))


@lru_cache(maxsize=4096)
def _utf8_length(letter: str) -> int:
    return len(letter.encode())


def _escaped(text: str, table: list[str]) -> str:
    return "".join([table[octet] for octet in text.encode()])


def _cut(text: str, size: Callable[[str], int], first: int, rest: int) -> list[str]:
    """`text` in pieces of at most `first` and then `rest`, as `size` counts each character."""
    pieces, start, filled, limit = [], 0, 0, first
    for position, letter in enumerate(text):
        step = size(letter)
        if filled + step > limit:
            pieces.append(text[start:position])
            start, filled, limit = position, 0, rest
        filled += step
    return [*pieces, text[start:]]


def _text_part(subtype: str, text: str) -> tuple[bytes, bytes]:
    """Headers and body of a text part: as it is if that is safe, else quoted-printable or base64."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text/{subtype} part has half a surrogate pair at character {error.start}") from error
    beyond_ascii = len(data) - len(text)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not data.endswith(b"\n"):
        data += b"\n"  # also makes b2a_qp, which goes by the first line end, write its soft breaks as CRLF
    data = data.replace(b"\n", b"\r\n")
    if not beyond_ascii and _is_plain(data):
        encoding, body = "7bit", data
    # Two escapes for each, two octets longer: exact for Latin, Cyrillic and Greek. Base64 makes 1.37 of everything.
    elif 11 * beyond_ascii > len(data):
        encoding, body = "base64", _base64(data) + b"\r\n"
    else:
        encoding, body = "quoted-printable", _quoted_printable(data)
    header = f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    return header.encode(), body


def _is_plain(data: bytes) -> bool:
    """Whether nothing on the way has a reason to alter it, and no line of it can be taken for a boundary."""
    return (
        max(map(len, data.split(b"\r\n"))) <= 76
        and not data.translate(None, _PLAIN_OCTETS)
        and b"=_" not in data
        and b" \r\n" not in data
        and b"\t\r\n" not in data
        and not data.startswith(b"From ")
        and b"\nFrom " not in data
    )


def _quoted_printable(data: bytes) -> bytes:
    body = b2a_qp(data)
    if b"=20\r\n" in body or (b"\t" in data and b"=09\r\n" in body):
        # b2a_qp escapes a blank at the end of a line after it has counted the line: it may come out as 77 octets.
        body = _OVERLONG_QP_LINE.sub(rb"\1=\r\n\2\r", body)
    if body.startswith(b"From ") or b"\nFrom " in body:
        # Mailbox files put ">" before such lines. The soft break is for the two octets that the line gains.
        body = _FROM_AT_LINE_START.sub(b"=46rom=\r\n ", body)
    return body


def _base64(data: bytes) -> bytes:
    encoded = b2a_base64(data, newline=False)
    return b"\r\n".join([encoded[start : start + 76] for start in range(0, len(encoded), 76)])


def _attachment_part(attachment: Attachment) -> bytes:
    name, content_id = attachment.filename, attachment.content_id
    kind = _CONTENT_TYPE.fullmatch(attachment.content_type)
    # RFC 2046 §5.2.1: neither may be encoded, and bytes of unknown origin cannot go without.
    if not kind or kind[1].lower() in ("multipart", "message"):
        raise ValueError(f"attachment {name!r}: Content-Type {attachment.content_type!r} cannot be attached")
    header = _extra_header("Content-Type", attachment.content_type)
    header += b"Content-Transfer-Encoding: base64\r\n"
    if content_id:
        if not _MESSAGE_ID.fullmatch(content_id):
            raise ValueError(f"attachment {name!r}: Content-ID cannot hold {content_id!r}")
        header += f"Content-ID: <{content_id}>\r\n".encode()
    disposition = "inline" if content_id else "attachment"
    header += f"Content-Disposition: {disposition}{_filename_parameter(name)}\r\n".encode()
    return header + b"\r\n" + _base64(attachment.content)


def _filename_parameter(filename: str) -> str:
    """As RFC 2231 has it; in plain quotes only what every reader takes the same way."""
    _refuse_controls(f"Content-Disposition of attachment {filename!r}", filename)
    filename = filename.strip(" ")
    if not filename:
        return ""
    if _PLAIN_FILENAME.fullmatch(filename):
        return f';\r\n filename="{filename}"'
    pieces = [_escaped(piece, _PERCENT) for piece in _cut(filename, lambda x: len(_escaped(x, _PERCENT)), 50, 50)]
    if len(pieces) == 1:
        return f";\r\n filename*=utf-8''{pieces[0]}"
    pieces[0] = f"utf-8''{pieces[0]}"
    return "".join(f";\r\n filename*{number}*={piece}" for number, piece in enumerate(pieces))
