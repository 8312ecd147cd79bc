"""The session alone: bytes in, bytes and events out, no socket."""

import base64
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core.classify import Stage
from delivery.core.envelope import Kind
from delivery.engines.smtp.commands import Capabilities, compose, dot_stuffed, read_capabilities, wire_address
from delivery.engines.smtp.events import Ended, Finished, Ready, Transaction
from delivery.engines.smtp.handshake import Login, Profile, Refusal, StartTls
from delivery.engines.smtp.replies import LONGEST_LINE, NONSENSE, ReplyReader
from delivery.engines.smtp.session import BLOCK, Session

GREETING = b"220 mx.example ESMTP\r\n"
HELLO = b"250-mx.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 1000000\r\n"
PLAIN_HELLO = b"250 mx.example\r\n"
CONTENT = b"Subject: x\r\n\r\nhello\r\n"
GROUP_B = b"MAIL FROM:<s@x.example> SIZE=21\r\nRCPT TO:<b@y.example>\r\nDATA\r\n"
OK, GO = b"250 2.0.0 Ok\r\n", b"354 go\r\n"


def transaction(recipient="a@y.example", content=CONTENT):
    return Transaction("s@x.example", recipient, content)


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


def ready(hello=HELLO, **profile):
    session = Session(Profile("me.example", **profile))
    talk(session, GREETING, hello)
    return session


def kinds(events):
    return [(each.transaction.recipient[0], each.outcome.kind) for each in events if isinstance(each, Finished)]


# Opening


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


# Envelopes


def test_in_steady_state_one_block_carries_a_content_its_dot_and_the_next_group():
    session = ready()
    a, b = transaction("a@y.example"), transaction("b@y.example")
    session.submit(a)
    first = written(session)
    session.submit(b)

    talked = talk(session, OK * 2 + GO)

    assert first == [GROUP_B.replace(b"<b@", b"<a@")]
    assert talked.blocks == [CONTENT + b".\r\n" + GROUP_B]
    assert kinds(talk(session, OK + OK * 2 + GO).events) == [("a", Kind.ACCEPTED)]
    assert kinds(talk(session, OK).events) == [("b", Kind.ACCEPTED)]
    assert not session.over


def test_without_pipelining_one_command_is_written_at_a_time():
    session = ready(PLAIN_HELLO)
    session.submit(transaction("a@y.example"))
    session.submit(transaction("b@y.example"))
    first = written(session)

    talked = talk(session, OK, OK, GO, OK)

    assert first == [b"MAIL FROM:<s@x.example>\r\n"]
    assert talked.blocks == [
        b"RCPT TO:<a@y.example>\r\n",
        b"DATA\r\n",
        CONTENT + b".\r\n",
        b"MAIL FROM:<s@x.example>\r\n",
    ]
    assert kinds(talked.events) == [("a", Kind.ACCEPTED)]


@pytest.mark.parametrize("hello", [HELLO, PLAIN_HELLO])
def test_a_refused_recipient_costs_a_reset_and_leaves_the_next_one_alone(hello):
    session = ready(hello)
    session.submit(transaction("a@y.example"))
    session.submit(transaction("b@y.example"))
    refusal = b"550 5.1.1 who\r\n"

    first = written(session)
    talked = talk(session, OK, refusal, *([b"503 no recipients\r\n"] if hello == HELLO else []))
    rest = talk(session, OK, OK, OK, GO, OK)

    assert kinds(talked.events + rest.events) == [("a", Kind.RECIPIENT), ("b", Kind.ACCEPTED)]
    commands = b"".join(first + talked.blocks + rest.blocks).split(b"\r\n")
    assert [line[:4] for line in commands].count(b"RSET") == 1
    assert commands.index(b"RSET") < commands.index(b"RCPT TO:<b@y.example>")


@pytest.mark.parametrize("answer", [b"554 no valid recipients\r\n", b"250 ok\r\n"])
def test_a_354_after_refused_recipients_gets_a_lone_dot_and_accepts_nothing(answer):
    session = ready()
    session.submit(transaction("a@y.example"))
    session.submit(transaction("b@y.example"))
    written(session)

    talked = talk(session, OK + b"450 4.2.0 later\r\n" + GO)

    assert talked.blocks == [b".\r\nRSET\r\n" + GROUP_B]
    ends = talk(session, answer + OK * 3 + GO, OK)
    assert kinds(ends.events) == [("a", Kind.TRANSIENT), ("b", Kind.ACCEPTED)]


