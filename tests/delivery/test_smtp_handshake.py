"""From the greeting to a session that takes mail, without a socket."""

import base64
from types import SimpleNamespace

import pytest

from delivery.core.classify import Stage
from delivery.core.envelope import Kind
from delivery.engines.smtp.commands import Capabilities
from delivery.engines.smtp.events import Ended, Ready
from delivery.engines.smtp.handshake import Login, Profile, Refusal, StartTls
from delivery.engines.smtp.session import Session

pytestmark = pytest.mark.once

GREETING = b"220 mx.example ESMTP\r\n"
HELLO = b"250-mx.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 1000000\r\n"
PLAIN_HELLO = b"250 mx.example\r\n"
CONTENT = b"Subject: x\r\n\r\nhello\r\n"


def written(session):
    """Every block the session wants to write now."""
    return list(iter(session.data_to_send, b""))


def talk(session, *replies):
    """Gives the replies one by one and collects what is written and what happens."""
    events, blocks = [], []
    for reply in replies:
        events += session.receive(reply)
        blocks += written(session)
    return SimpleNamespace(events=events, blocks=blocks)


def test_the_handshake_says_hello_after_the_greeting_only():
    session = Session(Profile("me.example"))

    assert written(session) == []
    assert talk(session, GREETING).blocks == [b"EHLO me.example\r\n"]
    assert talk(session, HELLO).events == [Ready(Capabilities(pipelining=True, eightbit=True, size=1000000))]


@pytest.mark.parametrize("refusal", [b"500 what\r\n", b"502 5.5.2 what\r\n"])
def test_a_server_from_before_ehlo_is_greeted_with_helo(refusal):
    session = Session(Profile("me.example"))

    talked = talk(session, GREETING, refusal, PLAIN_HELLO)

    assert talked.blocks == [b"EHLO me.example\r\n", b"HELO me.example\r\n"]
    assert talked.events == [Ready(Capabilities())]


@pytest.mark.parametrize(
    ("greeting", "kind", "by_421"),
    [
        (b"554 5.7.1 not you\r\n", Kind.ENGINE, False),
        (b"421 4.3.2 too many connections\r\n", Kind.THROTTLED, True),
        (b"421 4.3.0 down\r\n", Kind.TRANSIENT, True),
        (b"hello there\r\n", Kind.TRANSIENT, False),
        (b"\x16\x03\x01\x02\n", Kind.TRANSIENT, False),
    ],
)
def test_a_refusal_at_the_greeting_ends_the_session(greeting, kind, by_421):
    session = Session(Profile("me.example"))

    refusal, ended = talk(session, greeting).events

    assert (refusal.outcome.kind, refusal.stage, ended) == (kind, Stage.GREETING, Ended(by_421))
    assert session.over


def test_tls_forgets_capabilities_and_what_was_injected_before_it():
    session = Session(Profile("me.example", starttls=True))

    talked = talk(session, GREETING, b"250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n")
    agreed = talk(session, b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n250 unfinished")
    late = talk(session, b" line\r\n235 injected\r\n")
    session.tls_established()

    assert talked.blocks == [b"EHLO me.example\r\n", b"STARTTLS\r\n"]
    assert (agreed.events, agreed.blocks, late.events, late.blocks) == ([StartTls()], [], [], [])
    assert written(session) == [b"EHLO me.example\r\n"]
    assert talk(session, PLAIN_HELLO).events == [Ready(Capabilities())]


def test_without_starttls_nothing_goes_on_in_clear():
    login = Login("u", "p")
    session = Session(Profile("me.example", starttls=True, login=login))

    talked = talk(session, GREETING, b"250-mx\r\n250 AUTH PLAIN\r\n")

    assert talked.blocks == [b"EHLO me.example\r\n"]
    assert [each.outcome.kind for each in talked.events if isinstance(each, Refusal)] == [Kind.TRANSIENT]


PLAIN_LOGIN = base64.b64encode(b"\0user\0secret")
XOAUTH2 = base64.b64encode(b"user=user\1auth=Bearer secret\1\1")


@pytest.mark.parametrize(
    ("offered", "mechanism", "replies", "commands"),
    [
        (b"LOGIN PLAIN", "auto", [b"235 ok\r\n"], [b"AUTH PLAIN " + PLAIN_LOGIN]),
        (b"PLAIN", "auto", [b"334 \r\n", b"235 ok\r\n"], [b"AUTH PLAIN " + PLAIN_LOGIN, PLAIN_LOGIN]),
        (
            b"LOGIN XOAUTH2",
            "auto",
            [b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", b"235 ok\r\n"],
            [b"AUTH LOGIN", base64.b64encode(b"user"), base64.b64encode(b"secret")],
        ),
        (b"PLAIN XOAUTH2", "xoauth2", [b"235 ok\r\n"], [b"AUTH XOAUTH2 " + XOAUTH2]),
    ],
)
def test_a_login_uses_what_is_announced(offered, mechanism, replies, commands):
    session = Session(Profile("me.example", encrypted=True, login=Login("user", "secret", mechanism)))
    talk(session, GREETING)

    talked = talk(session, b"250-mx\r\n250 AUTH " + offered + b"\r\n", *replies)

    assert talked.blocks == [command + b"\r\n" for command in commands]
    assert isinstance(talked.events[-1], Ready)


@pytest.mark.parametrize("mechanism", ["plain", "login", "xoauth2"])
def test_a_refused_login_tells_no_secret_even_if_the_server_does(mechanism):
    login = Login("user", "secret", mechanism)
    session = Session(Profile("me.example", encrypted=True, login=login))
    talk(session, GREETING, b"250-mx\r\n250 AUTH PLAIN LOGIN XOAUTH2\r\n")
    echoed = b" ".join([b"Secret", PLAIN_LOGIN, XOAUTH2[:-9], base64.b64encode(b"secret")])

    refusal = talk(session, b"535 5.7.8 bad: " + echoed + b"\r\n").events[0]

    assert refusal.stage is Stage.AUTH
    assert (refusal.outcome.kind, refusal.outcome.code) == (Kind.ENGINE, "535 5.7.8")
    assert refusal.outcome.text == "bad: [hidden] [hidden] [hidden] [hidden]"
    assert "secret" not in repr(login)


def test_an_xoauth2_error_is_answered_with_an_empty_line():
    session = Session(Profile("me.example", encrypted=True, login=Login("user", "secret", "xoauth2")))
    talk(session, GREETING, b"250-mx\r\n250 AUTH XOAUTH2\r\n")

    assert talk(session, b"334 eyJzdGF0dXMiOiI0MDEifQ==\r\n").blocks == [b"\r\n"]
    assert talk(session, b"535 5.7.8 no\r\n").events[0].outcome.kind is Kind.ENGINE


@pytest.mark.parametrize(("in_clear", "blocks"), [(False, []), (True, [b"AUTH PLAIN " + PLAIN_LOGIN + b"\r\n"])])
def test_a_password_crosses_in_clear_only_by_consent(in_clear, blocks):
    session = Session(Profile("me.example", login=Login("user", "secret", in_clear=in_clear)))
    talk(session, GREETING)

    assert talk(session, b"250-mx\r\n250 AUTH PLAIN\r\n").blocks == blocks
    assert session.over is not in_clear
