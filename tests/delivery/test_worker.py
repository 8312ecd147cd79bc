"""The pump on a real database, with engines in memory: what reaches an engine, when, and what becomes of it."""

import random
from collections import Counter
from datetime import timedelta

import pytest
from django.utils import timezone

from delivery import queue
from delivery.core.envelope import Kind, Outcome
from delivery.models import (
    Attempt,
    Delivery,
    Engine,
    EngineState,
    Lease,
    PoolMember,
    PoolState,
    Suppression,
)
from tests.delivery.pumping import (
    ACCEPTED,
    BROKEN,
    TROUBLE,
    FakeEngine,
    addresses_in,
    assert_settled,
    batch_in,
    pool_of,
    pumped,
    states,
)

pytestmark = pytest.mark.django_db(transaction=True)


# ---- the plain way ----


def test_everybody_gets_the_mail_once_and_the_end_is_told_once(heard):
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 700)

    pumped(engines)

    assert_settled(batch, accepted=700)
    assert heard == [(batch.pk, {"accepted": 700})]
    assert Counter(fake.addresses) == Counter(f"person-{n}@example.test" for n in range(700))
    assert len({envelope.key for envelope in fake.envelopes}) == 700
    assert fake.closed == 1
    assert set(Delivery.objects.values_list("attempts", "code", "provider_id")) == {(1, "250", "id")}


def test_pumps_side_by_side_share_the_work_and_double_nothing(heard):
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 1500)

    pumped(engines, pumps=3)

    assert_settled(batch, accepted=1500)
    assert set(Counter(fake.addresses).values()) == {1}
    assert len(heard) == 1


def test_an_engine_that_takes_many_at_once_gets_many_at_once():
    fake = FakeEngine(batch_size=20, concurrency=2)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 100)

    pumped(engines)

    assert_settled(batch, accepted=100)
    assert set(Counter(fake.addresses).values()) == {1}


def test_an_engine_that_takes_many_gets_full_calls_however_the_marks_come():
    fake = FakeEngine(batch_size=100, concurrency=3)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 1000)

    pumped(engines)

    assert_settled(batch, accepted=1000)
    assert len(fake.calls) <= 14
    assert max(fake.calls) == 100


def test_a_call_that_one_mail_spoilt_is_made_again_in_halves_until_that_one_stands_alone():
    spoils = "person-13@example.test"
    whole = Outcome(Kind.MESSAGE, "400", "one of them is wrong", shared=True)

    class AllOrNothing(FakeEngine):
        async def send(self, envelopes):
            await super().send(envelopes)
            wrong = any(envelope.recipient.address == spoils for envelope in envelopes)
            return [whole if wrong else ACCEPTED] * len(envelopes)

    fake = AllOrNothing(batch_size=40, concurrency=1)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 40)

    pumped(engines)

    assert_settled(batch, accepted=39, rejected=1)
    assert addresses_in("rejected") == {spoils}
    assert fake.calls[-1] >= 1
    assert sorted(fake.calls)[0] == 1
    assert len(fake.calls) <= 13  # two for each halving of forty
    assert Attempt.objects.count() == 1


def test_mails_that_may_not_share_a_call_go_apart():
    class ByParity(FakeEngine):
        def groups(self, envelopes):
            by = {0: [], 1: []}
            for envelope in envelopes:
                by[envelope.data["n"] % 2].append(envelope)
            return [group for group in by.values() if group]

    fake = ByParity(batch_size=50, concurrency=1)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 50)

    pumped(engines)

    assert_settled(batch, accepted=50)
    numbers = [envelope.data["n"] for envelope in fake.envelopes]
    begin = 0
    for size in fake.calls:
        assert len({number % 2 for number in numbers[begin : begin + size]}) == 1
        begin += size


def test_what_cannot_be_rendered_is_a_dead_letter_and_the_others_go_out():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 4, text="{{ 1 / n }}")

    pumped(engines)

    assert_settled(batch, accepted=3, dead=1)
    assert Delivery.objects.get(state="dead").words.startswith("cannot be rendered")


def test_a_delivery_past_its_deadline_is_expired_and_not_sent():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 3)
    Delivery.objects.filter(address="person-1@example.test").update(deadline=timezone.now() - timedelta(seconds=1))

    pumped(engines)

    assert_settled(batch, accepted=2, expired=1)
    assert "person-1@example.test" not in fake.addresses


# ---- which engine ----


