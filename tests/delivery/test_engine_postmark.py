"""Postmark: what is sent, against the official SDK's model; what answers mean, by the table of providers.md §4."""

from datetime import timedelta

import httpx
import pytest
from postmark.models.outbound.schemas import Email

from delivery.core.envelope import Attachment, Kind, Mailbox, Outcome
from delivery.engines.postmark import KIND, Postmark
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

POSTMARK = PROVIDERS["postmark"]
TOKEN = SECRETS["postmark"]


@pytest.mark.parametrize(
    "mail",
    [envelope(), envelope(frame=PLAIN, html=""), envelope(frame=frame(attachments=(PDF, LOGO)), text="")],
    ids=["full", "text", "files"],
)
def test_a_mail_is_what_the_official_sdk_reads_and_writes(mail):
    (message,) = written(POSTMARK, mail)

    again = Email.model_validate(message).model_dump(by_alias=True, exclude_none=True, mode="json")

    assert {name: value for name, value in again.items() if value != []} == without_nulls(message)


def without_nulls(message):
    files = [{name: value for name, value in file.items() if value} for file in message.get("Attachments", [])]
    return message | ({"Attachments": files} if files else {})


def test_a_mail_has_its_stream_its_key_its_own_message_id_and_no_tracking():
    (message,) = written(POSTMARK, envelope())

    assert message == {
        "From": '"Shop & Söhne" <news@shop.example>',
        "To": "Ann Álvarez <ann@mail.example>",
        "ReplyTo": "help@shop.example",
        "Subject": "Offer № 1",
        "TextBody": "Hello 1\n",
        "HtmlBody": "<p>Hello 1</p>",
        "MessageStream": "broadcast",
        "TrackOpens": False,
        "TrackLinks": "None",
        "Metadata": {"key": "00ff00ff00ff00ff.1"},
        "Headers": [
            {"Name": "Message-ID", "Value": "<00ff00ff00ff00ff.1@shop.example>"},
            {"Name": "X-PM-KeepID", "Value": "true"},
            {"Name": "X-Campaign", "Value": "spring"},
            {"Name": "List-Unsubscribe", "Value": "<https://shop.example/u/t1>"},
            {"Name": "List-Unsubscribe-Post", "Value": "List-Unsubscribe=One-Click"},
        ],
    }


def test_the_call_carries_all_mails_in_order_and_the_token():
    call = POSTMARK.call([envelope(1), envelope(2)], NOW)

    assert (call.method, call.url) == ("POST", "https://api.postmarkapp.com/email/batch")
    assert call.headers["X-Postmark-Server-Token"] == TOKEN
    assert [each["Subject"] for each in written(POSTMARK, envelope(1), envelope(2))] == ["Offer № 1", "Offer № 2"]


def test_a_call_has_no_more_octets_than_postmark_takes():
    big = Attachment("a.bin", "a/b", bytes(6_000_000))  # 8 MB in base64
    mails = [envelope(number, frame=frame(attachments=(big,))) for number in range(14)]

    groups = POSTMARK.groups(mails)

    assert [len(group) for group in groups] == [6, 6, 2]
    assert [mail for group in groups for mail in group] == mails


def test_a_mail_larger_than_postmark_takes_is_refused_by_name():
    found = POSTMARK.refuse(envelope(html="x" * 10_000_001))

    assert (found.kind, found.text) == (
        Kind.MESSAGE,
        "Postmark takes mails of up to 10 MB; this one has at least 10.0 MB",
    )


def result(code, message="", **fields):
    return {"ErrorCode": code, "Message": message, **fields}


INACTIVE = (
    "You tried to send to recipient(s) that have been marked as inactive. Found inactive addresses: a@b.example. "
    "Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression."
)


@pytest.mark.parametrize(
    ("code", "text", "kind", "hard"),
    [
        (406, INACTIVE, Kind.RECIPIENT, True),
        (300, "Error parsing 'To': Illegal email address 'World'.", Kind.RECIPIENT, True),
        (300, "Invalid 'From' address: 'news@'.", Kind.ENGINE, False),
        (300, "Provide either email TextBody or HtmlBody or both.", Kind.MESSAGE, False),
        (402, "Invalid JSON", Kind.MESSAGE, False),
        (403, "Incompatible JSON", Kind.MESSAGE, False),
        (409, "JSON required", Kind.MESSAGE, False),
        (410, "Too many batch messages", Kind.MESSAGE, False),
        (411, "Forbidden attachment type", Kind.MESSAGE, False),
        (10, "Bad or missing API token", Kind.ENGINE, False),
        (400, "Sender signature not found", Kind.ENGINE, False),
        (401, "Sender signature not confirmed", Kind.ENGINE, False),
        (405, "Not allowed to send", Kind.ENGINE, False),
        (412, "Account is pending", Kind.ENGINE, False),
        (413, "Account may not send", Kind.ENGINE, False),
        (429, "Rate limit exceeded", Kind.THROTTLED, False),
        (100, "Maintenance", Kind.TRANSIENT, False),
        (9999, "Nobody knows", Kind.MESSAGE, False),
    ],
)
def test_an_error_code_means_what_the_table_says_of_one_mail_and_of_all(code, text, kind, hard):
    (one,) = outcomes(POSTMARK, answer(200, [result(code, text)]))
    (alone,) = outcomes(POSTMARK, answer(422, result(code, text)))
    together = outcomes(POSTMARK, answer(422, result(code, text)), 2)

    assert (one.kind, one.hard, one.shared, one.text) == (kind, hard, False, text)
    assert (alone.kind, alone.hard, alone.shared) == (kind, hard, False)
    blamed = kind in (Kind.MESSAGE, Kind.RECIPIENT)
    assert [(each.kind, each.hard, each.shared) for each in together] == [(kind, hard and not blamed, blamed)] * 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Kind.ENGINE), (404, Kind.ENGINE), (413, Kind.MESSAGE), (415, Kind.MESSAGE), (429, Kind.THROTTLED),
     (500, Kind.TRANSIENT), (503, Kind.TRANSIENT)],
)  # fmt: skip
def test_a_status_without_an_error_code_means_what_the_table_says(status, kind):
    (found,) = outcomes(POSTMARK, answer(status, b"<html>no</html>"))

    assert (found.kind, found.text) == (kind, "no")


