"""Holding an engine: a person's word stops it at once wherever it is used, and gives everything back when it ends."""

from datetime import timedelta

import pytest
from django.utils import timezone

from delivery.catalogue import StoredCatalogue
from delivery.core.dispatch import NOBODY_ABLE
from delivery.engine_desk import EngineDesk
from delivery.exceptions import IllegalHold
from delivery.hold import hold, release
from delivery.models import Delivery, Engine, EngineEvent
from delivery.shared import shared
from delivery.worker import Pump, Surroundings, Until
from tests.delivery.pumping import (
    FakeCatalogue,
    FakeEngine,
    assert_settled,
    batch_in,
    pool_of,
    pumped,
    states,
)
from tests.delivery.pumping import until as until_true

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = timedelta(hours=1)


@pytest.fixture
def engine() -> Engine:
    return Engine.objects.create(name="Relay", slug="relay", kind="sandbox")


def history(engine: Engine) -> list[tuple[str, str, str]]:
    return list(EngineEvent.objects.filter(engine=engine).values_list("what", "by", "why"))


# ---- the deed ----


def test_a_hold_and_its_end_are_recorded_with_who_and_why(engine):
    hold(engine, "ada", "the provider is being moved")
    held = (engine.held, engine.held_until, engine.hold_reason)
    release(engine, "grace", "moved")

    assert held == (True, None, "the provider is being moved")
    assert (engine.held, engine.held_until, engine.hold_reason) == (False, None, "")
    assert history(engine) == [("held", "ada", "the provider is being moved"), ("released", "grace", "moved")]


def test_a_hold_with_an_end_says_when_it_ends(engine):
    until = timezone.now() + HOUR

    hold(engine, "ada", "lunch", until)

    assert engine.held_until == until
    assert history(engine) == [(f"held until {timezone.localtime(until):%Y-%m-%d %H:%M:%S %Z}", "ada", "lunch")]


@pytest.mark.parametrize("why", ["", "  "])
def test_a_hold_needs_a_reason(engine, why):
    with pytest.raises(IllegalHold, match="say why"):
        hold(engine, "ada", why)

    assert not Engine.objects.get().held
    assert history(engine) == []


def test_a_hold_that_ends_in_the_past_is_refused(engine):
    with pytest.raises(IllegalHold, match="is not in the future"):
        hold(engine, "ada", "lunch", timezone.now() - HOUR)

    assert not Engine.objects.get().held


def test_an_engine_that_is_held_is_not_held_again_and_the_refusal_says_why_it_is(engine):
    hold(engine, "ada", "lunch")

    with pytest.raises(IllegalHold, match=r"Engine Relay is held \(lunch\); release it first"):
        hold(Engine.objects.get(), "grace", "supper")

    assert (Engine.objects.get().hold_reason, len(history(engine))) == ("lunch", 1)


def test_an_engine_that_is_not_held_is_not_released(engine):
    with pytest.raises(IllegalHold, match="Engine Relay is not held: there is nothing to release"):
        release(engine, "ada")

    assert history(engine) == []


def test_a_hold_that_has_ended_by_itself_is_nothing_to_release_and_no_obstacle_to_the_next_one(engine):
    Engine.objects.update(held=True, held_until=timezone.now() - HOUR, hold_reason="lunch")

    with pytest.raises(IllegalHold, match="its hold ended by itself at"):
        release(engine, "ada")
    hold(engine, "ada", "supper")

    assert (engine.held, engine.held_until, engine.hold_reason) == (True, None, "supper")


# ---- what a worker sees ----


def seen(pool, now):
    """The engine of a pool as a worker sees it."""
    (view,) = EngineDesk(StoredCatalogue(), shared()).pool(pool.pk, now).roster.engines
    return view


def test_a_held_engine_is_like_one_that_is_switched_off():
    pool, _ = pool_of(FakeEngine())
    hold(Engine.objects.get(), "ada", "lunch")
    now = timezone.now()

    assert seen(pool, now).able_at(now) is None


def test_an_engine_held_for_a_while_is_paused_until_then_and_able_afterwards():
    pool, _ = pool_of(FakeEngine())
    until = timezone.now() + timedelta(minutes=2)
    hold(Engine.objects.get(), "ada", "lunch", until)

    before, after = seen(pool, until - timedelta(minutes=1)), seen(pool, until + timedelta(minutes=1))

    assert before.able_at(until - timedelta(minutes=1)) == until
    assert after.able_at(until + timedelta(minutes=1)) == until + timedelta(minutes=1)


