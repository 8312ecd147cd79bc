"""Amazon SES: what is sent, against the official SDK; what answers mean, by the tables of providers.md §2."""

import base64
import json
from datetime import timedelta
from email import message_from_bytes, policy
from types import SimpleNamespace

import boto3
import httpx
import pytest
from botocore.awsrequest import AWSResponse

from delivery.core.envelope import Attachment, Kind, Mailbox, Outcome
from delivery.engines.aws_signature import Credentials
from delivery.engines.ses import KIND, REGIONS, Ses, default_api
from tests.delivery.provider_mails import (
    NOW,
    PDF,
    PROVIDERS,
    SECRETS,
    answer,
    envelope,
    findings,
    frame,
    outcomes,
    written,
)

pytestmark = pytest.mark.once

SES = PROVIDERS["ses"]
SECRET = SECRETS["ses"]
KEY_ID = "AKIAIOSFODNN7EXAMPLE"
HOURS = timedelta(hours=4)


# ---- what is sent ----


def test_the_call_is_the_raw_mail_its_tag_and_no_tracking():
    mail = envelope(10, recipient=Mailbox("ann@bücher.example", "Ann"))
    provider = Ses(Credentials(KEY_ID, SECRET), "eu-west-1", "events")

    body = written(provider, mail)

    raw = base64.b64decode(body["Content"].pop("Raw")["Data"])
    assert raw == provider.build(mail)
    assert b"To: Ann <ann@xn--bcher-kva.example>\r\n" in raw
    assert body == {
        "FromEmailAddress": "news@shop.example",
        "Destination": {"ToAddresses": ["ann@xn--bcher-kva.example"]},
        "Content": {},
        "EmailTags": [{"Name": "key", "Value": "00ff00ff00ff00ff_a"}],
        "ConfigurationOverrides": {"Tracking": {"OpenTrackingEnabled": "DISABLED", "ClickTrackingEnabled": "DISABLED"}},
        "ConfigurationSetName": "events",
    }


def test_the_official_sdk_makes_the_same_call_of_what_is_sent():
    sent = SES.call([envelope(frame=frame(attachments=(PDF,)))], NOW)
    given = json.loads(sent.content)
    given["Content"]["Raw"]["Data"] = base64.b64decode(given["Content"]["Raw"]["Data"])
    client = boto3.client("sesv2", "eu-west-1", aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET)
    made = []
    client.meta.events.register("before-send.sesv2.SendEmail", lambda request, **_: made.append(request) or accepted())

    client.send_email(**given)  # raises for what its model does not know

    assert [(each.method, each.url, json.loads(each.body)) for each in made] == [
        (sent.method, sent.url, json.loads(sent.content))
    ]


def accepted():
    """The answer that botocore gets instead of asking Amazon."""
    raw = SimpleNamespace(stream=lambda: iter([b'{"MessageId": "1"}']))
    return AWSResponse("https://email.eu-west-1.amazonaws.com/", 200, {"content-type": "application/json"}, raw)


@pytest.mark.parametrize("region", REGIONS)
def test_every_region_has_the_address_that_botocore_gives_it(region):
    client = boto3.client("sesv2", region, aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET)

    assert default_api(region) == client.meta.endpoint_url


