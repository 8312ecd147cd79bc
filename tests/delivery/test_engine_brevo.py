"""Brevo: what is sent, against the official SDK; what answers mean, by the table of providers.md §6."""

import json
import uuid
from dataclasses import replace
from datetime import timedelta
from email.header import decode_header, make_header

import brevo
import httpx
import pytest
from brevo import transactional_emails as sdk

from delivery.core.envelope import Attachment, Kind, Mailbox, Outcome
from delivery.engines.brevo import KIND, Brevo
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

BREVO = PROVIDERS["brevo"]
KEY = SECRETS["brevo"]


def by_the_sdk(**mail):
    """Method, URL, key and JSON of the call that the official SDK makes."""
    calls = []

    def handler(request):
        calls.append((request.method, str(request.url), request.headers["api-key"], json.loads(request.content)))
        return httpx.Response(201, json={"messageId": "<1@relay.example>"})

    client = brevo.Brevo(api_key=KEY, httpx_client=httpx.Client(transport=httpx.MockTransport(handler)))
    client.transactional_emails.send_transac_email(**mail)
    return calls[0]


def sent(*mails):
    call = BREVO.call(mails, NOW)
    return call.method, call.url, call.headers["api-key"], json.loads(call.content)


def key_of(*mails):
    return written(BREVO, *mails)["headers"]["idempotencyKey"]


def headers(mail):
    own = {"X-Mailin-custom": json.dumps({"key": mail.key})}
    return own | dict((*mail.frame.headers, *mail.headers))


def version(mail):
    """One recipient's part, as a user of the SDK would write it."""
    return sdk.SendTransacEmailRequestMessageVersionsItem(
        to=[sdk.SendTransacEmailRequestMessageVersionsItemToItem(email="ann@mail.example", name="Ann Álvarez")],
        reply_to=sdk.SendTransacEmailRequestMessageVersionsItemReplyTo(email="help@shop.example"),
        subject=mail.subject,
        html_content=mail.html,
        text_content=mail.text,
        headers=headers(mail),
    )


SENDER = sdk.SendTransacEmailRequestSender(email="news@shop.example", name="Shop & Söhne")


def test_one_mail_is_sent_as_the_official_sdk_sends_it():
    mail = envelope(frame=frame(headers=(("X-Campaign", "spring"),), attachments=(PDF,)))

    assert sent(mail) == by_the_sdk(
        sender=SENDER,
        to=[sdk.SendTransacEmailRequestToItem(email="ann@mail.example", name="Ann Álvarez")],
        reply_to=sdk.SendTransacEmailRequestReplyTo(email="help@shop.example"),
        subject=mail.subject,
        html_content=mail.html,
        text_content=mail.text,
        headers=headers(mail) | {"idempotencyKey": key_of(mail)},
        attachment=[sdk.SendTransacEmailRequestAttachmentItem(name="price list.pdf", content="JVBERi0xLjcKAP8=")],
    )


def test_several_mails_are_sent_as_the_official_sdk_sends_them():
    mails = [envelope(1), envelope(2)]

    assert sent(*mails) == by_the_sdk(
        sender=SENDER,
        subject="-",
        html_content="-",
        text_content="-",
        message_versions=[version(mail) for mail in mails],
        headers={"idempotencyKey": key_of(*mails)},
    )


def test_a_text_without_html_becomes_html_too_because_brevo_wants_it():
    mail = written(BREVO, envelope(frame=PLAIN, text="1 < 2 & “3”\n\n  <b>\n", html=""))

    assert mail["htmlContent"] == "1 &lt; 2 &amp; “3”<br>\n<br>\n  &lt;b&gt;<br>\n"
    assert mail["textContent"] == "1 < 2 & “3”\n\n  <b>\n"


def test_nothing_of_one_recipient_stands_where_another_could_get_it():
    mail = written(BREVO, envelope(1, recipient=Mailbox("a@b.example")), envelope(2))

    shared = {name: value for name, value in mail.items() if name != "messageVersions"}

    assert shared == {
        "sender": {"email": "news@shop.example", "name": "Shop & Söhne"},
        "subject": "-",
        "htmlContent": "-",
        "textContent": "-",
        "headers": {"idempotencyKey": key_of(envelope(1), envelope(2))},
    }


