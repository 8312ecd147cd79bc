"""An envelope as the data of templates: which names there are, and what they stand for."""

from collections.abc import Callable, Iterable, Set

from delivery.core.envelope import Attachment, Envelope, Mailbox
from delivery.engines.mail_parts import base64_text, header_object, headers_of
from delivery.templating import TemplateProblem
from delivery.templating.part import Part, suggest

ATTACHMENTS = "attachments"
SECRET = "secret"  # noqa: S105 - a name

_FIELDS: dict[str, Callable[[Envelope], object]] = {
    "key": lambda envelope: envelope.key,
    "message_id": lambda envelope: envelope.message_id,
    "to": lambda envelope: _mailbox(envelope.recipient),
    "sender": lambda envelope: _mailbox(envelope.frame.sender),
    "reply_to": lambda envelope: envelope.frame.reply_to.address if envelope.frame.reply_to else "",
    "subject": lambda envelope: envelope.subject,
    "text": lambda envelope: envelope.text,
    "html": lambda envelope: envelope.html,
    "headers": lambda envelope: header_object(headers_of(envelope)),
    "date": lambda envelope: envelope.date.isoformat(timespec="seconds"),
    ATTACHMENTS: lambda envelope: [_attachment(each) for each in envelope.frame.attachments],
    "data": lambda envelope: envelope.data,
}
NAMES = (*_FIELDS, SECRET)


def fields_of(envelope: Envelope, wanted: Set[str]) -> dict[str, object]:
    """The `wanted` ones among NAMES, but for the secret, which no envelope has. Raises ValueError for headers that an
    object cannot hold."""
    return {name: read(envelope) for name, read in _FIELDS.items() if name in wanted}


def names_of(parts: Iterable[Part]) -> frozenset[str]:
    """The names that templates use. Raises TemplateProblem for one that is not among NAMES."""
    used: set[str] = set()
    for part in parts:
        names = part.names.needed | part.names.optional
        for name in sorted(names - set(NAMES)):
            words = (
                f"The {part.label}: there is no `{name}`{suggest(name, NAMES)}. There are {', '.join(NAMES)}; what the"
                f" audience brings is in `data`, such as `data.{name}`."
            )
            raise TemplateProblem(part.label, part.names.lines[name], words)
        used |= names
    return frozenset(used)


def _mailbox(mailbox: Mailbox) -> dict[str, str]:
    return {"address": mailbox.address, "name": mailbox.name}


def _attachment(attachment: Attachment) -> dict[str, str]:
    return {
        "filename": attachment.filename,
        "content_type": attachment.content_type,
        "content": base64_text(attachment),
        "content_id": attachment.content_id,
    }
