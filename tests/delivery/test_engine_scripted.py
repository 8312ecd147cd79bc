"""The scripted engine: as an operator sets it up, and as a worker uses it."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest

from delivery.core.envelope import Envelope, Frame, Kind, Mailbox
from delivery.core.script import ACCEPTED, DOWN, EXAMPLE, SILENCE, SLOW, Vendor, VendorScript
from delivery.engines import KINDS
from delivery.engines.scripted import KIND, ScriptedEngine
from delivery.simulation.loop import SECOND, VirtualClock, VirtualLoop

pytestmark = pytest.mark.once

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
FRAME = Frame(Mailbox("news@shop.example"), "bounce@shop.example")


def envelopes(*keys):
    return [Envelope(key, key, FRAME, Mailbox(f"{key}@shop.example"), "s", "t", "", NOON) for key in keys]


class Stage:
    """An engine in virtual time, and what it said it took."""

    def __init__(self, script, seed="1"):
        self.loop = VirtualLoop()
        self.taken = []
        self.vendor = Vendor(VendorScript.read(f"alpha:{script}"), random.Random(seed))
        self.engine = ScriptedEngine(self.vendor, VirtualClock(self.loop), lambda key, at: self.taken.append((key, at)))

    def send(self, *keys):
        return self.loop.run_until_complete(self.engine.send(envelopes(*keys)))


def opened(engine_id=1, **options):
    return KIND.open(engine_id, {"script": "alpha:errors=50%", "seed": "7", **options}, {})


def kinds(engine, count=40):
    """What it answers to as many mails in one call."""
    return [outcome.kind for outcome in asyncio.run(engine.send(envelopes(*(str(n) for n in range(count)))))]


# ---- the kind ----


def test_it_is_one_of_the_kinds_and_has_no_secrets():
    assert KINDS["scripted"] is KIND
    assert set(KIND.fields()) == {"script", "seed"}
    assert KIND.secret_fields == frozenset()


def test_a_script_that_can_be_read_has_no_problems():
    assert KIND.problems({"script": EXAMPLE, "seed": ""}, {}) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"script": "alpha:errors=2"}, "alpha: errors must be a share such as 1% or 0.01, not '2'."),
        ({"script": ""}, f"'' does not begin with a vendor's name: write it like {EXAMPLE}."),
        ({"script": None}, f"'' does not begin with a vendor's name: write it like {EXAMPLE}."),
        ({}, f"'' does not begin with a vendor's name: write it like {EXAMPLE}."),
        ({"script": ["a"]}, f"\"['a']\" does not begin with a vendor's name: write it like {EXAMPLE}."),
    ],
)
def test_one_that_cannot_is_one_problem_in_the_scripts_own_words(options, words):
    assert KIND.problems(options, {}) == [words]


def test_what_it_can_do_is_what_its_script_says():
    engine = opened(script="alpha:batch=50,concurrency=3,keys=yes")
    plain = opened(script="alpha")

    assert (engine.batch_size, engine.concurrency, engine.honours_keys) == (50, 3, True)
    assert (plain.batch_size, plain.concurrency, plain.honours_keys) == (1, 100, False)


def test_its_times_count_from_when_it_is_opened():
    assert kinds(opened(script="alpha:down=0s-30s"), 2) == [Kind.TRANSIENT] * 2
    assert kinds(opened(script="alpha:down=1h-2h"), 2) == [Kind.ACCEPTED] * 2


def test_the_same_seed_and_engine_have_the_same_chance_and_others_another():
    first = kinds(opened())

    assert kinds(opened()) == first
    assert kinds(opened(seed="8")) != first
    assert kinds(opened(engine_id=2)) != first


@pytest.mark.parametrize("options", [{"seed": ""}, {"seed": None}, {"seed": 1}])
def test_without_a_seed_it_is_1(options):
    assert kinds(opened(**options)) == kinds(opened(seed="1"))


def test_it_has_nothing_to_check_and_nothing_to_close():
    async def story():
        engine = opened()
        findings = await engine.check(frozenset({"shop.example"}))
        await engine.close()
        return findings

    assert asyncio.run(story()) == []


# ---- sending ----


def test_a_call_takes_as_long_as_the_script_says_and_answers_each_mail_in_order():
    stage = Stage("rate=1/s,burst=2,latency=80ms")

    assert stage.send("a", "b", "c") == [ACCEPTED, ACCEPTED, SLOW]
    assert stage.loop.now_ns == 80_000_000
    assert stage.taken == [("a", 0), ("b", 0)]


def test_what_becomes_of_a_mail_is_decided_when_it_arrives_and_not_when_the_answer_does():
    stage = Stage("latency=2s,down=1s-3s")

    assert stage.send("a") == [ACCEPTED]
    assert stage.send("b") == [DOWN]
    assert stage.send("c") == [ACCEPTED]
    assert stage.taken == [("a", 0), ("c", 4 * SECOND)]


def test_what_was_taken_in_silence_is_heard_of_and_what_was_not_is_not(seed):
    stage = Stage("drops=100%", seed)
    keys = [str(n) for n in range(60)]

    assert stage.send(*keys) == [SILENCE] * 60
    assert 0 < len(stage.taken) < 60
    assert len(stage.taken) == stage.vendor.taken


def test_calls_side_by_side_each_take_their_own_time():
    stage = Stage("latency=1s,spread=50%")
    ended = []

    async def call(key):
        await stage.engine.send(envelopes(key))
        ended.append(stage.loop.now_ns)

    async def story():
        await asyncio.gather(*(call(str(n)) for n in range(20)))

    stage.loop.run_until_complete(story())

    assert ended == sorted(set(ended))
    assert 0.5 * SECOND <= ended[0] < ended[-1] <= 1.5 * SECOND


def test_a_call_given_up_before_its_answer_has_reached_the_vendor_all_the_same():
    stage = Stage("latency=1s")

    async def story():
        async with asyncio.timeout(0.5):
            await stage.engine.send(envelopes("a"))

    with pytest.raises(TimeoutError):
        stage.loop.run_until_complete(story())
    assert stage.taken == [("a", 0)]


def test_all_mails_may_share_a_call():
    some = envelopes("a", "b")

    assert opened(script="alpha:batch=2").groups(some) == [some]


def test_without_anybody_who_wants_to_hear_it_sends_all_the_same():
    engine = ScriptedEngine(Vendor(VendorScript("alpha", latency=timedelta()), random.Random(1)))

    assert asyncio.run(engine.send(envelopes("a"))) == [ACCEPTED]
