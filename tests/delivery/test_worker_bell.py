"""The bell: who waits is woken, who comes later passes, and nobody waits longer than he said."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.simulation.loop import SECOND, NobodyWakes, VirtualLoop
from delivery.worker.bell import Bell

pytestmark = pytest.mark.once


def run(story):
    """What a story comes to, and how many virtual seconds it took."""
    loop = VirtualLoop()
    result = loop.run_until_complete(story())
    return result, loop.now_ns / SECOND


def deadlocked(story):
    """When nothing happens any more in a story that cannot come to its end."""
    loop = VirtualLoop()
    loop.call_exception_handler = lambda context: None  # the story is dropped while it waits
    with pytest.raises(NobodyWakes):
        loop.run_until_complete(story())
    return loop.now_ns / SECOND


def in_a_while(seconds, deed):
    asyncio.get_running_loop().call_later(seconds, deed)


def test_nobody_waits_at_a_bell_that_was_rung():
    async def story():
        bell = Bell()
        bell.set()
        bell.set()
        return [await bell.wait(), await bell.wait(5), bell.is_set()]

    assert run(story) == ([True, True, True], 0)


def test_all_who_wait_are_woken_when_it_rings_in_the_order_in_which_they_came():
    woken = []

    async def wait(bell, name, timeout):
        woken.append((name, await bell.wait(timeout)))

    async def story():
        bell = Bell()
        in_a_while(3, bell.set)
        await asyncio.gather(wait(bell, "a", None), wait(bell, "b", 9), wait(bell, "c", None))

    assert run(story) == (None, 3)
    assert woken == [("a", True), ("b", True), ("c", True)]


def test_a_wait_ends_with_its_timeout_to_the_nanosecond_and_says_that_nobody_rang():
    async def story():
        bell = Bell()
        in_a_while(3, bell.set)
        return [await bell.wait(1.25), bell.is_set()]

    assert run(story) == ([False, False], 1.25)


@pytest.mark.parametrize("timeout", [0, -1])
def test_who_does_not_want_to_wait_hears_at_once(timeout):
    async def story():
        return await Bell().wait(timeout)

    assert run(story) == (False, 0)


def test_one_who_waited_in_vain_may_wait_again_and_others_still_wait():
    async def story():
        bell = Bell()
        in_a_while(3, bell.set)
        patient = asyncio.create_task(bell.wait())
        return [await bell.wait(1), await bell.wait(1), await bell.wait(5), await patient]

    assert run(story) == ([False, False, True, True], 3)


def test_a_cleared_bell_is_waited_for_again():
    async def story():
        bell = Bell()
        bell.set()
        bell.clear()
        in_a_while(2, bell.set)
        return [bell.is_set(), await bell.wait(1), await bell.wait()]

    assert run(story) == ([False, False, True], 2)


def test_who_waited_when_it_rang_is_woken_though_it_is_cleared_at_once():
    async def story():
        bell = Bell()
        waiter = asyncio.create_task(bell.wait(9))
        await asyncio.sleep(1)
        bell.set()
        bell.clear()
        return [await waiter, bell.is_set(), await bell.wait(1)]

    assert run(story) == ([True, False, False], 2)


def test_a_wait_that_is_cancelled_ends_and_the_others_are_still_woken():
    async def story():
        bell = Bell()
        cancelled, other = (asyncio.create_task(bell.wait(9)) for _ in range(2))
        await asyncio.sleep(1)
        cancelled.cancel()
        bell.set()
        return [type(each) for each in await asyncio.gather(cancelled, other, return_exceptions=True)]

    assert run(story) == ([asyncio.CancelledError, bool], 1)


def test_a_timer_that_is_not_needed_any_more_wakes_nobody():
    async def story():
        bell = Bell()
        in_a_while(1, bell.set)
        await bell.wait(60)
        await asyncio.get_running_loop().create_future()

    assert deadlocked(story) == 1


def test_a_bell_that_nobody_rings_is_waited_for_without_end():
    assert deadlocked(lambda: Bell().wait()) == 0


def test_who_waits_no_more_is_forgotten():
    async def story():
        bell = Bell()
        tired, woken, cancelled = (asyncio.create_task(bell.wait(seconds)) for seconds in (1, 9, 9))
        await tired
        cancelled.cancel()
        bell.set()
        await asyncio.gather(woken, cancelled, return_exceptions=True)
        return bell._waiters

    assert run(story) == ([], 1)


DEEDS = st.sampled_from(["wait", "wait", "set", "clear", "cancel", "turn"])


def heard(kind, deeds):
    """What comes of some deeds at such a bell: who is woken, in which order."""
    log = []

    async def wait(bell, name):
        log.append((name, await bell.wait()))

    async def story():
        bell, tasks = kind(), []
        for deed in deeds:
            match deed:
                case "wait":
                    tasks.append(asyncio.create_task(wait(bell, len(tasks))))
                case "cancel" if tasks:
                    tasks[len(log) % len(tasks)].cancel()
                case "set":
                    bell.set()
                case "clear":
                    bell.clear()
                case "turn":
                    await asyncio.sleep(0)
            log.append(bell.is_set())
        bell.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(story)
    return log


@given(st.lists(DEEDS, max_size=20))
def test_without_a_timeout_it_is_as_an_event_of_asyncio(deeds):
    assert heard(Bell, deeds) == heard(asyncio.Event, deeds)
