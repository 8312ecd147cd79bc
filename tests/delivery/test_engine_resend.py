"""Resend: what is sent, against the official SDK; what answers mean, by the table of providers.md §5."""

import json
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
import resend
from resend.http_client import HTTPClient

from delivery.core.envelope import Attachment, Kind, Mailbox, Outcome
from delivery.engines.resend import KIND, Resend
from tests.delivery.provider_mails import (
    LOGO,
    NOW,
    PDF,
    PLAIN,
    PROVIDERS,
    SECRETS,
    answer,
    envelope,
    findings,
    frame,
    outcomes,
    send,
    written,
)

pytestmark = pytest.mark.once

RESEND = PROVIDERS["resend"]
KEY = SECRETS["resend"]


class Wire(HTTPClient):
    """Keeps what the SDK would have sent."""

    def __init__(self):
        self.calls = []

    def request(self, method, url, headers, json=None, files=None, data=None):
        self.calls.append((method.upper(), url, dict(headers), json))
        return b"{}", 200, {"content-type": "application/json"}


@pytest.fixture
def sdk():
    """The official SDK, sending to the test: `wire.calls`."""
    before = resend.api_key, resend.default_http_client
    resend.api_key, resend.default_http_client = KEY, Wire()
    yield resend.default_http_client
    resend.api_key, resend.default_http_client = before


def params(mail):
    """The same mail as a user of the SDK would write it."""
    given: resend.Emails.SendParams = {
        "from": '"Shop & Söhne" <news@shop.example>',
        "to": ["Ann Álvarez <ann@mail.example>"],
        "subject": mail.subject,
        "tags": [{"name": "key", "value": mail.key.replace(".", "_")}],
    }
    if mail.text:
        given["text"] = mail.text
    if mail.html:
        given["html"] = mail.html
    if mail.frame.reply_to:
        given["reply_to"] = [mail.frame.reply_to.address]
    if headers := dict((*mail.frame.headers, *mail.headers)):
        given["headers"] = headers
    if mail.frame.attachments:
        given["attachments"] = [
            {"filename": "price list.pdf", "content": "JVBERi0xLjcKAP8=", "content_type": "application/pdf"},
            {
                "filename": "logo.png",
                "content": "iVBORw0K",
                "content_type": "image/png",
                "content_id": "logo@shop.example",
            },
        ]
    return given


def sent(*mails):
    """The call that hands these over, in the words of `Wire.calls`."""
    call = RESEND.call(mails, NOW)
    return call.method, call.url, dict(call.headers), json.loads(call.content)


def key_of(*mails):
    return sent(*mails)[2]["Idempotency-Key"]


def bare(method, url, headers, body):
    """A call without what every client says of itself."""
    said = {name: value for name, value in headers.items() if name not in ("User-Agent", "Content-Type")}
    return method, url, said, body


@pytest.mark.parametrize(
    "mail",
    [
        envelope(),
        envelope(frame=PLAIN, html="", headers=()),
        envelope(frame=frame(attachments=(PDF, LOGO)), text=""),
    ],
    ids=["full", "text", "files"],
)
def test_one_mail_is_sent_as_the_official_sdk_sends_it(sdk, mail):
    resend.Emails.send(params(mail), {"idempotency_key": mail.key})

    assert bare(*sent(mail)) == bare(*sdk.calls[0])


def test_several_mails_are_sent_as_the_official_sdk_sends_them(sdk):
    mails = [envelope(1), envelope(2)]
    options = {"idempotency_key": key_of(*mails), "batch_validation": "permissive"}

    resend.Batch.send([params(mail) for mail in mails], options)

    assert bare(*sent(*mails)) == bare(*sdk.calls[0])


def test_the_fields_of_a_mail_are_those_that_the_sdk_names():
    known = {"from", *resend.Emails.SendParams.__annotations__}

    fields = written(RESEND, envelope(frame=frame(attachments=(PDF, LOGO))))

    assert set(fields) <= known
    assert {name for file in fields["attachments"] for name in file} == {
        "filename", "content", "content_type", "content_id"
    }  # fmt: skip


