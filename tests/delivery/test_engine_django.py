"""Django's email backends as engines: the mail they get, what their exceptions mean, and the threads they live in."""

import asyncio
import email
import email.policy
import json
import smtplib
import socket
import ssl
import threading
import time
from base64 import b64decode
from datetime import timedelta

import pytest
import requests
import urllib3
from anymail import exceptions as anymail
from anymail.backends.postmark import EmailBackend as AnymailPostmark
from anymail.backends.test import EmailBackend as AnymailTest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import BadHeaderError
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.locmem import EmailBackend as Locmem
from django.core.mail.backends.smtp import EmailBackend as Smtp

from delivery.core.envelope import Attachment, Kind, Mailbox
from delivery.engines.django_backend import KIND
from delivery.engines.django_backend.engine import DjangoEngine
from tests.delivery.http_server import answer, resets, says, says_and_closes, serving
from tests.delivery.provider_mails import LOGO, PDF, PLAIN, REPLY_TO, envelope, frame
from tests.delivery.smtp_server import serving as smtp_serving
from tests.servers import free_port

SMTP = "django.core.mail.backends.smtp.EmailBackend"
WRONG = "wr0ng-pass"


def kinds(outcomes):
    return [outcome.kind.value for outcome in outcomes]


async def through(engine, *mails):
    """The outcomes of these mails, one after the other, by an engine that is closed then."""
    try:
        return [outcome for each in mails for outcome in await engine.send([each])]
    finally:
        await engine.close()


def send(make, *mails, **given):
    return asyncio.run(through(DjangoEngine(make, **given), *(mails or [envelope()])))


def smtp(server, **given):
    return lambda: Smtp(host="127.0.0.1", port=server if isinstance(server, int) else server.port, **given)


def to(address):
    return envelope(recipient=Mailbox(address))


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "django-backend"]


def threads_left():
    """The threads that do not end by themselves; they say that they have left a moment before they are gone."""
    for thread in threads():
        thread.join(5)
    return threads()


def backend(send_messages, **methods):
    """A backend with this `send_messages`, and what else is given."""
    given = {"send_messages": lambda self, messages: send_messages(messages), **methods}
    return type("Backend", (BaseEmailBackend,), given)


def raising(error):
    def send_messages(messages):
        raise error

    return backend(send_messages)


@pytest.fixture(autouse=True)
def outbox():
    mail.outbox = []
    return mail.outbox


@pytest.fixture
def backends(settings):
    def configure(**given):
        settings.OUTREACH = settings.OUTREACH | {"DJANGO_BACKENDS": given}

    return configure


# The mail


