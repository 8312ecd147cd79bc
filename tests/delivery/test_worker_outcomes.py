"""The pump and what engines answer: three kinds of failure, and none; engines that come and go."""

import time
from collections import Counter
from datetime import timedelta

import pytest
from django.utils import timezone

from delivery.core.dispatch import UncertainPolicy
from delivery.core.envelope import Kind, Outcome
from delivery.core.throttle import SECOND
from delivery.models import (
    Attempt,
    Delivery,
    Engine,
    EngineState,
    Lease,
    Suppression,
)
from tests.delivery.pumping import (
    ACCEPTED,
    BROKEN,
    SILENCE,
    TROUBLE,
    FakeEngine,
    Longest,
    assert_settled,
    batch_in,
    pool_of,
    pumped,
    states,
    until,
)

pytestmark = pytest.mark.django_db(transaction=True)


# ---- three kinds of failure, and none ----


def test_a_dead_address_ends_its_delivery_and_is_suppressed_and_no_other_engine_is_asked():
    refuses = FakeEngine(lambda address, n: Outcome(Kind.RECIPIENT, "550 5.1.1", "no such user", hard=True))
    other = FakeEngine()
    pool, engines = pool_of(refuses, other)
    first = batch_in(pool, addresses=["gone@example.test"])
    pumped(engines)
    second = batch_in(pool, addresses=["gone@example.test"])

    pumped(engines)

    assert_settled(first, rejected=1)
    assert_settled(second, suppressed=1)
    assert (refuses.addresses, other.addresses) == (["gone@example.test"], [])
    assert Suppression.objects.values_list("identity", "scope", "reason").get() == (
        "gone@example.test",
        "",
        "hard_bounce",
    )
    assert not EngineState.objects.exclude(circuit="closed", faults=0).exists()


def test_many_refused_recipients_in_a_row_never_open_the_circuit():
    fake = FakeEngine(lambda address, n: Outcome(Kind.RECIPIENT, "550", "unwilling"))
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 50)

    pumped(engines)

    assert_settled(batch, rejected=50)
    assert not EngineState.objects.exclude(circuit="closed").exists()
    assert not Suppression.objects.exists()


def test_after_an_engines_trouble_the_next_engine_is_asked_at_once():
    first, second = FakeEngine(lambda address, n: TROUBLE), FakeEngine()
    pool, engines = pool_of(first, second, first_wait_seconds=3600)
    batch = batch_in(pool, 3)

    pumped(engines)

    assert_settled(batch, accepted=3)
    assert sorted(first.addresses) == sorted(second.addresses)
    assert {e.key for e in first.envelopes} == {e.key for e in second.envelopes}
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {2}
    assert Attempt.objects.filter(kind="transient", engine_id=next(iter(engines))).count() == 3


def test_an_engine_alone_is_asked_again_after_the_backoff():
    fake = FakeEngine(lambda address, n: TROUBLE if n == 1 else ACCEPTED)
    pool, engines = pool_of(fake, first_wait_seconds=1)
    batch = batch_in(pool)

    pumped(engines, rng=Longest())

    assert_settled(batch, accepted=1)
    first, second = fake.instants
    assert second - first >= SECOND


def test_tries_are_limited_and_the_last_one_makes_a_dead_letter():
    fake = FakeEngine(lambda address, n: Outcome(Kind.TRANSIENT, "452", "mailbox full", faults_engine=False))
    pool, engines = pool_of(fake, max_attempts=3)
    batch = batch_in(pool, 10)

    pumped(engines)

    assert_settled(batch, dead=10)
    assert set(Counter(fake.addresses).values()) == {3}
    assert set(Delivery.objects.values_list("attempts", "code", "words")) == {(3, "452", "mailbox full")}
    assert Attempt.objects.count() == 30


def test_an_engine_that_cannot_work_opens_its_circuit_and_the_rest_goes_through_the_second():
    broken, able = FakeEngine(lambda address, n: BROKEN), FakeEngine()
    pool, engines = pool_of(broken, able)
    batch = batch_in(pool, 1500)

    pumped(engines)
    tried = len(broken.addresses)
    # What its senders had in hand, and not one of those that were marked behind them: providers lock accounts.
    assert 0 < tried <= 2 * broken.concurrency
    while_open = batch_in(pool, 10)
    pumped(engines)

    assert_settled(batch, accepted=1500)
    assert_settled(while_open, accepted=10)
    assert len(broken.addresses) == tried
    assert len(able.addresses) == len({envelope.key for envelope in able.envelopes}) == 1510
    state = EngineState.objects.get(engine_id=next(iter(engines)))
    assert (state.circuit, state.last_error) == ("open", "535 wrong password")
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}


