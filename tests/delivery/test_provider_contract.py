"""What every provider's engine promises, whatever the provider answers.

Not by chance: Brevo's `duplicate_parameter` is a refusal that accepts. Its own test is in test_engine_brevo.py.
"""

import asyncio
from datetime import timedelta

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from delivery.core.answer import LONGEST_WAIT
from delivery.core.envelope import Attachment, Kind, Mailbox, Outcome
from tests.delivery.provider_answers import BODIES, HEADERS, STATUSES
from tests.delivery.provider_mails import (
    ANN,
    NOW,
    PROVIDERS,
    TAKES_SEVERAL,
    answer,
    engine,
    envelope,
    frame,
    same,
    secrets_of,
    send,
)

pytestmark = pytest.mark.once

EVERY = pytest.mark.parametrize("slug", list(PROVIDERS))
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def counts(slug):
    return (1, 3) if slug in TAKES_SEVERAL else (1,)


def is_kept(outcome):
    """Whether every database can keep it: UTF-8, and no NUL (PostgreSQL)."""
    words = outcome.text + outcome.code + outcome.provider_id
    return words.encode("utf-8", "ignore").decode() == words and "\0" not in words


def silent(error):
    def handler(request):
        raise error

    return handler


@EVERY
@FEW
@given(status=STATUSES, headers=HEADERS, body=BODIES)
def test_any_answer_gives_one_outcome_for_each_mail_and_no_mail_is_taken_by_a_refusal(slug, status, headers, body):
    for count in counts(slug):
        mails = [envelope(number) for number in range(count)]

        found = send(PROVIDERS[slug], lambda request: httpx.Response(status, headers=headers, content=body), *mails)

        assert [type(each) for each in found] == [Outcome] * count
        assert all(200 <= status <= 299 or each.kind is not Kind.ACCEPTED for each in found)
        assert all(each.kind in (Kind.RECIPIENT, Kind.MESSAGE) for each in found if each.shared)
        assert all(timedelta() < each.retry_after <= LONGEST_WAIT for each in found if each.retry_after)
        assert all(is_kept(each) for each in found)


YES = {"ErrorCode": 0, "Message": "OK", "MessageID": "x", "id": "x", "messageId": "x", "messageIds": ["x"],
       "MessageId": "x", "data": [{"id": "x"}], "message": "Queued. Thank you."}  # fmt: skip


@EVERY
@pytest.mark.parametrize("status", [302, 400, 422, 500, 503])
def test_a_refusal_accepts_nothing_though_its_words_say_yes(slug, status):
    for body in (YES, [YES]):
        said = answer(status, body, x_message_id="x")

        (found,) = PROVIDERS[slug].read(said, [envelope()], NOW)

        assert found.kind is not Kind.ACCEPTED


@EVERY
@FEW
@given(status=STATUSES, body=BODIES)
def test_any_answer_to_a_check_gives_sentences(slug, status, body):
    handler = lambda request: httpx.Response(status, content=body)  # noqa: E731

    found = asyncio.run(engine(PROVIDERS[slug], handler).check(frozenset({"shop.example"})))

    assert all(each.words.strip() for each in found)


@EVERY
@pytest.mark.parametrize("status", [200, 202, 422])
@pytest.mark.parametrize("around", ["{}", '{{"message": {0}, "Message": {0}, "id": {0}}}', '[{{"ErrorCode": {0}}}]'])
def test_an_answer_nested_without_end_is_read_like_any_other(slug, status, around):
    for depth in (100, *range(850, 1000, 25), 5000):
        body = around.format("[" * depth + "]" * depth).encode()

        (found,) = send(PROVIDERS[slug], lambda request, body=body: httpx.Response(status, content=body), envelope())

        assert found.kind is not Kind.ACCEPTED


@EVERY
@pytest.mark.parametrize("body", [b"", b"<html>OK</html>", b'{"id": "<2026', b"null", b'"OK"'])
def test_a_yes_that_does_not_say_to_what_accepts_nothing(slug, body):
    (found,) = send(PROVIDERS[slug], lambda request: httpx.Response(200, content=body), envelope())

    # Mailgun's 200 without an id is known: that path is not its API.
    known = slug == "mailgun" and body in (b"<html>OK</html>", b"null", b'"OK"')
    assert found.kind is (Kind.ENGINE if known else Kind.UNKNOWN)


