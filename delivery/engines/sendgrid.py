"""SendGrid: one mail a call. A call can carry many recipients, but not a body for each.

Sources: https://www.twilio.com/docs/sendgrid/api-reference/mail-send, its errors page, and the specification in
twilio/sendgrid-oai.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django import forms

from delivery.core.answer import Answer, Row, classify_answer, objects, plain, told_to_wait, unread
from delivery.core.envelope import Attachment, Envelope, Kind, Outcome
from delivery.core.meaning import DEAD, ENGINE, UNWILLING
from delivery.engines.api_fields import (
    at_endpoint,
    calling_fields,
    calling_problems,
    domain_findings,
    endpoint_of,
    missing,
    not_among,
    open_provider,
    secret_field,
    unclear,
)
from delivery.engines.base import Finding
from delivery.engines.kind import EngineKind, Options, Secrets
from delivery.engines.limits import beyond_ascii, no_subject, refusal, too_large, unnamed_file
from delivery.engines.mail_parts import (
    KEY,
    base64_text,
    header_object,
    headers_of,
    json_body,
    mailbox_object,
    message_id_header,
    plain_text,
)
from delivery.engines.provider import ProviderEngine, Question
from delivery.http import Call

APIS = {"global": "https://api.sendgrid.com", "eu": "https://api.eu.sendgrid.com"}
CONCURRENCY = 20
LARGEST = 30_000_000  # octets
LISTED = 200  # domains asked for
OTHER_REFUSED_HEADERS = ("x-sg-id", "x-sg-eid", "dkim-signature", "cc")  # beside those that no engine takes

# The text is "field: message" for each error of the answer.
TABLE = (
    Row(ENGINE, statuses=(400,), words=r"\bfrom\b.*verif|sender identit"),
    Row(DEAD, statuses=(400,), words=r"personalizations\.\d+\.to\.\d+\.email: [^;]*valid (e-?mail )?address"),
    # Also said when the recipients could not be read at all, so it condemns no address.
    Row(UNWILLING, statuses=(400,), words=r"personalizations\.\d+\.to(\.\d+(\.email)?)?:"),
    Row(ENGINE, statuses=(404, 405, 406, 415)),
)

TRACKING_OFF = {
    "click_tracking": {"enable": False, "enable_text": False},
    "open_tracking": {"enable": False},
    "subscription_tracking": {"enable": False},  # would put links of SendGrid's own into the text
    "ganalytics": {"enable": False},
}


@dataclass(frozen=True, slots=True)
class SendGrid:
    """See `delivery.engines.provider.Provider`."""

    key: str = field(repr=False)
    api: str = APIS["global"]
    batch_size: int = 1
    honours_keys: bool = False

    def refuse(self, envelope: Envelope) -> Outcome | None:
        return refusal(
            "SendGrid",
            [
                too_large(envelope, LARGEST),
                no_subject(envelope),
                beyond_ascii(envelope, recipient=False),
                unnamed_file(envelope),
                _refused_name(envelope),
                _refused_header(envelope),
                _empty_file(envelope),
            ],
        )

    def call(self, envelopes: Sequence[Envelope], now: datetime) -> Call:
        (envelope,) = envelopes
        return Call("POST", f"{self.api}/v3/mail/send", self._headers(), json_body(_message(envelope)))

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self.key}",
            "Accept": "application/json",
            "Content-Type": "application/json",
        }

    def read(self, answer: Answer, envelopes: Sequence[Envelope], now: datetime) -> list[Outcome]:
        provider_id = plain(answer.headers.get("x-message-id"))
        if answer.status == 202 and provider_id:
            return [Outcome(Kind.ACCEPTED, "202", provider_id=provider_id)]
        if answer.is_success:  # 200 is what a sandbox says, which sends nothing
            return [unread(answer)]
        wait = told_to_wait(answer.headers, now, ("x-ratelimit-reset", "retry-after"))
        return [classify_answer(TABLE, answer, text=_errors(answer), wait=wait)]

    def questions(self, domains: frozenset[str], now: datetime) -> list[Question]:
        """Which domains are authenticated is told only to keys that may ask for it."""
        asked = Call("GET", f"{self.api}/v3/whitelabel/domains?limit={LISTED}", self._headers())
        return [
            Question(Call("GET", f"{self.api}/v3/scopes", self._headers()), _judge_scopes),
            *([Question(asked, lambda answer: _judge_domains(answer, domains))] if domains else []),
        ]


def _message(envelope: Envelope) -> dict[str, object]:
    frame = envelope.frame
    bodies = [("text/plain", envelope.text), ("text/html", envelope.html)]  # the order that SendGrid asks for
    message: dict[str, object] = {
        "personalizations": [
            {
                "to": [mailbox_object("To", envelope.recipient)],
                "headers": header_object([message_id_header(envelope), *headers_of(envelope)]),
                "custom_args": {KEY: envelope.key},
            }
        ],
        "from": mailbox_object("From", frame.sender),
        "subject": plain_text("Subject", envelope.subject),
        "content": [{"type": kind, "value": value} for kind, value in bodies if value],
        "tracking_settings": TRACKING_OFF,
    }
    if frame.reply_to:
        message["reply_to"] = mailbox_object("Reply-To", frame.reply_to)
    if frame.attachments:
        message["attachments"] = [_attachment(each) for each in frame.attachments]
    return message


def _attachment(attachment: Attachment) -> dict[str, str]:
    file = {
        "content": base64_text(attachment),
        "type": attachment.content_type,
        "filename": attachment.filename,
        "disposition": "inline" if attachment.content_id else "attachment",
    }
    return file | ({"content_id": attachment.content_id} if attachment.content_id else {})


def _refused_name(envelope: Envelope) -> str:
    found = next((sign for sign in ";," if sign in envelope.recipient.name), None)
    return f"takes no name of a recipient with “{found}” in it" if found else ""


def _refused_header(envelope: Envelope) -> str:
    for name, _ in (*envelope.frame.headers, *envelope.headers):
        if name.lower() in OTHER_REFUSED_HEADERS:
            return f"does not take the header {name}"
    return ""


def _empty_file(envelope: Envelope) -> str:
    empty = next((each for each in envelope.frame.attachments if not each.content), None)
    return f"takes no empty files, such as “{empty.filename}”" if empty else ""


def _errors(answer: Answer) -> str:
    errors = objects(answer.fields().get("errors"))
    said = [(plain(each.get("field")), plain(each.get("message"))) for each in errors]
    return "; ".join(": ".join(filter(None, pair)) for pair in said)


def _judge_scopes(answer: Answer) -> list[Finding]:
    if answer.status == 401:
        return [Finding("SendGrid does not know this API key: copy it again, or choose the other region.")]
    scopes = answer.fields().get("scopes")
    if not answer.is_success or not isinstance(scopes, list):
        return unclear(answer, "SendGrid")
    if "mail.send" not in scopes:
        return [Finding("This API key may not send: give it the permission Mail Send.")]
    return []


def _judge_domains(answer: Answer, wanted: frozenset[str]) -> list[Finding]:
    domains = answer.json()
    if not answer.is_success or not isinstance(domains, list):
        return unclear(answer, "SendGrid")
    verified = [plain(each.get("domain")) for each in objects(domains) if each.get("valid") is True]
    # A single verified sender, or a domain that was not listed, may stand in.
    return domain_findings(wanted, verified, "SendGrid", certain=False)


def _fields() -> dict[str, forms.Field]:
    return {
        "api_key": secret_field("API key", "SendGrid: Settings → API Keys. It needs the permission Mail Send."),
        "region": forms.ChoiceField(
            label="Region",
            choices=[("global", "global"), ("eu", "EU")],
            initial="global",
            help_text="EU is for keys of an EU subuser alone.",
        ),
        **calling_fields(CONCURRENCY, "the region's own"),
    }


def _problems(options: Options, secrets: Secrets) -> list[str]:
    problems = missing(secrets, {"api_key": "API key"}) + not_among(options, "region", APIS)
    key = secrets.get("api_key", "")
    if key and not key.strip().startswith("SG."):
        problems.append("That is no SendGrid API key: one begins with “SG.”; the ID beside it in the list does not.")
    return problems + calling_problems(options, secrets)


def _open(engine_id: int, options: Options, secrets: Secrets) -> ProviderEngine:
    api = endpoint_of(options, APIS[str(options.get("region") or "global")])
    return open_provider(SendGrid(secrets["api_key"], api), options, secrets.values(), CONCURRENCY)


KIND = EngineKind(
    "sendgrid",
    "SendGrid",
    _fields,
    frozenset({"api_key"}),
    _problems,
    _open,
    hint="By its API. One mail a call.",
    uses=at_endpoint("api_key"),
)
