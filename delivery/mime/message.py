"""The frame of a mail, compiled once per message; the parts of one recipient are spliced in.

Decides the part structure (RFC 2046, 2387) and the order of things. The same envelope gives the same octets on every
attempt.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

from delivery.core.envelope import Envelope, Frame
from delivery.mime.bodies import attachment_part, text_part
from delivery.mime.headers import date_header, extra_headers, mailbox_header, message_id_header, text_header

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
            date_header(envelope.date),
            self.sender,
            mailbox_header("To", envelope.recipient),
            self.reply_to,
            text_header("Subject", envelope.subject),
            message_id_header(envelope.message_id),
            self.headers,
        ]
        if envelope.headers:
            chunks.append(extra_headers(envelope.headers, self.single)[0])
        bodies = []
        if envelope.text or not envelope.html:
            bodies.append(text_part("plain", envelope.text))
        if envelope.html:
            bodies.append(text_part("html", envelope.html))
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
        # "=_" occurs neither in quoted-printable nor in base64, and no body with it is left as it is (text_part).
        boundary = f"=_{kind}_{self.digest}"
        root = ' type="text/html";' if kind == "related" else ""  # RFC 2387 §3.1
        delimiter = f"\r\n--{boundary}".encode()
        opening = f'Content-Type: multipart/{kind};{root}\r\n boundary="{boundary}"\r\n'.encode()
        return opening + b"".join(delimiter + b"\r\n" + part for part in parts) + delimiter + b"--\r\n"


def compile_frame(frame: Frame) -> CompiledFrame:
    """The frame with its headers and attachments encoded. Raises ValueError when a mail cannot carry them."""
    headers, single = extra_headers(frame.headers, frozenset())
    parts = [(bool(attachment.content_id), attachment_part(attachment)) for attachment in frame.attachments]
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