def test_a_mail_has_everything_that_the_envelope_says(outbox):
    assert kinds(send(Locmem)) == ["accepted"]

    (message,) = outbox
    assert message.subject == "Offer № 1"
    assert message.body == "Hello 1\n"
    assert [tuple(each) for each in message.alternatives] == [("<p>Hello 1</p>", "text/html")]
    assert message.from_email == '"Shop & Söhne" <news@shop.example>'
    assert message.to == ["Ann Álvarez <ann@mail.example>"]
    assert message.reply_to == ["help@shop.example"]
    assert message.extra_headers == {
        "Message-ID": "<00ff00ff00ff00ff.1@shop.example>",
        "X-Campaign": "spring",
        "List-Unsubscribe": "<https://shop.example/u/t1>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }


def test_over_smtp_the_return_path_is_the_envelopes_and_the_from_is_the_senders():
    with smtp_serving() as server:
        assert kinds(send(smtp(server))) == ["accepted"]
        (accepted,) = server.accepted

    raw = accepted["content"].replace(b"\r\n", b"\n")
    parsed = email.message_from_bytes(raw, policy=email.policy.default)
    assert accepted["mail"].startswith("mail FROM:<bounce@shop.example>")
    assert accepted["recipient"] == "ann@mail.example"
    assert parsed["From"].addresses[0].addr_spec == "news@shop.example"
    assert parsed["From"].addresses[0].display_name == "Shop & Söhne"
    assert parsed["To"].addresses[0].display_name == "Ann Álvarez"
    assert parsed["Reply-To"] == REPLY_TO.address
    assert parsed["Message-ID"] == "<00ff00ff00ff00ff.1@shop.example>"
    assert parsed["Date"] == "Fri, 02 Jan 2026 04:04:05 +0100"
    assert parsed["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert parsed.get_body(("plain",)).get_content() == "Hello 1\n"
    assert parsed.get_body(("html",)).get_content().strip() == "<p>Hello 1</p>"


@pytest.mark.parametrize(
    ("text", "html", "expected"),
    [
        ("t", "", ["text/plain"]),
        ("", "<p>", ["text/html"]),
        ("t", "<p>", ["multipart/alternative", "text/plain", "text/html"]),
    ],
)
def test_a_mail_has_the_parts_that_there_are(outbox, text, html, expected):
    send(Locmem, envelope(text=text, html=html))

    assert [part.get_content_type() for part in outbox[0].message().walk()] == expected


def test_files_go_as_they_are_and_images_of_the_html_are_inline(outbox):
    csv = Attachment("Größe.csv", "text/csv; charset=utf-8", "a;ü\r\nb\n".encode())
    odd = Attachment("odd.txt", "text/plain", b"\xff\xfe")
    files = (PDF, csv, odd, LOGO)

    send(Locmem, envelope(frame=frame(attachments=files)), envelope(frame=frame(attachments=(LOGO,))))

    raw = outbox[0].message().as_bytes()
    parts = {part.get_filename(): part for part in email.message_from_bytes(raw, policy=email.policy.default).walk()}
    assert [parts[each.filename].get_payload(decode=True) for each in files] == [each.content for each in files]
    assert [parts[each.filename].get_content_type() for each in files] == [
        "application/pdf",
        "text/csv",
        "application/octet-stream",
        "image/png",
    ]
    assert parts["logo.png"]["Content-ID"] == "<logo@shop.example>"
    assert parts["logo.png"].get_content_disposition() == "inline"
    assert outbox[0].message().get_content_type() == "multipart/mixed"
    assert outbox[1].message().get_content_type() == "multipart/related"


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "a\r\nBcc: b@c.example"},
        {"recipient": Mailbox("no address")},
        {"headers": (("X-A", "1"), ("x-a", "2"))},
        {"headers": (("Bcc", "b@c.example"),)},
        {"frame": frame(attachments=(Attachment("a", "multipart/mixed", b""),))},
    ],
    ids=["subject", "recipient", "a header twice", "a header of the envelope's", "attachment"],
)
def test_what_no_mail_can_carry_ends_that_mail_and_is_not_dropped(outbox, changes):
    outcomes = send(Locmem, envelope(**changes), envelope())

    assert kinds(outcomes) == ["message", "accepted"]
    assert outcomes[0].text.startswith("The mail cannot be built: ")
    assert len(outbox) == 1


# SMTP: what the server says


@pytest.mark.parametrize(
    ("local", "kind", "hard", "code"),
    [
        ("refuse-550", "recipient", True, "550 5.1.1"),
        ("refuse-450", "transient", False, "450 4.2.0"),
        ("refuse-452", "transient", False, "452 4.2.2"),
        ("content-451", "transient", False, "451 4.3.0"),
        ("content-554", "message", False, "554 5.6.0"),
    ],
)
def test_a_servers_refusal_means_what_it_means_over_smtp(local, kind, hard, code):
    with smtp_serving() as server:
        outcomes = send(smtp(server), to(f"{local}@y.example"), to("good@y.example"))
        recipients = server.recipients

    assert (kinds(outcomes), outcomes[0].hard, outcomes[0].code) == ([kind, "accepted"], hard, code)
    assert recipients == ["good@y.example"]


