"""How many connections there are, which of them carry what, and when they end."""

import asyncio
import time
from datetime import UTC, datetime

import pytest

from delivery.core.envelope import Envelope, Frame, Kind, Mailbox
from delivery.engines.smtp import SmtpEngine, SmtpSettings, Timeouts
from delivery.engines.smtp.pool import ConnectionLimit
from tests.delivery.smtp_server import serving

pytestmark = pytest.mark.once

FRAME = Frame(Mailbox("news@shop.example"), "bounces@shop.example")


def envelope(recipient):
    return Envelope("key", "id@x", FRAME, Mailbox(recipient), "Hi", "hello", "", datetime(2026, 1, 2, tzinfo=UTC))


def build(envelope):
    return f"To: {envelope.recipient.address}\r\n\r\nhello\r\n".encode()


def names(count, prefix="user"):
    return [f"{prefix}{number}@y.example" for number in range(count)]


def engine_for(server, **changes):
    return SmtpEngine(SmtpSettings(**{"host": "127.0.0.1", "port": server.port, "security": "none"} | changes), build)


def run(story):
    return asyncio.run(asyncio.wait_for(story, 30))


async def send_all(engine, recipients):
    answers = await asyncio.gather(*(engine.send([envelope(each)]) for each in recipients))
    return [outcome for [outcome] in answers]


async def sent_and_closed(engine, *rounds):
    outcomes = [outcome for recipients in rounds for outcome in await send_all(engine, recipients)]
    await engine.close()
    return outcomes


def test_two_envelopes_share_a_connection_and_later_ones_find_it_open():
    with serving() as server:
        outcomes = run(sent_and_closed(engine_for(server), names(2), names(1, "b"), names(2, "c")))

        assert {outcome.kind for outcome in outcomes} == {Kind.ACCEPTED}
        assert len(server.lines("connected")) == 1
        assert len(set(server.recipients)) == 5


def test_no_more_connections_are_opened_than_are_allowed():
    with serving() as server:
        outcomes = run(sent_and_closed(engine_for(server, max_connections=3), names(60)))

        assert {outcome.kind for outcome in outcomes} == {Kind.ACCEPTED}
        assert len(server.lines("connected")) == 3
        assert sorted(server.recipients) == sorted(names(60))


def test_a_connection_carries_only_so_many_messages():
    with serving() as server:
        run(sent_and_closed(engine_for(server, max_connections=1, max_messages_per_connection=4), names(10)))

        per_connection = [line["connection"] for line in server.lines("accepted")]
        assert [per_connection.count(number) for number in (1, 2, 3)] == [4, 4, 2]
        assert [server.commands(number)[-1] for number in (1, 2, 3)] == ["QUIT"] * 3


def test_a_connection_too_old_is_left_even_while_idle():
    async def story(engine, server):
        await send_all(engine, names(1))
        async with asyncio.timeout(10):
            while not server.lines("gone"):  # noqa: ASYNC110 (the event is in another process)
                await asyncio.sleep(0.02)
        await send_all(engine, names(1, "b"))
        await engine.close()

    with serving() as server:
        run(story(engine_for(server, max_connection_age=0.2, timeouts=Timeouts(rset=0.2)), server))

        assert len(server.recipients) == 2
        assert len(server.lines("connected")) == 2
        assert server.commands(1)[-1] == "QUIT"


def test_sends_of_several_envelopes_keep_their_order():
    async def story(engine):
        outcomes = await engine.send([envelope(each) for each in ("a@y", "refuse-550@y", "b@y")])
        await engine.close()
        return [outcome.kind for outcome in outcomes]

    with serving() as server:
        assert run(story(engine_for(server))) == [Kind.ACCEPTED, Kind.RECIPIENT, Kind.ACCEPTED]


def test_too_many_connections_make_the_pool_smaller_and_nothing_fails():
    faults = [{"at": "greeting", "connection": number, "say": "421 4.7.0 too many connections\r\n", "drop": True}
              for number in range(4, 60)]  # fmt: skip
    with serving(faults=faults) as server:
        outcomes = run(sent_and_closed(engine_for(server, max_connections=8), names(100)))

        assert {outcome.kind for outcome in outcomes} == {Kind.ACCEPTED}
        assert len(server.lines("connected")) <= 8
        assert sorted(server.recipients) == sorted(names(100))


