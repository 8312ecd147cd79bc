"""What a review found: each of these once lost, doubled, or crowded something."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import DataError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from campaigns import control, receivers
from campaigns.exceptions import IllegalMove
from campaigns.models import RunState
from delivery import owner, queue
from delivery.core.envelope import UNKEPT, Kind, Outcome
from delivery.core.throttle import SECOND, Period, Rate
from delivery.engine_desk import EngineDesk
from delivery.models import (
    Attempt,
    Batch,
    Delivery,
    Engine,
    EngineLimit,
    Lease,
)
from delivery.models.batch import BatchState
from delivery.queue import leasing, work
from delivery.queue.outcomes import Mark, Settlement, mark, settle
from delivery.shared.memory import MemoryShared
from delivery.signals import batch_done
from delivery.worker import Database, Pump, Surroundings, Until
from delivery.worker.bell import Bell
from delivery.worker.tokens import Tokens
from tests.campaigns import cast
from tests.delivery.pumping import (
    ACCEPTED,
    FakeEngine,
    addresses_in,
    assert_settled,
    batch_in,
    crowded,
    pool_of,
    pumped,
    states,
    until,
)

pytestmark = pytest.mark.django_db(transaction=True)

TERM = timedelta(minutes=5)
NOWHERE = "another-host/boot/1:1:1"  # an owner of which this host knows nothing
PATIENCE = 20  # seconds


def on_postgres():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time: nobody waits for a row's lock")


def beside(deed):
    """What comes of `deed` in a thread of its own, with its own connection."""
    future = Future()

    def act():
        try:
            future.set_result(deed())
        except BaseException as error:
            future.set_exception(error)
        finally:
            connection.close()

    threading.Thread(target=act, daemon=True).start()
    return future


def sessions_that_wait_for_a_lock():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # within a transaction it would not change
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return cursor.fetchone()[0]


def soon(question):
    """Returns once the question is answered with yes."""
    deadline = time.monotonic() + PATIENCE
    while not question():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def marked(batch, count=1):
    """A lease of another host, and so many of the batch's deliveries that it has marked."""
    lease_id = leasing.acquire(NOWHERE, TERM)
    rows = leasing.lease(lease_id, batch.pk, count)
    engine = batch.pool.engines.first().pk
    assert len(mark(lease_id, [Mark(row.id, engine, 1) for row in rows], timezone.now())) == count
    return lease_id, rows


