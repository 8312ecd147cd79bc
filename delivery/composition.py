"""A frozen Message and one recipient's data -> the Envelope that an engine gets.

Compiles a message once; a recipient then costs three renders and nothing else. Knows no queue and no engine.
"""

from datetime import datetime

from delivery.composed_body import to_html
from delivery.core.envelope import Envelope, Frame, Mailbox
from delivery.core.sequence import Rules
from delivery.core.window import Openings, Window
from delivery.models import Message
from delivery.templating import CompiledCondition, compile_content
from delivery.unsubscribe import token_for

UNSUBSCRIBE_URL = "unsubscribe_url"  # the variable a template may use
MOST_REFERENCES = 20  # of the mails before: more make a header longer than anybody reads
ONE_CLICK = ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")  # RFC 8058 §3.1


class CompiledMessage:
    """One message, ready to be made out to any number of recipients. Not for use by two threads at once."""

    def __init__(self, message: Message, public_url: str) -> None:
        """Raises TemplateProblem."""
        self.content = compile_content(message.subject, message.text, message.html)
        self.domain = message.from_address.rpartition("@")[2].lower()
        self.openings = Openings(Window.of(message.window)) if message.window else None
        rules = Rules.of(message.rules)
        self.late = rules.late
        self.condition = CompiledCondition(rules.condition) if rules.condition else None
        self.asks_events = any(edge.on.event for edge in rules.after)
        self.conditional = self.asks_events or self.condition is not None
        self.is_composed = message.composing is not None
        self._token = message.token
        self._unsubscribe = f"{public_url}/u/" if public_url and message.unsubscribe else ""
        self._frame = Frame(
            sender=Mailbox(message.from_address, message.from_name),
            return_path=message.return_path,
            reply_to=Mailbox(message.reply_to) if message.reply_to else None,
            headers=tuple(message.headers.items()),
        )

    def wants(self, data: dict[str, object]) -> bool:
        """Whether a recipient with this data is to get it. Raises TemplateProblem."""
        return self.condition is None or self.condition.holds(data)

    def envelope(
        self,
        delivery_id: int,
        recipient: Mailbox,
        data: dict[str, object],
        now: datetime,
        thread: str = "",
        words: str | None = None,
    ) -> Envelope:
        """The mail for one recipient, in answer to the last of the mails whose keys are in `thread`. `words`, if there
        are any, are its body, and the template only gives the subject. Raises TemplateProblem when `data` lacks what
        the template needs.

        Key and Message-ID come from the delivery's id alone: every attempt has the same.
        """
        headers: tuple[tuple[str, str], ...] = ()
        variables = data
        if self._unsubscribe:
            url = self._unsubscribe + token_for(delivery_id)
            variables = {**data, UNSUBSCRIBE_URL: url}
            headers = (("List-Unsubscribe", f"<{url}>"), ONE_CLICK)
        if thread:
            headers = (*headers, *self._answering(thread.split()))
        rendered = self.content.render(variables)
        key = f"{self._token}.{delivery_id:x}"
        return Envelope(
            key=key,
            message_id=f"{key}@{self.domain}",
            frame=self._frame,
            recipient=recipient,
            subject=rendered.subject,
            text=rendered.text if words is None else words,
            html=rendered.html if words is None else to_html(words),
            date=now,
            headers=headers,
            data=data,
        )

    def _answering(self, keys: list[str]) -> tuple[tuple[str, str], ...]:
        """RFC 5322 §3.6.4: a reply names the mail it answers, and the thread down to it. Of a long thread the first and
        the last ones are named."""
        if len(keys) > MOST_REFERENCES:
            keys = [keys[0], *keys[1 - MOST_REFERENCES :]]
        references = [f"<{key}@{self.domain}>" for key in keys]
        return ("In-Reply-To", references[-1]), ("References", " ".join(references))
