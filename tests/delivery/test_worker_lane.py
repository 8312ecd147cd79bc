"""A lane, in virtual time: how far ahead of its engine it marks, and in which order it hands over."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace

import pytest

from delivery.core.throttle import Period, Rate
from delivery.engine_desk import EngineDesk, Limits
from delivery.queue.leasing import Leased
from delivery.shared.memory import MemoryShared
from delivery.simulation.database import InstantDatabase
from delivery.simulation.loop import EPOCH, VirtualClock, VirtualLoop
from delivery.worker.lane import AHEAD, LEAST_AHEAD, MOST_AHEAD, Item, Lane
from delivery.worker.tokens import Tokens
from tests.delivery.pumping import ACCEPTED, FakeEngine

pytestmark = pytest.mark.once

ENGINE = 1
COMMIT = 0.02  # virtual seconds that a mark takes


class Takes(FakeEngine):
    """Answers each call after so many virtual seconds; `seconds` may be changed on the way."""

    def __init__(self, seconds, **options):
        super().__init__(**options)
        self.seconds = seconds

    async def send(self, envelopes):
        self.under_way += 1
        self.calls.append(len(envelopes))
        self.addresses += [envelope.recipient.address for envelope in envelopes]
        await asyncio.sleep(self.seconds)
        self.under_way -= 1
        return [ACCEPTED] * len(envelopes)


@dataclass
class World:
    """The pump and the ledger, as far as one lane sees them."""

    marked: list[int] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    unmarked: list[int] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)  # marked and not answered, after each mark

    async def mark(self, marks):
        # It counts from here on: the database may have written it, whether or not the answer comes.
        self.marked += [mark.id for mark in marks]
        self.peaks.append(self.outstanding)
        await asyncio.sleep(COMMIT)
        return {mark.id for mark in marks}

    @property
    def outstanding(self):
        return len(self.marked) - len(self.answered) - len(self.unmarked)

    def task_ended(self, task):
        if not task.cancelled() and task.exception():
            self.failed.append(task.exception())

    def may_hand_over(self, engine_id):
        return True

    async def admit(self, engine_id):
        return 1_000_000

    async def route(self, items):
        raise AssertionError("nothing is to be routed anew")

    def compose(self, item):
        item.envelope = SimpleNamespace(recipient=SimpleNamespace(address=item.leased.address))
        return True

    def unmark(self, items):
        self.unmarked += [item.leased.id for item in items]

    def conclude(self, item, engine_id, outcome, seconds):
        self.answered.append(item.leased.id)


def leased(number, deadline=EPOCH):
    address = f"person-{number}@example.test"
    return Leased(number, 1, 1, address, "", "{}", deadline, None, False, 0, 0, None, 1)


def item(number, *, priority=0, minutes=0):
    return Item(leased(number, EPOCH + timedelta(minutes=minutes)), None, priority)


def through(engine, story, *, calls=None):
    """A lane to that engine, and what `story(lane, world)` makes of it."""
    loop = VirtualLoop()
    clock = VirtualClock(loop)
    world = World()

    async def scenario():
        database, desk = InstantDatabase(), EngineDesk(None, MemoryShared(clock.monotonic_ns, clock.now))
        free, limited = (Tokens(database, desk, clock, rates) for rates in ({}, {"calls": calls} if calls else {}))
        lane = Lane(ENGINE, engine, free, limited, world, world, clock, "version 1")
        await story(lane, world)
        await lane.finish(60)
        assert not world.failed

    loop.run_until_complete(scenario())
    return world


async def answers(world, count):
    while len(world.answered) < count:  # noqa: ASYNC110  (virtual: it takes no time)
        await asyncio.sleep(0.001)


# ---- how far ahead ----


def test_ahead_of_a_slow_engine_no_more_are_marked_than_the_least():
    engine = Takes(1.0, concurrency=4)

    async def story(lane, world):
        for number in range(100):
            lane.put(item(number))
        await answers(world, 100)

    world = through(engine, story)

    assert sorted(world.answered) == list(range(100))
    assert max(world.peaks) == 4 + LEAST_AHEAD


def test_ahead_of_a_fast_engine_as_much_is_marked_as_it_answers_meanwhile_and_never_more_than_the_most():
    peaks = {}
    for seconds in (0.008, 0.0001):
        engine = Takes(seconds, concurrency=4)

        async def story(lane, world):
            for number in range(4000):
                lane.put(item(number))
            await answers(world, 4000)

        peaks[seconds] = max(through(engine, story).peaks)

    # 500 a second: fifty in the time that a mark may take.
    assert 4 + LEAST_AHEAD < peaks[0.008] <= 4 + 500 * AHEAD * 1.2
    assert 4 + MOST_AHEAD // 2 < peaks[0.0001] <= 4 + MOST_AHEAD


def test_an_engine_that_becomes_slow_has_as_little_marked_ahead_as_one_that_always_was():
    engine = Takes(0.0001, concurrency=4)

    async def story(lane, world):
        for number in range(3000):
            lane.put(item(number))
        await answers(world, 1500)
        engine.seconds = 1.0
        fast = world.outstanding
        await answers(world, 1500 + fast + 40)
        world.peaks.clear()
        await answers(world, 1500 + fast + 120)
        lane.recall()

    world = through(engine, story)

    assert world.peaks
    assert max(world.peaks) <= 4 + LEAST_AHEAD


@pytest.mark.parametrize("batch_size", [20, 50])
def test_where_calls_are_limited_no_more_than_one_calls_worth_is_marked_beyond_those_under_way(batch_size):
    engine = Takes(0.5, concurrency=2, batch_size=batch_size)
    beyond = []

    async def story(lane, world):
        for number in range(12 * batch_size):
            lane.put(item(number))
        while len(world.answered) < 12 * batch_size:
            in_calls = sum(engine.calls) - len(world.answered)
            beyond.append(world.outstanding - in_calls)
            await asyncio.sleep(0.05)

    through(engine, story, calls=Rate.of(1, Period.SECOND, 1))

    assert max(beyond) == batch_size
    assert set(engine.calls) == {batch_size}


def test_a_lane_that_is_stopped_hands_nothing_over_that_waits_for_a_call():
    engine = Takes(0.01, concurrency=2, batch_size=20)

    async def story(lane, world):
        for number in range(100):
            lane.put(item(number))
        await answers(world, 20)
        await asyncio.sleep(0.5)
        lane.stop()

    world = through(engine, story, calls=Rate.of(1, Period.MINUTE, 1))

    assert engine.calls == [20]
    assert sorted(world.answered + world.unmarked) == sorted(world.marked)
    assert len(world.unmarked) == 20


# ---- the order ----


def test_the_most_urgent_go_first_and_among_them_the_earliest_deadline():
    engine = Takes(0.01, concurrency=1)
    wanted = [
        item(number, priority=priority, minutes=minutes)
        for number, (priority, minutes) in enumerate([(1, 1), (0, 9), (0, 3), (-1, 8), (1, 0), (-1, 2), (0, 5)])
    ]

    async def story(lane, world):
        for each in wanted:
            lane.put(each)
        await answers(world, len(wanted))

    through(engine, story)

    assert engine.addresses == [f"person-{n}@example.test" for n in (5, 3, 2, 6, 1, 4, 0)]


def test_what_is_more_urgent_overtakes_all_that_is_not_marked_yet():
    engine = Takes(0.5, concurrency=2)
    before = []

    async def story(lane, world):
        for number in range(100):
            lane.put(item(number, priority=5))
        await answers(world, 4)
        before.extend(world.marked)
        for number in range(100, 120):
            lane.put(item(number, priority=-1))
        await answers(world, 120)

    world = through(engine, story)

    assert set(world.marked[: len(before)]) == set(before)
    assert set(world.marked[len(before) : len(before) + 20]) == set(range(100, 120))


# ---- limits that change ----


def test_a_limit_that_is_lifted_lets_what_waits_go_and_marks_ahead_again():
    engine = Takes(0.01, concurrency=2, batch_size=5)

    async def story(lane, world):
        for number in range(100):
            lane.put(item(number))
        await answers(world, 5)
        await lane.obey(Limits({}, {}))
        begun = asyncio.get_running_loop().time()
        await answers(world, 100)
        assert asyncio.get_running_loop().time() - begun < 5

    world = through(engine, story, calls=Rate.of(1, Period.HOUR, 1))

    assert sorted(world.answered) == list(range(100))
