"""The stage that composes: in virtual time what it promises, and on real rows what it leaves behind."""

import asyncio
import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from django.core.exceptions import ObjectDoesNotExist

from delivery.catalogue import EngineSetup, StoredCatalogue
from delivery.clock import SYSTEM
from delivery.composed_body import to_html
from delivery.core.breaker import BreakerPolicy
from delivery.core.envelope import Kind, Outcome
from delivery.core.throttle import SECOND, Period, Rate
from delivery.engine_desk import EngineDesk
from delivery.engines.composers import Composed
from delivery.engines.composers.mock import MockComposer
from delivery.exceptions import EngineMisconfigured
from delivery.models import NO_DEADLINE, Batch, Composition, Lease
from delivery.queue import composing, leasing
from delivery.queue.composing import Source, ToCompose, Wording
from delivery.shared.memory import MemoryShared
from delivery.simulation.database import InstantDatabase
from delivery.simulation.loop import EPOCH, VirtualClock, VirtualLoop
from delivery.worker import Database
from delivery.worker.composing import RESERVE, Composing
from tests.delivery.composing import composed_batch, composer, compositions, deliveries, ids_of, states
from tests.delivery.pumping import FakeEngine, assert_settled, crowded, pool_of, pumped

ENGINE, BATCH, MESSAGE, LEASE = 1, 2, 3, 4
WORDS = Outcome(Kind.ACCEPTED, "200")
BUSY = Outcome(Kind.TRANSIENT, "503", "busy")
NO_KEY = Outcome(Kind.ENGINE, "401", "wrong key")
HARMFUL = Outcome(Kind.MESSAGE, "400", "flagged")


class FakeComposer:
    """Takes so many virtual seconds, notes what it is asked, and answers as it is told: by key and how often it was
    asked for that delivery."""

    def __init__(self, answer=lambda key, time: WORDS, *, seconds=0.5, concurrency=4):
        self.concurrency = concurrency
        self.seconds = seconds
        self.prompts = []
        self.instants = []
        self.under_way = 0
        self.peak = 0
        self.closed = 0
        self._answer = answer
        self._times = Counter()

    async def compose(self, prompt):
        self.prompts.append(prompt)
        self.instants.append(round(asyncio.get_running_loop().time() * SECOND))
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.under_way -= 1
        delivery = int(prompt.key.split(".")[1], 16)
        self._times[delivery] += 1
        outcome = self._answer(delivery, self._times[delivery])
        return Composed(outcome, f"Words {delivery}" if outcome.kind is Kind.ACCEPTED else "")

    async def check(self, domains):
        return []

    async def close(self):
        assert self.under_way == 0
        self.closed += 1


@dataclass
class Row:
    """A composition in memory."""

    item: ToCompose
    state: str = "wanted"
    words: str = ""
    not_before: object = None
    engine: int = ENGINE
    at: float = 0.0  # virtual seconds at which it got its state


