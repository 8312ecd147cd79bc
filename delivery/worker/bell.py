"""An event that can be waited for up to a time, cheaply: the worker does so some hundred times a second."""

import asyncio


class Bell:
    """As `asyncio.Event`, with a timeout. (`asyncio.timeout` around an event costs three times as much.)"""

    def __init__(self) -> None:
        self._rung = False
        self._waiters: list[asyncio.Future[bool]] = []

    def is_set(self) -> bool:
        return self._rung

    def set(self) -> None:
        """Wakes all who wait, and lets pass who comes later."""
        if self._rung:
            return
        self._rung = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(True)

    def clear(self) -> None:
        """Who comes from now on waits again."""
        self._rung = False

    async def wait(self, timeout: float | None = None) -> bool:
        """Returns once it is rung, or after `timeout` seconds; whether it was rung."""
        if self._rung:
            return True
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        timer = loop.call_later(timeout, _expire, waiter) if timeout is not None else None
        self._waiters.append(waiter)
        try:
            return await waiter
        finally:
            self._waiters.remove(waiter)
            if timer is not None:
                timer.cancel()


def _expire(waiter: "asyncio.Future[bool]") -> None:
    if not waiter.done():
        waiter.set_result(False)
