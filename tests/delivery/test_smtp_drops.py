"""A real server that drops, stalls or babbles at every point: what was taken and what is reported agree."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import uvloop

from delivery.core.envelope import Envelope, Frame, Kind, Mailbox
from delivery.engines.smtp import SmtpEngine, SmtpSettings, Timeouts
from tests.delivery.smtp_server import serving

pytestmark = pytest.mark.once

FRAME = Frame(Mailbox("news@shop.example"), "bounces@shop.example")
BODY = b"hello\r\n.a dot\r\n..two\r\nand a long line " + b"x" * 500 + b"\r\nend\r\n"
BRISK = Timeouts(**dict.fromkeys(Timeouts.__dataclass_fields__, 0.8) | {"connect": 5, "tls": 5, "greeting": 5})
PATIENT = Timeouts()


def envelope(recipient):
    message_id = f"key-{recipient}@shop.example"
    return Envelope("key", message_id, FRAME, Mailbox(recipient), "Hi", "", "", datetime(2026, 1, 2, tzinfo=UTC))


def build(envelope, bodies=1):
    head = f"Message-ID: <{envelope.message_id}>\r\nSubject: {envelope.subject}\r\n\r\n".encode()
    return head + BODY * bodies


def settings(server, **changes):
    return SmtpSettings(**{"host": "127.0.0.1", "port": server.port, "security": "none", "timeouts": PATIENT} | changes)


def send(server, rounds, bodies=1, run=asyncio.run, **changes):
    """Sends each round's envelopes at once, one round after the other: the outcomes by recipient, in order."""

    async def story():
        engine = SmtpEngine(settings(server, **changes), lambda envelope: build(envelope, bodies))
        outcomes = {}
        for recipients in rounds:
            answers = await asyncio.gather(*(engine.send([envelope(each)]) for each in recipients))
            outcomes |= {each: answer[0] for each, answer in zip(recipients, answers, strict=True)}
        await engine.close()
        return outcomes

    return run(asyncio.wait_for(story(), 30))


def agree(server, outcomes):
    """Nothing accepted is reported as failed, nothing failed as accepted, and nothing arrives twice."""
    taken = server.recipients
    certain = {each for each, outcome in outcomes.items() if outcome.kind is Kind.ACCEPTED}
    possible = certain | {each for each, outcome in outcomes.items() if outcome.kind is Kind.UNKNOWN}
    assert len(taken) == len(set(taken))
    assert certain <= set(taken) <= possible


ONE = "one@y.example"
TWO = "two@y.example"
THREE = "three@y.example"

BEFORE_THE_DOT = ["greeting", "ehlo", "mail", "rcpt", "data"]


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("how", ["drop", "reset"])
@pytest.mark.parametrize("at", BEFORE_THE_DOT)
def test_a_new_connection_that_is_dropped_before_the_dot_accepted_nothing(at, how, pipelining):
    with serving(pipelining=pipelining, faults=[{"at": at, how: True}]) as server:
        outcomes = send(server, [[ONE]])

        assert (outcomes[ONE].kind, outcomes[ONE].faults_engine) == (Kind.TRANSIENT, True)
        assert len(server.lines("connected")) == 1
        agree(server, outcomes)


@pytest.mark.parametrize("how", ["drop", "reset"])
def test_a_connection_dropped_in_a_content_that_had_left_whole_leaves_it_unknown(how):
    with serving(faults=[{"at": "content", how: True}]) as server:
        outcomes = send(server, [[ONE]])

        assert outcomes[ONE].kind is Kind.UNKNOWN
        agree(server, outcomes)


@pytest.mark.parametrize("at", ["go", "content"])
@pytest.mark.parametrize("how", ["drop", "reset"])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_connection_dropped_while_the_end_of_a_content_is_still_here_accepted_nothing(at, how, run):
    with serving(faults=[{"at": at, how: True}]) as server:
        outcomes = send(server, [[ONE, TWO]], max_connections=1, bodies=20000, run=run)

        assert [outcome.kind for outcome in outcomes.values()] == [Kind.TRANSIENT, Kind.TRANSIENT]
        agree(server, outcomes)


