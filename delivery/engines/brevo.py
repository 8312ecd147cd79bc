"""Brevo: up to 1,000 mails a call, taken or refused all together.

Sources, at https://developers.brevo.com: reference/sendtransacemail, docs/batch-send-transactional-emails,
docs/heterogenous-versions-batch-emails (idempotency); of what they leave out, django-anymail.
Nobody documents which headers Brevo keeps: the Message-ID is its own, and a List-Unsubscribe may be.
"""

import html
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.header import Header

from django import forms

from delivery.core.answer import Answer, Row, classify_answer, objects, plain, told_to_wait, unread
from delivery.core.envelope import Attachment, Envelope, Kind, Mailbox, Outcome
from delivery.core.meaning import DEAD, ENGINE, MESSAGE, TAKEN, UNWILLING
from delivery.engines.api_fields import (
    at_endpoint,
    batch_field,
    calling_fields,
    calling_problems,
    domain_findings,
    endpoint_of,
    missing,
    open_provider,
    out_of_range,
    secret_field,
    unclear,
)
from delivery.engines.base import Finding
from delivery.engines.grouping import Group, alike
from delivery.engines.kind import EngineKind, Options, Secrets
from delivery.engines.limits import beyond_ascii, inline_file, misnamed_file, no_subject, refusal, unnamed_file
from delivery.engines.mail_parts import (
    KEY,
    base64_text,
    call_key,
    header_object,
    headers_of,
    json_body,
    mailbox_object,
    plain_text,
)
from delivery.engines.provider import ProviderEngine, Question
from delivery.http import Call

API = "https://api.brevo.com"
CONCURRENCY = 4
MOST, USUAL = 1000, 100  # mails a call
LONGEST_NAME = 70
SPECIALS = '()<>[]:;@\\,."'  # RFC 5322 §3.2.3
CALLS = uuid.UUID("3b0a8c6e-6f0b-5c0e-9d52-8a4c1f7d2e91")  # the namespace of the idempotency keys

WRONG = ("invalid_parameter", "missing_parameter", "out_of_range", "bad_request", "unprocessable_entity")
TABLE = (
    # The key names exactly these mails: they were taken before, by a call whose answer was not read. Not known is
    # whether a call that failed uses up its key too; then these mails are lost.
    Row(TAKEN, statuses=(4,), codes=("duplicate_parameter",)),
    Row(ENGINE, codes=("unauthorized", "not_enough_credits", "permission_denied", "account_under_validation")),
    Row(ENGINE, codes=("document_not_found", "method_not_allowed", "not_acceptable")),
    Row(ENGINE, codes=WRONG, words=r"\bsender\b"),
    Row(DEAD, codes=WRONG, words=r"^email is not valid in to\b"),
    Row(UNWILLING, codes=WRONG, words=r"^to is\b|^email is missing in to\b|\brecipients?\b"),
    Row(MESSAGE, codes=WRONG),
    Row(ENGINE, statuses=(404, 405, 406)),
)


@dataclass(frozen=True, slots=True)
class Brevo:
    """See `delivery.engines.provider.Provider`. Whether opens and clicks are tracked is a setting of the account."""

    key: str = field(repr=False)
    api: str = API
    batch_size: int = USUAL
    honours_keys: bool = False  # it forgets them after half an hour, and a retry may come later

    def refuse(self, envelope: Envelope) -> Outcome | None:
        return refusal(
            "Brevo",
            [
                no_subject(envelope),
                beyond_ascii(envelope),
                inline_file(envelope),
                unnamed_file(envelope),
                misnamed_file(envelope),
                _refused_header(envelope),
                _refused_name(envelope),
            ],
        )

    def groups(self, envelopes: Sequence[Envelope]) -> list[Group]:
        """Sender and files are those of the whole call. So is a text, for those that have none of their own."""
        return alike(envelopes, lambda each: (each.frame.sender, each.frame.attachments, bool(each.text)))

    def call(self, envelopes: Sequence[Envelope], now: datetime) -> Call:
        frame, key = envelopes[0].frame, str(uuid.uuid5(CALLS, call_key(envelopes)))
        mail: dict[str, object] = {"sender": _mailbox("From", frame.sender)}
        if len(envelopes) == 1:
            mail |= _version(envelopes[0])
            mail["headers"] = {**_headers(envelopes[0]), "idempotencyKey": key}
        else:
            # Asked for, and of no use: every version has its own. Nobody is to get what was meant for somebody else.
            mail |= {"subject": "-", "htmlContent": "-"} | ({"textContent": "-"} if envelopes[0].text else {})
            mail["messageVersions"] = [{**_version(each), "headers": _headers(each)} for each in envelopes]
            mail["headers"] = {"idempotencyKey": key}
        if frame.attachments:
            mail["attachment"] = [_attachment(each) for each in frame.attachments]
        return Call("POST", f"{self.api}/v3/smtp/email", self._headers(), json_body(mail))

    def _headers(self) -> dict[str, str]:
        return {"api-key": self.key, "Accept": "application/json", "Content-Type": "application/json"}

    def read(self, answer: Answer, envelopes: Sequence[Envelope], now: datetime) -> list[Outcome]:
        fields = answer.fields()
        if answer.is_success:
            return _accepted(answer, len(envelopes))
        outcome = classify_answer(
            TABLE,
            answer,
            code=plain(fields.get("code")),
            text=plain(fields.get("message")),
            wait=told_to_wait(answer.headers, now, ("x-sib-ratelimit-reset", "retry-after")),
            shared=len(envelopes) > 1,
        )
        return [outcome] * len(envelopes)

    def questions(self, domains: frozenset[str], now: datetime) -> list[Question]:
        asked = Call("GET", f"{self.api}/v3/senders/domains", self._headers())
        return [
            Question(Call("GET", f"{self.api}/v3/account", self._headers()), _judge_account),
            *([Question(asked, lambda answer: _judge_domains(answer, domains))] if domains else []),
        ]