def test_the_key_of_a_call_names_exactly_its_mails_in_their_order():
    a, b, c = envelope(1), envelope(2), envelope(3)

    keys = [key_of(*mails) for mails in ([a], [b], [a, b], [b, a], [a, b, c], [a, c])]

    assert len(set(keys)) == len(keys)
    assert keys[2] == key_of(envelope(1), envelope(2))
    assert all(0 < len(key) <= 256 for key in keys)


def test_a_mail_with_files_goes_alone_and_the_others_together():
    with_files = frame(attachments=(PDF,))
    mails = [envelope(1), envelope(2, frame=with_files), envelope(3), envelope(4, frame=with_files)]
    asked = []

    def handler(request):
        asked.append(request.url.path)
        body = json.loads(request.content)
        made = [{"id": each["subject"]} for each in body] if isinstance(body, list) else []
        return httpx.Response(200, json={"data": made} if made else {"id": body["subject"]})

    found = send(RESEND, handler, *mails)

    assert asked == ["/emails/batch", "/emails", "/emails"]
    assert [(each.kind, each.provider_id) for each in found] == [
        (Kind.ACCEPTED, f"Offer № {number}") for number in (1, 2, 3, 4)
    ]


def accepted(provider_id):
    return Outcome(Kind.ACCEPTED, "200", provider_id=provider_id)


def test_one_accepted_mail_has_its_id():
    assert outcomes(RESEND, answer(200, {"id": "49a3999c"})) == [accepted("49a3999c")]


def test_of_a_batch_each_mail_has_its_own_id_or_refusal():
    said = {
        "data": [{"id": "id-0"}, {"id": "id-3"}, {"id": "id-5"}],
        "errors": [
            {"index": 1, "message": "Invalid `to` field. The email address needs to follow the format."},
            {"index": 4, "message": "The `html` field is too long."},
            {"index": 2, "message": "The other.example domain is not verified. Please, add and verify your domain"},
        ],
    }

    found = outcomes(RESEND, answer(200, said), 6)

    assert [found[0], found[3], found[5]] == [accepted("id-0"), accepted("id-3"), accepted("id-5")]
    assert [(each.kind, each.hard, each.shared) for each in (found[1], found[2], found[4])] == [
        (Kind.RECIPIENT, False, False),
        (Kind.ENGINE, False, False),
        (Kind.MESSAGE, False, False),
    ]
    assert found[4] == Outcome(Kind.MESSAGE, "422 validation_error", "The `html` field is too long.")


def test_a_batch_that_is_wholly_taken_may_have_an_empty_list_of_errors():
    said = {"data": [{"id": "a"}, {"id": "b"}], "errors": []}

    assert outcomes(RESEND, answer(200, said), 2) == [accepted("a"), accepted("b")]


@pytest.mark.parametrize(
    "said",
    [
        {"data": [{"id": "a"}]},
        {"data": [{"id": "a"}, {"id": "b"}, {"id": "c"}]},
        {"data": [{"id": "a"}, {"id": "b"}], "errors": [{"index": 0, "message": "no"}]},
        {"data": [{"id": "a"}], "errors": [{"index": 2, "message": "no"}]},
        {"data": [{"id": "a"}], "errors": [{"index": -1, "message": "no"}]},
        {"data": [{"id": "a"}], "errors": [{"index": True, "message": "no"}]},
        {"data": [{"id": "a"}], "errors": [{"index": [], "message": "no"}]},
        {"data": [], "errors": [{"index": 1, "message": "no"}, {"index": 1, "message": "no"}]},
        {"data": [{"id": "a"}, {"id": "b"}], "errors": [{"index": None, "message": "no"}]},
        {"data": [{"id": "a"}, None]},
        {"data": {"id": "a"}},
        {"id": "a"},
        {"statusCode": 422, "name": "validation_error", "message": "no"},
    ],
)
def test_when_nobody_can_tell_which_id_is_whose_nothing_is_guessed(said):
    found = outcomes(RESEND, answer(200, said), 2)

    assert [each.kind for each in found] == [Kind.UNKNOWN] * 2


def test_an_id_that_is_none_leaves_that_mail_alone_unknown():
    found = outcomes(RESEND, answer(200, {"data": [{"id": "a"}, {"id": None}]}), 2)

    assert [each.kind for each in found] == [Kind.ACCEPTED, Kind.UNKNOWN]