def test_each_mail_of_a_call_has_its_own_outcome():
    said = [
        result(0, "OK", MessageID="id-1", To="ann@mail.example"),
        result(406, INACTIVE),
        {"Message": "OK, but delivery will be delayed", "MessageID": "id-3"},
        result(300, "Provide either email TextBody or HtmlBody or both."),
        result(None, "what is this"),
        "nonsense",
    ]

    assert outcomes(POSTMARK, answer(200, said), 6) == [
        Outcome(Kind.ACCEPTED, "200 0", "OK", provider_id="id-1"),
        Outcome(Kind.RECIPIENT, "422 406", INACTIVE, hard=True),
        Outcome(Kind.ACCEPTED, "200", "OK, but delivery will be delayed", provider_id="id-3"),
        Outcome(Kind.MESSAGE, "422 300", "Provide either email TextBody or HtmlBody or both."),
        Outcome(Kind.UNKNOWN, "200", "what is this"),
        Outcome(Kind.UNKNOWN, "200", "nonsense"),
    ]


def test_slowing_down_takes_as_long_as_a_header_says():
    assert outcomes(POSTMARK, answer(429, retry_after="30"))[0].retry_after == timedelta(seconds=30)


SERVER, STREAM = "GET /server", "GET /message-streams/broadcast"
LIVE = httpx.Response(200, json={"ID": 1, "DeliveryType": "Live"})


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({SERVER: httpx.Response(401, json=result(10))}, [("Postmark does not know this server token.", True)]),
        (
            {SERVER: httpx.Response(200, json={"ID": 1, "DeliveryType": "Sandbox"}), STREAM: LIVE},
            [("This Postmark server is a sandbox: it delivers nothing.", False)],
        ),
        ({SERVER: LIVE}, [("Postmark knows no message stream “broadcast” on this server.", True)]),
        (
            {SERVER: LIVE, STREAM: httpx.Response(200, json={"ID": "broadcast", "ArchivedAt": "2026-01-01"})},
            [("The message stream “broadcast” is archived.", True)],
        ),
        (
            {SERVER: LIVE, STREAM: httpx.Response(200, json={"ID": "broadcast", "MessageStreamType": "Inbound"})},
            [("The message stream “broadcast” is for inbound mail.", True)],
        ),
        ({SERVER: LIVE, STREAM: httpx.Response(200, json={"ID": "broadcast", "ArchivedAt": None})}, []),
    ],
)
def test_a_check_says_what_is_wrong(answers, expected):
    assert findings(POSTMARK, answers, "shop.example") == expected


@pytest.mark.parametrize(
    ("options", "secrets", "words"),
    [
        ({"stream": "broadcast"}, {}, "The server token is missing."),
        ({}, {"token": TOKEN}, "The message stream is missing."),
        ({"stream": "my stream"}, {"token": TOKEN}, "“my stream” is no message stream"),
        ({"stream": "a"}, {"token": f"{TOKEN} "}, "has spaces around it"),
    ],
)
def test_settings_that_cannot_work_are_found_without_asking(options, secrets, words):
    (problem,) = KIND.problems(options, secrets)

    assert words in problem


def test_settings_that_may_work_open_an_engine():
    engine = KIND.open(1, {"stream": "broadcast"}, {"token": TOKEN})

    assert KIND.problems({"stream": "broadcast"}, {"token": TOKEN}) == []
    assert (engine.batch_size, engine.concurrency, engine.honours_keys) == (500, 4, False)


def test_another_address_takes_the_place_of_the_apis():
    assert (
        Postmark(TOKEN, "a", "https://proxy.example").call([envelope()], NOW).url == "https://proxy.example/email/batch"
    )


def test_a_name_with_signs_goes_in_quotes():
    (message,) = written(POSTMARK, envelope(recipient=Mailbox("a@b.example", 'Ann "A" <Álvarez>, Dr.')))

    assert message["To"] == '"Ann \\"A\\" <Álvarez>, Dr." <a@b.example>'


def test_a_header_that_a_mail_may_have_twice_is_sent_twice():
    (message,) = written(POSTMARK, envelope(headers=(("X-A", "1"), ("X-A", "2"))))

    assert [each["Value"] for each in message["Headers"] if each["Name"] == "X-A"] == ["1", "2"]