def test_the_idempotency_key_is_a_uuid_that_names_exactly_the_mails_of_the_call():
    a, b, c = envelope(1), envelope(2), envelope(3)

    keys = [key_of(*mails) for mails in ([a], [b], [a, b], [b, a], [a, b, c], [a, c])]

    assert len(set(keys)) == len(keys)
    assert [str(uuid.UUID(key)) for key in keys] == keys
    assert keys[2] == key_of(envelope(1), envelope(2))


def test_mails_go_together_that_share_their_sender_their_files_and_having_a_text():
    files, other = frame(attachments=(PDF,)), frame(sender=Mailbox("b@shop.example"))
    same_files = frame(attachments=(replace(PDF),), reply_to=None)
    mails = [
        envelope(1), envelope(2, frame=files), envelope(3, frame=other), envelope(4, text=""), envelope(5),
        envelope(6, frame=same_files),
    ]  # fmt: skip

    groups = BREVO.groups(mails)

    assert [[mail.subject[-1] for mail in group] for group in groups] == [["1", "5"], ["2", "6"], ["3"], ["4"]]


def test_a_name_that_brevo_would_drop_goes_encoded():
    (to,) = written(BREVO, envelope(recipient=Mailbox("a@b.example", "Müller, Änne")))["to"]

    assert to["name"].isascii()
    assert str(make_header(decode_header(to["name"]))) == "Müller, Änne"


@pytest.mark.parametrize("name", ["Müller Änne", "Miller, Anne"])
def test_any_other_name_goes_as_it_is(name):
    (to,) = written(BREVO, envelope(recipient=Mailbox("a@b.example", name)))["to"]

    assert to["name"] == name


def test_accepted_mails_have_their_ids_in_order():
    assert outcomes(BREVO, answer(201, {"messageId": "<1@relay.example>"})) == [
        Outcome(Kind.ACCEPTED, "201", provider_id="<1@relay.example>")
    ]
    assert outcomes(BREVO, answer(201, {"messageIds": ["<1@r>", "<2@r>"]}), 2) == [
        Outcome(Kind.ACCEPTED, "201", provider_id="<1@r>"),
        Outcome(Kind.ACCEPTED, "201", provider_id="<2@r>"),
    ]


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({}, 1),
        ({"messageId": ""}, 1),
        ({"messageId": 7}, 1),
        ({"messageIds": "<1@r>"}, 1),
        ({"messageIds": ["<1@r>"]}, 2),
        ({"messageIds": ["<1@r>", "<2@r>", "<3@r>"]}, 2),
        ({"messageIds": ["<1@r>", None]}, 2),
        ({"messageId": "<1@r>"}, 2),
        ({"code": "invalid_parameter", "message": "to is not valid"}, 2),
    ],
)
def test_a_yes_without_an_id_for_each_mail_accepts_none(body, count):
    assert [each.kind for each in outcomes(BREVO, answer(201, body), count)] == [Kind.UNKNOWN] * count


def failed(status, code, message="", **headers):
    return answer(status, {"code": code, "message": message}, **headers)