@pytest.mark.parametrize(
    ("at", "say", "kind"),
    [
        ("greeting", "554 no service\r\n", "engine"),
        ("greeting", "421 4.7.0 too many connections\r\n", "throttled"),
        ("auth", "535 5.7.8 wrong\r\n", "engine"),
        ("auth", "454 4.7.0 later\r\n", "transient"),
        ("mail", "550 5.7.1 sender not allowed\r\n", "engine"),
        ("mail", "451 4.3.0 local trouble\r\n", "transient"),
        ("data", "451 4.3.0 local trouble\r\n", "transient"),
        ("dot", "550 5.7.1 spam\r\n", "engine"),
    ],
)
def test_a_refusal_is_of_its_stage_and_is_not_tried_again(at, say, kind):
    login = {"auth": "PLAIN", "username": "ann", "password": "secret"}
    with smtp_serving(faults=[{"at": at, "say": say}], **login) as server:
        outcomes = send(smtp(server, username="ann", password="secret"))
        connections = len(server.lines("connected"))

    assert kinds(outcomes) == [kind]
    assert connections == 1


def test_a_refusal_on_a_kept_connection_is_not_tried_again_either():
    with smtp_serving(faults=[{"at": "mail", "say": "451 4.3.0 local trouble\r\n", "message": 2}]) as server:
        outcomes = send(smtp(server), envelope(1), envelope(2))
        commands = [command for command in server.commands() if command.lower().startswith("mail")]
        connections = len(server.lines("connected"))

    assert kinds(outcomes) == ["accepted", "transient"]
    assert (len(commands), connections) == (2, 1)


def test_a_wrong_password_is_the_engines_fault_and_is_not_repeated(backends):
    with smtp_serving(auth="PLAIN", username="ann", password="right") as server:
        backends(office=(SMTP, {"host": "127.0.0.1", "port": server.port, "username": "ann", "password": WRONG}))
        (outcome,) = asyncio.run(through(KIND.open(1, {"backend": "office"}, {}), envelope()))
        (repeated,) = [line.split()[-1] for line in server.commands() if line.startswith("AUTH")]

    assert outcome.kind is Kind.ENGINE
    assert WRONG.encode() in b64decode(repeated)  # which this server has in its reply
    assert repeated not in outcome.text


def test_a_server_without_a_login_that_is_wanted_is_the_engines_fault():
    with smtp_serving() as server:
        assert kinds(send(smtp(server, username="ann", password="secret"))) == ["engine"]
        assert kinds(send(smtp(server, use_tls=True))) == ["engine"]


# SMTP: what breaks


@pytest.mark.parametrize("at", ["greeting", "ehlo", "mail", "rcpt"])
def test_a_connection_lost_before_the_content_was_certainly_not_handed_over(at):
    with smtp_serving(faults=[{"at": at, "drop": True}]) as server:
        outcomes = send(smtp(server))
        recipients = server.recipients

    assert (kinds(outcomes), recipients) == (["transient"], [])


@pytest.mark.parametrize("at", ["data", "go", "content", "dot"])
@pytest.mark.parametrize("how", ["drop", "reset"])
def test_a_connection_lost_from_the_content_on_leaves_it_open(at, how):
    with smtp_serving(faults=[{"at": at, how: True}]) as server:
        outcomes = send(smtp(server))

    assert kinds(outcomes) == ["unknown"]


def test_a_mail_that_was_taken_and_not_answered_is_not_given_twice():
    with smtp_serving(faults=[{"at": "dot", "accept": True, "drop": True}]) as server:
        outcomes = send(smtp(server))
        recipients = server.recipients

    assert (kinds(outcomes), recipients) == (["unknown"], ["ann@mail.example"])


@pytest.mark.parametrize(("at", "kind"), [("rcpt", "transient"), ("dot", "unknown")])
def test_a_server_that_falls_silent_does_not_hold_the_thread(at, kind):
    with smtp_serving(faults=[{"at": at, "stall": True}]) as server:
        outcomes = send(smtp(server), patience=0.6)

    assert kinds(outcomes) == [kind]
    assert threads_left() == []


def test_nobody_at_the_other_end_was_certainly_not_sent_to():
    (outcome,) = send(smtp(free_port()))

    assert outcome.kind is Kind.TRANSIENT
    assert "Connection refused" in outcome.text


