"""The pump in trouble: a database that goes away, a lease that is lost, an engine that breaks its word."""

from collections import Counter
from datetime import UTC, datetime

import pytest
from django.db import connection

from delivery import queue
from delivery.core.dispatch import UncertainPolicy
from delivery.core.envelope import Kind, Outcome
from delivery.core.throttle import SECOND
from delivery.models import (
    Attempt,
    Engine,
    EngineLimit,
    Lease,
)
from delivery.queue import leasing
from delivery.queue.outcomes import ENDED
from tests.delivery.pumping import (
    ACCEPTED,
    SILENCE,
    TROUBLE,
    FakeEngine,
    RepeatingDatabase,
    addresses_in,
    assert_settled,
    batch_in,
    crowded,
    database_away,
    pool_of,
    pumped,
    states,
    until,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_pump_goes_on_where_it_was_when_the_database_comes_back(warnings, monkeypatch, rng):
    # SQLite would wait for the writer for 20 s before it says that it is busy.
    if connection.vendor == "sqlite":
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.1)
    connection.close()
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 1500)
    moment = rng.randrange(1, 1000)
    connection.close()

    async def story(desk):
        await until(lambda: len(fake.addresses) >= moment)
        with database_away():
            await until(lambda: warnings("The database is away") >= 3)

    pumped(engines, story)

    assert_settled(batch, accepted=1500)
    assert set(Counter(fake.addresses).values()) == {1}


def test_no_window_holds_more_than_the_limit_allows_while_the_database_goes_and_comes(warnings, monkeypatch):
    if connection.vendor == "sqlite":
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.1)
    connection.close()
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=50, period="second", burst=10)
    batch = batch_in(pool, 120)
    connection.close()

    async def story(desk):
        await until(lambda: len(fake.addresses) >= 40)
        with database_away():
            await until(lambda: warnings("The database is away") >= 5)

    pumped(engines, story)

    assert_settled(batch, accepted=120)
    assert crowded(fake.instants, SECOND // 50, 10) == []


@pytest.mark.parametrize("policy", UncertainPolicy)
def test_whatever_answer_of_the_database_gets_lost_nothing_is_lost_or_doubled(rng, seed, policy):
    outcomes = [ACCEPTED] * 6 + [TROUBLE, SILENCE, Outcome(Kind.RECIPIENT, "550", "no", hard=True)]
    answers = {f"person-{n}@example.test": rng.choice(outcomes) for n in range(600)}
    fake = FakeEngine(lambda address, n: answers[address] if n == 1 else ACCEPTED)
    pool, engines = pool_of(fake, first_wait_seconds=1)
    # So many silences would open the circuit, and what may have been taken would wait for it to close.
    Engine.objects.update(fault_threshold=10_000)
    batch = batch_in(pool, 600, policy)

    pumped(engines, database=lambda: RepeatingDatabase(rng))

    ends, handed = states(batch), Counter(fake.addresses)
    assert ends == queue.progress(batch.pk)
    assert sum(ends.values()) == len(handed) == 600
    assert addresses_in("rejected") == {a for a, o in answers.items() if o.kind is Kind.RECIPIENT}
    assert addresses_in("uncertain") == {a for a, o in answers.items() if o is SILENCE and policy == "hold"}
    again = {a for a, o in answers.items() if o is TROUBLE or (o is SILENCE and policy == "resend")}
    assert handed == Counter([*answers, *again])
    assert Attempt.objects.count() == sum(outcome is not ACCEPTED for outcome in answers.values())


def test_a_lease_that_is_lost_while_sending_is_followed_by_a_new_one_and_nothing_is_lost_or_doubled(
    settings, warnings, heard
):
    settings.OUTREACH = {**settings.OUTREACH, "LEASE_SECONDS": 3}
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 900)
    fake.gate.clear()

    async def story(desk):
        in_flight = await desk.until_full(fake)
        await desk.ask(lambda: Lease.objects.update(expires_at=datetime(2020, 1, 1, tzinfo=UTC)))
        await desk.until(lambda: addresses_in("uncertain") == in_flight)
        fake.gate.set()

    pumped(engines, story)

    assert_settled(batch, accepted=900)
    assert heard == [(batch.pk, {"accepted": 900})]
    assert set(Counter(fake.addresses).values()) == {1}
    assert warnings("The lease was lost") == 1


def test_an_engine_that_raises_ends_the_pump_and_leaves_only_its_own_delivery_in_doubt():
    def breaks_its_word(address, n):
        if address == "person-7@example.test":
            raise ZeroDivisionError
        return ACCEPTED

    fake = FakeEngine(breaks_its_word)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 20)

    with pytest.raises(ExceptionGroup) as failed:
        pumped(engines)

    assert failed.group_contains(ZeroDivisionError)
    assert addresses_in("sending") == {"person-7@example.test"}
    assert set(states(batch)) == {"accepted", "ready", "sending"}
    Lease.objects.update(expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert leasing.reap() == Counter(uncertain=1)


def test_every_end_is_one_of_the_ends_that_a_run_accounts_for():
    assert {state.value for state in ENDED} == {
        "accepted",
        "rejected",
        "suppressed",
        "expired",
        "skipped",
        "cancelled",
        "dead",
        "uncertain",
    }
