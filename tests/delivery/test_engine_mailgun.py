"""Mailgun: what is sent, against the official SDK's model and werkzeug; what answers mean, by providers.md §3."""

from base64 import b64decode
from datetime import UTC, datetime, timedelta
from io import BytesIO
from urllib.parse import parse_qsl

import httpx
import pytest
from mailgun.ext.pydantic.models import SendMessageSchema
from werkzeug.formparser import parse_form_data

from delivery.core.answer import LONGEST_WAIT
from delivery.core.envelope import Attachment, Kind, Mailbox, Outcome
from delivery.engines.mailgun import KIND, Mailgun
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
)

pytestmark = pytest.mark.once

MAILGUN = PROVIDERS["mailgun"]
KEY = SECRETS["mailgun"]


def form(mail):
    """The fields of the urlencoded body, in the order in which they stand there."""
    call = MAILGUN.call([mail], NOW)
    assert call.headers["Content-Type"] == "application/x-www-form-urlencoded"
    return parse_qsl(call.content.decode(), keep_blank_values=True, strict_parsing=True)


def by_the_sdk(mail):
    """The same mail as the official SDK's model writes it."""
    custom = {"o:tracking": "no", "o:tracking-clicks": "no", "o:tracking-opens": "no", "v:key": mail.key}
    headers = [("Message-ID", f"<{mail.message_id}>"), *mail.frame.headers, *mail.headers]
    if mail.frame.reply_to:
        headers.append(("Reply-To", mail.frame.reply_to.address))
    schema = SendMessageSchema(
        **{"from": '"Shop & Söhne" <news@shop.example>'},
        to="Ann Álvarez <ann@mail.example>",
        subject=mail.subject,
        text=mail.text or None,
        html=mail.html or None,
        custom_params=custom | {f"h:{name}": value for name, value in headers},
    )
    return schema.to_mailgun_payload()


@pytest.mark.parametrize(
    "mail",
    [
        envelope(text="a\r\n  b & c = d + e % ü\n"),
        envelope(frame=PLAIN, html="", headers=(("X-Empty", ""),)),
        envelope(text="", subject=""),
    ],
    ids=["full", "text", "html"],
)
def test_a_mail_is_the_form_that_the_official_sdks_model_makes(mail):
    expected = by_the_sdk(mail) | {"text": mail.text, "html": mail.html}  # the model takes the spaces around off

    assert form(mail) == [(name, expected[name]) for name, _ in form(mail)]
    assert {name for name, _ in form(mail)} == {name for name, value in by_the_sdk(mail).items() if value is not None}


def test_files_go_as_a_multipart_form_that_werkzeug_reads_back():
    pdf = Attachment("Preis „neu“.pdf", "application/pdf", b"%PDF\r\n--\0\xff\r\n")
    with_files = envelope(frame=frame(headers=(("X-Campaign", "spring"),), attachments=(pdf, LOGO)))
    call = MAILGUN.call([with_files], NOW)

    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": call.headers["Content-Type"],
        "CONTENT_LENGTH": str(len(call.content)),
        "wsgi.input": BytesIO(call.content),
    }
    _, fields, files = parse_form_data(environ)

    assert list(fields.items(multi=True)) == form(envelope())
    assert [(field, file.filename, file.content_type, file.read()) for field, file in files.items(multi=True)] == [
        ("attachment", pdf.filename, "application/pdf", pdf.content),
        ("inline", "logo@shop.example", "image/png", LOGO.content),  # by this name the HTML refers to it
    ]


def test_the_call_goes_to_the_domain_in_its_region_with_the_key():
    call = Mailgun(KEY, "mg.shop.example", "https://api.eu.mailgun.net").call([envelope()], NOW)

    assert (call.method, call.url) == ("POST", "https://api.eu.mailgun.net/v3/mg.shop.example/messages")
    assert b64decode(call.headers["Authorization"].removeprefix("Basic ")).decode() == f"api:{KEY}"