def _version(envelope: Envelope) -> dict[str, object]:
    """What is one recipient's own. A mail without HTML is refused, so a text becomes HTML too."""
    version: dict[str, object] = {
        "to": [_mailbox("To", envelope.recipient)],
        "subject": plain_text("Subject", envelope.subject),
        "htmlContent": envelope.html or html.escape(envelope.text).replace("\n", "<br>\n"),
    }
    if envelope.text:
        version["textContent"] = envelope.text
    if envelope.frame.reply_to:
        version["replyTo"] = _mailbox("Reply-To", envelope.frame.reply_to)
    return version


def _headers(envelope: Envelope) -> dict[str, str]:
    return header_object([("X-Mailin-custom", json.dumps({KEY: envelope.key})), *headers_of(envelope)])


def _mailbox(header: str, mailbox: Mailbox) -> dict[str, str]:
    """Brevo drops a name in silence that has both letters beyond ASCII and signs like a comma, unless it is encoded
    already (RFC 2047)."""
    found = mailbox_object(header, mailbox)
    if _is_dropped(found.get("name", "")):
        found["name"] = Header(found["name"], "utf-8").encode(linesep="")
    return found


def _attachment(attachment: Attachment) -> dict[str, str]:
    return {"name": attachment.filename, "content": base64_text(attachment)}


def _is_dropped(name: str) -> bool:
    return not name.isascii() and any(sign in name for sign in SPECIALS)


def _refused_header(envelope: Envelope) -> str:
    """Brevo sends letters beyond ASCII as they are, and takes back every encoding of them."""
    for name, value in (*envelope.frame.headers, *envelope.headers):
        if not value.isascii() or "\\u" in value or "=?" in value:
            return f"takes no letters beyond ASCII in a header, such as in {name}"
    return ""


def _refused_name(envelope: Envelope) -> str:
    frame = envelope.frame
    for mailbox in filter(None, (frame.sender, frame.reply_to, envelope.recipient)):
        if len(mailbox.name) > LONGEST_NAME:
            return f"takes no names of more than {LONGEST_NAME} letters, such as “{mailbox.name}”"
    if frame.reply_to and not frame.reply_to.name.isascii():
        return f"sends the name “{frame.reply_to.name}” in Reply-To in a way that mail servers refuse"
    return ""


def _accepted(answer: Answer, count: int) -> list[Outcome]:
    fields = answer.fields()
    ids = fields.get("messageIds", [fields.get("messageId")])
    if not isinstance(ids, list) or len(ids) != count or not all(isinstance(each, str) and plain(each) for each in ids):
        return [unread(answer)] * count
    return [Outcome(Kind.ACCEPTED, str(answer.status), provider_id=plain(each)) for each in ids]


def _judge_account(answer: Answer) -> list[Finding]:
    fields = answer.fields()
    if answer.status == 401:  # a wrong key, or an address that the account does not let in
        return [Finding(f"Brevo refuses this API key: {plain(fields.get('message')) or answer.words()}")]
    relay = fields.get("relay")
    if not answer.is_success or not isinstance(relay, dict):
        return unclear(answer, "Brevo")
    if relay.get("enabled") is False:
        return [Finding("Brevo has not opened transactional mail for this account: ask its support.")]
    return []


def _judge_domains(answer: Answer, wanted: frozenset[str]) -> list[Finding]:
    domains = answer.fields().get("domains")
    if not answer.is_success or not isinstance(domains, list):
        return unclear(answer, "Brevo")
    verified = [plain(each.get("domain_name")) for each in objects(domains) if each.get("authenticated") is True]
    return domain_findings(wanted, verified, "Brevo")


def _fields() -> dict[str, forms.Field]:
    return {
        "api_key": secret_field("API key", "Brevo: SMTP & API → API Keys."),
        **batch_field(MOST, USUAL),
        **calling_fields(CONCURRENCY, API),
    }


def _problems(options: Options, secrets: Secrets) -> list[str]:
    problems = missing(secrets, {"api_key": "API key"})
    key = secrets.get("api_key", "").strip()
    if key.startswith("xsmtpsib-"):
        problems.append("That is Brevo's key for SMTP: give an API key, which begins with “xkeysib-”.")
    elif key and not key.startswith("xkeysib-"):
        problems.append("That is no Brevo API key: one begins with “xkeysib-”.")
    return [*problems, *out_of_range(options, "batch_size", 1, MOST), *calling_problems(options, secrets)]


def _open(engine_id: int, options: Options, secrets: Secrets) -> ProviderEngine:
    provider = Brevo(secrets["api_key"], endpoint_of(options, API), int(options.get("batch_size") or USUAL))
    return open_provider(provider, options, secrets.values(), CONCURRENCY)


KIND = EngineKind(
    "brevo",
    "Brevo",
    _fields,
    frozenset({"api_key"}),
    _problems,
    _open,
    hint="By its API. Up to 1,000 mails a call.",
    uses=at_endpoint("api_key"),
)