@pytest.mark.parametrize(
    ("said", "kind", "hard"),
    [
        (failed(400, "invalid_parameter", "email is not valid in to"), Kind.RECIPIENT, True),
        (failed(400, "invalid_parameter", "to is not valid in messageVersions"), Kind.RECIPIENT, False),
        (failed(400, "missing_parameter", "email is missing in to"), Kind.RECIPIENT, False),
        (failed(400, "INVALID_PARAMETER", "unexpected recipients: want atleast 1, got 0"), Kind.RECIPIENT, False),
        (failed(400, "invalid_parameter", "You can have max 70 character in to name"), Kind.MESSAGE, False),
        (failed(400, "invalid_parameter", "replyTo is not valid"), Kind.MESSAGE, False),
        (failed(400, "invalid_parameter", "email is not valid in replyTo"), Kind.MESSAGE, False),
        (failed(400, "missing_parameter", "sender is missing"), Kind.ENGINE, False),
        (failed(400, "invalid_parameter", "valid sender email required"), Kind.ENGINE, False),
        (failed(400, "missing_parameter", "htmlContent is missing"), Kind.MESSAGE, False),
        (failed(400, "out_of_range", "Too many versions"), Kind.MESSAGE, False),
        (failed(400, "bad_request", "Input must be a valid JSON object"), Kind.MESSAGE, False),
        (failed(422, "unprocessable_entity", "no"), Kind.MESSAGE, False),
        (answer(413, b"<html>413</html>"), Kind.MESSAGE, False),
        (failed(415, "unsupported_media_type"), Kind.MESSAGE, False),
        (failed(401, "unauthorized", "Key not found"), Kind.ENGINE, False),
        (failed(402, "not_enough_credits", "Not enough credits"), Kind.ENGINE, False),
        (
            failed(403, "permission_denied", "Unable to send email. Your SMTP account is not yet activated."),
            Kind.ENGINE,
            False,
        ),
        (failed(403, "account_under_validation"), Kind.ENGINE, False),
        (failed(404, "document_not_found"), Kind.ENGINE, False),
        (failed(405, "method_not_allowed"), Kind.ENGINE, False),
        (failed(406, "not_acceptable"), Kind.ENGINE, False),
        (failed(429, "too_many_requests", "Too many requests"), Kind.THROTTLED, False),
        (answer(425, b""), Kind.TRANSIENT, False),
        (answer(500, b""), Kind.TRANSIENT, False),
        (answer(502, b"<html>Bad Gateway</html>"), Kind.TRANSIENT, False),
        (answer(503, b""), Kind.TRANSIENT, False),
    ],
)
def test_an_answer_means_what_the_table_says_of_one_mail_and_of_all(said, kind, hard):
    (alone,) = outcomes(BREVO, said)
    together = outcomes(BREVO, said, 3)

    assert (alone.kind, alone.hard, alone.shared) == (kind, hard, False)
    blamed = kind in (Kind.MESSAGE, Kind.RECIPIENT)  # one of them, and nobody is suppressed until it is known which
    assert [(each.kind, each.hard, each.shared) for each in together] == [(kind, False, blamed)] * 3


def test_a_repeated_call_was_accepted_the_first_time_and_its_ids_are_lost():
    said = failed(400, "duplicate_parameter", "idempotencyKey already exists")

    found = outcomes(BREVO, said, 2)

    assert [(each.kind, each.provider_id, each.shared) for each in found] == [(Kind.ACCEPTED, "", False)] * 2