def test_a_server_that_denies_its_own_parameters_is_asked_again_without_them():
    session = ready()
    session.submit(transaction("a@y.example"))
    session.submit(transaction("b@y.example"))
    written(session)

    talked = talk(session, b"555 5.5.4 SIZE unknown\r\n503 MAIL first\r\n503 MAIL first\r\n")

    assert talked.events == []
    assert talked.blocks == [b"RSET\r\nMAIL FROM:<s@x.example>\r\nRCPT TO:<a@y.example>\r\nDATA\r\n"]
    again = talk(session, OK + b"555 5.5.4 still\r\n503 no\r\n503 no\r\n")
    assert kinds(again.events) == [("a", Kind.MESSAGE)]


def test_a_421_answers_one_command_and_ends_all():
    session = ready()
    session.submit(transaction("a@y.example"))
    session.submit(transaction("b@y.example"))
    written(session)
    talk(session, OK * 2 + GO)

    *finished, ended = talk(session, b"421 4.3.0 going down\r\n").events

    assert [(each.outcome.kind, each.hung_up) for each in finished] == [
        (Kind.TRANSIENT, False),
        (Kind.TRANSIENT, True),
    ]
    assert (finished[0].outcome.code, ended, session.data_to_send()) == ("421 4.3.0", Ended(by_421=True), b"")


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([], [("a", Kind.TRANSIENT, True), ("b", Kind.TRANSIENT, True)]),
        ([OK], [("a", Kind.TRANSIENT, True), ("b", Kind.TRANSIENT, True)]),
        ([OK * 2], [("a", Kind.TRANSIENT, True), ("b", Kind.TRANSIENT, True)]),
        ([OK + b"550 5.1.1 no\r\n"], [("a", Kind.RECIPIENT, False), ("b", Kind.TRANSIENT, True)]),
        ([OK * 2 + GO], [("a", Kind.UNKNOWN, False), ("b", Kind.TRANSIENT, True)]),
        ([OK * 2 + GO, b"25"], [("a", Kind.UNKNOWN, False), ("b", Kind.TRANSIENT, True)]),
        ([OK * 2 + GO, OK], [("a", Kind.ACCEPTED, False), ("b", Kind.TRANSIENT, True)]),
        ([OK * 2 + GO, OK * 3], [("a", Kind.ACCEPTED, False), ("b", Kind.TRANSIENT, True)]),
        ([OK * 2 + GO, OK * 3 + GO], [("a", Kind.ACCEPTED, False), ("b", Kind.UNKNOWN, False)]),
    ],
)
def test_a_lost_connection_leaves_unknown_only_what_had_its_dot_out(replies, expected):
    session = ready()
    session.submit(transaction("a@y.example"))
    session.submit(transaction("b@y.example"))
    written(session)

    events = talk(session, *replies).events + session.lost("gone")

    finished = [each for each in events if isinstance(each, Finished)]
    assert [(each.transaction.recipient[0], each.outcome.kind, each.hung_up) for each in finished] == expected
    assert (events[-1], session.lost("again")) == (Ended(), [])


@pytest.mark.parametrize("held_back", [True, False])
def test_a_dot_still_in_the_drivers_hands_is_not_out(held_back):
    session = ready()
    session.submit(transaction())
    written(session)
    talk(session, OK * 2 + GO)
    assert session.dot_is_last
    session.held_back = held_back

    assert kinds(session.lost("gone")) == [("a", Kind.TRANSIENT if held_back else Kind.UNKNOWN)]


def test_a_large_content_is_written_in_pieces_and_its_dot_is_out_with_the_last():
    session = ready()
    content = b"x" * 76 * 2 * 1024 + b"\r\n"
    session.submit(transaction(content=content))
    session.submit(transaction("b@y.example"))
    written(session)
    session.receive(OK * 2 + GO)

    first = session.data_to_send()
    assert (len(first), session.dot_is_last) == (BLOCK, False)
    *rest, group = written(session)

    assert b"".join([first, *rest]) == content + b".\r\n"
    assert group == GROUP_B