def test_a_server_that_closed_a_kept_connection_is_connected_to_again_and_the_mail_goes_once():
    with smtp_serving(faults=[{"at": "after", "drop": True, "connection": 1}]) as server:
        outcomes = send(smtp(server), to("one@y.example"), to("two@y.example"))
        recipients, connections = server.recipients, len(server.lines("connected"))

    assert kinds(outcomes) == ["accepted", "accepted"]
    assert (recipients, connections) == (["one@y.example", "two@y.example"], 2)


# Connections and threads


def test_one_connection_carries_many_mails_and_is_ended_in_order():
    with smtp_serving() as server:
        outcomes = send(smtp(server), *(to(f"p{number}@y.example") for number in range(5)))
        connections, commands = len(server.lines("connected")), server.commands()

    assert kinds(outcomes) == ["accepted"] * 5
    assert (connections, commands[-1]) == (1, "quit")


def test_a_connection_carries_no_more_mails_than_it_may():
    with smtp_serving() as server:
        send(smtp(server), *(to(f"p{number}@y.example") for number in range(5)), mails_per_connection=2)
        endings = [server.commands(number)[-1] for number in (1, 2, 3)]
        connections = len(server.lines("connected"))

    assert (connections, endings) == (3, ["quit", "quit", "quit"])


def test_mails_under_way_at_once_have_a_thread_and_a_connection_each():
    together = threading.Barrier(3)
    opened = []

    def send_messages(messages):
        together.wait(10)
        return 1

    make = backend(send_messages, open=lambda self: opened.append(threading.current_thread()))

    async def attempt():
        engine = DjangoEngine(make, threads=3)
        try:
            return await asyncio.gather(*(engine.send([envelope(number)]) for number in range(3)))
        finally:
            await engine.close()

    outcomes = asyncio.run(attempt())

    assert [kinds(each) for each in outcomes] == [["accepted"]] * 3
    assert len(set(opened)) == len(opened) == 3
    assert threads_left() == []


def test_a_cancelled_send_returns_at_once_and_its_thread_ends_when_the_backend_lets_it():
    begun, let_go, closed = threading.Event(), threading.Event(), threading.Event()

    def send_messages(messages):
        begun.set()
        let_go.wait(10)
        return 1

    make = backend(send_messages, close=lambda self: closed.set())

    async def attempt():
        engine = DjangoEngine(make)
        task = asyncio.ensure_future(engine.send([envelope()]))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        before = len(threads())
        let_go.set()
        await engine.close()
        return before

    assert asyncio.run(attempt()) == 1
    assert closed.is_set()
    assert threads_left() == []


def test_a_backend_that_never_comes_back_is_left_alone_and_the_next_mail_has_another_thread():
    let_go = threading.Event()

    def send_messages(messages):
        if messages[0].subject == "hangs":
            let_go.wait(10)
        return 1

    async def attempt():
        engine = DjangoEngine(backend(send_messages), patience=0.1)
        started = time.monotonic()
        outcomes = await engine.send([envelope(subject="hangs")]) + await engine.send([envelope()])
        seconds = time.monotonic() - started
        let_go.set()
        await engine.close()
        return outcomes, seconds

    outcomes, seconds = asyncio.run(attempt())

    assert kinds(outcomes) == ["unknown", "accepted"]
    assert seconds < 5
    assert outcomes[0].text == "The backend has not come back within 0.1 s."
    assert threads_left() == []


def test_closing_an_engine_that_was_never_used_does_nothing():
    asyncio.run(DjangoEngine(Locmem).close())


# Exceptions of any backend


def http_error(status, body=b"", **headers):
    """Anymail's error for an answer of the API."""
    response = requests.Response()
    response.status_code, response._content = status, body
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return anymail.AnymailRequestsAPIError(response=response)


def unanswered(cause):
    """Anymail's error for a request that `requests` could not make: of both classes, as it raises it."""
    kind = type("AnymailRequestsAPIError", (anymail.AnymailRequestsAPIError, type(cause)), {})
    error = kind("Error posting to https://api.example/:")
    error.__cause__ = cause
    return error