def test_a_first_connection_refused_for_now_tells_all_who_wait():
    faults = [{"at": "greeting", "say": "421 4.7.0 too many connections\r\n", "drop": True}]
    with serving(faults=faults) as server:
        outcomes = run(sent_and_closed(engine_for(server), names(20)))

        assert {(outcome.kind, outcome.code) for outcome in outcomes} == {(Kind.THROTTLED, "421 4.7.0")}
        assert len(server.lines("connected")) == 1


def test_an_engine_connects_again_after_a_failure():
    faults = [{"at": "ehlo", "connection": 1, "drop": True}]
    with serving(faults=faults) as server:
        outcomes = run(sent_and_closed(engine_for(server), names(1), names(1)))

        assert [outcome.kind for outcome in outcomes] == [Kind.TRANSIENT, Kind.ACCEPTED]


def test_a_421_halves_the_limit_and_quiet_brings_connections_back_one_by_one():
    limit = ConnectionLimit(10, quiet_period=60)

    assert limit.allowed(1000) == 10
    limit.halve(1000)
    assert [limit.allowed(1000 + after) for after in (0, 59, 60, 120, 299, 300, 9999)] == [5, 5, 6, 7, 9, 10, 10]
    limit.halve(1060)
    assert [limit.allowed(1060 + after) for after in (0, 60)] == [3, 4]


def test_several_421_at_once_are_one_event():
    limit = ConnectionLimit(10, quiet_period=60)

    for moment in (0.0, 0.1, 0.9):
        limit.halve(moment)

    assert limit.allowed(1) == 5
    assert limit.allowed(60.8) == 5
    assert limit.allowed(60.9) == 6


def test_the_limit_never_falls_below_one():
    limit = ConnectionLimit(2, quiet_period=60)

    for moment in range(0, 20, 2):
        limit.halve(moment)

    assert limit.allowed(20) == 1


def test_closing_does_not_wait_for_a_server_that_says_nothing():
    async def story(engine):
        await send_all(engine, names(4))
        start = time.monotonic()
        await engine.close()
        return time.monotonic() - start

    with serving(faults=[{"at": "quit", "stall": True}]) as server:
        assert run(story(engine_for(server))) < 3


def test_closing_an_engine_never_used_does_nothing():
    with serving() as server:
        run(engine_for(server).close())

        assert server.lines("connected") == []


def test_a_cancelled_send_takes_back_what_still_waits_and_harms_no_other():
    async def story(engine):
        first = [asyncio.create_task(engine.send([envelope(each)])) for each in names(2)]
        late = asyncio.create_task(engine.send([envelope("cancelled@y.example")]))
        await asyncio.sleep(0)
        late.cancel()
        outcomes = [(await each)[0].kind for each in first]
        with pytest.raises(asyncio.CancelledError):
            await late
        outcomes += [outcome.kind for outcome in await send_all(engine, names(2, "b"))]
        await engine.close()
        return outcomes

    with serving() as server:
        assert run(story(engine_for(server, max_connections=1))) == [Kind.ACCEPTED] * 4
        assert sorted(server.recipients) == sorted(names(2) + names(2, "b"))


def test_a_mail_that_cannot_be_built_is_the_messages_fault():
    def refuse(envelope):
        raise ValueError("Subject: line break")

    engine = SmtpEngine(SmtpSettings("127.0.0.1", 1), refuse)

    [outcome] = run(engine.send([envelope("a@y")]))

    assert (outcome.kind, outcome.text) == (Kind.MESSAGE, "The mail cannot be built: Subject: line break")


def test_a_defect_of_the_builder_is_not_hidden():
    def fail(envelope):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(SmtpEngine(SmtpSettings("127.0.0.1", 1), fail).send([envelope("a@y")]))


def test_what_the_worker_may_ask_of_the_engine_follows_from_its_connections():
    engine = SmtpEngine(SmtpSettings("127.0.0.1", 1, max_connections=7), build)

    assert (engine.batch_size, engine.concurrency, engine.honours_keys) == (1, 14, False)
