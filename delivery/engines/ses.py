"""Amazon SES by its API v2: one mail a call, raw, so that it is ours to the last octet.

Sources: the model of sesv2 in botocore, https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html.
SES writes its own Message-ID and Date, whatever a mail has.
"""

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django import forms

from delivery.core.answer import Answer, Row, classify_answer, plain, told_to_wait, unread
from delivery.core.envelope import Envelope, Kind, Outcome
from delivery.core.meaning import ENGINE, MESSAGE, QUOTA_USED, SLOWER, TROUBLE
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
from delivery.engines.aws_signature import Credentials, Scope, signed
from delivery.engines.base import Finding
from delivery.engines.kind import EngineKind, Options, Secrets
from delivery.engines.limits import beyond_ascii, refusal, too_large
from delivery.engines.mail_parts import KEY, json_body, key_as_tag
from delivery.engines.provider import ProviderEngine, Question
from delivery.http import Call
from delivery.mime import Builder
from delivery.mime.headers import sendable_address

# Those of botocore 1.44.8, endpoints.json.
REGIONS = (
    "af-south-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2",
    "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6",
    "ap-southeast-7", "ca-central-1", "ca-west-1", "eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1",
    "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3", "eusc-de-east-1", "il-central-1", "me-central-1", "me-south-1",
    "mx-central-1", "sa-east-1", "us-east-1", "us-east-2", "us-gov-east-1", "us-gov-west-1", "us-west-1", "us-west-2",
)  # fmt: skip
CONCURRENCY = 20
LARGEST = 40_000_000  # octets, after the mail's own base64

NEEDS_A_PERSON = (
    "AccountSuspendedException", "SendingPausedException", "MailFromDomainNotVerifiedException", "NotFoundException",
    "AccessDenied", "AccessDeniedException", "OptInRequired", "InvalidClientTokenId", "UnrecognizedClient",
    "UnrecognizedClientException", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature", "IncompleteSignatureException",
    "ExpiredToken", "ExpiredTokenException", "RequestExpired",
)  # fmt: skip
# By the error's type.
TABLE = (
    Row(QUOTA_USED, codes=("LimitExceededException",)),
    Row(QUOTA_USED, codes=("ThrottlingException", "Throttling", "TooManyRequestsException"), words=r"daily|quota"),
    Row(SLOWER, codes=("ThrottlingException", "Throttling", "TooManyRequestsException")),
    Row(ENGINE, codes=NEEDS_A_PERSON),
    # Of a sandboxed account this may be the recipient; what has to be done is done by the account all the same.
    Row(ENGINE, codes=("MessageRejected",), words=r"address is not verified"),
    Row(MESSAGE, codes=("MessageRejected", "BadRequestException", "ValidationException", "RequestEntityTooLarge")),
    Row(TROUBLE, codes=("RequestTimeout", "InternalFailure", "InternalServiceError", "ServiceUnavailable")),
    Row(ENGINE, statuses=(404, 405)),
)
# What the credentials are told to be wrong by; a missing permission is another thing.
BAD_CREDENTIALS = re.compile("signature|token|client|expired", re.IGNORECASE)

TRACKING_OFF = {"Tracking": {"OpenTrackingEnabled": "DISABLED", "ClickTrackingEnabled": "DISABLED"}}


@dataclass(frozen=True, slots=True)
class Ses:
    """See `delivery.engines.provider.Provider`."""

    credentials: Credentials
    region: str
    configuration_set: str = ""
    api: str = ""
    build: Callable[[Envelope], bytes] = field(default_factory=Builder, repr=False, compare=False)
    batch_size: int = 1
    honours_keys: bool = False

    def refuse(self, envelope: Envelope) -> Outcome | None:
        return refusal("Amazon SES", [too_large(envelope, LARGEST), beyond_ascii(envelope)])

    def call(self, envelopes: Sequence[Envelope], now: datetime) -> Call:
        (envelope,) = envelopes
        mail: dict[str, object] = {
            "FromEmailAddress": sendable_address("From", envelope.frame.sender.address),
            "Destination": {"ToAddresses": [sendable_address("To", envelope.recipient.address)]},
            "Content": {"Raw": {"Data": base64.b64encode(self.build(envelope)).decode()}},
            "EmailTags": [{"Name": KEY, "Value": key_as_tag(envelope.key)}],
            "ConfigurationOverrides": TRACKING_OFF,
        }
        if self.configuration_set:
            mail["ConfigurationSetName"] = self.configuration_set
        return self._call("POST", "/v2/email/outbound-emails", now, json_body(mail))

    def _call(self, method: str, path: str, now: datetime, body: bytes = b"") -> Call:
        url = (self.api or default_api(self.region)) + path
        headers = signed(
            method,
            url,
            {"Content-Type": "application/json"},
            body,
            credentials=self.credentials,
            scope=Scope(self.region, "ses"),
            now=now,
        )
        return Call(method, url, headers, body)

    def read(self, answer: Answer, envelopes: Sequence[Envelope], now: datetime) -> list[Outcome]:
        if answer.is_success:
            provider_id = answer.fields().get("MessageId")
            if isinstance(provider_id, str) and plain(provider_id):
                return [Outcome(Kind.ACCEPTED, str(answer.status), provider_id=plain(provider_id))]
            return [unread(answer)]
        wait = told_to_wait(answer.headers, now)
        return [classify_answer(TABLE, answer, code=_type(answer), text=_text(answer), wait=wait)]

    def questions(self, domains: frozenset[str], now: datetime) -> list[Question]:
        """The account of this region, then each From domain."""
        return [
            Question(self._call("GET", "/v2/email/account", now), self._judge_account),
            *(self._question_about(domain, now) for domain in sorted(domains)),
        ]

    def _question_about(self, domain: str, now: datetime) -> Question:
        def judge(answer: Answer) -> list[Finding]:
            if answer.status == 404:  # a verified parent domain or single address may stand in
                return [Finding(f"SES has no identity {domain} in {self.region}: verify it there.", certain=False)]
            verified = answer.fields().get("VerifiedForSendingStatus")
            if verified is False:
                return [Finding(f"SES has not verified {domain} in {self.region}: see the DNS records it asks for.")]
            return [] if answer.is_success and verified is True else unclear(answer, "SES")

        return Question(self._call("GET", f"/v2/email/identities/{domain}", now), judge)

    def _judge_account(self, answer: Answer) -> list[Finding]:
        if answer.status in (400, 401, 403) and BAD_CREDENTIALS.search(_type(answer)):
            return [Finding(f"AWS refuses these credentials: {_type(answer)} {_text(answer)}".rstrip())]
        account = answer.fields()
        if not answer.is_success or "SendingEnabled" not in account:
            return unclear(answer, "SES")
        findings = []
        if account.get("EnforcementStatus") == "SHUTDOWN":
            findings.append(Finding(f"AWS has shut down sending from this account in {self.region}: ask its support."))
        elif account.get("SendingEnabled") is False:
            findings.append(Finding(f"Sending is paused for this account in {self.region}: resume it in the console."))
        if account.get("EnforcementStatus") == "PROBATION":
            findings.append(Finding("AWS has this account under review, and may pause it.", certain=False))
        if account.get("ProductionAccessEnabled") is False:
            words = f"This account is in the sandbox in {self.region}: only verified addresses can be written to."
            findings.append(Finding(words, certain=False))
        return findings