def refused(reason):
    """What requests makes of urllib3's failure to connect."""
    pool = urllib3.HTTPSConnectionPool("api.example")
    return requests.ConnectionError(urllib3.exceptions.MaxRetryError(pool, "/", reason))


def no_connection():
    return urllib3.exceptions.NewConnectionError(urllib3.connection.HTTPConnection("api.example"), "refused")


def boto(status, code):
    about = {"Error": {"Code": code, "Message": "No."}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = anymail.AnymailAPIError("An error occurred")
    error.__cause__ = ClientError(about, "SendEmail")
    return error


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        # Settings
        (ImproperlyConfigured("no key"), "engine"),
        (anymail.AnymailConfigurationError("no key"), "engine"),
        (anymail.AnymailImproperlyInstalled("boto3"), "engine"),
        (ImportError("no module"), "engine"),
        (caused(anymail.AnymailAPIError("no"), NoCredentialsError()), "engine"),
        # Refused before anything was asked
        (BadHeaderError("newline"), "message"),
        (anymail.AnymailUnsupportedFeature("no such thing"), "message"),
        (anymail.AnymailInvalidAddress("no address"), "message"),
        (anymail.AnymailSerializationError("no JSON"), "message"),
        (anymail.AnymailRecipientsRefused(), "recipient"),
        # Answered
        (http_error(401), "engine"),
        (http_error(422, b'{"message": "bad"}'), "message"),
        (http_error(429), "throttled"),
        (http_error(500), "transient"),
        (http_error(302), "engine"),
        (http_error(200, b"<html>"), "unknown"),
        (boto(403, "AccessDenied"), "engine"),
        (boto(400, "MessageRejected"), "message"),
        (boto(429, "TooManyRequestsException"), "throttled"),
        # Never connected
        (ConnectionRefusedError("refused"), "transient"),
        (socket.gaierror("no such name"), "transient"),
        (ssl.SSLCertVerificationError("self-signed"), "transient"),
        (requests.ConnectTimeout("slow"), "transient"),
        (refused(no_connection()), "transient"),
        (unanswered(refused(no_connection())), "transient"),
        (caused(anymail.AnymailAPIError("no"), EndpointConnectionError(endpoint_url="https://ses")), "transient"),
        # Perhaps handed over
        (requests.ReadTimeout("slow"), "unknown"),
        (unanswered(requests.ReadTimeout("slow")), "unknown"),
        (unanswered(requests.ConnectionError(urllib3.exceptions.ProtocolError("aborted"))), "unknown"),
        (caused(anymail.AnymailAPIError("no"), ReadTimeoutError(endpoint_url="https://ses")), "unknown"),
        (anymail.AnymailAPIError("Unparsable response"), "unknown"),
        (ConnectionResetError("reset"), "unknown"),
        (BrokenPipeError("broken"), "unknown"),
        (TimeoutError("slow"), "unknown"),
        (ssl.SSLEOFError("EOF occurred"), "unknown"),
        (smtplib.SMTPServerDisconnected("gone"), "unknown"),
        (json.JSONDecodeError("what?", "", 0), "unknown"),
        (KeyError("id"), "unknown"),
        (ValueError("what?"), "unknown"),
        (RuntimeError(), "unknown"),
    ],
    ids=lambda each: each if isinstance(each, str) else repr(each)[:60],
)
def test_an_exception_means_what_is_certain_and_else_nothing_is(error, kind):
    (outcome,) = send(raising(error))

    assert outcome.kind.value == kind
    assert outcome.text or outcome.code


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError("refused"), "transient"),
        (socket.gaierror("no such name"), "transient"),
        (TimeoutError("slow"), "transient"),
        (ConnectionResetError("reset"), "transient"),
        (smtplib.SMTPServerDisconnected("gone"), "transient"),
        (smtplib.SMTPAuthenticationError(535, b"5.7.8 wrong"), "engine"),
        (smtplib.SMTPException("No suitable authentication method found."), "engine"),
        (smtplib.SMTPNotSupportedError("no STARTTLS"), "engine"),
        (ImproperlyConfigured("no key"), "engine"),
        (TypeError("unexpected keyword"), "engine"),
        (RuntimeError("what?"), "transient"),
    ],
    ids=lambda each: each if isinstance(each, str) else repr(each)[:60],
)
def test_what_fails_when_a_backend_is_made_or_opened_was_certainly_not_sent(error, kind):
    def fail(*given, **more):
        raise error

    opens = send(backend(lambda messages: 1, open=fail))
    made = send(fail)

    assert [*kinds(opens), *kinds(made)] == [kind, kind]