def lost(batch, count=1):
    """As `marked`, and then that worker was silent for too long."""
    lease_id, rows = marked(batch, count)
    Lease.objects.filter(pk=lease_id).update(expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    leasing.reap()
    return lease_id, rows


def settlement(row, state="accepted", **changes):
    return Settlement(row.id, row.batch, state, timezone.now(), row.turn, attempts=1)._replace(**changes)


def settle_alone(lease_id, row, state="accepted", **changes):
    with transaction.atomic():
        settle(lease_id, [settlement(row, state, **changes)])


# ---- what a provider says ----

POISONED = ["5.1.1 no \x00 such user", "half a \ud800 pair", "\udfff", "a bell \x07, and \x1b[31mred", "\x7f\x80\x9f"]


@pytest.mark.parametrize("policy", ["hold", "resend"])
@pytest.mark.parametrize("kind", [Kind.ACCEPTED, Kind.RECIPIENT, Kind.TRANSIENT, Kind.UNKNOWN])
def test_no_character_in_an_answer_costs_anybody_his_outcome(kind, policy):
    def answer(address, n):
        number = int(address.removeprefix("person-").partition("@")[0])
        words = POISONED[number % len(POISONED)]
        return Outcome(kind, words, words, provider_id=words) if number < 10 and n == 1 else ACCEPTED

    fake = FakeEngine(answer)
    pool, engines = pool_of(fake)
    Engine.objects.update(fault_threshold=10_000)
    batch = batch_in(pool, 20, policy=policy)

    pumped(engines)

    again = kind is Kind.TRANSIENT or (kind is Kind.UNKNOWN and policy == "resend")
    end = {Kind.RECIPIENT: "rejected", Kind.UNKNOWN: "uncertain"}.get(kind, "accepted")
    ends = {"accepted": 20} if again or end == "accepted" else {"accepted": 10, end: 10}
    assert_settled(batch, **ends)
    assert sorted(Counter(fake.addresses).values()) == [1] * (10 if again else 20) + [2] * (10 if again else 0)
    kept = [
        *Delivery.objects.values_list("code", "words", "provider_id"),
        *Attempt.objects.values_list("code", "words"),
    ]
    assert not [text for texts in kept for text in texts if UNKEPT.search(text)]


# ---- what the database does not take ----


class RefusesSome:
    """The stored queue, and a database that never takes the outcome of some deliveries."""

    def __init__(self, addresses):
        self._addresses = addresses

    def __getattr__(self, name):
        return getattr(work, name)

    def settle(self, lease_id, settlements):
        refused = Delivery.objects.filter(address__in=self._addresses).values_list("pk", flat=True)
        work.settle(lease_id, settlements)
        if {settlement.id for settlement in settlements} & set(refused):
            raise DataError("a value that no database takes")


def test_an_outcome_that_the_database_refuses_costs_its_neighbours_nothing(warnings):
    fake = FakeEngine(concurrency=10)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 200)
    refused = {"person-3@example.test", "person-77@example.test"}
    fake.gate.clear()

    async def story(desk):
        await desk.until_full(fake)
        fake.gate.set()  # ten answers at once: one commit
        await desk.until(lambda: states(batch) == {"accepted": 198, "sending": 2})
        desk.pump.stop.set()

    pumped(engines, story, queue=RefusesSome(refused))

    assert warnings("Outcomes cannot be written together") >= 1
    assert warnings("The outcome of delivery") == 2
    assert addresses_in("sending") == refused
    assert set(Counter(fake.addresses).values()) == {1}
    Lease.objects.update(expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert leasing.reap() == Counter(uncertain=2)
    assert states(batch) == queue.progress(batch.pk) == {"accepted": 198, "uncertain": 2}


# ---- locks ----


def test_a_lease_is_extended_while_the_desk_waits_for_a_lock():
    on_postgres()
    fake = FakeEngine(concurrency=1)
    pool, engines = pool_of(fake)
    batch, locked = batch_in(pool, 5), batch_in(pool, 1)
    lease_id, (row,) = marked(locked)
    settle_alone(lease_id, row)
    leasing.end(lease_id)
    fake.gate.clear()
    held, let_go = threading.Event(), threading.Event()

    def hold_the_lock():  # as a replay does, for as long as it takes
        with transaction.atomic():
            queue.lock(locked.pk)
            held.set()
            assert let_go.wait(PATIENCE)

    def expires_at():
        return Lease.objects.get().expires_at

    holding = beside(hold_the_lock)
    assert held.wait(PATIENCE)

    async def story(desk):
        await until(lambda: fake.under_way == 1)
        await desk.until(sessions_that_wait_for_a_lock)
        first = await desk.ask(expires_at)
        # Twice as long as the lease would have lasted, and the desk waits all the time.
        await desk.until(lambda: expires_at() > first + timedelta(seconds=4))
        assert await desk.ask(sessions_that_wait_for_a_lock) == 1
        assert await desk.ask(leasing.reap) == Counter(ready=0, uncertain=0)
        let_go.set()
        fake.gate.set()

    pumped(engines, story, term=timedelta(seconds=2), name=NOWHERE)

    holding.result(PATIENCE)
    assert_settled(batch, accepted=5)
    assert set(Counter(fake.addresses).values()) == {1}


def test_an_answer_that_comes_late_and_wants_another_try_keeps_its_batch_from_being_done():
    on_postgres()
    pool, _ = pool_of(FakeEngine())
    batch = batch_in(pool, 1)
    lease_id, (row,) = lost(batch)
    assert states(batch) == {"uncertain": 1}
    written, go = threading.Event(), threading.Event()

    def answer_late():
        with transaction.atomic():
            settle(lease_id, [settlement(row, "ready", attempts=0)])
            written.set()
            assert go.wait(PATIENCE)

    late = beside(answer_late)
    assert written.wait(PATIENCE)
    done = beside(lambda: queue.finish_if_done(batch.pk))
    soon(lambda: done.done() or sessions_that_wait_for_a_lock())
    go.set()
    late.result(PATIENCE)

    assert done.result(PATIENCE) is False
    assert (Batch.objects.get().state, states(batch), queue.progress(batch.pk)) == (BatchState.OPEN, {"ready": 1}, {})


def test_an_answer_that_comes_when_the_batch_is_done_already_leaves_it_uncertain():
    pool, _ = pool_of(FakeEngine())
    batch = batch_in(pool, 1)
    lease_id, (row,) = lost(batch)
    assert queue.finish_if_done(batch.pk)

    settle_alone(lease_id, row, "ready", attempts=0)

    assert_settled(batch, uncertain=1)


def test_an_acceptance_that_comes_late_ends_a_delivery_that_was_to_be_sent_again():
    pool, _ = pool_of(FakeEngine())
    batch = batch_in(pool, 2, policy="resend")
    lease_id, (first, second) = lost(batch, 2)
    assert states(batch) == {"ready": 2}
    elsewhere = leasing.acquire(NOWHERE, TERM)
    (again,) = [row for row in leasing.lease(elsewhere, batch.pk, 1) if row.id == first.id]

    settle_alone(lease_id, first)  # too late: somebody has it
    settle_alone(lease_id, second)
    settle_alone(lease_id, second)  # the answer was lost, it was asked again

    assert states(batch) == {"leased": 1, "accepted": 1}
    assert queue.progress(batch.pk) == {"accepted": 1}
    assert Delivery.objects.get(pk=again.id).turn == first.turn + 1


def test_a_refusal_that_comes_late_does_not_end_a_delivery_that_is_to_be_sent_again():
    pool, _ = pool_of(FakeEngine())
    batch = batch_in(pool, 1, policy="resend")
    lease_id, (row,) = lost(batch)

    settle_alone(lease_id, row, "rejected")

    assert (states(batch), queue.progress(batch.pk)) == ({"ready": 1}, {})


@contextmanager
def slow_to_end_runs(until_then):
    """The end of a batch has begun, its run is not ended before `until_then` has returned."""

    def end_the_run_later(sender, **said):
        until_then()
        receivers.end_the_run(sender, **said)

    batch_done.disconnect(receivers.end_the_run)
    batch_done.connect(end_the_run_later)
    try:
        yield
    finally:
        batch_done.disconnect(end_the_run_later)
        batch_done.connect(receivers.end_the_run)


@pytest.mark.parametrize("deed", [control.pause, control.cancel])
def test_a_person_and_the_end_of_a_run_do_not_wait_for_each_other_in_a_circle(deed):
    on_postgres()
    run = cast.initialized(cast.workflow(audience=cast.list_audience(cast.crowd(1))))
    lease_id, (row,) = marked(run.batch)
    settle_alone(lease_id, row)
    leasing.end(lease_id)
    begun = threading.Event()

    def a_person_waits():
        begun.set()
        soon(sessions_that_wait_for_a_lock)

    with slow_to_end_runs(a_person_waits):
        ended = beside(lambda: queue.finish_if_done(run.batch_id))
        assert begun.wait(PATIENCE)
        done = beside(lambda: deed(run, "ada"))

        assert ended.result(PATIENCE) is True
        with pytest.raises(IllegalMove, match="is completed"):
            done.result(PATIENCE)
    run = cast.fresh(run)
    assert (run.state, run.batch.state) == (RunState.COMPLETED, BatchState.DONE)


# ---- plans ----


def test_to_cancel_a_small_batch_the_table_is_not_read_through():
    on_postgres()
    pool, _ = pool_of(FakeEngine())
    batch = batch_in(pool, 10)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO delivery_delivery (batch_id, message_id, address, identity, data, state) "
            "SELECT 1000 + g / 20000, 1000 + g / 20000, 'p' || g || '@example.test', 'p' || g || '@example.test', "
            "'{\"n\": 1}', CASE WHEN g % 100 = 0 THEN 'ready' WHEN g % 100 = 1 THEN 'waiting' ELSE 'accepted' END "
            "FROM generate_series(1, 100000) g"
        )
        cursor.execute("ANALYZE delivery_delivery")

    with CaptureQueriesContext(connection) as captured:
        assert queue.cancel(batch.pk) == 10

    updates = [query["sql"] for query in captured if query["sql"].startswith('UPDATE "delivery_delivery"')]
    assert updates
    for update in updates:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {update}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
        assert "Index" in plan
        assert "Seq Scan" not in plan