def test_an_accepted_mail_has_the_id_that_its_events_have():
    body = {"id": "<20160306015544.116301.25145@mg.shop.example>", "message": "Queued. Thank you."}

    assert outcomes(MAILGUN, answer(200, body)) == [
        Outcome(Kind.ACCEPTED, "200", provider_id="20160306015544.116301.25145@mg.shop.example")
    ]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"Mailgun Magnificent API", Kind.ENGINE),
        (b'{"message": "Mailgun Magnificent API"}', Kind.ENGINE),
        (b"{}", Kind.ENGINE),
        (b"<html>It works!</html>", Kind.ENGINE),
        (b'{"id": "<2016030601', Kind.UNKNOWN),
        (b"", Kind.UNKNOWN),
        (b'{"id": ""}', Kind.UNKNOWN),
        (b'{"id": "<>"}', Kind.UNKNOWN),
        (b'{"id": 7}', Kind.UNKNOWN),
    ],
)
def test_a_yes_without_an_id_is_not_from_the_api_unless_it_was_cut_off(body, kind):
    (found,) = outcomes(MAILGUN, answer(200, body))

    assert found.kind is kind


@pytest.mark.parametrize(
    ("said", "kind", "hard"),
    [
        (
            answer(400, {"message": "'to' parameter is not a valid address. please check documentation"}),
            Kind.RECIPIENT,
            True,
        ),
        (answer(400, {"message": "to parameter is not a valid address"}), Kind.RECIPIENT, True),
        (answer(400, {"message": "'from' parameter is not a valid address. please check"}), Kind.MESSAGE, False),
        (answer(400, {"message": "'h:Reply-To' parameter is not a valid address"}), Kind.MESSAGE, False),
        (
            answer(400, {"message": "Domain sandbox1.mailgun.org is not allowed to send: Free accounts are for test"}),
            Kind.ENGINE,
            False,
        ),
        (answer(400, {"message": "Sandbox subdomains are for test purposes only."}), Kind.ENGINE, False),
        (answer(400, {"message": "Need at least one of 'text' or 'html' parameters specified"}), Kind.MESSAGE, False),
        (answer(401, b"Forbidden"), Kind.ENGINE, False),
        (answer(402, {"message": "Payment required"}), Kind.ENGINE, False),
        (answer(403, {"message": "Domain may not send large batches"}), Kind.ENGINE, False),
        (answer(404, {"message": "Domain not found: mg.shop.example"}), Kind.ENGINE, False),
        (answer(413, b"<html>413 Request Entity Too Large</html>"), Kind.MESSAGE, False),
        (answer(429, {"message": "Too many requests"}), Kind.THROTTLED, False),
        (answer(500, b""), Kind.TRANSIENT, False),
        (answer(502, b"<html>"), Kind.TRANSIENT, False),
        (answer(503, {"message": "try again"}), Kind.TRANSIENT, False),
        (answer(504, b""), Kind.TRANSIENT, False),
    ],
)
def test_an_answer_means_what_the_table_says(said, kind, hard):
    (found,) = outcomes(MAILGUN, said)

    assert (found.kind, found.hard, found.shared, found.retry_after) == (kind, hard, False, None)


LIMITED = "Domain mg.shop.example is not allowed to send: request limit exceeded, try again after {}"


@pytest.mark.parametrize(
    ("at", "wait"),
    [
        ("Fri, 02 Jan 2026 03:33:21 UTC", datetime(2026, 1, 2, 3, 33, 21, tzinfo=UTC) - NOW),
        ("Sat, 03 Jan 2026 03:04:05 UTC", LONGEST_WAIT),
        ("Mon, 20 Dec 2027 20:33:21 UTC", LONGEST_WAIT),
        ("Mon, 20 Dec 2021 20:33:21 UTC", None),
        ("soon", None),
    ],
)
def test_the_date_in_the_text_of_a_429_is_obeyed(at, wait):
    (found,) = outcomes(MAILGUN, answer(429, {"message": LIMITED.format(at)}))

    assert (found.kind, found.retry_after) == (Kind.THROTTLED, wait)


def test_a_header_that_names_the_wait_comes_before_the_text():
    said = answer(429, {"message": LIMITED.format("Fri, 02 Jan 2026 04:04:05 UTC")}, retry_after="7")

    assert outcomes(MAILGUN, said)[0].retry_after == timedelta(seconds=7)


