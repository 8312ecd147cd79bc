"""The parts of an envelope as JSON APIs take them: text that the API encodes by itself.

Decides that nothing gets into a header through an API which would not get into one of our own mails. Whatever no mail
can carry is a ValueError.
"""

import base64
import json
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

from delivery.core.envelope import Attachment, Envelope, Mailbox
from delivery.mime.headers import SINGLE_HEADERS, extra_header_key, quoted, refuse_controls, sendable_address

KEY = "key"  # what the envelope's key is called where a provider keeps it for its events


def mailbox_text(header: str, mailbox: Mailbox) -> str:
    """`Ann <ann@shop.example>`, the name in quotes where it has to be, unencoded."""
    address = sendable_address(header, mailbox.address)
    name = plain_text(header, mailbox.name)
    if not name:
        return address
    return f"{name if name.replace(' ', '').isalnum() else quoted(name)} <{address}>"


def mailbox_object(header: str, mailbox: Mailbox) -> dict[str, str]:
    """`{"email": …, "name": …}`, without a name when there is none."""
    address, name = sendable_address(header, mailbox.address), plain_text(header, mailbox.name)
    return {"email": address, "name": name} if name else {"email": address}


def plain_text(header: str, value: str) -> str:
    """The value of a header with free text, without spaces around it."""
    refuse_controls(header, value)
    return value.strip(" ")


def headers_of(envelope: Envelope) -> list[tuple[str, str]]:
    """The extra headers, those of the frame before this recipient's own."""
    headers = [*envelope.frame.headers, *envelope.headers]
    single = set()
    for name, value in headers:
        key = extra_header_key(name)
        refuse_controls(name, value)
        if key in single:
            raise ValueError(f"header {name} is given twice; a mail has it at most once")
        single |= {key} & SINGLE_HEADERS
    return headers


def header_object(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers as an object, for APIs that take them so: each name once, whatever its case."""
    found: dict[str, str] = {}
    names: set[str] = set()
    for name, value in headers:
        if name.lower() in names:
            raise ValueError(f"header {name} is given twice, and this API takes each name once")
        names.add(name.lower())
        found[name] = value
    return found


def message_id_header(envelope: Envelope) -> tuple[str, str]:
    """Our own Message-ID, for APIs that keep it."""
    refuse_controls("Message-ID", envelope.message_id)
    return "Message-ID", f"<{envelope.message_id}>"


def refuse_file(attachment: Attachment) -> None:
    """Raises ValueError for a file whose name, type or Content-ID no header of its part can hold."""
    for what in (attachment.filename, attachment.content_type, attachment.content_id):
        refuse_controls(f"of attachment {attachment.filename!r}", what)


def base64_text(attachment: Attachment) -> str:
    """The file's content."""
    refuse_file(attachment)
    return base64.b64encode(attachment.content).decode()


def json_body(value: object) -> bytes:
    """The JSON of a request. Half a surrogate pair, which some providers store as a question mark and others refuse
    with a server error, is a ValueError."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def key_as_tag(key: str) -> str:
    """An envelope's key for providers whose tags take letters, digits, `_` and `-`: the dot, which every key has
    between its random part and its number, becomes `_`."""
    tag = key.replace(".", "_")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", tag):
        raise ValueError(f"the key {key!r} cannot be a tag")
    return tag


def call_key(envelopes: Sequence[Envelope]) -> str:
    """The idempotency key of one call: it names exactly these mails in this order, however often they are tried."""
    if len(envelopes) == 1:
        return envelopes[0].key
    return sha256("\n".join(envelope.key for envelope in envelopes).encode()).hexdigest()