# ---- tokens ----


def test_a_connection_that_is_lost_after_it_was_asked_once_is_not_asked_again():
    asked = []

    def loses_its_answer():
        asked.append(len(asked))
        raise OperationalError("database is locked")

    async def scenario():
        database = Database()
        try:
            return await database.ask_once(loses_its_answer), await database.ask_once(lambda: "an answer")
        finally:
            await database.close()

    assert asyncio.run(scenario()) == (None, "an answer")
    assert len(asked) == 1


def test_tokens_are_not_given_back_twice_when_the_answer_is_lost():
    class LosesAnswers(MemoryShared):
        """After tokens came back, somebody else draws as many; then the first one's answer gets lost."""

        elsewhere = 0

        def give_back(self, rates, left, tokens):
            super().give_back(rates, left, tokens)
            if not self.elsewhere:
                self.elsewhere = self.draw(rates, tokens).tokens
                raise OperationalError("database is locked")

    rates = {"quota": Rate.of(10, Period.HOUR, 10)}
    shared = LosesAnswers(lambda: 10**18, lambda: datetime.now(UTC))

    async def scenario():
        database = Database()
        tokens = Tokens(database, EngineDesk(None, shared), Surroundings(database).clock, rates)
        drawn, token = await tokens.take(9, Bell())
        tokens.give_back(4, token)
        await tokens.return_unused(also_good=True)
        await database.close()
        return drawn - 4

    used = asyncio.run(scenario())

    assert shared.elsewhere == 4
    assert used + shared.elsewhere + shared.draw(rates, 10).tokens <= 10