@pytest.mark.parametrize(
    ("mail", "words"),
    [
        (envelope(html="x" * 25_000_001), "takes mails of up to 25 MB"),
        (envelope(frame=frame(sender=Mailbox("büro@b.example"))), "letters beyond ASCII before the @"),
        (envelope(frame=frame(attachments=(Attachment("", "a/b", b"x"),))), "without a file name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_api_cannot_carry_is_refused_by_name(mail, words):
    found = MAILGUN.refuse(mail)

    assert (found.kind, words in found.text) == (Kind.MESSAGE, True)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ((("X-A", "1"), ("x-a", "2")), "x-a is given twice"),
        (
            tuple((f"X-{number}", "é" * 500) for number in range(17)),
            "headers have 17254 octets, and Mailgun takes 16384",
        ),
    ],
)
def test_headers_that_the_form_cannot_hold_are_refused_and_not_dropped(headers, words):
    with pytest.raises(ValueError, match=words):
        MAILGUN.call([envelope(headers=headers)], NOW)


def test_an_empty_header_is_sent_and_not_dropped():
    assert ("h:X-Empty", "") in form(envelope(headers=(("X-Empty", ""),)))


SEND = "POST /v3/mg.shop.example/messages"
DOMAIN = "GET /v3/domains/mg.shop.example"
LETS_US_IN = {SEND: httpx.Response(400, json={"message": "from parameter is missing"})}
ACTIVE = httpx.Response(200, json={"domain": {"name": "mg.shop.example", "state": "active"}})


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (
            {SEND: httpx.Response(401, content=b"Forbidden")},
            [("Mailgun does not know this key: copy it again, or choose the other region.", True)],
        ),
        (
            {SEND: httpx.Response(404, json={"message": "Domain not found: mg.shop.example"})},
            [
                (
                    "Mailgun knows no domain mg.shop.example in this region: correct it, or choose the other.",
                    True,
                )
            ],
        ),
        (
            {SEND: httpx.Response(200, content=b"Mailgun Magnificent API")},
            [("This is not the address of Mailgun's API: correct it, or leave it empty.", True)],
        ),
        (
            LETS_US_IN | {DOMAIN: httpx.Response(401, content=b"Forbidden")},
            [("Mailgun did not tell: it answered 401 Forbidden", False)],
        ),
        (
            LETS_US_IN | {DOMAIN: httpx.Response(200, json={"domain": {"state": "unverified"}})},
            [("The domain mg.shop.example is unverified at Mailgun: see its DNS records there.", True)],
        ),
        (LETS_US_IN | {DOMAIN: ACTIVE}, []),
    ],
    ids=["key", "domain", "address", "sending key", "unverified", "well"],
)
def test_a_check_says_what_is_wrong(answers, expected):
    assert findings(MAILGUN, answers, "shop.example", "a.mg.shop.example") == expected


def test_a_check_warns_of_from_domains_that_mailgun_does_not_sign_for():
    assert findings(MAILGUN, LETS_US_IN | {DOMAIN: ACTIVE}, "notmg.shop.example", "shop.example") == [
        ("Mailgun signs for mg.shop.example, so mails from notmg.shop.example fail DMARC.", False)
    ]


GOOD = {"domain": "mg.shop.example"}


@pytest.mark.parametrize(
    ("options", "secrets", "words"),
    [
        (GOOD, {}, "The key is missing."),
        ({}, {"api_key": KEY}, "The sending domain is missing."),
        ({"domain": "mg.shop.example/v3"}, {"api_key": KEY}, "“mg.shop.example/v3” is no domain"),
        ({"domain": "a@shop.example"}, {"api_key": KEY}, "is no domain"),
        (GOOD | {"region": "asia"}, {"api_key": KEY}, "“asia” is no region: choose one of us, eu."),
        (GOOD, {"api_key": "pubkey-0123456789"}, "public key for validation"),
        (GOOD, {"api_key": f"{KEY}\n"}, "has spaces around it"),
    ],
)
def test_settings_that_cannot_work_are_found_without_asking(options, secrets, words):
    (problem,) = KIND.problems(options, secrets)

    assert words in problem


def test_settings_that_may_work_open_an_engine():
    options = GOOD | {"region": "eu"}

    engine = KIND.open(1, options, {"api_key": KEY})

    assert KIND.problems(options, {"api_key": KEY}) == []
    assert (engine.batch_size, engine.concurrency, engine.honours_keys) == (1, 20, False)
    assert set(KIND.fields()) >= {*options, *KIND.secret_fields}


def test_files_and_no_files_make_the_same_mail_on_every_attempt():
    mail = envelope(frame=frame(attachments=(PDF,)))

    assert MAILGUN.call([mail], NOW).content == MAILGUN.call([mail], NOW).content