def test_pieces_not_written_make_a_lost_connection_harmless():
    session = ready()
    session.submit(transaction(content=b"x" * BLOCK * 3))
    written(session)
    session.receive(OK * 2 + GO)
    session.data_to_send()

    assert kinds(session.lost("gone")) == [("a", Kind.TRANSIENT)]


@pytest.mark.parametrize(
    ("answer", "kind"), [(OK, Kind.TRANSIENT), (b"552 5.3.4 too big\r\n", Kind.MESSAGE), (b"421 x\r\n", Kind.TRANSIENT)]
)
def test_an_answer_before_the_dot_is_out_accepts_nothing_and_ends_the_session(answer, kind):
    session = ready()
    session.submit(transaction(content=b"x" * BLOCK * 3))
    written(session)
    session.receive(OK * 2 + GO)
    session.data_to_send()

    events = session.receive(answer)

    assert kinds(events) == [("a", kind)]
    assert (session.over, session.data_to_send()) == (True, b"")


@pytest.mark.parametrize(
    ("garbage", "kind"), [(b"nonsense\r\n", Kind.UNKNOWN), (GO, Kind.UNKNOWN), (b"250-x\r\n550 y\r\n", Kind.UNKNOWN)]
)
def test_nonsense_in_place_of_the_last_answer_leaves_it_unknown(garbage, kind):
    session = ready()
    session.submit(transaction())
    written(session)
    talk(session, OK * 2 + GO)

    assert kinds(talk(session, garbage).events) == [("a", kind)]


def test_a_reply_that_nothing_asked_for_ends_the_session():
    session = ready()

    assert talk(session, OK).events == [Ended()]
    assert session.over


def test_an_acceptance_that_comes_before_the_content_is_none():
    session = ready()
    session.submit(transaction())
    written(session)

    assert kinds(talk(session, OK * 2 + GO + OK).events) == [("a", Kind.TRANSIENT)]


def test_quit_waits_for_what_is_under_way():
    session = ready()
    session.submit(transaction())
    written(session)
    session.quit()

    assert talk(session, OK * 2 + GO).blocks == [CONTENT + b".\r\n"]
    talked = talk(session, OK, b"221 bye\r\n")
    assert talked.blocks == [b"QUIT\r\n"]
    assert (kinds(talked.events), talked.events[-1]) == ([("a", Kind.ACCEPTED)], Ended())


# Replies, however they are cut

CONVERSATION = (
    b"250-2.0.0 first\r\n250-2.0.0 second\r\n250 2.0.0 third\r\n354\r\n550-5.1.1 a\r\n550 5.1.1 b\n421 4.3.0 bye\r\n"
)


def test_replies_are_the_same_wherever_they_are_split():
    whole = ReplyReader().feed(CONVERSATION)

    assert [each.code for each in whole] == [250, 354, 550, 421]
    for cut in range(len(CONVERSATION)):
        reader = ReplyReader()
        assert reader.feed(CONVERSATION[:cut]) + reader.feed(CONVERSATION[cut:]) == whole


ANSWERS = OK * 2 + GO + OK + OK + b"550-5.1.1 no\r\n550 5.1.1 who\r\n503 x\r\n"


@given(st.lists(st.integers(0, len(ANSWERS)), max_size=9))
def test_a_session_hears_the_same_wherever_the_bytes_are_split(cuts):
    session = ready()
    session.submit(transaction("a@y.example"))
    session.submit(transaction("b@y.example"))
    written(session)
    # The content of the first is written at 354, so no reply to it can come before.
    head = len(OK * 2 + GO)
    edges = sorted({0, head, len(ANSWERS), *cuts})
    events = []
    for start, end in pairwise(edges):
        events += talk(session, ANSWERS[start:end]).events

    assert kinds(events) == [("a", Kind.ACCEPTED), ("b", Kind.RECIPIENT)]


@given(st.binary(max_size=300))
def test_no_bytes_of_a_server_break_the_session_or_make_it_accept(junk):
    session = ready()
    session.submit(transaction())
    written(session)

    events = talk(session, junk, b"\r\n").events + session.lost("gone")

    assert len(kinds(events)) == 1
    assert kinds(events)[0][1] is not Kind.ACCEPTED


