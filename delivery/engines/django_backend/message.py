"""An envelope as the EmailMessage that Django's backends take.

Decides nothing that the envelope says: a header that Django could not carry is a ValueError, never dropped.
"""

from email import encoders
from email.mime.base import MIMEBase
from email.utils import format_datetime

from django.core.mail import EmailMultiAlternatives

from delivery.core.envelope import Attachment, Envelope
from delivery.engines.mail_parts import header_object, headers_of, mailbox_text, message_id_header, plain_text

_ANY_OCTETS = "application/octet-stream"


def build_message(envelope: Envelope, *, over_smtp: bool) -> EmailMultiAlternatives:
    """The mail. Raises ValueError for what no mail can carry, or Django cannot.

    `over_smtp`: the backend is Django's own for SMTP, which takes `from_email` for the return path when there is a From
    header beside it. Of any other it is not known what it would make of that, and APIs have a return path of their own.
    """
    frame = envelope.frame
    sender = mailbox_text("From", frame.sender)
    headers = header_object([message_id_header(envelope), *headers_of(envelope)])
    if over_smtp:
        headers |= {"From": sender, "Date": format_datetime(envelope.date)}
    message = EmailMultiAlternatives(
        subject=plain_text("Subject", envelope.subject),
        body=envelope.text or envelope.html,
        from_email=(frame.return_path if over_smtp else "") or sender,
        to=[mailbox_text("To", envelope.recipient)],
        reply_to=[mailbox_text("Reply-To", frame.reply_to)] if frame.reply_to else None,
        headers=headers,
        attachments=[_attachment(each) for each in frame.attachments],
    )
    if not envelope.text and envelope.html:
        message.content_subtype = "html"
    elif envelope.html:
        message.attach_alternative(envelope.html, "text/html")
    if all(each.content_id for each in frame.attachments):
        message.mixed_subtype = "related"  # images that the HTML shows belong to it (RFC 2387)
    return message


def _attachment(attachment: Attachment) -> MIMEBase:
    """A part of its own: what Django makes of a file with a type of text is another file, with other line ends."""
    kind, _, parameters = attachment.content_type.partition(";")
    main, slash, sub = kind.strip().partition("/")
    if not (main and slash and sub) or main.lower() in ("multipart", "message"):
        raise ValueError(f"attachment {attachment.filename!r}: {attachment.content_type!r} cannot be attached")
    if main.lower() == "text" and not _is_utf8(attachment.content):
        main, sub, parameters = *_ANY_OCTETS.split("/"), ""
    part = MIMEBase(main, sub)
    if parameters:
        part.replace_header("Content-Type", f"{main}/{sub};{parameters}")
    part.set_payload(attachment.content)
    encoders.encode_base64(part)
    # A tuple is encoded as RFC 2231 has it.
    name = attachment.filename if attachment.filename.isascii() else ("utf-8", "", attachment.filename)
    part.add_header("Content-Disposition", "inline" if attachment.content_id else "attachment", filename=name)
    if attachment.content_id:
        part.add_header("Content-ID", f"<{attachment.content_id}>")
    return part


def _is_utf8(content: bytes) -> bool:
    """Anymail reads files of text, and fails on others."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