def test_a_weighted_pool_spreads_its_mails_and_a_sticky_one_stays_where_it_went():
    light, heavy = FakeEngine(), FakeEngine()
    pool, engines = pool_of(light, heavy, strategy="weighted")
    PoolMember.objects.filter(engine_id=list(engines)[1]).update(weight=4)
    weighted = batch_in(pool, 500)
    pumped(engines, rng=random.Random(7))
    first, second = FakeEngine(lambda address, n: BROKEN), FakeEngine()
    sticky_pool, sticky_engines = pool_of(first, second, strategy="sticky")
    sticky = batch_in(sticky_pool, 50)
    pumped(sticky_engines)
    EngineState.objects.update(circuit="closed", probe_at=None)
    first._answer = lambda address, n: ACCEPTED
    tried = len(first.addresses)
    later = batch_in(sticky_pool, 50)

    pumped(sticky_engines)

    assert_settled(weighted, accepted=500)
    assert 3 < len(heavy.addresses) / len(light.addresses) < 5
    assert_settled(sticky, accepted=50)
    assert_settled(later, accepted=50)
    assert len(first.addresses) == tried
    assert PoolState.objects.get(pool=sticky_pool).current_id == list(sticky_engines)[1]


def test_while_no_engine_may_send_for_its_domain_a_mail_waits_and_says_so():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 3)
    Engine.objects.update(sender_domains="other.example")

    async def story(desk):
        await desk.until(lambda: Delivery.objects.filter(state="waiting").count() == 3)
        words = await desk.ask(lambda: set(Delivery.objects.values_list("words", flat=True)))
        assert words == {"no engine of the pool may send for shop.example"}
        await desk.ask(lambda: Engine.objects.update(sender_domains="shop.example"))
        await desk.ask(lambda: Delivery.objects.update(not_before=timezone.now()))

    pumped(engines, story)

    assert_settled(batch, accepted=3)


# ---- what a person does meanwhile ----


def test_a_suppression_entered_after_the_lease_is_honoured():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 600)
    fake.gate.clear()
    late = set()

    def suppress_what_is_leased():
        late.update(addresses_in("leased"))
        Suppression.objects.bulk_create(Suppression(address=a, identity=a) for a in late)

    async def story(desk):
        await desk.until_full(fake)
        await desk.ask(suppress_what_is_leased)
        fake.gate.set()

    pumped(engines, story)

    assert late
    assert not late & set(fake.addresses)
    assert addresses_in("suppressed") == late
    assert_settled(batch, accepted=600 - len(late), suppressed=len(late))


def test_after_a_hold_nothing_is_handed_over_that_was_not_marked_before_and_after_the_release_all_the_rest():
    fake, idle = FakeEngine(), FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 600)
    # A pump ends when nothing is open, and a held batch is not: this one keeps it going.
    other_pool, other_engines = pool_of(idle)
    other = batch_in(other_pool)
    Engine.objects.filter(pk__in=other_engines).update(enabled=False)
    fake.gate.clear()

    async def story(desk):
        in_flight = await desk.until_full(fake)
        await desk.ask(queue.hold, batch.pk, "the offer was wrong")
        fake.gate.set()
        await desk.until(lambda: states(batch) == {"accepted": len(in_flight), "ready": 600 - len(in_flight)})
        assert set(fake.addresses) == in_flight
        await desk.ask(queue.release, batch.pk)
        await desk.ask(lambda: Engine.objects.update(enabled=True))

    pumped(engines | other_engines, story)

    assert_settled(batch, accepted=600)
    assert_settled(other, accepted=1)
    assert set(Counter(fake.addresses).values()) == {1}


def test_a_batch_that_is_cancelled_on_its_way_sends_nothing_more_and_is_done(heard):
    fake = FakeEngine(lambda address, n: TROUBLE if address == "person-0@example.test" else ACCEPTED)
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 600)
    fake.gate.clear()
    in_flight = set()

    async def story(desk):
        in_flight.update(await desk.until_full(fake))
        await desk.ask(queue.cancel, batch.pk)
        fake.gate.set()

    pumped(engines, story)

    accepted = len(in_flight) - 1  # the one that was to be tried again comes back to a cancelled batch
    assert_settled(batch, accepted=accepted, cancelled=600 - accepted)
    assert set(fake.addresses) == in_flight
    assert heard == [(batch.pk, {"accepted": accepted, "cancelled": 600 - accepted})]


def test_a_stop_gives_everything_back_with_nothing_in_doubt_and_the_next_pump_does_the_rest():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 600)
    fake.gate.clear()

    async def story(desk):
        await desk.until_full(fake)
        desk.pump.stop.set()
        fake.gate.set()

    pumped(engines, story)

    # What the engine had in its hands was waited for; what was only marked went back. A sender that is faster than the
    # news of the stop may begin another one.
    handed = len(fake.addresses)
    assert fake.concurrency <= handed <= 3 * fake.concurrency
    assert states(batch) == {"accepted": handed, "ready": 600 - handed}
    assert not Lease.objects.exists()
    assert set(Delivery.objects.filter(state="ready").values_list("attempts", flat=True)) == {0}

    pumped(engines)

    assert_settled(batch, accepted=600)
    assert set(Counter(fake.addresses).values()) == {1}
