"""What an API cannot carry, found before it is asked: a sentence for each such thing, or "".

Decides nothing about a mail that no API could carry (`mail_parts` refuses those), nor which limits a provider has.
"""

import mimetypes
from collections.abc import Iterable

from delivery.core.envelope import Attachment, Envelope, Kind, Outcome

# Python's own table and nothing that this host adds to it.
_TYPES = mimetypes.MimeTypes()


def refusal(provider: str, problems: Iterable[str]) -> Outcome | None:
    """The outcome of a mail that has any of these problems; None when it has none."""
    for problem in problems:
        if problem:
            return Outcome(Kind.MESSAGE, text=f"{provider} {problem}")
    return None


def too_large(envelope: Envelope, most: int) -> str:
    """Larger than `most` octets for certain; what comes near is left to the provider, which counts by itself."""
    size = size_of(envelope)
    if size <= most:
        return ""
    return f"takes mails of up to {most / 1e6:g} MB; this one has at least {size / 1e6:.1f} MB"


def size_of(envelope: Envelope) -> int:
    """The octets of a mail at the least: a letter may need more than one, and headers come on top."""
    files = sum((len(each.content) + 2) // 3 * 4 for each in envelope.frame.attachments)
    return len(envelope.subject) + len(envelope.text) + len(envelope.html) + files


def no_subject(envelope: Envelope) -> str:
    """APIs for which an empty subject is a missing one."""
    return "" if envelope.subject.strip() else "takes no mail without a subject"


def beyond_ascii(envelope: Envelope, *, recipient: bool = True) -> str:
    """Addresses whose local part needs SMTPUTF8 (RFC 6531). `recipient`: whether that concerns the recipient's too."""
    frame = envelope.frame
    mailboxes = [frame.sender, *filter(None, [frame.reply_to]), *([envelope.recipient] if recipient else [])]
    for mailbox in mailboxes:
        if not mailbox.address.rpartition("@")[0].isascii():
            return f"takes no address with letters beyond ASCII before the @, such as {mailbox.address}"
    return ""


def unnamed_file(envelope: Envelope) -> str:
    """APIs that drop or refuse files without a name."""
    if all(attachment.filename.strip() for attachment in envelope.frame.attachments):
        return ""
    return "takes no attachment without a file name"


def misnamed_file(envelope: Envelope) -> str:
    """APIs that go by the extension of a file's name, whatever type is given."""
    for attachment in envelope.frame.attachments:
        by_name = _TYPES.guess_type(attachment.filename)[0]
        if by_name and by_name != _type(attachment):
            return f"takes “{attachment.filename}” by its name as {by_name}, not as {_type(attachment)}"
    return ""


def inline_file(envelope: Envelope) -> str:
    """APIs that know no images within a text."""
    inline = next((each for each in envelope.frame.attachments if each.content_id), None)
    return f"takes no inline images, such as “{inline.filename or inline.content_id}”" if inline else ""


def _type(attachment: Attachment) -> str:
    return attachment.content_type.partition(";")[0].strip().lower()
