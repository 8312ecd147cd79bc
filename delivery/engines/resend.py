"""Resend: up to 100 mails a call, each with an outcome of its own; a mail with files goes alone.

Sources: https://resend.com/docs/api-reference/errors.md, https://resend.com/docs/dashboard/emails/batch-validation-modes,
https://resend.com/docs/dashboard/emails/idempotency-keys.md, and the specification in resend/resend-openapi.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django import forms

from delivery.core.answer import (
    Answer,
    Row,
    classify_answer,
    classify_words,
    objects,
    plain,
    told_to_wait,
    unread,
)
from delivery.core.envelope import Attachment, Envelope, Kind, Outcome
from delivery.core.meaning import ENGINE, MESSAGE, TROUBLE, UNKNOWN, UNWILLING
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
from delivery.engines.limits import misnamed_file, no_subject, refusal, too_large, unnamed_file
from delivery.engines.mail_parts import (
    KEY,
    base64_text,
    call_key,
    header_object,
    headers_of,
    json_body,
    key_as_tag,
    mailbox_text,
    plain_text,
)
from delivery.engines.provider import ProviderEngine, Question
from delivery.http import Call

API = "https://api.resend.com"
CONCURRENCY = 2  # a team may make some five requests a second
MOST = 100  # mails a call
LARGEST = 40_000_000  # octets

# By the error's name, and where that says little by its text.
TABLE = (
    Row(ENGINE, words=r"API key is invalid|domain is not verified|only send testing emails"),
    Row(ENGINE, codes=("missing_api_key", "restricted_api_key", "invalid_api_key", "suspended_api_key")),
    Row(ENGINE, codes=("invalid_permission", "monthly_quota_exceeded", "daily_quota_exceeded", "not_found")),
    # What is wrong may be the name beside the address, so it condemns no address.
    Row(UNWILLING, statuses=(400, 422), words=r"[`'\"“]to[`'\"”]|\bto field\b"),
    Row(MESSAGE, codes=("invalid_idempotent_request", "invalid_idempotency_key", "security_error")),
    Row(UNKNOWN, statuses=(409,)),  # another call with this key is under way
    Row(TROUBLE, codes=("application_error", "internal_server_error", "service_unavailable")),
    Row(ENGINE, statuses=(404, 405)),
)


@dataclass(frozen=True, slots=True)
class Resend:
    """See `delivery.engines.provider.Provider`. Whether opens and clicks are tracked is a setting of each domain, and
    the Message-ID is Resend's."""

    key: str = field(repr=False)
    api: str = API
    batch_size: int = MOST
    honours_keys: bool = True

    def refuse(self, envelope: Envelope) -> Outcome | None:
        return refusal(
            "Resend",
            [too_large(envelope, LARGEST), no_subject(envelope), unnamed_file(envelope), misnamed_file(envelope)],
        )

    def groups(self, envelopes: Sequence[Envelope]) -> list[Group]:
        return alike(envelopes, lambda envelope: envelope.key if envelope.frame.attachments else "")

    def call(self, envelopes: Sequence[Envelope], now: datetime) -> Call:
        headers = {**self._headers(), "Idempotency-Key": call_key(envelopes)}
        messages = [_message(envelope) for envelope in envelopes]
        if len(messages) == 1:
            return Call("POST", f"{self.api}/emails", headers, json_body(messages[0]))
        headers["x-batch-validation"] = "permissive"
        return Call("POST", f"{self.api}/emails/batch", headers, json_body(messages))

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self.key}",
            "Accept": "application/json",
            "Content-Type": "application/json",
        }

    def read(self, answer: Answer, envelopes: Sequence[Envelope], now: datetime) -> list[Outcome]:
        fields = answer.fields()
        if answer.is_success and len(envelopes) == 1:
            return [_accepted(answer, fields)]
        if answer.is_success:
            return _results(answer, fields, len(envelopes))
        outcome = classify_answer(
            TABLE,
            answer,
            code=plain(fields.get("name")),
            text=plain(fields.get("message")),
            wait=told_to_wait(answer.headers, now),
            shared=len(envelopes) > 1,
        )
        return [outcome] * len(envelopes)

    def questions(self, domains: frozenset[str], now: datetime) -> list[Question]:
        """Which domains are verified is told only to keys with full access."""
        asked = Call("GET", f"{self.api}/domains?limit=100", self._headers())
        return [Question(asked, lambda answer: _judge(answer, domains))]