@pytest.mark.parametrize(
    ("mail", "words"),
    [
        (envelope(recipient=Mailbox("bjørn@mail.example")), "such as bjørn@mail.example"),
        (envelope(frame=frame(sender=Mailbox("büro@shop.example"))), "such as büro@shop.example"),
        (envelope(frame=frame(reply_to=Mailbox("büro@shop.example"))), "letters beyond ASCII before the @"),
        (envelope(frame=frame(attachments=(Attachment("a", "a/b", bytes(31_000_000)),))), "mails of up to 40 MB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_api_cannot_carry_is_refused_by_name(mail, words):
    found = SES.refuse(mail)

    assert found.kind is Kind.MESSAGE
    assert found.text.startswith("Amazon SES takes ")
    assert words in found.text


def test_more_headers_than_a_simple_mail_may_have_go_in_a_raw_one():
    mail = envelope(headers=tuple((f"X-{number}", "ä" * 50) for number in range(40)))

    raw = base64.b64decode(written(SES, mail)["Content"]["Raw"]["Data"])

    assert SES.refuse(mail) is None
    assert message_from_bytes(raw, policy=policy.default)["X-39"] == "ä" * 50


# ---- what answers mean ----


def failed(status, name, message="", **headers):
    return answer(status, {"message": message}, x_amzn_errortype=name, **headers)


@pytest.mark.parametrize(
    ("said", "kind", "wait"),
    [
        (failed(429, "TooManyRequestsException", "Too many requests"), Kind.THROTTLED, None),
        (failed(400, "ThrottlingException", "Maximum sending rate exceeded."), Kind.THROTTLED, None),
        (failed(400, "Throttling", "Maximum sending rate exceeded."), Kind.THROTTLED, None),
        (failed(400, "ThrottlingException", "Daily message quota exceeded."), Kind.THROTTLED, HOURS),
        (failed(429, "TooManyRequestsException", "Daily message quota exceeded"), Kind.THROTTLED, HOURS),
        (failed(400, "LimitExceededException", "There are too many"), Kind.THROTTLED, HOURS),
        (failed(400, "AccountSuspendedException"), Kind.ENGINE, None),
        (failed(400, "SendingPausedException", "Sending is paused"), Kind.ENGINE, None),
        (failed(400, "MailFromDomainNotVerifiedException"), Kind.ENGINE, None),
        (failed(404, "NotFoundException", "Configuration set <cs> does not exist."), Kind.ENGINE, None),
        (failed(403, "AccessDeniedException", "User is not authorized"), Kind.ENGINE, None),
        (failed(403, "AccessDenied"), Kind.ENGINE, None),
        (failed(403, "InvalidClientTokenId"), Kind.ENGINE, None),
        (failed(403, "InvalidSignatureException", "The request signature"), Kind.ENGINE, None),
        (failed(403, "SignatureDoesNotMatch"), Kind.ENGINE, None),
        (failed(403, "UnrecognizedClientException", "The security token is invalid"), Kind.ENGINE, None),
        (failed(403, "ExpiredTokenException"), Kind.ENGINE, None),
        (failed(403, "ExpiredToken"), Kind.ENGINE, None),
        (failed(400, "IncompleteSignature"), Kind.ENGINE, None),
        (failed(403, "IncompleteSignatureException"), Kind.ENGINE, None),
        (
            failed(
                400,
                "MessageRejected",
                "Email address is not verified. The following identities failed the check in region EU-WEST-1: a@b.c",
            ),
            Kind.ENGINE,
            None,
        ),
        (failed(400, "MessageRejected", "Transaction failed: Duplicate header 'Subject'."), Kind.MESSAGE, None),
        (failed(400, "BadRequestException", "Illegal address"), Kind.MESSAGE, None),
        (failed(400, "ValidationException", "1 validation error detected"), Kind.MESSAGE, None),
        (failed(413, "RequestEntityTooLarge", "Request size exceeded 10485760 bytes"), Kind.MESSAGE, None),
        (answer(413, b"<html>413 Request Entity Too Large</html>"), Kind.MESSAGE, None),
        (failed(408, "RequestTimeout"), Kind.TRANSIENT, None),
        (failed(500, "InternalFailure"), Kind.TRANSIENT, None),
        (failed(500, "InternalServiceError"), Kind.TRANSIENT, None),
        (failed(503, "ServiceUnavailable"), Kind.TRANSIENT, None),
        (answer(504, b""), Kind.TRANSIENT, None),
        (failed(400, "NobodyKnowsThisException", "?"), Kind.MESSAGE, None),
    ],
)
def test_an_answer_means_what_the_table_says(said, kind, wait):
    (found,) = outcomes(SES, said)

    assert (found.kind, found.retry_after, found.hard, found.shared) == (kind, wait, False, False)


@pytest.mark.parametrize(
    "said",
    [
        answer(400, {"message": "no"}, x_amzn_errortype="MessageRejected:http://internal.amazon.com/coral/"),
        answer(400, {"message": "no", "__type": "com.amazonaws.sesv2#MessageRejected"}),
        answer(400, {"Message": "no", "code": "MessageRejected"}),
    ],
)
def test_the_type_of_an_error_is_found_wherever_it_stands(said):
    assert outcomes(SES, said) == [Outcome(Kind.MESSAGE, "400 MessageRejected", "no")]


def test_an_accepted_mail_has_the_bare_id_of_its_events():
    assert outcomes(SES, answer(200, {"MessageId": "0102018f"})) == [
        Outcome(Kind.ACCEPTED, "200", provider_id="0102018f")
    ]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"MessageId": ""}', b'{"MessageId": 7}', b'{"MessageId": "01', b"[]"])
def test_a_yes_without_an_id_accepts_nothing(body):
    assert [each.kind for each in outcomes(SES, answer(200, body))] == [Kind.UNKNOWN]


# ---- settings ----

ACCOUNT = "GET /v2/email/account"
HEALTHY = {"SendingEnabled": True, "ProductionAccessEnabled": True, "EnforcementStatus": "HEALTHY"}
VERIFIED = {"GET /v2/email/identities/shop.example": httpx.Response(200, json={"VerifiedForSendingStatus": True})}


def aws_error(name, message, status=403):
    return httpx.Response(status, headers={"x-amzn-errortype": name}, json={"message": message})


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        (httpx.Response(200, json=HEALTHY), []),
        (
            httpx.Response(200, json=HEALTHY | {"SendingEnabled": False}),
            [("Sending is paused for this account in eu-west-1: resume it in the console.", True)],
        ),
        (
            httpx.Response(200, json=HEALTHY | {"SendingEnabled": False, "EnforcementStatus": "SHUTDOWN"}),
            [("AWS has shut down sending from this account in eu-west-1: ask its support.", True)],
        ),
        (
            httpx.Response(200, json=HEALTHY | {"EnforcementStatus": "PROBATION"}),
            [("AWS has this account under review, and may pause it.", False)],
        ),
        (
            httpx.Response(200, json=HEALTHY | {"ProductionAccessEnabled": False}),
            [("This account is in the sandbox in eu-west-1: only verified addresses can be written to.", False)],
        ),
        (
            aws_error("UnrecognizedClientException", "The security token included in the request is invalid."),
            [
                (
                    "AWS refuses these credentials: UnrecognizedClientException The security token included in the "
                    "request is invalid.",
                    True,
                )
            ],
        ),
        (
            aws_error("InvalidSignatureException", "Signature expired: 20260102T030405Z is now earlier", 400),
            [
                (
                    "AWS refuses these credentials: InvalidSignatureException Signature expired: 20260102T030405Z is "
                    "now earlier",
                    True,
                )
            ],
        ),
        (
            aws_error("AccessDeniedException", "not authorized to perform: ses:GetAccount"),
            [
                (
                    'SES did not tell: it answered 403 {"message":"not authorized to perform: ses:GetAccount"}',
                    False,
                )
            ],
        ),
    ],
)
def test_a_check_says_what_is_wrong_with_the_account(account, expected):
    assert findings(SES, {ACCOUNT: account, **VERIFIED}, "shop.example") == expected


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (httpx.Response(404, json={}), [("SES has no identity shop.example in eu-west-1: verify it there.", False)]),
        (
            httpx.Response(200, json={"VerifiedForSendingStatus": False}),
            [("SES has not verified shop.example in eu-west-1: see the DNS records it asks for.", True)],
        ),
        (aws_error("AccessDeniedException", "no"), [('SES did not tell: it answered 403 {"message":"no"}', False)]),
    ],
)
def test_a_check_says_which_domains_are_not_verified(identity, expected):
    answers = {ACCOUNT: httpx.Response(200, json=HEALTHY), "GET /v2/email/identities/shop.example": identity}

    assert findings(SES, answers, "shop.example") == expected


