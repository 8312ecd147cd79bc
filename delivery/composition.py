"""A frozen Message and one recipient's data -> the Envelope that an engine gets.

Compiles a message once; a recipient then costs three renders and nothing else. Knows no queue and no engine.
"""

from datetime import datetime

from delivery.core.envelope import Envelope, Frame, Mailbox
from delivery.core.window import Openings, Window
from delivery.models import Message
from delivery.templating import compile_content
from delivery.unsubscribe import token_for

UNSUBSCRIBE_URL = "unsubscribe_url"  # the variable a template may use
ONE_CLICK = ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")  # RFC 8058 §3.1


class CompiledMessage:
    """One message, ready to be made out to any number of recipients. Not for use by two threads at once."""

    def __init__(self, message: Message, public_url: str) -> None:
        """Raises TemplateProblem."""
        self.content = compile_content(message.subject, message.text, message.html)
        self.domain = message.from_address.rpartition("@")[2].lower()
        self.openings = Openings(Window.of(message.window)) if message.window else None
        self._token = message.token
        self._unsubscribe = f"{public_url}/u/" if public_url and message.unsubscribe else ""
        self._frame = Frame(
            sender=Mailbox(message.from_address, message.from_name),
            return_path=message.return_path,
            reply_to=Mailbox(message.reply_to) if message.reply_to else None,
            headers=tuple(message.headers.items()),
        )

    def envelope(self, delivery_id: int, recipient: Mailbox, data: dict[str, object], now: datetime) -> Envelope:
        """The mail for one recipient. Raises TemplateProblem when `data` lacks what the template needs.

        Key and Message-ID come from the delivery's id alone: every attempt has the same.
        """
        headers: tuple[tuple[str, str], ...] = ()
        variables = data
        if self._unsubscribe:
            url = self._unsubscribe + token_for(delivery_id)
            variables = {**data, UNSUBSCRIBE_URL: url}
            headers = (("List-Unsubscribe", f"<{url}>"), ONE_CLICK)
        rendered = self.content.render(variables)
        key = f"{self._token}.{delivery_id:x}"
        return Envelope(
            key=key,
            message_id=f"{key}@{self.domain}",
            frame=self._frame,
            recipient=recipient,
            subject=rendered.subject,
            text=rendered.text,
            html=rendered.html,
            date=now,
            headers=headers,
            data=data,
        )
