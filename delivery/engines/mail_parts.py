"""The parts of an envelope as JSON APIs take them: text that the API encodes by itself.

Decides that nothing gets into a header through an API which would not get into one of our own mails. Whatever no mail
can carry is a ValueError.
"""

import base64

from delivery.core.envelope import Attachment, Envelope, Mailbox
from delivery.mime.headers import extra_header_key, quoted, refuse_controls, sendable_address


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
    for name, value in headers:
        extra_header_key(name)
        refuse_controls(name, value)
    return headers


def base64_text(attachment: Attachment) -> str:
    """The file's content."""
    return base64.b64encode(attachment.content).decode()
