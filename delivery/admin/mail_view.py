"""A stored mail taken apart to be looked at, and its HTML made harmless to show.

Decides what a kept mail may do in an operator's browser: nothing. Knows no Django and no database.
"""

from dataclasses import dataclass
from email import message_from_bytes, policy

# First in the document, so that nothing before it escapes it. No script, no form, and nothing from elsewhere: opening
# a mail must not tell anybody that it was opened. The iframe's own sandbox forbids the same again.
_FENCE = (
    "<!doctype html>"
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data: cid:; style-src 'unsafe-inline'\">"
    '<base target="_blank">'
)


@dataclass(frozen=True, slots=True)
class MailView:
    """A mail in its readable parts; `text` and `html` are "" where there is none."""

    headers: tuple[tuple[str, str], ...]
    text: str
    html: str
    source: str


def read_mail(raw: bytes) -> MailView:
    """The parts of a mail as a mail program shows them."""
    mail = message_from_bytes(raw, policy=policy.default)
    parts = {kind: mail.get_body((kind,)) for kind in ("plain", "html")}
    return MailView(
        headers=tuple((name, str(value)) for name, value in mail.items()),
        text=parts["plain"].get_content() if parts["plain"] else "",
        html=parts["html"].get_content() if parts["html"] else "",
        source=raw.decode("utf-8", "replace"),
    )


def fenced(html: str) -> str:
    """The HTML as the `srcdoc` of a sandboxed iframe."""
    return _FENCE + html if html else ""
