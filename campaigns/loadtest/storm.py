"""Many requests at once, never more than planned. What is measured is in `measures`, what is asked is passed in."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from campaigns.loadtest.measures import Sample

Clock = Callable[[], float]
# What was said to the request of this number, and whether that was hoped for.
Ask = Callable[[int], Awaitable[tuple[int | str, bool]]]


@dataclass(frozen=True, slots=True)
class Stormed:
    """All samples, in the order in which they ended; when the first began, by the clock; and how long it was until the
    last one ended."""

    samples: tuple[Sample, ...]
    began_at: float
    seconds: float


async def storm(
    ask: Ask,
    *,
    count: int,
    at_once: int,
    seconds: float = float("inf"),
    stop: asyncio.Event | None = None,
    done: Callable[[Sample], None] = lambda sample: None,
    clock: Clock = time.monotonic,
) -> Stormed:
    """Asks `count` times, `at_once` under way, each as soon as one before it was answered. None begins after `seconds`,
    nor once it is told to stop; what is under way then is waited for."""
    stop = stop or asyncio.Event()
    numbers, samples = iter(range(count)), []
    began_at = clock()

    async def work() -> None:
        while not stop.is_set() and (began := clock()) - began_at < seconds:
            number = next(numbers, None)
            if number is None:
                return
            said, good = await ask(number)
            sample = Sample(number, began - began_at, clock() - began, said, good)
            samples.append(sample)
            done(sample)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, count)):
            group.create_task(work())
    return Stormed(tuple(samples), began_at, max((each.ended for each in samples), default=0.0))