class World:
    """The queue, the catalogue and the shared state in memory: all that the stage sees, but for the composers."""

    def __init__(self, engines, *, prompt="Write to {{ first }}.", review=False, **setup):
        self.loop = VirtualLoop()
        self.clock = VirtualClock(self.loop)
        self.engines = engines
        self.setups = {
            engine_id: EngineSetup(engine_id, f"Composer {engine_id}", version="1", **setup) for engine_id in engines
        }
        self.shared = MemoryShared(self.clock.monotonic_ns, self.clock.now)
        self.desk = EngineDesk(self, self.shared)
        self.rows = {}
        self.review = review
        self.prompt = prompt
        self.rung = 0
        self.lost = False
        self.looks = 0

    def add(self, size, *, seconds=None, engine=ENGINE, data=None, text=""):
        """So many more are wanted, with a deadline in so many seconds."""
        deadline = NO_DEADLINE if seconds is None else self.clock.now() + timedelta(seconds=seconds)
        for number in range(len(self.rows) + 1, len(self.rows) + size + 1):
            given = json.dumps(data if data is not None else {"first": f"Ann {number}"})
            item = ToCompose(number, BATCH, MESSAGE, engine, "a@b.example", "", given, deadline, 0, text)
            self.rows[number] = Row(item, engine=engine)
        return self

    def states(self):
        return [row.state for row in self.rows.values()]

    @property
    def seconds(self):
        return self.loop.time()

    # ---- as the catalogue ----

    def engine(self, engine_id):
        if engine_id not in self.setups:
            raise ObjectDoesNotExist
        return self.setups[engine_id]

    def open(self, engine_id):
        if self.engines[engine_id] is None:
            raise EngineMisconfigured("The model is missing.")
        return self.engines[engine_id]

    def change(self, engine_id=ENGINE, **fields):
        self.setups[engine_id] = replace(self.setups[engine_id], **fields)

    # ---- as the queue ----

    def _wanted(self, engine_id):
        now = self.clock.now()
        rows = [
            row
            for row in self.rows.values()
            if row.state == "wanted" and row.engine == engine_id and (row.not_before is None or row.not_before <= now)
        ]
        return sorted(rows, key=lambda row: (row.item.deadline, row.item.id))

    def sources(self, only=None):
        self.looks += 1
        heads = {engine_id: self._wanted(engine_id) for engine_id in {row.engine for row in self.rows.values()}}
        return [Source(BATCH, each, 0, rows[0].item.deadline) for each, rows in sorted(heads.items()) if rows]

    def claim(self, lease_id, batch_id, engine_id, limit, until=None):
        assert (lease_id, batch_id) == (LEASE, BATCH)
        rows = [row for row in self._wanted(engine_id) if until is None or row.item.deadline <= until][:limit]
        for row in rows:
            row.state = "claimed"
        return [row.item for row in rows]

    def wording(self, message_id):
        return Wording("token", self.prompt, self.review)

    def settle(self, lease_id, results):
        if self.lost:
            return 0
        released = 0
        for result in results:
            row = self.rows[result.id]
            if row.state != "claimed":
                continue
            row.state, row.not_before, row.at = result.state, result.not_before, self.loop.time()
            row.words = result.words or row.words
            row.item = row.item._replace(attempts=result.attempts, text=result.text or row.item.text)
            released += result.state in ("done", "fallback")
        return released

    def give_back(self, lease_id):
        for row in self.rows.values():
            row.state = "wanted" if row.state == "claimed" else row.state

    def take_back(self):
        return 0

    def lapse(self):
        return 0

    def due(self, batch_id):
        return self.clock.now() if any(self._wanted(each) for each in self.engines) else None

    # ---- running ----

    def composing(self):
        return Composing(InstantDatabase(), self.desk, self.clock, random.Random(7), LEASE, self._hear_ring, work=self)

    def _hear_ring(self):
        self.rung += 1

    def run(self, story=None, *, limit=3600, grace=5.0):
        """Runs the stage until nothing is wanted or claimed, or until the story is told."""

        async def scenario():
            stage = self.composing()
            running = asyncio.ensure_future(stage.run())
            try:
                async with asyncio.timeout(limit):
                    if story:
                        await story(stage)
                    else:
                        await self.over()
            finally:
                await stage.finish(grace)
                await running
            assert stage.in_hand == 0

        self.loop.run_until_complete(scenario())
        return self

    async def over(self):
        while {"wanted", "claimed"} & set(self.states()):  # noqa: ASYNC110  (virtual: it takes no time)
            await asyncio.sleep(0.01)

    def condition(self, engine_id=ENGINE):
        return self.shared.conditions([engine_id])[engine_id]


def one(answer=lambda key, time: WORDS, *, seconds=0.5, concurrency=4, **world):
    """A composer and the world around it."""
    fake = FakeComposer(answer, seconds=seconds, concurrency=concurrency)
    return fake, World({ENGINE: fake}, **world)


# ---- composing ----


