"""Replies however their bytes are cut, and the words of commands and contents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core.envelope import Kind
from delivery.engines.smtp.commands import Capabilities, compose, dot_stuffed, read_capabilities, wire_address
from delivery.engines.smtp.replies import LONGEST_LINE, NONSENSE, ReplyReader

pytestmark = pytest.mark.once

CONVERSATION = (
    b"250-2.0.0 first\r\n250-2.0.0 second\r\n250 2.0.0 third\r\n354\r\n550-5.1.1 a\r\n550 5.1.1 b\n421 4.3.0 bye\r\n"
)


def test_replies_are_the_same_wherever_they_are_split():
    whole = ReplyReader().feed(CONVERSATION)

    assert [each.code for each in whole] == [250, 354, 550, 421]
    for cut in range(len(CONVERSATION)):
        reader = ReplyReader()
        assert reader.feed(CONVERSATION[:cut]) + reader.feed(CONVERSATION[cut:]) == whole


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
