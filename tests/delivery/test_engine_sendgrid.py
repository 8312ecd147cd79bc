"""SendGrid: what is sent, against the official SDK; what answers mean, by the table of providers.md §1."""

from datetime import timedelta

import httpx
import pytest
from sendgrid.helpers import mail as sdk

from delivery.core.envelope import Attachment, Kind, Mailbox, Outcome
from delivery.engines.sendgrid import KIND, SendGrid
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
    written,
)

pytestmark = pytest.mark.once

SENDGRID = PROVIDERS["sendgrid"]
KEY = SECRETS["sendgrid"]


def error(message, field=None):
    return {"errors": [{"message": message, "field": field, "help": None}]}


TO_ADDRESS = "personalizations.0.to.0.email"


def by_the_sdk(mail):
    """The same mail as the official SDK writes it."""
    built = sdk.Mail()
    built.from_email = sdk.From(mail.frame.sender.address, mail.frame.sender.name or None)
    person = sdk.Personalization()
    person.add_to(sdk.To(mail.recipient.address, mail.recipient.name or None))
    for name, value in (("Message-ID", f"<{mail.message_id}>"), *mail.frame.headers, *mail.headers):
        person.add_header(sdk.Header(name, value))
    person.add_custom_arg(sdk.CustomArg("key", mail.key))
    built.add_personalization(person)
    built.subject = mail.subject
    for kind, body in (("text/plain", mail.text), ("text/html", mail.html)):
        if body:
            built.add_content(sdk.Content(kind, body))
    if mail.frame.reply_to:
        built.reply_to = sdk.ReplyTo(mail.frame.reply_to.address, mail.frame.reply_to.name or None)
    built.tracking_settings = sdk.TrackingSettings(
        click_tracking=sdk.ClickTracking(False, False),
        open_tracking=sdk.OpenTracking(False),
        subscription_tracking=sdk.SubscriptionTracking(False),
        ganalytics=sdk.Ganalytics(False),
    )
    return built


@pytest.mark.parametrize(
    "mail",
    [
        envelope(),
        envelope(frame=PLAIN, html="", headers=()),
        envelope(frame=PLAIN, text=""),
        envelope(recipient=Mailbox("bob@mail.example"), frame=frame(sender=Mailbox("news@bücher.example"))),
    ],
    ids=["full", "text", "html", "names"],
)
def test_a_mail_is_written_as_the_official_sdk_writes_it(mail):
    expected = by_the_sdk(mail).get()
    expected["from"]["email"] = expected["from"]["email"].replace(
        "bücher", "xn--bcher-kva"
    )  # the SDK leaves that to us

    assert written(SENDGRID, mail) == expected


def test_files_are_written_as_the_official_sdk_writes_them():
    built = by_the_sdk(envelope(frame=frame(attachments=(PDF, LOGO))))
    for content, name, kind, where, content_id in (
        ("iVBORw0K", "logo.png", "image/png", "inline", "logo@shop.example"),
        ("JVBERi0xLjcKAP8=", "price list.pdf", "application/pdf", "attachment", None),
    ):  # the SDK puts each before those it has
        built.add_attachment(sdk.Attachment(content, name, kind, where, content_id))

    assert written(SENDGRID, envelope(frame=frame(attachments=(PDF, LOGO)))) == built.get()


def test_the_call_goes_to_the_region_with_the_key():
    call = SendGrid(KEY, "https://api.eu.sendgrid.com").call([envelope()], NOW)

    assert (call.method, call.url) == ("POST", "https://api.eu.sendgrid.com/v3/mail/send")
    assert call.headers == {
        "Authorization": f"Bearer {KEY}",
        "Accept": "application/json",
        "Content-Type": "application/json",
    }


def test_an_accepted_mail_has_the_id_that_its_events_begin_with():
    assert outcomes(SENDGRID, answer(202, x_message_id="14c5d75ce93")) == [
        Outcome(Kind.ACCEPTED, "202", provider_id="14c5d75ce93")
    ]