@pytest.mark.once
def test_everything_that_is_wanted_is_composed_with_its_own_prompt_and_deliveries_are_told_to_go():
    fake, world = one()
    world.add(10).run()

    assert world.states() == ["done"] * 10
    assert {row.item.text for row in world.rows.values()} == {f"Words {n}" for n in range(1, 11)}
    assert sorted(prompt.user for prompt in fake.prompts) == sorted(f"Write to Ann {n}." for n in range(1, 11))
    assert sorted(prompt.key for prompt in fake.prompts) == sorted(f"token.{n:x}.1" for n in range(1, 11))
    assert (world.rung > 0, fake.closed) == (True, 1)


@pytest.mark.once
def test_as_many_calls_are_under_way_as_the_composer_allows_and_none_waits_for_a_claim():
    fake, world = one(seconds=1.0, concurrency=8)
    world.add(80).run()

    assert fake.peak == 8
    assert world.seconds < 10 * 1.0 + 1.0


@pytest.mark.once
def test_the_earliest_deadline_is_composed_first():
    fake, world = one(concurrency=1)
    world.add(2).add(2, seconds=600).add(2, seconds=300).run()

    assert [int(prompt.key.split(".")[1], 16) for prompt in fake.prompts] == [5, 6, 3, 4, 1, 2]


@pytest.mark.once
def test_what_is_to_be_reviewed_is_kept_for_a_person_and_rings_for_nobody():
    _, world = one(review=True)
    world.add(3).run()

    assert (world.states(), world.rung) == (["review"] * 3, 0)


@pytest.mark.once
def test_what_comes_later_is_found_within_a_moment_and_at_once_when_rung():
    _, world = one(seconds=0.1)
    found = []

    async def story(stage):
        for ring in (False, True):
            await asyncio.sleep(0.6)
            world.add(1)
            begun = world.seconds
            if ring:
                stage.wake()
            await world.over()
            found.append(world.seconds - begun)

    world.run(story)

    assert found[0] < 0.1 + 0.25 + 0.05
    assert found[1] < 0.1 + 0.05


@pytest.mark.once
def test_words_that_are_there_already_are_not_composed_again():
    fake, world = one()
    world.add(1, text="As before").run()

    assert (fake.prompts, world.states(), world.rows[1].item.text) == ([], ["done"], "As before")