def failed(status, name, message="", **headers):
    return answer(status, {"statusCode": status, "name": name, "message": message}, **headers)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (failed(401, "missing_api_key", "Missing API key in the authorization header"), Kind.ENGINE),
        (failed(401, "restricted_api_key", "This API key is restricted to only send emails"), Kind.ENGINE),
        (failed(403, "invalid_api_key", "API key is invalid"), Kind.ENGINE),
        (failed(400, "validation_error", "API key is invalid"), Kind.ENGINE),
        (failed(403, "suspended_api_key"), Kind.ENGINE),
        (failed(403, "invalid_permission"), Kind.ENGINE),
        (failed(403, "validation_error", "The shop.example domain is not verified. Please, add"), Kind.ENGINE),
        (failed(403, "validation_error", "You can only send testing emails to your own email address"), Kind.ENGINE),
        (failed(429, "monthly_quota_exceeded", "You have reached your monthly quota"), Kind.ENGINE),
        (failed(429, "daily_quota_exceeded", "You have reached your daily quota"), Kind.ENGINE),
        (failed(404, "not_found", "The requested endpoint does not exist"), Kind.ENGINE),
        (failed(429, "rate_limit_exceeded", "Too many requests"), Kind.THROTTLED),
        (failed(400, "validation_error", "We found an error with one or more fields"), Kind.MESSAGE),
        (failed(422, "validation_error", "Invalid `from` field. The email address needs to follow"), Kind.MESSAGE),
        (failed(422, "validation_error", "Invalid `to` field. The email address needs to follow"), Kind.RECIPIENT),
        (failed(422, "validation_error", "Invalid `reply_to` field. The email address needs"), Kind.MESSAGE),
        (failed(422, "invalid_parameter", "The parameter must be a valid UUID"), Kind.MESSAGE),
        (failed(422, "missing_required_field", "Missing `subject` field"), Kind.MESSAGE),
        (failed(422, "invalid_attachment", "Attachment must have either a content or path"), Kind.MESSAGE),
        (failed(422, "invalid_from_address", "Invalid from field"), Kind.MESSAGE),
        (answer(413, b"<html>413</html>"), Kind.MESSAGE),
        (failed(409, "concurrent_idempotent_requests", "Same idempotency key used"), Kind.UNKNOWN),
        (failed(409, "resource_locked"), Kind.UNKNOWN),
        (failed(409, "nobody_knows"), Kind.UNKNOWN),
        (failed(409, "invalid_idempotent_request", "Same key with a different payload"), Kind.MESSAGE),
        (failed(400, "invalid_idempotency_key", "The key must be between 1-256 chars"), Kind.MESSAGE),
        (failed(451, "security_error", "We may have found a security issue"), Kind.MESSAGE),
        (failed(500, "application_error", "An unexpected error occurred"), Kind.TRANSIENT),
        (failed(500, "internal_server_error"), Kind.TRANSIENT),
        (failed(503, "service_unavailable"), Kind.TRANSIENT),
        (answer(403, b"error code: 1010"), Kind.ENGINE),
    ],
)
def test_an_answer_means_what_the_table_says_of_one_mail_and_of_all(said, kind):
    (alone,) = outcomes(RESEND, said)
    together = outcomes(RESEND, said, 2)

    assert (alone.kind, alone.hard, alone.shared) == (kind, False, False)
    blamed = kind in (Kind.MESSAGE, Kind.RECIPIENT)
    assert [(each.kind, each.shared) for each in together] == [(kind, blamed)] * 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry_after": "3", "ratelimit_reset": "9"}, 3), ({"ratelimit_reset": "9"}, 9)],
)
def test_the_wait_is_what_the_headers_say(headers, seconds):
    (found,) = outcomes(RESEND, failed(429, "rate_limit_exceeded", "Too many requests", **headers))

    assert found.retry_after == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("mail", "words"),
    [
        (envelope(html="x" * 40_000_001), "takes mails of up to 40 MB"),
        (envelope(subject=""), "takes no mail without a subject"),
        (envelope(frame=frame(attachments=(replace(PDF, filename=""),))), "without a file name"),
        (
            envelope(frame=frame(attachments=(replace(PDF, filename="list.txt"),))),
            "takes “list.txt” by its name as text/plain, not as application/pdf",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_api_cannot_carry_is_refused_by_name(mail, words):
    found = RESEND.refuse(mail)

    assert (found.kind, words in found.text) == (Kind.MESSAGE, True)


def test_a_file_whose_name_says_nothing_or_the_same_is_not_refused():
    files = (
        Attachment("data.zz", "application/x-own", b"x"),
        Attachment("a.txt", "text/plain; charset=utf-8", b"x"),
        Attachment("A.PDF", "application/PDF", b"x"),
    )

    assert RESEND.refuse(envelope(frame=frame(attachments=files))) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"headers": (("X-A", "1"), ("x-a", "2"))}, "x-a is given twice"),
        ({"key": "ünï"}, "cannot be a tag"),
        ({"recipient": Mailbox("nobody", "")}, "not an e-mail address"),
    ],
)
def test_what_cannot_be_written_down_is_refused_and_not_dropped(changes, words):
    with pytest.raises(ValueError, match=words):
        written(RESEND, envelope(**changes))