GOOD = {"region": "eu-west-1", "access_key_id": KEY_ID}


@pytest.mark.parametrize(
    ("options", "secrets", "words"),
    [
        ({"region": "eu-west-1"}, {"secret_access_key": SECRET}, "The access key ID is missing."),
        (GOOD, {}, "The secret access key is missing."),
        (GOOD | {"region": "eu-west-9"}, {"secret_access_key": SECRET}, "“eu-west-9” is not a region with Amazon SES"),
        (GOOD | {"access_key_id": "hello"}, {"secret_access_key": SECRET}, "begins with AKIA or ASIA"),
        (GOOD | {"access_key_id": "ASIAIOSFODNN7EXAMPLE"}, {"secret_access_key": SECRET}, "session token is missing"),
        (GOOD, {"secret_access_key": SECRET, "session_token": "TOKEN"}, "is not a temporary one"),
        (GOOD, {"secret_access_key": "BOntiZFm/r+5s3psZ"}, "one has 40 characters"),
        (GOOD, {"secret_access_key": SECRET + "\n"}, "has spaces around it"),
        (GOOD | {"configuration_set": "a b"}, {"secret_access_key": SECRET}, "“a b” is no configuration set"),
        (GOOD | {"endpoint": "https://10.0.0.1"}, {"secret_access_key": SECRET}, "is not a public address"),
    ],
)
def test_settings_that_cannot_work_are_found_without_asking(options, secrets, words):
    (problem,) = KIND.problems(options, secrets)

    assert words in problem


def test_settings_that_may_work_open_an_engine():
    options = {"region": "us-east-1", "access_key_id": "ASIAIOSFODNN7EXAMPLE", "configuration_set": "events-1"}
    secrets = {"secret_access_key": SECRET, "session_token": "a/b+c=="}

    engine = KIND.open(1, options, secrets)

    assert KIND.problems(options, secrets) == []
    assert (engine.batch_size, engine.honours_keys) == (1, False)
    assert set(KIND.fields()) >= {*options, *KIND.secret_fields}


def test_a_region_newer_than_the_list_may_be_given_with_its_address():
    options = GOOD | {"region": "xx-new-1", "endpoint": "https://email.xx-new-1.amazonaws.com"}

    assert KIND.problems(options, {"secret_access_key": SECRET}) == []