@pytest.mark.once
def test_no_window_holds_more_calls_than_the_composers_limits_allow():
    rates = {"limit": Rate.of(10, Period.SECOND, 3)}
    fake, world = one(seconds=0.3, concurrency=8, rates=rates, call_rates={"calls": Rate.of(5, Period.SECOND, 2)})
    world.add(40).run()

    assert world.states() == ["done"] * 40
    assert crowded(fake.instants, SECOND // 5, 2) == []
    assert world.seconds < 1.5 * 40 / 5


@pytest.mark.once
def test_each_composer_goes_at_its_own_pace():
    slow, quick = FakeComposer(seconds=50.0, concurrency=1), FakeComposer(seconds=0.5, concurrency=1)
    world = World({1: slow, 2: quick})
    world.add(1, engine=1).add(10, engine=2).run()

    assert max(row.at for row in world.rows.values() if row.engine == 2) < 8


# ---- prompts ----


@pytest.mark.once
@pytest.mark.parametrize(
    ("prompt", "data", "words"),
    [
        (
            "Hi {{ last }}",
            {"first": "Ann"},
            "the prompt cannot be rendered: The prompt, line 1: the data has no `last`",
        ),
        ("Hi {% if", {}, "the prompt cannot be rendered: The prompt does not compile"),
        ("{{ first }} ", {"first": " "}, "the prompt is empty for this recipient"),
    ],
)
def test_a_prompt_that_says_nothing_for_somebody_is_not_asked_and_the_template_is_used(prompt, data, words):
    fake, world = one(prompt=prompt)
    world.add(1, data=data).run()

    assert (world.states(), fake.prompts) == (["fallback"], [])
    assert world.rows[1].words.startswith(words)


# ---- tries ----


@pytest.mark.once
def test_trouble_is_tried_again_after_growing_waits_and_each_try_has_its_own_key():
    fake, world = one(lambda delivery, time: WORDS if time == 3 else BUSY, seconds=0.0)
    world.add(1).run()

    gaps = [(later - earlier) / SECOND for earlier, later in zip(fake.instants, fake.instants[1:], strict=False)]
    assert [prompt.key for prompt in fake.prompts] == ["token.1.1", "token.1.2", "token.1.3"]
    assert 0.25 <= gaps[0] <= 0.75 + 0.3
    assert 0.75 <= gaps[1] <= 2.25 + 0.3
    assert (world.states(), world.rows[1].item.attempts, world.rows[1].words) == (["done"], 3, "503 busy")


@pytest.mark.once
def test_after_three_tries_the_template_is_used_with_the_services_last_words():
    fake, world = one(lambda delivery, time: BUSY)
    world.add(1).run()

    assert (world.states(), len(fake.prompts), world.rows[1].words) == (["fallback"], 3, "503 busy")


@pytest.mark.once
def test_what_can_never_be_composed_gets_the_template_after_one_try():
    fake, world = one(lambda delivery, time: HARMFUL)
    world.add(2).run()

    assert (world.states(), len(fake.prompts), world.rows[1].words) == (["fallback"] * 2, 2, "400 flagged")
    assert world.condition().breaker.faults == 0


@pytest.mark.once
def test_a_retry_after_is_kept_to():
    outcome = Outcome(Kind.TRANSIENT, "503", "busy", retry_after=timedelta(seconds=20))
    fake, world = one(lambda delivery, time: WORDS if time == 2 else outcome, seconds=0.0)
    world.add(1).run()

    assert 20 <= (fake.instants[1] - fake.instants[0]) / SECOND < 20.5


@pytest.mark.once
def test_being_told_to_slow_down_is_no_try_and_pauses_everybody():
    slower = Outcome(Kind.THROTTLED, "429", "slow down", retry_after=timedelta(seconds=30))
    fake, world = one(lambda delivery, time: WORDS if time > 1 else slower, concurrency=1)
    world.add(3).run()

    late = [instant / SECOND for instant in fake.instants[1:]]
    assert min(late) >= 30
    assert [row.item.attempts for row in world.rows.values()] == [1, 1, 1]
    assert world.states() == ["done"] * 3


# ---- deadlines ----


@pytest.mark.once
def test_the_template_goes_at_once_when_the_deadline_is_nearer_than_the_mail_needs():
    fake, world = one()
    world.add(1, seconds=RESERVE.total_seconds() / 2).run()

    assert (world.states(), fake.prompts) == (["fallback"], [])
    assert world.rows[1].words == "its deadline is nearer than an answer"
    assert world.seconds < 0.3


@pytest.mark.once
def test_a_call_is_not_begun_that_would_take_longer_than_the_deadline_allows():
    fake, world = one(seconds=5.0)

    async def story(stage):
        world.add(1)
        await world.over()
        world.add(1, seconds=4)
        begun = world.seconds
        await world.over()
        assert world.seconds - begun < 0.3

    world.run(story)

    assert (world.states(), len(fake.prompts)) == (["done", "fallback"], 1)


@pytest.mark.once
def test_a_call_that_does_not_answer_is_left_when_the_mail_has_to_go():
    _, world = one(seconds=500.0)
    world.add(1, seconds=20).run()

    assert (world.states(), world.rows[1].words) == (["fallback"], "its deadline is nearer than an answer")
    assert 18 < world.rows[1].at <= 20 - RESERVE.total_seconds() + 0.1


@pytest.mark.once
def test_what_waits_behind_a_long_call_gets_the_template_before_its_deadline():
    _, world = one(seconds=100.0, concurrency=1)

    async def story(stage):
        world.add(1)
        await asyncio.sleep(1)
        world.add(1, seconds=30)
        await world.over()

    world.run(story)

    assert world.states() == ["done", "fallback"]
    assert 25 < world.rows[2].at < 31


@pytest.mark.once
def test_no_try_is_planned_after_the_deadline():
    outcome = Outcome(Kind.TRANSIENT, "503", "busy", retry_after=timedelta(seconds=60))
    _, world = one(lambda delivery, time: outcome)
    world.add(1, seconds=30).run()

    assert (world.states(), world.rows[1].words) == (["fallback"], "503 busy; another try would come too late")
    assert world.rows[1].at < 2


@pytest.mark.once
def test_all_that_a_slow_limit_leaves_over_gets_the_template_before_its_deadline():
    _, world = one(rates={"limit": Rate.of(1, Period.SECOND, 1)})
    world.add(2000, seconds=30).run()

    ends = Counter(world.states())
    assert 20 <= ends["done"] <= 30
    assert ends["done"] + ends["fallback"] == 2000
    assert max(row.at for row in world.rows.values()) < 30


# ---- the composer's condition ----


@pytest.mark.once
def test_a_wrong_key_opens_the_circuit_at_once_costs_nobody_a_try_and_one_probe_finds_it_mended():
    mended = []
    fake, world = one(lambda delivery, time: WORDS if mended else NO_KEY, concurrency=2)

    async def story(stage):
        world.add(20)
        await asyncio.sleep(10)
        assert len(fake.prompts) <= 2
        assert world.condition().breaker.state == "open"
        assert {row.item.attempts for row in world.rows.values()} == {0}
        mended.append(True)
        await world.over()

    world.run(story)

    assert world.states() == ["done"] * 20
    assert world.condition().breaker.state == "closed"
    probes = [instant / SECOND for instant in fake.instants if instant / SECOND > 1]
    assert probes[0] >= 15
    assert probes[1] - probes[0] >= 0.5  # one probe, and nobody else before its answer


@pytest.mark.once
def test_a_composer_that_keeps_failing_is_replaced_by_the_template_after_some_minutes_and_then_still_probed():
    fake, world = one(lambda delivery, time: NO_KEY)

    async def story(stage):
        world.add(1200)
        await asyncio.sleep(60)
        assert "fallback" not in world.states()
        await world.over()
        before = len(fake.prompts)
        await asyncio.sleep(1000)
        world.add(1)
        await world.over()
        assert len(fake.prompts) == before + 1

    world.run(story)

    assert world.states() == ["fallback"] * 1201
    assert 100 < max(row.at for row in list(world.rows.values())[:1200]) < 300
    assert world.rows[1].words == "Composer 1 keeps failing: 401 wrong key"


@pytest.mark.once
def test_a_held_composer_is_waited_for_and_asked_nothing():
    fake, world = one(held=True)

    async def story(stage):
        world.add(5)
        await asyncio.sleep(3000)
        assert (set(world.states()), fake.prompts) == ({"wanted"}, [])
        world.change(held=False)
        await world.over()

    world.run(story)

    assert world.states() == ["done"] * 5
    assert world.seconds < 3004


@pytest.mark.once
def test_what_cannot_wait_for_a_held_composer_gets_the_template():
    fake, world = one(held=True, held_until=EPOCH + timedelta(minutes=10))
    world.add(2, seconds=300).add(2, seconds=900).run()

    assert world.states() == ["fallback"] * 2 + ["done"] * 2
    assert len(fake.prompts) == 2
    assert world.rows[1].at < 1  # it would not help to wait


@pytest.mark.once
def test_a_composer_held_for_ever_is_waited_for_until_the_deadline_and_no_longer():
    _, world = one(held=True)
    world.add(700, seconds=300).run()

    assert world.states() == ["fallback"] * 700
    assert min(row.at for row in world.rows.values()) > 290
    assert max(row.at for row in world.rows.values()) < 300


@pytest.mark.once
def test_a_composer_that_is_switched_off_means_the_template():
    fake, world = one(enabled=False)
    world.add(1300).run()

    assert (set(world.states()), fake.prompts) == ({"fallback"}, [])
    assert world.rows[1].words == "Composer 1 is switched off"
    assert world.seconds < 5


@pytest.mark.once
def test_what_waits_for_a_token_of_a_composer_that_is_switched_off_gets_the_template_too():
    _, world = one(rates={"limit": Rate.of(1, Period.HOUR, 1)})

    async def story(stage):
        world.add(10)
        await asyncio.sleep(60)
        world.change(enabled=False)
        await world.over()

    world.run(story)

    assert Counter(world.states()) == {"done": 1, "fallback": 9}
    assert world.seconds < 65


@pytest.mark.once
def test_only_the_probe_of_a_composer_that_failed_is_taken_into_hand():
    fake, world = one(lambda delivery, time: NO_KEY if time == 1 else WORDS, seconds=5.0, concurrency=1)

    async def story(stage):
        world.add(20)
        while len(fake.prompts) < 2:  # noqa: ASYNC110  (virtual: it takes no time)
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        assert stage.in_hand == 1
        await world.over()

    world.run(story)


@pytest.mark.once
def test_a_composer_that_is_gone_means_the_template():
    _, world = one()
    del world.setups[ENGINE]
    world.add(3).run()

    assert (set(world.states()), world.rows[1].words) == ({"fallback"}, "the composer is gone")


@pytest.mark.once
@pytest.mark.parametrize("engine", [None, object()], ids=["settings that cannot work", "no composer"])
def test_a_composer_that_cannot_be_opened_counts_as_failing(engine):
    world = World({ENGINE: engine})
    world.add(3).run()

    assert set(world.states()) == {"fallback"}
    assert world.rows[1].words.startswith("Composer 1 keeps failing: ")


@pytest.mark.once
def test_settings_that_change_hold_from_the_next_text_on_and_what_is_under_way_is_kept():
    first, second = FakeComposer(seconds=20.0, concurrency=2), FakeComposer(concurrency=2)
    world = World({ENGINE: first})

    async def story(stage):
        world.add(10)
        await asyncio.sleep(5)
        world.engines[ENGINE] = second
        world.change(version="2")
        await world.over()

    world.run(story)

    assert (len(first.prompts), len(second.prompts)) == (2, 8)
    assert (first.closed, second.closed) == (1, 1)
    assert world.states() == ["done"] * 10


@pytest.mark.once
def test_a_changed_limit_holds_within_a_second_or_so():
    fake, world = one(seconds=0.0, rates={"limit": Rate.of(1, Period.HOUR, 1)})

    async def story(stage):
        world.add(20)
        await asyncio.sleep(60)
        assert len(fake.prompts) == 1
        world.change(rates={})
        await world.over()

    world.run(story)

    assert world.seconds < 64


# ---- the end ----


@pytest.mark.once
def test_a_stop_waits_for_what_is_being_composed_and_gives_the_rest_back():
    fake, world = one(seconds=3.0, concurrency=2)

    async def story(stage):
        world.add(10)
        await asyncio.sleep(1)
        assert stage.in_hand == 3

    world.run(story, grace=5)

    assert Counter(world.states()) == {"done": 2, "wanted": 8}
    assert (fake.closed, {row.item.attempts for row in world.rows.values()}) == (1, {0, 1})


@pytest.mark.once
def test_a_stop_does_not_wait_longer_than_it_may():
    fake, world = one(seconds=500.0, concurrency=2)

    async def story(stage):
        world.add(10)
        await asyncio.sleep(1)

    world.run(story, grace=5)

    assert (world.states(), fake.closed) == (["wanted"] * 10, 1)
    assert world.seconds < 7
    # Who takes longer than workers live is not asked for ever.
    assert [row.item.attempts for row in world.rows.values()] == [1, 1] + [0] * 8
    assert world.condition().breaker.faults == 0


@pytest.mark.once
def test_what_three_workers_had_no_time_for_gets_the_template():
    _, world = one(seconds=500.0)
    world.add(1)

    async def story(stage):
        await asyncio.sleep(10)

    for _ in range(3):
        world.run(story, grace=1)

    assert (world.states(), world.rows[1].words) == (["fallback"], "The worker stopped before there was an answer.")


@pytest.mark.once
def test_a_claim_whose_answer_got_lost_is_given_back():
    _, world = one()
    claim = world.claim
    lost = []

    def losing(*arguments):
        items = claim(*arguments)
        if not lost:
            lost.extend(items)
            return []
        return items

    world.claim = losing
    world.add(3).run()

    assert (len(lost), world.states()) == (3, ["done"] * 3)


@pytest.mark.once
def test_a_stop_does_not_wait_for_tokens():
    _, world = one(rates={"limit": Rate.of(1, Period.HOUR, 1)})

    async def story(stage):
        world.add(10)
        await asyncio.sleep(2)

    world.run(story, grace=60)

    assert Counter(world.states()) == {"done": 1, "wanted": 9}
    assert world.seconds < 3


@pytest.mark.once
def test_a_stage_whose_lease_was_lost_ends_with_nothing_in_hand():
    _, world = one()

    async def story(stage):
        world.add(4)
        world.lost = True
        await asyncio.sleep(3)

    world.run(story)

    assert "done" not in world.states()


@pytest.mark.once
def test_words_that_cannot_be_written_cost_no_neighbour_its_own():
    _, world = one()
    settle = world.settle

    def picky(lease_id, results):
        if any(result.id == 3 and result.text for result in results):
            raise ValueError("no database takes that")
        return settle(lease_id, results)

    world.settle = picky
    world.add(6).run()

    assert [row.state for row in world.rows.values()] == ["done", "done", "fallback", "done", "done", "done"]
    assert world.rows[3].words == "what was composed could not be stored"


@pytest.mark.once
def test_what_breaks_a_task_breaks_the_stage():
    fake, world = one()

    async def broken(prompt):
        raise RuntimeError("a defect")

    fake.compose = broken

    async def scenario():
        stage = world.add(1).composing()
        try:
            with pytest.raises(RuntimeError, match="a defect"):
                await stage.run()
        finally:
            await stage.finish(1)

    world.loop.run_until_complete(scenario())

    assert world.states() == ["wanted"]


# ---- when there is something to do ----


@pytest.mark.once
def test_a_batch_is_due_when_its_composer_is_able_or_its_deadline_is_near():
    _, world = one(held=True, held_until=EPOCH + timedelta(hours=5))
    found = []

    async def story(stage):
        found.append(await stage.due(BATCH))
        world.add(1)
        await asyncio.sleep(1)
        found.append(await stage.due(BATCH))
        world.change(held_until=None)
        await asyncio.sleep(2)
        world.add(1, seconds=7199)
        await asyncio.sleep(2)
        found.append(await stage.due(BATCH))
        world.change(held=False)
        await world.over()
        found.append(await stage.due(BATCH))

    world.add(0).run(story)

    assert found[0] is None
    assert found[1] == EPOCH + timedelta(hours=5)
    assert found[2] == world.rows[2].item.deadline - RESERVE
    assert found[3] is None


@pytest.mark.once
def test_many_stories_of_faults_come_to_an_end_and_keep_every_deadline(rng):
    kinds = [WORDS, WORDS, WORDS, BUSY, HARMFUL, Outcome(Kind.THROTTLED, "429", "slow")]
    for _ in range(30):
        seed = rng.random()
        luck = random.Random(seed)
        drawn = defaultdict(lambda luck=luck: luck.choice(kinds))
        fake, world = one(
            lambda delivery, time, drawn=drawn: drawn[delivery, time],
            seconds=luck.choice([0.0, 0.5, 4.0]),
            concurrency=luck.randint(1, 6),
            breaker=BreakerPolicy(luck.choice([2, 5])),
            rates=luck.choice([{}, {"limit": Rate.of(5, Period.SECOND, 2)}]),
        )
        world.add(luck.randint(1, 40)).add(luck.randint(1, 40), seconds=luck.randint(2, 60)).run(limit=20_000)

        assert set(world.states()) <= {"done", "fallback"}, seed
        assert all(row.item.text for row in world.rows.values() if row.state == "done"), seed
        assert fake.peak <= fake.concurrency, seed
        timed = [row for row in world.rows.values() if row.item.deadline != NO_DEADLINE]
        assert all(EPOCH + timedelta(seconds=row.at) < row.item.deadline for row in timed), seed


# ---- on real rows ----


class OneComposer(StoredCatalogue):
    """The stored engines, with one composer behind all."""

    def __init__(self, composer):
        self._composer = composer

    def open(self, engine_id):
        return self._composer


def composed(batch, fake, stages=1):
    """Runs stages on the database until none of the batch is wanted or claimed."""

    async def scenario():
        from delivery.shared import shared

        database = Database()
        desk = EngineDesk(OneComposer(fake), shared())
        leases = [await database.ask(leasing.acquire, "here/boot/1:1:1", timedelta(minutes=5)) for _ in range(stages)]
        rings = []
        running = []
        for lease_id in leases:
            stage = Composing(database, desk, SYSTEM, random.Random(7), lease_id, lambda: rings.append(1))
            running.append((stage, asyncio.ensure_future(stage.run())))
        async with asyncio.timeout(20):
            while {"wanted", "claimed"} & set(await database.ask(states, batch)):  # noqa: ASYNC110  (in threads)
                await asyncio.sleep(0.02)
        for stage, task in running:
            await stage.finish(5)
            await task
        await database.close()
        return rings

    return asyncio.run(scenario())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stages", [1, 3])
def test_a_batch_is_composed_on_the_database_by_any_number_of_workers_each_text_once(stages):
    fake = MockComposer("7", shortest=0.01, longest=0.03, concurrency=5)
    batch = composed_batch(40)

    rings = composed(batch, fake, stages)

    assert set(deliveries(batch)) == {("ready", 0)}
    assert set(compositions(batch, "state", "attempts", "lease")) == {("done", 1, None)}
    assert all(f"(Composed for: Write to Ann {n}.)" in text for n, text in enumerate(compositions(batch, "text")))
    assert rings


@pytest.mark.django_db(transaction=True)
def test_trouble_on_the_database_opens_the_circuit_that_all_workers_share_and_ends_with_the_template():
    batch = composed_batch(3, engine=composer(fault_threshold=100))

    composed(batch, MockComposer("7", shortest=0.0, longest=0.0, failures=1.0))

    words = "503 A scripted failure of the mock composer."
    assert compositions(batch, "state", "attempts", "words") == [("fallback", 3, words)] * 3
    assert set(deliveries(batch)) == {("ready", 0)}
    assert composer().state.faults == 9
    assert composer().state.last_error == words
    assert Lease.objects.filter(composition__isnull=False).count() == 0


# ---- beside the pump ----


def pumped_batch(size, **options):
    """A composed batch in a pool with one engine: it, that engine, and which fake stands for which."""
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    engines[composer().pk] = MockComposer("7", shortest=0.02, longest=0.05)
    batch = composed_batch(size, **options)
    Batch.objects.filter(pk=batch.pk).update(pool=pool)
    return batch, fake, engines


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pumps", [1, 3])
def test_every_recipient_gets_the_words_that_were_composed_for_him_as_text_and_as_html(pumps):
    batch, fake, engines = pumped_batch(30)

    pumped(engines, pumps=pumps)

    assert_settled(batch, accepted=30)
    kept = dict(Composition.objects.values_list("delivery__address", "text"))
    sent = {envelope.recipient.address: (envelope.text, envelope.html) for envelope in fake.envelopes}
    assert sent == {address: (text, to_html(text)) for address, text in kept.items()}
    assert len(set(kept.values())) == 30


@pytest.mark.django_db(transaction=True)
def test_nothing_goes_out_before_a_person_has_said_so_and_what_he_says_is_done():
    batch, fake, engines = pumped_batch(3, review=True)
    first, second, third = ids_of(batch)

    async def review(desk):
        await desk.until(lambda: states(batch) == ["review"] * 3)
        assert fake.addresses == []
        await desk.ask(composing.reword, first, "A person's words", "root")
        await desk.ask(composing.use_template, [second], "root")
        await desk.ask(composing.reject, [third], "root")

    pumped(engines, review)

    assert_settled(batch, accepted=2, skipped=1)
    texts = {envelope.recipient.address: envelope.text for envelope in fake.envelopes}
    assert texts == {"person-0@example.test": "A person's words", "person-1@example.test": "The template for Ann 1"}