def test_an_apis_wait_and_words_are_kept():
    (outcome,) = send(raising(http_error(429, b'{"message": "slow down"}', Retry_After="30")))

    assert (outcome.code, outcome.text) == ("429", '{"message": "slow down"}')
    assert outcome.retry_after == timedelta(seconds=30)


def test_a_credential_of_the_options_is_not_repeated():
    (outcome,) = send(raising(RuntimeError("the key s3cret-key is wrong")), secrets=["s3cret-key"])

    assert outcome.text == "RuntimeError: the key … is wrong"


@pytest.mark.parametrize(
    ("returned", "kind"), [(1, "accepted"), (True, "accepted"), (0, "transient"), (None, "unknown"), ("ok", "unknown")]
)
def test_what_a_backend_returns_is_taken_by_its_word(returned, kind):
    assert kinds(send(backend(lambda messages: returned))) == [kind]


# Anymail, with a provider behind it


async def by_postmark(conduct, *mails, **given):
    async with serving(conduct) as server:

        def make():
            return AnymailPostmark(server_token="t0ken-0123456789", api_url=server.url, **given)

        return await through(DjangoEngine(make, patience=4), *(mails or [envelope()])), server


INACTIVE = "Found inactive addresses: ann@mail.example. Inactive recipients are ones that have generated a hard bounce."


def postmark_says(code, message="OK", status=200):
    return answer(status, {"ErrorCode": code, "Message": message, "To": "ann@mail.example", "MessageID": "m-1"})


@pytest.mark.parametrize(
    ("conduct", "kind", "code"),
    [
        (says(postmark_says(0)), "accepted", "sent"),
        (says(postmark_says(406, INACTIVE, 422)), "recipient", "rejected"),
        (says(postmark_says(10, "Bad or missing API token.", 401)), "engine", "401"),
        (says(postmark_says(400, "Sender signature not found.", 422)), "message", "422"),
        (says(answer(429, {}, Retry_After="5")), "throttled", "429"),
        (says(answer(503, b"<html>Unavailable</html>")), "transient", "503"),
        (says(answer(200, b"<html>Log in</html>")), "unknown", "200"),
        (says_and_closes(), "unknown", ""),
        (resets, "unknown", ""),
        (says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), "unknown", ""),
    ],
)
def test_anymails_providers_are_understood(conduct, kind, code):
    outcomes, _ = asyncio.run(by_postmark(conduct))

    assert [(outcome.kind.value, outcome.code) for outcome in outcomes] == [(kind, code)]


def test_anymails_session_is_kept_between_mails_and_the_providers_id_is_told():
    outcomes, server = asyncio.run(by_postmark(says(postmark_says(0)), envelope(1), envelope(2)))

    assert [outcome.provider_id for outcome in outcomes] == ["m-1", "m-1"]
    assert server.connections == 1


def test_an_api_that_cannot_be_reached_was_certainly_not_sent_to():
    def make():
        return AnymailPostmark(server_token="t", api_url=f"http://127.0.0.1:{free_port()}/")

    assert kinds(send(make)) == ["transient"]


def test_anymail_gets_the_sender_as_from_and_no_return_path(outbox):
    files = envelope(frame=frame(attachments=(LOGO, PDF)))
    assert kinds(send(AnymailTest, files, envelope(frame=PLAIN))) == ["accepted", "accepted"]

    params = outbox[0].anymail_test_params
    assert params["from"].addr_spec == "news@shop.example"
    assert "envelope_sender" not in params
    assert params["extra_headers"]["Message-ID"] == "<00ff00ff00ff00ff.1@shop.example>"
    assert [(each.name, each.inline, each.cid) for each in params["attachments"]] == [
        ("logo.png", True, "logo@shop.example"),
        ("price list.pdf", False, ""),
    ]


