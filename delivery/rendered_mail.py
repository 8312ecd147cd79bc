"""What a delivery says, rendered from the frozen message and its recipient's data: as a worker would hand it over."""

from collections.abc import Mapping
from dataclasses import dataclass

from delivery.composition import CompiledMessage
from delivery.conf import conf
from delivery.core.envelope import Envelope, Mailbox
from delivery.models import Delivery
from delivery.queue import composing
from delivery.redaction import HIDDEN
from delivery.templating import TemplateProblem, compile_content
from delivery.unsubscribe import token_for


@dataclass(frozen=True, slots=True)
class RenderedMail:
    """`composed`: a model has written its text. Who has an unsubscribe link may use it, so the one in it is hidden."""

    sender: str
    recipient: str
    reply_to: str
    subject: str
    text: str
    html: str
    headers: dict[str, str]
    composed: bool


def rendered_mail(delivery: Delivery) -> RenderedMail:
    """The mail of a delivery. Raises TemplateProblem when its data lacks what the template needs."""
    compiled = CompiledMessage(delivery.message, conf().public_url)
    words = composing.texts([delivery.pk]).get(delivery.pk) if compiled.is_composed else None
    recipient = Mailbox(delivery.address, delivery.name)
    at = delivery.tried_at or delivery.message.batch.created_at
    envelope = compiled.envelope(delivery.pk, recipient, delivery.data, at, delivery.thread, words)
    return _shown(envelope, token_for(delivery.pk), composed=words is not None)


def rendered_part(source: str, data: Mapping[str, object], *, line: bool = True) -> str:
    """A template by itself, as a subject or, without `line`, as a text; or what is wrong with it."""
    subject, text = (source, "") if line else ("", source)
    try:
        rendered = compile_content(subject, text, "").render(data)
    except TemplateProblem as problem:
        return str(problem)
    return rendered.subject if line else rendered.text


def _shown(envelope: Envelope, token: str, *, composed: bool) -> RenderedMail:
    frame = envelope.frame
    return RenderedMail(
        sender=_mailbox(frame.sender),
        recipient=_mailbox(envelope.recipient),
        reply_to=_mailbox(frame.reply_to) if frame.reply_to else "",
        subject=envelope.subject.replace(token, HIDDEN),
        text=envelope.text.replace(token, HIDDEN),
        html=envelope.html.replace(token, HIDDEN),
        headers={
            "Message-ID": f"<{envelope.message_id}>",
            **{name: value.replace(token, HIDDEN) for name, value in (*frame.headers, *envelope.headers)},
        },
        composed=composed,
    )


def _mailbox(mailbox: Mailbox) -> str:
    return f"{mailbox.name} <{mailbox.address}>" if mailbox.name else mailbox.address