@pytest.mark.parametrize(
    ("headers", "seconds"), [({"x_sib_ratelimit_reset": "40", "retry_after": "9"}, 40), ({"retry_after": "9"}, 9)]
)
def test_the_wait_is_what_the_headers_say(headers, seconds):
    (found,) = outcomes(BREVO, failed(429, "too_many_requests", **headers))

    assert found.retry_after == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("mail", "words"),
    [
        (envelope(subject=""), "takes no mail without a subject"),
        (envelope(recipient=Mailbox("bjørn@b.example")), "such as bjørn@b.example"),
        (envelope(frame=frame(attachments=(LOGO,))), "takes no inline images, such as “logo.png”"),
        (envelope(frame=frame(attachments=(replace(PDF, filename=""),))), "without a file name"),
        (envelope(frame=frame(attachments=(replace(PDF, filename="a.csv"),))), "takes “a.csv” by its name as text/csv"),
        (envelope(headers=(("X-A", "ä"),)), "takes no letters beyond ASCII in a header, such as in X-A"),
        (envelope(frame=frame(headers=(("X-B", "=?utf-8?q?=C3=A4?="),))), "such as in X-B"),
        (envelope(recipient=Mailbox("a@b.example", "x" * 71)), "takes no names of more than 70 letters"),
        (envelope(frame=frame(reply_to=Mailbox("a@b.example", "Änne"))), "sends the name “Änne” in Reply-To"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_api_cannot_carry_is_refused_by_name(mail, words):
    found = BREVO.refuse(mail)

    assert (found.kind, words in found.text) == (Kind.MESSAGE, True)


def test_a_refused_mail_does_not_keep_its_neighbours_from_going():
    mails = [envelope(1), envelope(2, frame=frame(attachments=(LOGO,))), envelope(3)]

    found = send(BREVO, lambda request: httpx.Response(201, json={"messageIds": ["a", "b"]}), *mails)

    assert [(each.kind, each.provider_id) for each in found] == [
        (Kind.ACCEPTED, "a"), (Kind.MESSAGE, ""), (Kind.ACCEPTED, "b")
    ]  # fmt: skip


def test_a_header_given_twice_is_refused_and_not_dropped():
    with pytest.raises(ValueError, match="x-mailin-custom is given twice"):
        written(BREVO, envelope(headers=(("x-mailin-custom", "mine"),)))


ACCOUNT, DOMAINS = "GET /v3/account", "GET /v3/senders/domains"
OPEN = {ACCOUNT: httpx.Response(200, json={"relay": {"enabled": True}})}


def listed(**domain):
    return {DOMAINS: httpx.Response(200, json={"domains": [{"domain_name": "shop.example", **domain}]})}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (
            {ACCOUNT: httpx.Response(401, json={"code": "unauthorized", "message": "Key not found"})},
            [("Brevo refuses this API key: Key not found", True)],
        ),
        (
            {ACCOUNT: httpx.Response(200, json={"relay": {"enabled": False}})},
            [("Brevo has not opened transactional mail for this account: ask its support.", True)],
        ),
        (OPEN | {DOMAINS: httpx.Response(500)}, [("Brevo did not tell: it answered 500", False)]),
        (
            OPEN | listed(authenticated=False, verified=True),
            [("Brevo has not verified shop.example: add it there as a sender identity, or take it off this engine.",
              True)],
        ),
        (OPEN | listed(authenticated=True), []),
    ],
    ids=["key", "relay", "silent", "domain", "well"],
)  # fmt: skip
def test_a_check_says_what_is_wrong(answers, expected):
    assert findings(BREVO, answers, "shop.example") == expected


@pytest.mark.parametrize(
    ("options", "secrets", "words"),
    [
        ({}, {}, "The API key is missing."),
        ({}, {"api_key": "xsmtpsib-0123456789"}, "That is Brevo's key for SMTP"),
        ({}, {"api_key": "0123456789abcdef"}, "one begins with “xkeysib-”"),
        ({"batch_size": 1001}, {"api_key": KEY}, "The setting batch size must be between 1 and 1000"),
        ({}, {"api_key": f"{KEY}\t"}, "has spaces around it"),
    ],
)
def test_settings_that_cannot_work_are_found_without_asking(options, secrets, words):
    (problem,) = KIND.problems(options, secrets)

    assert words in problem


@pytest.mark.parametrize(
    ("options", "size", "honours_keys"),
    [({}, 100, False), ({"batch_size": 1000}, 1000, False), ({"batch_size": 1}, 1, False)],
)
def test_settings_that_may_work_open_an_engine(options, size, honours_keys):
    engine = KIND.open(1, options, {"api_key": KEY})

    assert KIND.problems(options, {"api_key": KEY}) == []
    assert (engine.batch_size, engine.honours_keys) == (size, honours_keys)
    assert set(KIND.fields()) >= {*options, *KIND.secret_fields}


def test_another_address_takes_the_place_of_the_apis():
    assert Brevo(KEY, "https://proxy.example").call([envelope()], NOW).url == "https://proxy.example/v3/smtp/email"


def test_a_file_goes_by_its_name_alone():
    file = Attachment("a.zz", "application/x-own", b"x")

    files = written(BREVO, envelope(frame=frame(attachments=(file,))))["attachment"]

    assert files == [{"name": "a.zz", "content": "eA=="}]