@pytest.mark.parametrize("said", [answer(202), answer(200, x_message_id="a"), answer(200, {"id": "a"})])
def test_a_yes_without_an_id_and_that_of_a_sandbox_accept_nothing(said):
    assert [each.kind for each in outcomes(SENDGRID, said)] == [Kind.UNKNOWN]


@pytest.mark.parametrize(
    ("said", "kind", "hard"),
    [
        (answer(400, error("Bad Request")), Kind.MESSAGE, False),
        (answer(400, error("The subject is required.", "subject")), Kind.MESSAGE, False),
        (
            answer(400, error("Does not contain a valid address.", TO_ADDRESS)),
            Kind.RECIPIENT,
            True,
        ),
        (answer(400, error("Too long.", "personalizations.0.to.0.name")), Kind.MESSAGE, False),
        (answer(400, error("The to array is required for all.", "personalizations.0.to")), Kind.RECIPIENT, False),
        (answer(400, error("The from email is not a verified sender.", "from")), Kind.ENGINE, False),
        (answer(400, error("Does not contain a valid address.", "from.email")), Kind.MESSAGE, False),
        (answer(401, error("The provided authorization grant is invalid")), Kind.ENGINE, False),
        (answer(401, error("Maximum credits exceeded")), Kind.ENGINE, False),
        (
            answer(403, error("The from address does not match a verified Sender Identity. Mail cannot", "from")),
            Kind.ENGINE,
            False,
        ),
        (answer(404, error("not found")), Kind.ENGINE, False),
        (answer(405, error("method not allowed")), Kind.ENGINE, False),
        (answer(406, b""), Kind.ENGINE, False),
        (answer(415, error("Content-Type should be application/json.")), Kind.ENGINE, False),
        (answer(413, b"<html><h1>413 Request Entity Too Large</h1></html>"), Kind.MESSAGE, False),
        (answer(429, error("too many requests")), Kind.THROTTLED, False),
        (answer(500, error("Internal Server Error")), Kind.TRANSIENT, False),
        (answer(502, b"<html>Bad Gateway</html>"), Kind.TRANSIENT, False),
        (answer(503, b""), Kind.TRANSIENT, False),
    ],
)
def test_an_answer_means_what_the_table_says(said, kind, hard):
    (found,) = outcomes(SENDGRID, said)

    assert (found.kind, found.hard, found.shared) == (kind, hard, False)


def test_the_words_name_the_field_and_all_errors():
    body = {"errors": [{"field": "subject", "message": "is missing"}, {"field": None, "message": "Bad Request"}]}

    assert outcomes(SENDGRID, answer(400, body))[0].text == "subject: is missing; Bad Request"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"x_ratelimit_reset": str(int(NOW.timestamp()) + 42)}, timedelta(seconds=42)),
        ({"x_ratelimit_reset": "17"}, timedelta(seconds=17)),
        ({"retry_after": "9"}, timedelta(seconds=9)),
        ({"x_ratelimit_reset": str(int(NOW.timestamp()) - 42)}, None),
        ({}, None),
    ],
)
def test_the_wait_ends_when_the_rate_limit_is_reset(headers, wait):
    assert outcomes(SENDGRID, answer(429, **headers))[0].retry_after == wait


