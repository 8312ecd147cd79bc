"""What is marked and waits for a sender: a queue that hands each item straight to the sender that waits longest."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """As `asyncio.Queue` without bounds, at half its cost. Lives in one event loop."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._waiting: deque[asyncio.Future[T]] = deque()

    def empty(self) -> bool:
        return not self._items

    def put(self, item: T) -> None:
        """Hands the item to who waits, or keeps it."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(item)
                return
        self._items.append(item)

    def take(self) -> T:
        """The next item. Raises IndexError when there is none."""
        return self._items.popleft()

    async def get(self) -> T:
        """The next item, as soon as there is one."""
        if self._items:
            return self._items.popleft()
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._items.appendleft(waiter.result())  # it was handed over in the very moment: it must not be lost
            raise