def test_a_long_hold_puts_nothing_off_for_longer_than_a_person_may_need_to_end_it():
    pool, _ = pool_of(FakeEngine())
    now = timezone.now()
    hold(Engine.objects.get(), "ada", "the weekend", now + 48 * HOUR)

    assert seen(pool, now).able_at(now) == now + NOBODY_ABLE
    assert seen(pool, now + HOUR).able_at(now + HOUR) == now + HOUR + NOBODY_ABLE


def test_a_hold_does_not_shorten_a_pause_that_the_provider_asked_for():
    pool, engines = pool_of(FakeEngine())
    (engine_id,) = engines
    now = timezone.now()
    asked = now + timedelta(minutes=3)
    shared().change(engine_id, lambda condition, at: type(condition)(paused_until=asked))
    hold(Engine.objects.get(), "ada", "lunch", now + timedelta(minutes=1))

    assert seen(pool, now).able_at(now) == asked


# ---- while mails go out ----


class WatchedDesk(EngineDesk):
    """Notes how the engine stood each time that a worker looked."""

    def __init__(self, engines):
        super().__init__(FakeCatalogue(engines), shared())
        self.able = []

    def pool(self, pool_id, now):
        pool = super().pool(pool_id, now)
        self.able.append(pool.roster.engines[0].able_at(now) == now)
        return pool

    def seen_as_held(self):
        """At the second look the worker has long taken in the first."""
        return self.able[-2:] == [False, False]


def watching(desk):
    """Makes pumps whose engines are asked at this desk."""
    return lambda database, engines: Pump(Surroundings(database, desk=desk), until=Until.DONE)


@pytest.mark.parametrize("until", [None, HOUR])
def test_a_hold_stops_a_running_pump_and_the_release_lets_everybody_go_once(until):
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 900)
    fake.gate.clear()
    (engine_id,) = engines
    watched = WatchedDesk(engines)

    def stands_still():
        counts = states(batch)
        return not counts.get("sending") and not counts.get("leased")

    async def story(desk):
        await desk.until_full(fake)
        engine = await desk.ask(lambda: Engine.objects.get(pk=engine_id))
        await desk.ask(hold, engine, "ada", "lunch", until and timezone.now() + until)
        # Only now may the senders have their answers: they would have taken the next mail at once.
        await until_true(watched.seen_as_held)
        fake.gate.set()
        await desk.until(stands_still)
        handed = len(fake.addresses)
        assert handed == fake.concurrency
        assert (await desk.ask(states, batch))["accepted"] == handed
        await desk.ask(release, engine, "ada")

    pumped(engines, story, make=watching(watched))

    assert_settled(batch, accepted=900)
    assert len(fake.addresses) == len(set(fake.addresses)) == 900


def test_what_is_marked_for_an_engine_that_is_switched_off_goes_to_another_one():
    first, second = FakeEngine(), FakeEngine()
    pool, engines = pool_of(first, second)
    batch = batch_in(pool, 400)
    first.gate.clear()
    first_id = next(iter(engines))
    watched = WatchedDesk(engines)

    async def story(desk):
        await desk.until_full(first)
        await desk.ask(lambda: Engine.objects.filter(pk=first_id).update(enabled=False))
        await until_true(watched.seen_as_held)
        first.gate.set()

    pumped(engines, story, make=watching(watched))

    assert_settled(batch, accepted=400)
    assert len(first.addresses) == first.concurrency
    assert len(second.addresses) == 400 - first.concurrency


def test_a_release_leaves_alone_what_waits_for_another_reason():
    pool, engines = pool_of(FakeEngine())
    batch = batch_in(pool, 3)
    later = timezone.now() + HOUR
    waiting = Delivery.objects.filter(batch=batch.pk)
    waiting.update(state="waiting", not_before=later, words="no engine of the pool is able now")
    Delivery.objects.filter(pk=waiting.first().pk).update(words="452 mailbox full")
    engine = Engine.objects.get(pk=next(iter(engines)))
    hold(engine, "ada", "lunch")

    release(engine, "ada")

    assert states(batch) == {"ready": 2, "waiting": 1}
    assert list(waiting.filter(state="waiting").values_list("words", "not_before")) == [("452 mailbox full", later)]
