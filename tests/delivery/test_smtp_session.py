"""The session alone, once it is open: bytes in, bytes and events out, no socket."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core.envelope import Kind
from delivery.engines.smtp.events import Ended, Finished, Transaction
from delivery.engines.smtp.handshake import Profile
from delivery.engines.smtp.session import BLOCK, Session

pytestmark = pytest.mark.once

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


def ready(hello=HELLO):
    session = Session(Profile("me.example"))
    talk(session, GREETING, hello)
    return session


def kinds(events):
    return [(each.transaction.recipient[0], each.outcome.kind) for each in events if isinstance(each, Finished)]


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


@pytest.mark.parametrize("replies", [GO, OK + GO, OK * 3, OK + b"354-a\r\n354 b\r\n", OK * 2 + b"221 x\r\n"])
def test_an_answer_that_does_not_fit_its_command_ends_the_session_before_any_content(replies):
    session = ready()
    session.submit(transaction())
    written(session)

    talked = talk(session, replies)

    assert (kinds(talked.events), talked.blocks, session.over) == ([("a", Kind.TRANSIENT)], [], True)


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
