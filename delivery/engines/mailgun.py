"""Mailgun: one mail a call, as a form. A call can carry many recipients, but not a body for each.

Source: https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from urllib.parse import quote, urlencode

import httpx
from django import forms

from delivery.core.answer import Answer, Row, classify_answer, plain, read_wait, told_to_wait, unread
from delivery.core.envelope import Attachment, Envelope, Kind, Outcome
from delivery.core.meaning import DEAD, ENGINE
from delivery.engines.api_fields import (
    at_endpoint,
    calling_fields,
    calling_problems,
    endpoint_of,
    missing,
    not_among,
    open_provider,
    secret_field,
    unclear,
)
from delivery.engines.base import Finding
from delivery.engines.kind import EngineKind, Options, Secrets
from delivery.engines.limits import beyond_ascii, refusal, too_large, unnamed_file
from delivery.engines.mail_parts import (
    KEY,
    header_object,
    headers_of,
    mailbox_text,
    message_id_header,
    plain_text,
    refuse_file,
)
from delivery.engines.provider import ProviderEngine, Question
from delivery.http import Call

APIS = {"us": "https://api.mailgun.net", "eu": "https://api.eu.mailgun.net"}
CONCURRENCY = 20
LARGEST = 25_000_000  # octets
LARGEST_OPTIONS = 16 * 1024  # octets of all that is called o:, h: and v:

TABLE = (
    Row(DEAD, statuses=(400,), words=r"(^|')to'? parameter is not a valid address"),
    Row(ENGINE, statuses=(400,), words=r"is not allowed to send|sandbox subdomains"),
    Row(ENGINE, statuses=(404, 405)),
)
_AGAIN_AFTER = re.compile(r"try again after (.{1,60}?\bUTC)")

Fields = dict[str, str]
File = tuple[str, tuple[str, bytes, str]]  # the field, and the file's name, content and type


@dataclass(frozen=True, slots=True)
class Mailgun:
    """See `delivery.engines.provider.Provider`. `domain` is the one that Mailgun signs for."""

    key: str = field(repr=False)
    domain: str
    api: str = APIS["us"]
    batch_size: int = 1
    honours_keys: bool = False

    def refuse(self, envelope: Envelope) -> Outcome | None:
        problems = [too_large(envelope, LARGEST), beyond_ascii(envelope, recipient=False), unnamed_file(envelope)]
        return refusal("Mailgun", problems)

    def call(self, envelopes: Sequence[Envelope], now: datetime) -> Call:
        (envelope,) = envelopes
        fields = _form(envelope)
        files = [_file(each) for each in envelope.frame.attachments]
        if files:
            return self._call("POST", f"/v3/{self.domain}/messages", *_multipart(fields, files, envelope.key))
        body = urlencode(fields).encode()
        return self._call("POST", f"/v3/{self.domain}/messages", "application/x-www-form-urlencoded", body)

    def _call(self, method: str, path: str, content_type: str = "", body: bytes = b"") -> Call:
        headers = {"Authorization": f"Basic {basic_token(self.key)}", "Accept": "application/json"}
        if content_type:
            headers["Content-Type"] = content_type
        return Call(method, self.api + quote(path), headers, body)

    def read(self, answer: Answer, envelopes: Sequence[Envelope], now: datetime) -> list[Outcome]:
        return [_accepted(answer) if answer.is_success else _refused(answer, now)]

    def questions(self, domains: frozenset[str], now: datetime) -> list[Question]:
        """A sending key may ask nothing, but it may send; so what is asked first is to send a mail without anything in
        it, which is refused with a 400 when key, domain and region are right."""
        about_domain = self._call("GET", f"/v3/domains/{self.domain}")
        return [
            Question(self._call("POST", f"/v3/{self.domain}/messages"), self._judge_sending),
            Question(about_domain, lambda answer: self._judge_domain(answer, domains)),
        ]

    def _judge_sending(self, answer: Answer) -> list[Finding]:
        if answer.status == 401:
            return [Finding("Mailgun does not know this key: copy it again, or choose the other region.")]
        if answer.status == 404:
            return [Finding(f"Mailgun knows no domain {self.domain} in this region: correct it, or choose the other.")]
        if answer.is_success:
            return [Finding("This is not the address of Mailgun's API: correct it, or leave it empty.")]
        return [] if answer.status == 400 else unclear(answer, "Mailgun")

    def _judge_domain(self, answer: Answer, wanted: frozenset[str]) -> list[Finding]:
        unaligned = [
            Finding(f"Mailgun signs for {self.domain}, so mails from {domain} fail DMARC.", certain=False)
            for domain in sorted(wanted)
            if not f".{domain}".endswith(f".{self.domain}") and not f".{self.domain}".endswith(f".{domain}")
        ]
        domain = answer.fields().get("domain")
        state = plain(domain.get("state")) if isinstance(domain, dict) else ""
        if not answer.is_success or not state:
            return unaligned + unclear(answer, "Mailgun")
        if state != "active":
            return [Finding(f"The domain {self.domain} is {state} at Mailgun: see its DNS records there."), *unaligned]
        return unaligned


def basic_token(key: str) -> str:
    """What stands in the Authorization header."""
    return b64encode(f"api:{key}".encode()).decode()


def _form(envelope: Envelope) -> Fields:
    frame = envelope.frame
    fields = {
        "from": mailbox_text("From", frame.sender),
        "to": mailbox_text("To", envelope.recipient),
        "subject": plain_text("Subject", envelope.subject),
        **{name: body for name, body in (("text", envelope.text), ("html", envelope.html)) if body},
        "o:tracking": "no",
        "o:tracking-clicks": "no",
        "o:tracking-opens": "no",
        f"v:{KEY}": envelope.key,
    }
    headers = [message_id_header(envelope), *headers_of(envelope)]
    if frame.reply_to:
        headers.append(("Reply-To", mailbox_text("Reply-To", frame.reply_to)))
    fields |= {f"h:{name}": value for name, value in header_object(headers).items()}
    options = sum(len(name) + len(value.encode()) for name, value in fields.items() if name[1] == ":")
    if options > LARGEST_OPTIONS:
        raise ValueError(f"its headers have {options} octets, and Mailgun takes {LARGEST_OPTIONS}")
    return fields


def _file(attachment: Attachment) -> File:
    """A HTML part refers to an inline file by the name that the file is sent under."""
    refuse_file(attachment)
    name = attachment.content_id or attachment.filename
    return ("inline" if attachment.content_id else "attachment", (name, attachment.content, attachment.content_type))


def _multipart(fields: Fields, files: Sequence[File], key: str) -> tuple[str, bytes]:
    """Content type and body. The boundary comes from the key: the same mail gives the same octets on every attempt."""
    boundary = blake2b(key.encode(), digest_size=20).hexdigest()
    content_type = f"multipart/form-data; boundary={boundary}"
    request = httpx.Request("POST", APIS["us"], headers={"Content-Type": content_type}, data=fields, files=files)
    return content_type, request.read()


def _accepted(answer: Answer) -> Outcome:
    fields = answer.fields()
    provider_id = fields.get("id")
    if isinstance(provider_id, str) and plain(provider_id).strip("<>"):
        return Outcome(Kind.ACCEPTED, str(answer.status), provider_id=plain(provider_id).strip("<>"))
    cut_off = answer.json() is None and answer.body.lstrip()[:1] in (b"", b"{")
    if cut_off or provider_id is not None:
        return unread(answer)
    # A wrong path gets a 200 from Mailgun, with a greeting (django-anymail knows it).
    return Outcome(Kind.ENGINE, str(answer.status), f"This is not Mailgun's API for sending: {answer.words()}")


def _refused(answer: Answer, now: datetime) -> Outcome:
    text = plain(answer.fields().get("message"))
    return classify_answer(TABLE, answer, text=text, wait=told_to_wait(answer.headers, now) or _again_after(text, now))


def _again_after(text: str, now: datetime) -> timedelta | None:
    found = _AGAIN_AFTER.search(text)
    return read_wait(found[1], now) if found else None


def _fields() -> dict[str, forms.Field]:
    return {
        "api_key": secret_field("Key", "The sending key of the domain, or an API key of the account."),
        "domain": forms.CharField(
            label="Sending domain", max_length=253, help_text="As Mailgun lists it, such as mg.example.com."
        ),
        "region": forms.ChoiceField(
            label="Region", choices=[("us", "US"), ("eu", "EU")], initial="us", help_text="Where the domain was added."
        ),
        **calling_fields(CONCURRENCY, "the region's own"),
    }


def _problems(options: Options, secrets: Secrets) -> list[str]:
    problems = missing({**options, **secrets}, {"api_key": "key", "domain": "sending domain"})
    domain, key = str(options.get("domain") or ""), secrets.get("api_key", "")
    if domain and not re.fullmatch(r"(?=.{4,253}$)([A-Za-z0-9_-]{1,63}\.)+[A-Za-z0-9-]{2,63}", domain):
        problems.append(f"“{domain}” is no domain: give it as Mailgun lists it, such as mg.example.com.")
    if key.startswith("pubkey-"):
        problems.append("That is Mailgun's public key for validation, which may not send: give a sending key.")
    return [*problems, *not_among(options, "region", APIS), *calling_problems(options, secrets)]


def _open(engine_id: int, options: Options, secrets: Secrets) -> ProviderEngine:
    key = secrets["api_key"]
    api = endpoint_of(options, APIS[str(options.get("region") or "us")])
    provider = Mailgun(key, str(options["domain"]).lower(), api)
    return open_provider(provider, options, [key, basic_token(key)], CONCURRENCY)


KIND = EngineKind(
    "mailgun",
    "Mailgun",
    _fields,
    frozenset({"api_key"}),
    _problems,
    _open,
    hint="By its API. One mail a call.",
    uses=at_endpoint("api_key"),
)