# ---- a server that is slow to greet ----


class SlowGreeting:
    """An SMTP server that takes its time before it says a word; notes when each mail is there."""

    def __init__(self, seconds):
        self._seconds = seconds
        self.arrived = []

    async def talk(self, reader, writer):
        await asyncio.sleep(self._seconds)
        writer.write(b"220 slow.example ESMTP\r\n")
        in_data = False
        while line := await reader.readline():
            if in_data:
                if line == b".\r\n":
                    in_data = False
                    self.arrived.append(time.monotonic_ns())
                    writer.write(b"250 2.0.0 taken\r\n")
                continue
            match line[:4].upper():
                case b"EHLO":
                    writer.write(b"250-slow.example\r\n250 PIPELINING\r\n")
                case b"DATA":
                    in_data = True
                    writer.write(b"354 go on\r\n")
                case b"QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                case _:
                    writer.write(b"250 2.0.0 fine\r\n")
        writer.close()


@pytest.mark.parametrize("greeting", [0, 1])
def test_no_window_at_an_smtp_server_is_above_the_limit_however_slow_it_greets(greeting):
    server = SlowGreeting(greeting)
    count = 25

    def set_up(port):
        pool, engines = pool_of(None)
        options = {"host": "127.0.0.1", "port": port, "security": "none", "max_connections": 10}
        Engine.objects.update(kind="smtp", options=options)
        EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=10, period="second", burst=1)
        return batch_in(pool, count)

    async def scenario():
        listening = await asyncio.start_server(server.talk, "127.0.0.1", 0)
        database = Database()
        async with asyncio.timeout(PATIENCE):
            batch = await database.ask(set_up, listening.sockets[0].getsockname()[1])
            await Pump(Surroundings(database), until=Until.DONE).run()
        await database.close()
        listening.close()
        return batch

    batch = asyncio.run(scenario())

    assert_settled(batch, accepted=count)
    # Between the hand-over and its arrival lies the engine's own way, some milliseconds on a busy machine.
    assert crowded(server.arrived, SECOND // 10 - SECOND // 200, 1) == []


# ---- who is gone ----


@pytest.fixture
def hiding(monkeypatch):
    """A /proc that shows no process, as `hidepid` makes it for those of other users."""
    owner.name()  # what it says of this host is kept from now on
    monkeypatch.setattr(owner, "Path", lambda path: Path("/nowhere") / path.removeprefix("/"))


def name_of(pid, started="1"):
    host, _, _ = owner.name().rsplit(":", 2)
    return f"{host}:{pid}:{started}"


def test_a_living_process_that_proc_hides_is_not_gone(hiding):
    assert not owner.is_gone(name_of(os.getpid()))


def test_a_dead_process_is_gone_although_proc_hides_the_living(hiding):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()

    assert owner.is_gone(name_of(process.pid))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_living_process_that_proc_hides_is_not_gone(hiding):
    ours = name_of(os.getpid())
    child = os.fork()
    if not child:  # becomes somebody who may not even send us a signal, and never comes back from here
        answer = 2
        try:
            os.setuid(65534)
            answer = int(owner.is_gone(ours))
        finally:
            os._exit(answer)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_id_that_was_given_anew_is_not_the_owner():
    assert owner.is_gone(name_of(os.getpid(), started="12345"))
    assert not owner.is_gone(owner.name())


def test_the_server_ends_a_session_that_stands_still_in_the_middle_of_a_transaction():
    on_postgres()
    with connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")

        assert cursor.fetchone() == ("15s",)