@pytest.mark.parametrize("accept", [True, False])
@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_connection_dropped_after_the_dot_leaves_one_envelope_unknown(pipelining, accept, run):
    with serving(pipelining=pipelining, faults=[{"at": "dot", "drop": True, "accept": accept}]) as server:
        outcomes = send(server, [[ONE, TWO]], max_connections=1, run=run)

        assert [outcome.kind for outcome in outcomes.values()] == [Kind.UNKNOWN, Kind.TRANSIENT]
        assert server.recipients == [ONE] * accept
        agree(server, outcomes)


def test_a_connection_dropped_after_the_answer_to_the_dot_accepted_the_mail():
    with serving(faults=[{"at": "after", "drop": True}]) as server:
        outcomes = send(server, [[ONE]])

        assert outcomes[ONE].kind is Kind.ACCEPTED
        agree(server, outcomes)


@pytest.mark.parametrize("at", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("how", [{"drop": True}, {"reset": True}, {"say": "421 4.3.0 going down\r\n", "drop": True}])
def test_a_kept_connection_that_dies_before_the_dot_is_no_attempt(at, how):
    with serving(faults=[{"at": at, "message": 2, "connection": 1, **how}]) as server:
        outcomes = send(server, [[ONE], [TWO]])

        assert [outcome.kind for outcome in outcomes.values()] == [Kind.ACCEPTED, Kind.ACCEPTED]
        assert len(server.lines("connected")) == 2
        agree(server, outcomes)


def test_a_kept_connection_that_dies_is_replaced_only_once():
    first = {"at": "mail", "message": 2, "connection": 1, "drop": True}
    faults = [first, {"at": "mail", "connection": 2, "drop": True}]
    with serving(faults=faults) as server:
        outcomes = send(server, [[ONE], [TWO]])

        assert [outcome.kind for outcome in outcomes.values()] == [Kind.ACCEPTED, Kind.TRANSIENT]
        assert len(server.lines("connected")) == 2
        agree(server, outcomes)


def test_a_kept_connection_that_dies_after_the_dot_is_an_attempt():
    with serving(faults=[{"at": "dot", "message": 2, "drop": True, "accept": True}]) as server:
        outcomes = send(server, [[ONE], [TWO]])

        assert [outcome.kind for outcome in outcomes.values()] == [Kind.ACCEPTED, Kind.UNKNOWN]
        assert len(server.lines("connected")) == 1
        agree(server, outcomes)


def test_a_server_that_hangs_up_after_each_mail_still_gets_them_all():
    recipients = [f"user{number}@y.example" for number in range(12)]
    with serving(faults=[{"at": "after", "drop": True}]) as server:
        outcomes = send(server, [recipients], max_connections=2)

        assert {outcome.kind for outcome in outcomes.values()} == {Kind.ACCEPTED}
        agree(server, outcomes)


@pytest.mark.parametrize(
    ("at", "kind"),
    [
        ("ehlo", Kind.TRANSIENT),
        ("mail", Kind.TRANSIENT),
        ("rcpt", Kind.TRANSIENT),
        ("data", Kind.TRANSIENT),
        ("dot", Kind.UNKNOWN),
    ],
)
def test_a_server_that_falls_silent_is_given_up_in_time(at, kind):
    with serving(faults=[{"at": at, "stall": True, "accept": True}]) as server:
        outcomes = send(server, [[ONE]], timeouts=BRISK)

        assert (outcomes[ONE].kind, at.upper() in outcomes[ONE].text) == (kind, True)
        agree(server, outcomes)


def test_bytes_that_drip_do_not_count_as_an_answer():
    with serving(drip=0.1) as server:
        outcomes = send(server, [[ONE]], timeouts=replace(BRISK, greeting=0.8))

        assert outcomes[ONE].kind is Kind.TRANSIENT
        assert outcomes[ONE].text == "the server did not answer GREETING within 0.8 s"


def test_replies_that_drip_are_understood():
    with serving(drip=0.001, size=100000) as server:
        outcomes = send(server, [["refuse-550@y.example", ONE]], max_connections=1)

        assert [outcome.kind for outcome in outcomes.values()] == [Kind.RECIPIENT, Kind.ACCEPTED]
        agree(server, outcomes)


def test_a_server_that_stops_reading_in_the_middle_of_a_content_accepted_nothing():
    with serving(faults=[{"at": "go", "stall": True}]) as server:
        outcomes = send(server, [[ONE]], bodies=20000, timeouts=BRISK)

        assert (outcomes[ONE].kind, outcomes[ONE].text) == (Kind.TRANSIENT, "the server read nothing for 0.8 s")
        agree(server, outcomes)


def test_a_large_content_arrives_as_it_is():
    with serving() as server:
        outcomes = send(server, [[ONE, TWO]], bodies=3000, max_connections=1)

        assert [line["content"] for line in server.accepted] == [build(envelope(each), 3000) for each in (ONE, TWO)]
        agree(server, outcomes)


@pytest.mark.parametrize(
    ("at", "kind"),
    [("mail", Kind.TRANSIENT), ("rcpt", Kind.TRANSIENT), ("data", Kind.TRANSIENT), ("dot", Kind.UNKNOWN)],
)
@pytest.mark.parametrize("babble", ["hello?\r\n", "\udcff\udcfe\x00\r\n", "250-a\r\n550 b\r\n", "x" * 5000])
def test_garbage_is_no_answer_and_ends_the_connection(at, kind, babble):
    with serving(faults=[{"at": at, "say": babble, "accept": True}]) as server:
        outcomes = send(server, [[ONE]])

        assert outcomes[ONE].kind is kind
        agree(server, outcomes)


@pytest.mark.parametrize("at", ["mail", "rcpt", "data", "dot"])
def test_replies_of_several_lines_are_one_answer(at):
    text = {"data": "354-wait\r\n354 go\r\n"}.get(at, "250-2.0.0 one\r\n250-2.0.0 two\r\n250 2.0.0 three\r\n")
    with serving(faults=[{"at": at, "say": text, "accept": True}]) as server:
        outcomes = send(server, [[ONE, TWO]], max_connections=1)

        assert [outcome.kind for outcome in outcomes.values()] == [Kind.ACCEPTED, Kind.ACCEPTED]
        agree(server, outcomes)


@pytest.mark.parametrize("at", ["mail", "rcpt", "data", "dot"])
def test_a_421_on_a_new_connection_is_the_outcome(at):
    with serving(faults=[{"at": at, "say": "421 4.3.0 going down\r\n", "drop": True}]) as server:
        outcomes = send(server, [[ONE]])

        assert (outcomes[ONE].kind, outcomes[ONE].code) == (Kind.TRANSIENT, "421 4.3.0")
        agree(server, outcomes)


@pytest.mark.parametrize("pipelining", [True, False])
def test_each_recipient_gets_its_own_outcome_and_its_own_content(pipelining):
    wanted = {
        "refuse-550@y.example": (Kind.RECIPIENT, "550 5.1.1", True),
        "fine@y.example": (Kind.ACCEPTED, "250 2.0.0", False),
        "refuse-450@y.example": (Kind.TRANSIENT, "450 4.2.0", False),
        "refuse-452@y.example": (Kind.TRANSIENT, "452 4.2.2", False),
        "content-554@y.example": (Kind.MESSAGE, "554 5.6.0", False),
        "also-fine@y.example": (Kind.ACCEPTED, "250 2.0.0", False),
        "content-451@y.example": (Kind.TRANSIENT, "451 4.3.0", False),
        "last@y.example": (Kind.ACCEPTED, "250 2.0.0", False),
    }
    with serving(pipelining=pipelining) as server:
        outcomes = send(server, [list(wanted)], max_connections=2)

        assert {each: (outcome.kind, outcome.code, outcome.hard) for each, outcome in outcomes.items()} == wanted
        assert {line["recipient"]: line["content"] for line in server.accepted} == {
            each: build(envelope(each)) for each in wanted if wanted[each][0] is Kind.ACCEPTED
        }
        agree(server, outcomes)


@pytest.mark.parametrize("answer", ["554 5.5.1 no valid recipients", "250 2.0.0 ok"])
def test_nothing_is_sent_to_a_server_that_wants_data_without_recipients(answer):
    with serving(data_anyway=answer) as server:
        outcomes = send(server, [["refuse-550@y.example", ONE]], max_connections=1)

        assert [outcome.kind for outcome in outcomes.values()] == [Kind.RECIPIENT, Kind.ACCEPTED]
        assert [line["content"] for line in server.accepted] == [b"", build(envelope(ONE))][-1:]
        agree(server, outcomes)