@pytest.mark.parametrize(
    ("mail", "words"),
    [
        (envelope(html="x" * 30_000_001), "takes mails of up to 30 MB"),
        (envelope(frame=frame(attachments=(Attachment("a.bin", "a/b", bytes(22_500_003)),))), "up to 30 MB"),
        (envelope(subject=" "), "takes no mail without a subject"),
        (envelope(recipient=Mailbox("a@b.example", "Álvarez, Ann")), "takes no name of a recipient with “,”"),
        (envelope(recipient=Mailbox("a@b.example", "Ann; Bob")), "with “;”"),
        (envelope(frame=frame(sender=Mailbox("büro@b.example"))), "letters beyond ASCII before the @"),
        (envelope(frame=frame(attachments=(Attachment(" ", "a/b", b"x"),))), "without a file name"),
        (envelope(frame=frame(attachments=(Attachment("a.txt", "a/b", b""),))), "takes no empty files"),
        (envelope(headers=(("X-SG-EID", "1"),)), "does not take the header X-SG-EID"),
        (envelope(frame=frame(headers=(("DKIM-Signature", "1"),))), "does not take the header DKIM-Signature"),
        (envelope(headers=(("cc", "a@b.example"),)), "does not take the header cc"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_api_cannot_carry_is_refused_by_name(mail, words):
    found = SENDGRID.refuse(mail)

    assert found.kind is Kind.MESSAGE
    assert found.text.startswith("SendGrid ")
    assert words in found.text


@pytest.mark.parametrize(
    "mail",
    [
        envelope(),
        envelope(recipient=Mailbox("Bjørn@mail.example")),
        envelope(frame=frame(attachments=(Attachment("a.bin", "a/b", bytes(22_000_000)),))),
    ],
)
def test_what_it_may_carry_is_not_refused(mail):
    assert SENDGRID.refuse(mail) is None


def test_a_header_given_twice_is_refused_and_not_dropped():
    with pytest.raises(ValueError, match="X-A is given twice"):
        written(SENDGRID, envelope(headers=(("x-a", "1"), ("X-A", "2"))))


SCOPES = "GET /v3/scopes"
DOMAINS = "GET /v3/whitelabel/domains"
MAY_SEND = httpx.Response(200, json={"scopes": ["mail.send"]})


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (
            {SCOPES: httpx.Response(401, json=error("authorization required"))},
            [("SendGrid does not know this API key: copy it again, or choose the other region.", True)],
        ),
        (
            {SCOPES: httpx.Response(200, json={"scopes": ["stats.read"]})},
            [("This API key may not send: give it the permission Mail Send.", True)],
        ),
        (
            {SCOPES: MAY_SEND, DOMAINS: httpx.Response(403, json=error("access forbidden"))},
            [('SendGrid did not tell: it answered 403 {"errors":[{"message":"access forbidden",'
              '"field":null,"help":null}]}', False)],
        ),
        (
            {
                SCOPES: MAY_SEND,
                DOMAINS: httpx.Response(
                    200, json=[{"domain": "shop.example", "valid": True}, {"domain": "new.example", "valid": False}]
                ),
            },
            [("SendGrid has not verified new.example: add it there as a sender identity, or take it off this engine.",
              False)],
        ),
        ({SCOPES: MAY_SEND, DOMAINS: httpx.Response(200, json=[{"domain": "Example", "valid": True}])}, []),
    ],
    ids=["key", "scope", "silent", "domain", "well"],
)  # fmt: skip
def test_a_check_says_what_is_wrong(answers, expected):
    assert findings(SENDGRID, answers, "shop.example", "new.example") == expected


@pytest.mark.parametrize(
    ("options", "secrets", "words"),
    [
        ({}, {}, "The API key is missing."),
        ({}, {"api_key": "abcdefghijklmnop"}, "one begins with “SG.”"),
        ({}, {"api_key": KEY + " "}, "has spaces around it"),
        ({"region": "asia"}, {"api_key": KEY}, "“asia” is no region: choose one of global, eu."),
        ({"endpoint": "http://api.sendgrid.com"}, {"api_key": KEY}, "is not encrypted: use https"),
        ({"concurrency": 0}, {"api_key": KEY}, "The setting concurrency must be between 1 and 500"),
    ],
)
def test_settings_that_cannot_work_are_found_without_asking(options, secrets, words):
    (problem,) = KIND.problems(options, secrets)

    assert words in problem


def test_settings_that_may_work_open_an_engine():
    options = {"region": "eu", "concurrency": 7}

    engine = KIND.open(1, options, {"api_key": KEY})

    assert KIND.problems(options, {"api_key": KEY}) == []
    assert (engine.batch_size, engine.concurrency, engine.honours_keys) == (1, 7, False)
    assert set(KIND.fields()) >= {*options, *KIND.secret_fields}
