"""The queue between marks and senders: in order, to who waits longest, and never lost."""

import asyncio

import pytest

from delivery.worker.outbox import Outbox

pytestmark = pytest.mark.once


def story(function):
    return asyncio.run(asyncio.wait_for(function(), 10))


def test_items_come_out_in_the_order_in_which_they_went_in():
    async def scenario():
        outbox = Outbox()
        for number in range(3):
            outbox.put(number)
        return [await outbox.get(), outbox.take(), await outbox.get(), outbox.empty()]

    assert story(scenario) == [0, 1, 2, True]


def test_who_waits_longest_is_served_first():
    async def scenario():
        outbox = Outbox()
        getters = [asyncio.create_task(outbox.get()) for _ in range(3)]
        await asyncio.sleep(0)
        for number in range(3):
            outbox.put(number)
        return await asyncio.gather(*getters)

    assert story(scenario) == [0, 1, 2]


def test_one_who_stopped_waiting_is_passed_over():
    async def scenario():
        outbox = Outbox()
        gone, patient = asyncio.create_task(outbox.get()), asyncio.create_task(outbox.get())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        outbox.put("item")
        return await patient

    assert story(scenario) == "item"


def test_an_item_handed_over_in_the_moment_of_a_cancellation_goes_to_the_next():
    async def scenario():
        outbox = Outbox()
        gone = asyncio.create_task(outbox.get())
        await asyncio.sleep(0)
        outbox.put("item")
        gone.cancel()
        [ended] = await asyncio.gather(gone, return_exceptions=True)
        return ended, await outbox.get()

    ended, item = story(scenario)
    assert isinstance(ended, asyncio.CancelledError)
    assert item == "item"
