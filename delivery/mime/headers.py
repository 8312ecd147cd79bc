"""Header fields -> octets: what they may hold, how they are encoded (RFC 2047) and folded (RFC 5322).

Decides nothing about which headers a mail has, but for the extra ones: which names are the envelope's own, which may
come only once. A value that no header can carry is a ValueError that names the header.
"""

import re
from binascii import b2a_base64
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache

import idna

from delivery.core.envelope import Mailbox

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
MESSAGE_ID = re.compile(r"[!-;=?-~]{1,900}")
# RFC 2047 §5 (3): what may stand for itself in an encoded-word of a display name may do so anywhere.
_Q_LITERAL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/"
_Q_UNESCAPED = _Q_LITERAL + b" "
_Q = ["_" if octet == 32 else chr(octet) if octet in _Q_LITERAL else f"={octet:02X}" for octet in range(256)]
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def text_header(name: str, value: str) -> bytes:
    """A header of free text, folded; in encoded-words (RFC 2047) when it cannot stand as it is."""
    refuse_controls(name, value)
    value = value.strip(" ")
    return _simple(f"{name}: {value}\r\n") or _folded(name, _text_words(value))


def mailbox_header(name: str, mailbox: Mailbox) -> bytes:
    """A header with one mailbox. A domain goes as A-label, unless the local part needs SMTPUTF8 in any case."""
    address = sendable_address(name, mailbox.address)
    refuse_controls(name, mailbox.name)
    display = mailbox.name.strip(" ")
    if not display:
        return f"{name}: {address}\r\n".encode()
    if display.isascii() and "=?" not in display:  # which some readers would decode even within quotes
        phrase = display if _PLAIN_NAME.fullmatch(display) else quoted(display)
        if line := _simple(f"{name}: {phrase} <{address}>\r\n"):
            return line
        words = _text_words(phrase)
        if not words[0][2]:
            return _folded(name, [*words, (" ", f"<{address}>", False)])
    return _folded(name, [("", display, True), (" ", f"<{address}>", False)])


def quoted(text: str) -> str:
    """A quoted-string (RFC 5322 §3.2.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def sendable_address(header: str, address: str) -> str:
    """The address as it stands in a header and in an envelope. Raises ValueError for what is no address."""
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


def date_header(date: datetime) -> bytes:
    """The Date header, in the date's own zone."""
    if date.tzinfo is None:
        raise ValueError("header Date needs an aware datetime")
    # Two zones' names of one instant are equal and have the same hash; their headers differ.
    return _date_header(date.replace(microsecond=0), date.utcoffset())


@lru_cache(maxsize=16)  # neighbours leave in the same second
def _date_header(date: datetime, offset: timedelta) -> bytes:
    iso = date.isoformat(" ", "seconds")  # 2026-08-31 09:30:00+02:00, at a tenth of the cost of strftime
    day, month = _DAYS[date.weekday()], _MONTHS[date.month - 1]
    return f"Date: {day}, {date.day} {month} {iso[:4]} {iso[11:19]} {iso[19:22]}{iso[23:25]}\r\n".encode()


def message_id_header(message_id: str) -> bytes:
    if not MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"header Message-ID cannot hold {message_id!r}: printable ASCII without spaces and <> only")
    return f"Message-ID: <{message_id}>\r\n".encode()


def extra_headers(headers: Headers, taken: frozenset[str]) -> tuple[bytes, frozenset[str]]:
    """The header lines, and the names among them and `taken` that must not come again."""
    lines = []
    for name, value in headers:
        key = extra_header_key(name)
        if key in SINGLE_HEADERS:
            if key in taken:
                raise ValueError(f"header {name} is given twice; a mail has it at most once")
            taken |= {key}
        lines.append(extra_header(name, value))
    return b"".join(lines), taken


@lru_cache(maxsize=256)
def extra_header_key(name: str) -> str:
    """The name in lower case. Raises ValueError for one that no extra header may have."""
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"header {name!r} is not a header name: 1 to 70 characters of ASCII without space and colon")
    key = name.lower()
    if key in OWNED_HEADERS or key.startswith("content-"):
        raise ValueError(f"header {name} is written by the envelope itself and cannot be an extra header")
    return key


def extra_header(name: str, value: str) -> bytes:
    refuse_controls(name, value)
    value = value.strip(" ")
    return _simple(f"{name}: {value}\r\n") or _folded(name, _structured_words(name, value))


def refuse_controls(header: str, value: str) -> None:
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
        pieces = [text] if q_size <= first else cut(text, _q_length, first, rest)
        return [f"=?utf-8?q?{escaped(piece, _Q)}?=" for piece in pieces]
    pieces = [text] if b_size <= first else cut(text, _utf8_length, first // 4 * 3, rest // 4 * 3)
    return [f"=?utf-8?b?{b2a_base64(piece.encode(), newline=False).decode()}?=" for piece in pieces]


@lru_cache(maxsize=4096)  # of letters: asked for each one of each subject
def _q_length(letter: str) -> int:
    return len(escaped(letter, _Q))


@lru_cache(maxsize=4096)
def _utf8_length(letter: str) -> int:
    return len(letter.encode())


def escaped(text: str, table: list[str]) -> str:
    return "".join([table[octet] for octet in text.encode()])


def cut(text: str, size: Callable[[str], int], first: int, rest: int) -> list[str]:
    """`text` in pieces of at most `first` and then `rest`, as `size` counts each character."""
    pieces, start, filled, limit = [], 0, 0, first
    for position, letter in enumerate(text):
        step = size(letter)
        if filled + step > limit:
            pieces.append(text[start:position])
            start, filled, limit = position, 0, rest
        filled += step
    return [*pieces, text[start:]]