def test_an_engine_that_cannot_be_opened_is_passed_over():
    able = FakeEngine()
    pool, engines = pool_of(None, able)
    misconfigured = next(iter(engines))
    batch = batch_in(pool, 5)

    pumped(engines)

    assert_settled(batch, accepted=5)
    assert EngineState.objects.get(engine_id=misconfigured).last_error == "The host is missing."


def test_slow_down_pauses_the_engine_for_as_long_as_it_asked_and_is_no_attempt():
    slow = Outcome(Kind.THROTTLED, "421", "slow down", retry_after=timedelta(seconds=1))
    fake = FakeEngine(lambda address, n: slow if n == 1 else ACCEPTED)
    pool, engines = pool_of(fake, max_attempts=1)
    batch = batch_in(pool, 3)

    pumped(engines)

    assert_settled(batch, accepted=3)
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}
    firsts, again = fake.instants[:3], fake.instants[3:]
    assert len(again) == 3
    assert min(again) - min(firsts) >= SECOND
    state = EngineState.objects.get()
    assert (state.circuit, state.pace) == ("closed", 0.5)


def test_while_one_engine_is_told_to_slow_down_the_next_goes_on():
    slow = Outcome(Kind.THROTTLED, "421", "slow down", retry_after=timedelta(hours=1))
    throttled, able = FakeEngine(lambda address, n: slow), FakeEngine()
    pool, engines = pool_of(throttled, able)
    batch = batch_in(pool, 1500)

    pumped(engines)

    assert_settled(batch, accepted=1500)
    assert 0 < len(throttled.addresses) <= 2 * throttled.concurrency
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}


def test_the_unknown_is_held_for_a_person_by_policy():
    silent, other = FakeEngine(lambda address, n: SILENCE), FakeEngine()
    pool, engines = pool_of(silent, other)
    batch = batch_in(pool, 2, UncertainPolicy.HOLD)

    pumped(engines)

    assert_settled(batch, uncertain=2)
    assert set(Counter(silent.addresses).values()) == {1}
    assert other.addresses == []
    assert set(Attempt.objects.values_list("kind", "words")) == {("unknown", "connection lost")}


@pytest.mark.parametrize(
    ("policy", "honours_keys"), [(UncertainPolicy.RESEND, False), (UncertainPolicy.HOLD, True)], ids=str
)
def test_the_unknown_is_sent_again_by_the_same_engine_with_the_same_key(policy, honours_keys):
    silent = FakeEngine(lambda address, n: SILENCE if n == 1 else ACCEPTED, honours_keys=honours_keys)
    other = FakeEngine()
    pool, engines = pool_of(silent, other)
    batch = batch_in(pool, 2, policy)

    pumped(engines)

    assert_settled(batch, accepted=2)
    assert other.addresses == []
    assert sorted(Counter(envelope.message_id for envelope in silent.envelopes).values()) == [2, 2]
    assert len({envelope.key for envelope in silent.envelopes}) == 2
    assert set(Delivery.objects.values_list("attempts", "resends")) == {(2, 1)}


# ---- engines that come and go ----


def test_an_open_circuit_gets_one_probe_after_its_cool_off_and_then_everything():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 50)
    opens = time.monotonic_ns() + SECOND // 2
    EngineState.objects.create(
        engine_id=next(iter(engines)),
        circuit="open",
        faults=5,
        cool_off_seconds=1,
        probe_at=timezone.now() + timedelta(seconds=0.5),
    )
    fake.gate.clear()

    async def story(desk):
        await until(lambda: fake.addresses)
        # The rest was leased for this engine too, and must be turned away from it while the probe is out.
        await desk.until(lambda: Delivery.objects.filter(state="waiting").exists())
        assert len(fake.addresses) == 1
        fake.gate.set()

    pumped(engines, story)

    assert_settled(batch, accepted=50)
    assert fake.instants[0] >= opens
    assert set(Counter(fake.addresses).values()) == {1}
    assert EngineState.objects.get().circuit == "closed"


def test_a_pool_without_an_able_engine_waits_and_goes_on_by_itself():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 20)
    Engine.objects.update(enabled=False)

    async def story(desk):
        await desk.until(Lease.objects.exists)
        assert await desk.ask(lambda: states(batch)) == {"ready": 20}
        await desk.ask(lambda: Engine.objects.update(enabled=True))

    pumped(engines, story)

    assert_settled(batch, accepted=20)