def default_api(region: str) -> str:
    """The address of the API in a region."""
    return f"https://email.{region}.amazonaws.{'eu' if region.startswith('eusc-') else 'com'}"


def _type(answer: Answer) -> str:
    """`MessageRejected`, without what some answers put around it."""
    fields = answer.fields()
    said = answer.headers.get("x-amzn-errortype") or fields.get("__type") or fields.get("code")
    return plain(said).partition(":")[0].rpartition("#")[2].strip()


def _text(answer: Answer) -> str:
    fields = answer.fields()
    return plain(fields.get("message") or fields.get("Message"))


def _fields() -> dict[str, forms.Field]:
    return {
        "region": forms.ChoiceField(
            label="Region",
            choices=[(region, region) for region in REGIONS],
            initial="us-east-1",
            help_text="Identities and limits are those of the region.",
        ),
        "access_key_id": forms.CharField(label="Access key ID", max_length=128),
        "secret_access_key": secret_field("Secret access key", "Of an IAM user who may do ses:SendEmail."),
        "session_token": forms.CharField(
            label="Session token",
            max_length=4000,
            required=False,
            help_text="Only with a temporary access key, whose ID begins with ASIA.",
        ),
        "configuration_set": forms.CharField(
            label="Configuration set",
            max_length=64,
            required=False,
            help_text="The one that publishes the events of its mails.",
        ),
        **calling_fields(CONCURRENCY, "the region's own"),
    }


def _problems(options: Options, secrets: Secrets) -> list[str]:
    given = {**options, **secrets}
    required = {"region": "region", "access_key_id": "access key ID", "secret_access_key": "secret access key"}
    return [
        *missing(given, required),
        *_wrong_region(options),
        *_wrong_key(str(options.get("access_key_id") or ""), secrets),
        *_wrong_configuration_set(str(options.get("configuration_set") or "")),
        *calling_problems(options, secrets),
    ]


def _wrong_region(options: Options) -> list[str]:
    region = str(options.get("region") or "")
    # Beside an address of its own, a region is only a part of the signature: one may be newer than the list.
    known = region in REGIONS or (options.get("endpoint") and re.fullmatch(r"[a-z0-9-]+", region))
    return [] if known or not region else [f"“{region}” is not a region with Amazon SES: give one such as eu-west-1."]


def _wrong_key(key_id: str, secrets: Secrets) -> list[str]:
    secret, token = secrets.get("secret_access_key", ""), secrets.get("session_token", "")
    problems = []
    if key_id and not re.fullmatch(r"A[KS]IA[A-Z0-9]{12,124}", key_id):
        problems.append("That is no access key ID: one is in capital letters and digits, and begins with AKIA or ASIA.")
    elif key_id.startswith("ASIA") and not token:
        problems.append("This access key is a temporary one: its session token is missing.")
    elif key_id.startswith("AKIA") and token:
        problems.append("There is a session token, but this access key is not a temporary one.")
    if secret and not re.fullmatch(r"[A-Za-z0-9/+=]{40}", secret.strip()):
        problems.append("That is no secret access key: one has 40 characters. The SMTP password of SES is another.")
    return problems


def _wrong_configuration_set(name: str) -> list[str]:
    if not name or re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        return []
    return [f"“{name}” is no configuration set: a name has letters, digits, - and _."]


def _open(engine_id: int, options: Options, secrets: Secrets) -> ProviderEngine:
    credentials = Credentials(
        str(options["access_key_id"]), secrets["secret_access_key"], secrets.get("session_token", "")
    )
    region = str(options["region"])
    provider = Ses(
        credentials,
        region,
        str(options.get("configuration_set") or ""),
        endpoint_of(options, default_api(region)),
    )
    return open_provider(provider, options, secrets.values(), CONCURRENCY)


KIND = EngineKind(
    "ses",
    "Amazon SES",
    _fields,
    frozenset({"secret_access_key", "session_token"}),
    _problems,
    _open,
    hint="By its API, with an access key of AWS. One mail a call.",
    uses=at_endpoint("secret_access_key", "session_token"),
)
