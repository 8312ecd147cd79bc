"""Postmark: up to 500 mails a call, each with an outcome of its own.

Sources: https://postmarkapp.com/developer/api/email-api, https://postmarkapp.com/developer/api/overview#error-codes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django import forms

from delivery.core.answer import Answer, Row, classify_answer, classify_words, plain, told_to_wait, unread
from delivery.core.envelope import Attachment, Envelope, Kind, Outcome
from delivery.core.meaning import DEAD, ENGINE, MESSAGE, SLOWER, TAKEN, TROUBLE
from delivery.engines.api_fields import (
    at_endpoint,
    calling_fields,
    calling_problems,
    endpoint_of,
    missing,
    open_provider,
    secret_field,
    unclear,
)
from delivery.engines.base import Finding
from delivery.engines.grouping import Group, up_to
from delivery.engines.kind import EngineKind, Options, Secrets
from delivery.engines.limits import refusal, size_of, too_large
from delivery.engines.mail_parts import (
    KEY,
    base64_text,
    headers_of,
    json_body,
    mailbox_text,
    message_id_header,
    plain_text,
)
from delivery.engines.provider import ProviderEngine, Question
from delivery.http import Call

API = "https://api.postmarkapp.com"
CONCURRENCY = 4
LARGEST_MAIL, LARGEST_CALL = 10_000_000, 50_000_000  # octets

# By ErrorCode, which stands in the answer whatever its HTTP status is.
TABLE = (
    Row(TAKEN, statuses=(2,), codes=("0",)),
    Row(DEAD, codes=("406",)),  # inactive: it bounced, complained or unsubscribed before
    Row(ENGINE, codes=("300",), words=r"'From'|\bFrom address\b|sender signature"),
    Row(DEAD, codes=("300",), words=r"'To'|\bTo address\b|recipient"),
    Row(MESSAGE, codes=("300", "402", "403", "409", "410", "411")),
    Row(ENGINE, codes=("10", "400", "401", "405", "412", "413")),
    Row(SLOWER, codes=("429",)),
    Row(TROUBLE, codes=("100",)),
    Row(ENGINE, statuses=(401, 404, 405)),
    Row(MESSAGE, statuses=(413, 415)),
)


@dataclass(frozen=True, slots=True)
class Postmark:
    """See `delivery.engines.provider.Provider`. `stream` is a message stream; campaigns must use a broadcast one."""

    token: str = field(repr=False)
    stream: str
    api: str = API
    batch_size: int = 500
    honours_keys: bool = False

    def refuse(self, envelope: Envelope) -> Outcome | None:
        return refusal("Postmark", [too_large(envelope, LARGEST_MAIL)])

    def groups(self, envelopes: Sequence[Envelope]) -> list[Group]:
        return up_to(envelopes, LARGEST_CALL, size_of)

    def call(self, envelopes: Sequence[Envelope], now: datetime) -> Call:
        messages = [self._message(envelope) for envelope in envelopes]
        return Call("POST", f"{self.api}/email/batch", self._headers(), json_body(messages))

    def _headers(self) -> dict[str, str]:
        return {
            "X-Postmark-Server-Token": self.token,
            "Accept": "application/json",
            "Content-Type": "application/json",
        }

    def _message(self, envelope: Envelope) -> dict[str, object]:
        frame = envelope.frame
        own = [message_id_header(envelope), ("X-PM-KeepID", "true")]
        message: dict[str, object] = {
            "From": mailbox_text("From", frame.sender),
            "To": mailbox_text("To", envelope.recipient),
            "Subject": plain_text("Subject", envelope.subject),
            "MessageStream": self.stream,
            "TrackOpens": False,
            "TrackLinks": "None",
            "Metadata": {KEY: envelope.key},
            "Headers": [{"Name": name, "Value": value} for name, value in (*own, *headers_of(envelope))],
        }
        if envelope.text:
            message["TextBody"] = envelope.text
        if envelope.html:
            message["HtmlBody"] = envelope.html
        if frame.reply_to:
            message["ReplyTo"] = mailbox_text("Reply-To", frame.reply_to)
        if frame.attachments:
            message["Attachments"] = [_attachment(each) for each in frame.attachments]
        return message

    def read(self, answer: Answer, envelopes: Sequence[Envelope], now: datetime) -> list[Outcome]:
        results = answer.json()
        if answer.is_success and isinstance(results, list):
            return [_result(answer.status, result, now) for result in results]
        if answer.is_success:
            return [unread(answer)] * len(envelopes)
        fields = answer.fields()
        outcome = classify_answer(
            TABLE,
            answer,
            code=plain(fields.get("ErrorCode")),
            text=plain(fields.get("Message")),
            wait=told_to_wait(answer.headers, now),
            shared=len(envelopes) > 1,
        )
        return [outcome] * len(envelopes)

    def questions(self, domains: frozenset[str], now: datetime) -> list[Question]:
        """A server token may not list sender signatures; a wrong From is found at the first mail (ErrorCode 400)."""
        return [
            Question(Call("GET", f"{self.api}/server", self._headers()), _judge_server),
            Question(Call("GET", f"{self.api}/message-streams/{self.stream}", self._headers()), self._judge_stream),
        ]

    def _judge_stream(self, answer: Answer) -> list[Finding]:
        if answer.status in (404, 422):
            return [Finding(f"Postmark knows no message stream “{self.stream}” on this server.")]
        fields = answer.fields()
        if not answer.is_success or "ID" not in fields:
            return unclear(answer, "Postmark")
        if fields.get("ArchivedAt"):
            return [Finding(f"The message stream “{self.stream}” is archived.")]
        if fields.get("MessageStreamType") == "Inbound":
            return [Finding(f"The message stream “{self.stream}” is for inbound mail.")]
        return []


def _judge_server(answer: Answer) -> list[Finding]:
    if answer.status == 401:
        return [Finding("Postmark does not know this server token.")]
    fields = answer.fields()
    if not answer.is_success or "ID" not in fields:
        return unclear(answer, "Postmark")
    if fields.get("DeliveryType") == "Sandbox":
        return [Finding("This Postmark server is a sandbox: it delivers nothing.", certain=False)]
    return []


def _result(status: int, result: object, now: datetime) -> Outcome:
    """One of the results of a batch call."""
    if not isinstance(result, Mapping):
        return Outcome(Kind.UNKNOWN, str(status), plain(result))
    text, provider_id = plain(result.get("Message")), plain(result.get("MessageID"))
    if "ErrorCode" not in result:
        # Accepted, and delivery will be late: Postmark says so without a code (django-anymail knows it).
        return Outcome(Kind.ACCEPTED if provider_id else Kind.UNKNOWN, str(status), text, provider_id=provider_id)
    code = plain(result["ErrorCode"])
    if not code.isdecimal():
        return Outcome(Kind.UNKNOWN, str(status), text)
    # A status of success says nothing of one mail: what no row knows is this mail's own trouble.
    return classify_words(TABLE, status if code == "0" else 422, code, text, provider_id=provider_id)


def _attachment(attachment: Attachment) -> dict[str, object]:
    return {
        "Name": attachment.filename,
        "Content": base64_text(attachment),
        "ContentType": attachment.content_type,
        "ContentID": f"cid:{attachment.content_id}" if attachment.content_id else None,
    }


def _fields() -> dict[str, forms.Field]:
    return {
        "token": secret_field("Server token", "Postmark: Server → API Tokens."),
        "stream": forms.CharField(
            label="Message stream",
            max_length=100,
            initial="broadcast",
            help_text="Campaigns must use a stream of the type Broadcasts.",
        ),
        **calling_fields(CONCURRENCY, API),
    }


def _problems(options: Options, secrets: Secrets) -> list[str]:
    problems = missing({**options, **secrets}, {"token": "server token", "stream": "message stream"})
    stream = str(options.get("stream") or "")
    if stream and not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", stream):
        problems.append(f"“{stream}” is no message stream: give its ID, such as broadcast.")
    return problems + calling_problems(options, secrets)


def _open(engine_id: int, options: Options, secrets: Secrets) -> ProviderEngine:
    provider = Postmark(secrets["token"], str(options["stream"]), endpoint_of(options, API))
    return open_provider(provider, options, secrets.values(), CONCURRENCY)


KIND = EngineKind(
    "postmark",
    "Postmark",
    _fields,
    frozenset({"token"}),
    _problems,
    _open,
    hint="By its API, into a broadcast stream. Up to 500 mails a call.",
    uses=at_endpoint("token"),
)