@pytest.mark.parametrize(
    ("status", "kind", "hard"),
    [
        ("sent", "accepted", False),
        ("queued", "accepted", False),
        ("invalid", "recipient", True),
        ("rejected", "recipient", False),
        ("failed", "transient", False),
        ("unknown", "unknown", False),
    ],
)
@pytest.mark.parametrize("ignore_recipient_status", [False, True])
def test_anymails_status_of_the_recipient_decides(status, kind, hard, ignore_recipient_status):
    class Says(AnymailTest):
        def parse_recipient_status(self, response, payload, message):
            return {address: type(each)("id-1", status) for address, each in response["recipient_status"].items()}

    (outcome,) = send(lambda: Says(ignore_recipient_status=ignore_recipient_status))

    assert (outcome.kind.value, outcome.hard) == (kind, hard)
    assert outcome.provider_id == ("id-1" if kind == "accepted" else "")


# The settings


def test_the_form_offers_what_the_settings_have(backends):
    backends(default=(SMTP, {}), office=("anymail.backends.postmark.EmailBackend", {"server_token": "t"}))

    field = KIND.fields()["backend"]

    assert field.choices == [
        ("default", f"default ({SMTP})"),
        ("office", "office (anymail.backends.postmark.EmailBackend)"),
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "The backend is missing; there are default, gone, keyless, odd. Name it in OUTREACH_DJANGO_BACKENDS."),
        ({"backend": "other"}, "There is no backend “other”"),
        ({"backend": "gone"}, "The backend “gone” cannot be made: ModuleNotFoundError: No module named 'nowhere'"),
        ({"backend": "keyless"}, "The backend “keyless” cannot be made: AnymailConfigurationError"),
        ({"backend": "odd"}, "mutually exclusive"),
        ({"backend": "default", "threads": 99}, "The setting threads must be between 1 and 50"),
        ({"backend": "default", "patience": 1}, "The setting patience must be between 5 and 600"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said(backends, options, says):
    backends(
        default=(SMTP, {}),
        gone=("nowhere.Backend", {}),
        keyless=("anymail.backends.postmark.EmailBackend", {}),
        odd=(SMTP, {"use_tls": True, "use_ssl": True}),
    )

    assert says in "\n".join(KIND.problems(options, {}))


def test_an_engine_is_opened_with_the_options_of_its_backend(backends):
    with smtp_serving() as server:
        backends(office=(SMTP, {"host": "127.0.0.1", "port": server.port}))
        options = {"backend": "office", "threads": 2, "mails_per_connection": 0, "patience": 5}
        assert KIND.problems(options, {}) == []

        outcomes = asyncio.run(through(KIND.open(1, options, {}), envelope()))
        recipients = server.recipients

    assert (kinds(outcomes), recipients) == (["accepted"], ["ann@mail.example"])


def checked(make):
    async def attempt():
        engine = DjangoEngine(make)
        findings = await engine.check()
        await engine.close()
        return findings

    return asyncio.run(attempt())


def test_a_check_opens_the_connection_and_closes_it_in_order():
    with smtp_serving(auth="PLAIN", username="ann", password="secret") as server:
        assert checked(smtp(server, username="ann", password="secret")) == []
        commands = server.commands()

    assert commands[-1] == "quit"
    assert not any(command.upper().startswith("MAIL") for command in commands)
    assert threads_left() == []


def test_a_check_says_what_the_server_says_of_a_wrong_password():
    with smtp_serving(auth="PLAIN", username="ann", password="secret") as server:
        (finding,) = checked(smtp(server, username="ann", password=WRONG))

    assert finding.certain
    assert finding.words.startswith("The backend cannot be opened: 535 5.7.8")


def test_a_check_that_reaches_nobody_is_not_certain():
    (finding,) = checked(smtp(free_port()))

    assert not finding.certain