@EVERY
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_the_engines_fault_and_is_not_followed(slug, status):
    asked = []

    def handler(request):
        asked.append(str(request.url))
        return httpx.Response(status, headers={"location": "https://elsewhere.example/"})

    (found,) = send(PROVIDERS[slug], handler, envelope())

    assert (found.kind, len(asked)) == (Kind.ENGINE, 1)


@EVERY
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), Kind.TRANSIENT),
        (httpx.ConnectTimeout("no connection"), Kind.TRANSIENT),
        (httpx.PoolTimeout("no connection free"), Kind.TRANSIENT),
        (httpx.ReadTimeout("no answer"), Kind.UNKNOWN),
        (httpx.ReadError("reset"), Kind.UNKNOWN),
        (httpx.WriteError("broken pipe"), Kind.UNKNOWN),
        (httpx.RemoteProtocolError("cut off"), Kind.UNKNOWN),
        (httpx.UnsupportedProtocol("what is this"), Kind.ENGINE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_silence_is_unknown_unless_nothing_was_sent(slug, error, kind):
    for count in counts(slug):
        mails = [envelope(number) for number in range(count)]

        found = send(PROVIDERS[slug], silent(error), *mails)

        assert [each.kind for each in found] == [kind] * count


@EVERY
def test_credentials_are_in_no_outcome_however_they_are_repeated(slug):
    for secret in secrets_of(slug):
        for spelt in (secret, secret.replace("/", "\\/"), secret.replace("/", "%2F").replace("+", "%2B")):
            said = f'{{"message": "bad {spelt}", "Message": "bad {spelt}", "errors": [{{"message": "bad {spelt}"}}]}}'
            for status, body in ((400, said), (401, f"<p>bad {spelt}</p>"), (200, said), (202, f"bad {spelt}")):
                headers = {"x-message-id": secret, "x-amzn-errortype": secret}
                handler = lambda r, s=status, b=body, h=headers: httpx.Response(s, headers=h, content=b)  # noqa: E731
                out = asyncio.run(engine(PROVIDERS[slug], handler, *secrets_of(slug)).send([envelope()]))
                found = asyncio.run(engine(PROVIDERS[slug], handler, *secrets_of(slug)).check(frozenset({"a.example"})))

                kept = "".join(each.text + each.code + each.provider_id for each in out) + "".join(map(str, found))
                assert secret not in kept
                assert spelt not in kept


@EVERY
def test_credentials_are_in_no_error_of_the_transport_either(slug):
    secret = secrets_of(slug)[0]
    failing = silent(httpx.ReadError(f"reset while sending {secret}"))

    (out,) = asyncio.run(engine(PROVIDERS[slug], failing, secret).send([envelope()]))
    found = asyncio.run(engine(PROVIDERS[slug], failing, secret).check(frozenset()))

    assert secret not in out.text + str(found)


@EVERY
def test_credentials_are_not_shown_by_what_holds_them(slug):
    provider = PROVIDERS[slug]

    shown = repr(provider) + repr(provider.call([envelope()], NOW))

    assert not any(secret in shown for secret in secrets_of(slug))


SPOILT = {
    "subject": lambda sign: {"subject": f"a{sign}Bcc: x@y.example"},
    "recipient": lambda sign: {"recipient": ANN._replace(name=f"a{sign}b")},
    "address": lambda sign: {"recipient": ANN._replace(address=f"a{sign}b@c.example")},
    "value": lambda sign: {"headers": (("X-A", f"a{sign}b"),)},
    "name": lambda sign: {"headers": ((f"X-A{sign}B", "a"),)},
    "message id": lambda sign: {"message_id": f"a{sign}b@c"},
    "sender": lambda sign: {"frame": frame(sender=Mailbox("a@b.example", f"a{sign}b"))},
    "reply to": lambda sign: {"frame": frame(reply_to=Mailbox("a@b.example", f"a{sign}b"))},
    "shared value": lambda sign: {"frame": frame(headers=(("X-A", f"a{sign}b"),))},
    "file": lambda sign: {"frame": frame(attachments=(Attachment(f"a{sign}b.txt", "text/plain", b"x"),))},
    "type": lambda sign: {"frame": frame(attachments=(Attachment("a.zz", f"a/b{sign}X-B: c", b"x"),))},
}
OWN_MESSAGE_ID = ("resend", "brevo")  # the provider's: ours is not sent


@EVERY
@pytest.mark.parametrize("part", list(SPOILT))
def test_a_control_character_gets_into_no_header_by_any_api(slug, part):
    if part == "message id" and slug in OWN_MESSAGE_ID:
        assert b"Message-ID" not in PROVIDERS[slug].call([envelope()], NOW).content
        return
    for sign in ("\r\n", "\n", "\0", "\x85", "\ud800"):
        (found,) = send(PROVIDERS[slug], never, envelope(**SPOILT[part](sign)))

        assert (found.kind, found.shared) == (Kind.MESSAGE, False)


def never(request):
    raise AssertionError(f"called {request.url}")


@EVERY
def test_half_a_character_is_refused_by_us_and_not_by_the_provider(slug):
    for part in ("text", "html", "subject"):
        (found,) = send(PROVIDERS[slug], never, envelope(**{part: "a\ud83d"}))

        assert found.kind is Kind.MESSAGE


@EVERY
def test_a_header_that_no_mail_of_ours_may_have_or_has_already_is_refused(slug):
    for name in ("Subject", "Bcc", "Content-Type", "X Y", "Message-ID", "List-Unsubscribe"):
        (found,) = send(PROVIDERS[slug], never, envelope(headers=(("List-Unsubscribe", "<a:b>"), (name, "a"))))

        assert (found.kind, name in found.text) == (Kind.MESSAGE, True)


@EVERY
def test_the_same_mail_makes_the_same_call_on_every_attempt(slug):
    provider = PROVIDERS[slug]

    calls = [same(provider.call([envelope(7)], NOW)) for _ in range(3)]

    assert calls == [calls[0]] * 3


@EVERY
def test_the_key_of_a_mail_comes_back_with_its_events(slug):
    call = PROVIDERS[slug].call([envelope(10)], NOW)

    body = call.content.decode()

    assert "00ff00ff00ff00ff.a" in body or "00ff00ff00ff00ff_a" in body


@EVERY
def test_a_check_that_reaches_nobody_says_so_and_is_not_certain(slug):
    found = asyncio.run(engine(PROVIDERS[slug], silent(httpx.ConnectError("refused"))).check(frozenset({"a.example"})))

    assert [(each.certain, "cannot be reached" in each.words) for each in found] == [(False, True)]


@EVERY
def test_a_check_with_a_wrong_key_is_certain_of_one_thing(slug):
    refusals = {
        "resend": httpx.Response(403, json={"name": "invalid_api_key", "message": "API key is invalid"}),
        "ses": httpx.Response(403, headers={"x-amzn-errortype": "UnrecognizedClientException"}, json={}),
    }
    refusal = refusals.get(slug, httpx.Response(401, json={"message": "Forbidden", "code": "unauthorized"}))

    found = asyncio.run(engine(PROVIDERS[slug], lambda request: refusal).check(frozenset({"a.example"})))

    assert [each.certain for each in found] == [True]


@EVERY
def test_no_question_of_a_check_sends_a_mail(slug):
    questions = PROVIDERS[slug].questions(frozenset({"shop.example"}), NOW)

    asked = [(question.call.method, question.call.content) for question in questions]

    # Mailgun's is a mail without anything in it, which it refuses.
    assert set(asked) <= ({("GET", b"")} | ({("POST", b"")} if slug == "mailgun" else set()))


@EVERY
@pytest.mark.parametrize("status", [404, 405])
def test_an_address_that_is_not_the_apis_is_the_engines_fault(slug, status):
    (found,) = PROVIDERS[slug].read(answer(status, b"<html>Not Found</html>"), [envelope()], NOW)

    assert found.kind is Kind.ENGINE
