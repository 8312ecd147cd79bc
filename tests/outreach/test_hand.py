"""Tokens that a process has in hand: the shared store is asked now and then, and the rate holds all the same."""

import threading
from datetime import UTC, datetime

import pytest

from delivery.core.throttle import SECOND, Period, Rate
from delivery.shared import Drawn
from delivery.shared.memory import MemoryShared
from outreach.access.hand import Hands

FAST = Rate.of(1000, Period.SECOND, 1000)
SLOW = Rate.of(10, Period.MINUTE, 10)


class World:
    """A clock that is set, a store in memory on that clock, and how often it was asked."""

    def __init__(self) -> None:
        self.now = 10**18
        self.asked: list[int] = []
        self._store = MemoryShared(lambda: self.now, lambda: datetime.now(UTC))
        self._lock = threading.Lock()

    def draw(self, key: str, rate: Rate, wanted: int) -> Drawn:
        with self._lock:
            self.asked.append(wanted)
            return self._store.draw({key: rate}, wanted)

    def hands(self) -> Hands:
        return Hands(self.draw, lambda: self.now)


@pytest.fixture
def world():
    return World()


def test_who_asks_quickly_has_a_twentieth_free_and_draws_more_each_time_up_to_that(world):
    hands = world.hands()

    granted = [hands.take("a", FAST).granted for _ in range(300)]

    assert all(granted)
    assert world.asked == [2, 4, 8, 16, 32, 50, 50, 50, 50]


def test_who_asks_slowly_never_waits_for_the_store(world):
    hands = world.hands()

    for _ in range(200):
        assert hands.take("a", FAST).granted
        world.now += SECOND // 40

    assert world.asked == []


def test_what_is_free_is_free_once_a_second_also_to_whom_the_store_refuses(world):
    hands = world.hands()
    granted = 0

    for _ in range(30_000):
        granted += hands.take("a", FAST).granted
        world.now += SECOND // 10_000  # ten times as often as allowed, for three seconds

    assert 4000 - 50 <= granted <= 4000 + 4 * 50


def test_a_small_limit_is_counted_to_the_request(world):
    hands = world.hands()

    granted = [hands.take("a", SLOW).granted for _ in range(15)]

    assert granted == [True] * 10 + [False] * 5


def test_who_is_refused_is_refused_without_asking_again_until_it_may_be_granted(world):
    hands = world.hands()
    for _ in range(11):
        refused = hands.take("a", SLOW)
    asked = len(world.asked)

    for _ in range(100):
        assert not hands.take("a", SLOW).granted
    assert (len(world.asked), refused.wait) == (asked, 6)

    world.now += 6 * SECOND
    assert hands.take("a", SLOW).granted


def test_what_is_left_is_counted_down_and_told_with_when_all_is_there_again(world):
    hands = world.hands()

    told = [hands.take("a", SLOW) for _ in range(11)]

    assert [each.remaining for each in told] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]
    assert [each.reset for each in told][:3] == [6, 12, 18]
    assert {each.limit for each in told} == {10}


def test_each_caller_has_a_limit_of_its_own(world):
    hands = world.hands()
    for _ in range(11):
        hands.take("a", SLOW)

    assert hands.take("b", SLOW).granted


def test_processes_share_a_limit_and_pass_it_by_no_more_than_each_has_free(world):
    processes = [world.hands() for _ in range(4)]

    granted = sum(each.take("a", FAST).granted for _ in range(500) for each in processes)

    assert granted == 1000 + 4 * 50


def test_processes_share_a_small_limit_to_the_request(world):
    processes = [world.hands() for _ in range(4)]

    assert sum(each.take("a", SLOW).granted for _ in range(20) for each in processes) == 10


def test_what_is_in_hand_lapses_after_a_second(world):
    hands = world.hands()
    for _ in range(60):  # 50 were free; of the 14 that were drawn 4 are left
        hands.take("a", FAST)
    world.now += 2 * SECOND

    assert hands.take("a", FAST).remaining == 999
    assert world.asked == [2, 4, 8]


def test_threads_that_ask_at_once_get_together_what_there_is(world):
    hands = world.hands()
    granted = []

    def ask() -> None:
        granted.extend(hands.take("a", FAST).granted for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert granted.count(True) == 1050