def _message(envelope: Envelope) -> dict[str, object]:
    frame = envelope.frame
    message: dict[str, object] = {
        "from": mailbox_text("From", frame.sender),
        "to": [mailbox_text("To", envelope.recipient)],
        "subject": plain_text("Subject", envelope.subject),
        "tags": [{"name": KEY, "value": key_as_tag(envelope.key)}],
    }
    if envelope.text:
        message["text"] = envelope.text
    if envelope.html:
        message["html"] = envelope.html
    if frame.reply_to:
        message["reply_to"] = [mailbox_text("Reply-To", frame.reply_to)]
    if headers := header_object(headers_of(envelope)):
        message["headers"] = headers
    if frame.attachments:
        message["attachments"] = [_attachment(each) for each in frame.attachments]
    return message


def _attachment(attachment: Attachment) -> dict[str, str]:
    file = {
        "filename": attachment.filename,
        "content": base64_text(attachment),
        "content_type": attachment.content_type,
    }
    return file | ({"content_id": attachment.content_id} if attachment.content_id else {})


def _results(answer: Answer, fields: Mapping[str, object], count: int) -> list[Outcome]:
    """Of a batch: those refused by their place in it, and the ids of all others in order."""
    errors, ids = objects(fields.get("errors")), objects(fields.get("data"))
    refused = {index: plain(each.get("message")) for each in errors if type(index := each.get("index")) is int}
    others = [index for index in range(count) if index not in refused]
    if len(errors) != len(refused) or len(refused) + len(others) != count or len(ids) != len(others):
        return [unread(answer)] * count  # which id is whose, nobody can tell
    accepted = {index: _accepted(answer, each) for index, each in zip(others, ids, strict=True)}
    return [
        accepted[index] if index in accepted else classify_words(TABLE, 422, "validation_error", refused[index])
        for index in range(count)
    ]


def _accepted(answer: Answer, fields: Mapping[str, object]) -> Outcome:
    provider_id = fields.get("id")
    if isinstance(provider_id, str) and plain(provider_id):
        return Outcome(Kind.ACCEPTED, str(answer.status), provider_id=plain(provider_id))
    return unread(answer)


def _judge(answer: Answer, wanted: frozenset[str]) -> list[Finding]:
    fields = answer.fields()
    name, text = plain(fields.get("name")), plain(fields.get("message"))
    if name == "restricted_api_key":
        words = "This API key may send and nothing else, so Resend does not tell which domains are verified."
        return [Finding(words, certain=False)] if wanted else []
    if name in ("invalid_api_key", "missing_api_key", "suspended_api_key") or "API key is invalid" in text:
        return [Finding(f"Resend refuses this API key: {text or name}")]
    if not answer.is_success or not isinstance(fields.get("data"), list):
        return unclear(answer, "Resend")
    domains = objects(fields["data"])
    verified = [plain(each.get("name")) for each in domains if each.get("status") == "verified"]
    tracking = {plain(each.get("name")) for each in domains if each.get("open_tracking") or each.get("click_tracking")}
    # Here a domain does not stand for its subdomains: https://resend.com/docs/knowledge-base/403-error-domain-mismatch.
    certain = fields.get("has_more") is not True
    return [
        *domain_findings(wanted, verified, "Resend", subdomains=False, certain=certain),
        *(
            Finding(f"Resend tracks opens or clicks in mails from {domain}: turn that off there.", certain=False)
            for domain in sorted(wanted & tracking)
        ),
    ]


def _fields() -> dict[str, forms.Field]:
    return {
        "api_key": secret_field("API key", "Resend: API Keys. Sending access is enough."),
        **batch_field(MOST, MOST),
        **calling_fields(CONCURRENCY, API),
    }


def _problems(options: Options, secrets: Secrets) -> list[str]:
    problems = missing(secrets, {"api_key": "API key"})
    key = secrets.get("api_key", "")
    if key and not key.strip().startswith("re_"):
        problems.append("That is no Resend API key: one begins with “re_”.")
    return [*problems, *out_of_range(options, "batch_size", 1, MOST), *calling_problems(options, secrets)]


def _open(engine_id: int, options: Options, secrets: Secrets) -> ProviderEngine:
    provider = Resend(secrets["api_key"], endpoint_of(options, API), int(options.get("batch_size") or MOST))
    return open_provider(provider, options, secrets.values(), CONCURRENCY)


KIND = EngineKind(
    "resend",
    "Resend",
    _fields,
    frozenset({"api_key"}),
    _problems,
    _open,
    hint="By its API. Up to 100 mails a call.",
    uses=at_endpoint("api_key"),
)