ASKED = "GET /domains"


def domain(name, status="verified", **more):
    return {"name": name, "status": status, "open_tracking": False, "click_tracking": False, **more}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            httpx.Response(403, json={"name": "invalid_api_key", "message": "API key is invalid"}),
            [("Resend refuses this API key: API key is invalid", True)],
        ),
        (
            httpx.Response(400, json={"name": "validation_error", "message": "API key is invalid"}),
            [("Resend refuses this API key: API key is invalid", True)],
        ),
        (
            httpx.Response(401, json={"name": "restricted_api_key", "message": "This API key is restricted"}),
            [("This API key may send and nothing else, so Resend does not tell which domains are verified.", False)],
        ),
        (
            httpx.Response(200, json={"data": [domain("shop.example", "pending")]}),
            [("Resend has not verified shop.example: add it there as a sender identity, or take it off this engine.",
              True)],
        ),
        (
            httpx.Response(200, json={"data": [domain("example")]}),  # no parent domain stands in
            [("Resend has not verified shop.example: add it there as a sender identity, or take it off this engine.",
              True)],
        ),
        (
            httpx.Response(200, json={"data": [domain("example")], "has_more": True}),
            [("Resend has not verified shop.example: add it there as a sender identity, or take it off this engine.",
              False)],
        ),
        (
            httpx.Response(200, json={"data": [domain("shop.example", open_tracking=True)]}),
            [("Resend tracks opens or clicks in mails from shop.example: turn that off there.", False)],
        ),
        (httpx.Response(200, json={"data": [domain("Shop.example")], "has_more": False}), []),
    ],
    ids=["key", "old key", "restricted", "pending", "parent", "more", "tracked", "well"],
)  # fmt: skip
def test_a_check_says_what_is_wrong(said, expected):
    assert findings(RESEND, {ASKED: said}, "shop.example") == expected


@pytest.mark.parametrize(
    ("options", "secrets", "words"),
    [
        ({}, {}, "The API key is missing."),
        ({}, {"api_key": "sk_0123456789"}, "one begins with “re_”"),
        ({"batch_size": 101}, {"api_key": KEY}, "The setting batch size must be between 1 and 100"),
        ({"batch_size": "many"}, {"api_key": KEY}, "The setting batch size must be between 1 and 100"),
        ({}, {"api_key": f" {KEY}"}, "has spaces around it"),
    ],
)
def test_settings_that_cannot_work_are_found_without_asking(options, secrets, words):
    (problem,) = KIND.problems(options, secrets)

    assert words in problem


@pytest.mark.parametrize(("options", "size", "honours_keys"), [({}, 100, False), ({"batch_size": 1}, 1, True)])
def test_settings_that_may_work_open_an_engine(options, size, honours_keys):
    engine = KIND.open(1, options, {"api_key": KEY})

    assert KIND.problems(options, {"api_key": KEY}) == []
    assert (engine.batch_size, engine.honours_keys) == (size, honours_keys)
    assert set(KIND.fields()) >= {*options, *KIND.secret_fields}


def test_another_address_takes_the_place_of_the_apis():
    assert Resend(KEY, "https://proxy.example").call([envelope()], NOW).url == "https://proxy.example/emails"