@pytest.mark.parametrize(
    "junk",
    [b"25x oops\r\n", b"\r\n", b"199 low\r\n", b"250~ok\r\n", b"x" * (LONGEST_LINE + 1), b"250-a\r\n251 b\r\n"],
)
def test_what_is_no_reply_is_told_apart(junk):
    assert [each.code for each in ReplyReader().feed(junk)] == [NONSENSE]


def test_a_reply_without_end_is_nonsense():
    reader = ReplyReader()
    line = b"250-" + b"x" * 1000 + b"\r\n"

    codes = [each.code for _ in range(100) for each in reader.feed(line)]

    assert codes[0] == NONSENSE


# Words


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"", b".\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.\r\n.b\r\n", b"a\r\n..\r\n..b\r\n.\r\n"),
        (b"a.\r\nb", b"a.\r\nb\r\n.\r\n"),
    ],
)
def test_a_content_is_dot_stuffed(content, wire):
    assert dot_stuffed(content) == wire


def test_capabilities_are_read_in_any_case():
    text = "mx.example\npipelining\nSize 1000\nauth plain login\nAUTH=XOAUTH2\n8BitMime\nSMTPUTF8\nStartTLS\n\n"

    assert read_capabilities(text) == Capabilities(
        pipelining=True,
        starttls=True,
        eightbit=True,
        smtputf8=True,
        size=1000,
        auth=("PLAIN", "LOGIN", "XOAUTH2"),
    )


EVERYTHING = Capabilities(pipelining=True, eightbit=True, smtputf8=True, size=0)


@pytest.mark.parametrize(
    ("sender", "recipient", "content", "mail", "rcpt"),
    [
        ("s@x", "a@y", b"x", b"MAIL FROM:<s@x> SIZE=1", b"RCPT TO:<a@y>"),
        ("", "a@y", b"x", b"MAIL FROM:<> SIZE=1", b"RCPT TO:<a@y>"),
        ("s@x", "a@bücher.example", b"x", b"MAIL FROM:<s@x> SIZE=1", b"RCPT TO:<a@xn--bcher-kva.example>"),
        ("s@x", "jürgen@y", b"x", b"MAIL FROM:<s@x> SIZE=1 SMTPUTF8", "RCPT TO:<jürgen@y>".encode()),
        ("s@x", "a@y", b"A: b\r\n\r\n\xff", b"MAIL FROM:<s@x> SIZE=9 BODY=8BITMIME", b"RCPT TO:<a@y>"),
        ("s@x", "a@y", b"A: \xff", b"MAIL FROM:<s@x> SIZE=4 SMTPUTF8 BODY=8BITMIME", b"RCPT TO:<a@y>"),
        ("s@x", '"a b"@y', b"x", b"MAIL FROM:<s@x> SIZE=1", b'RCPT TO:<"a b"@y>'),
    ],
)
def test_an_envelope_asks_only_for_what_it_needs(sender, recipient, content, mail, rcpt):
    composed = compose(sender, recipient, content, EVERYTHING)

    assert (composed.mail, composed.rcpt) == (mail + b"\r\n", rcpt + b"\r\n")


@pytest.mark.parametrize(
    ("recipient", "content", "code"), [("jürgen@y", b"x", "5.6.7"), ("a@y", b"A: b\r\n\r\n\xff", "5.6.3")]
)
def test_what_a_server_cannot_carry_is_the_messages_fault(recipient, content, code):
    outcome = compose("s@x", recipient, content, Capabilities(size=0))

    assert (outcome.kind, outcome.code) == (Kind.MESSAGE, code)


@pytest.mark.parametrize(
    "address", ["", "a", "@y", "a@", "a@y>\r\nRSET", "a@y\r\n", "a b@y", "<a@y>", '"a\r"@y', "a@y ", "a@\u2028"]
)
def test_no_address_breaks_out_of_its_command(address):
    assert wire_address(address) is None
    assert compose("s@x", address, b"x", EVERYTHING).kind is Kind.RECIPIENT
    assert not address or compose(address, "a@y", b"x", EVERYTHING).kind is Kind.MESSAGE


@given(st.text())
def test_no_text_makes_a_command_of_two_lines(address):
    wire = wire_address(address + "@y.example")

    assert wire is None or not set(wire) & set(b"\r\n\0<> ") or wire.startswith(b'"')
