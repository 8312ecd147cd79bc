"""An asyncio event loop whose time is virtual: when all wait, it jumps to the instant at which somebody wakes.

Deterministic: what is ready runs in the order in which it became so, timers in the order of their instants. It has no
sockets, threads or signals, only what coroutines need that wait for each other and for time.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Any, TypeVar

T = TypeVar("T")

SECOND = 1_000_000_000  # nanoseconds
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # a simulation begins on a day that does not change from run to run


class NobodyWakes(RuntimeError):
    """Everything waits, and nothing will ever happen: what runs here has a deadlock."""


class Handle:
    """A call that is to be made; also a timer, with its instant in nanoseconds. Without a context it is only a timer's
    touch on a future: whoever waits for that goes on in his own."""

    __slots__ = ("at", "callback", "cancelled_", "context", "parameters")

    def __init__(self, callback: Callable, parameters: tuple, context: contextvars.Context | None, at: int) -> None:
        self.callback = callback
        self.parameters = parameters
        self.context = context
        self.at = at
        self.cancelled_ = False

    def cancel(self) -> None:
        self.cancelled_ = True
        self.callback = self.parameters = None  # what they hold may go now

    def cancelled(self) -> bool:
        return self.cancelled_

    def when(self) -> float:
        return self.at / SECOND


class VirtualLoop(asyncio.AbstractEventLoop):
    """See the module. `now_ns` is the virtual time since the beginning.

    `before_each`, if set, is asked before each call and may forbid it: then it is as if it had never been due. That is
    how a worker dies: between two awaits, with nothing of it ever running again.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self.before_each: Callable[[Handle], bool] | None = None
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[int, int, Handle]] = []
        self._count = 0  # of timers: those of one instant keep their order
        self._running = False
        self._closed = False

    # ---- running ----

    def run_until_complete(self, future: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine to its end. Raises NobodyWakes when it cannot come to one."""
        task = self.create_task(future)
        asyncio._set_running_loop(self)
        self._running = True
        try:
            self._run_while_pending(task)
        finally:
            self._running = False
            asyncio._set_running_loop(None)
        return task.result()

    def abandon(self) -> None:
        """Cancels everything that runs here and lets it come to its end, unheard; then closes."""
        self.before_each, self._closed = None, True
        self.run_until_complete(self._end_all())
        self.close()

    async def _end_all(self) -> None:
        while tasks := asyncio.all_tasks(self) - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=60)

    def _run_while_pending(self, task: asyncio.Task) -> None:
        ready = self._ready
        while not task.done():
            if not ready:
                self._jump()
            handle = ready.popleft()
            if handle.cancelled_ or (self.before_each is not None and not self.before_each(handle)):
                continue
            if handle.context is None:
                handle.callback(*handle.parameters)
            else:
                handle.context.run(handle.callback, *handle.parameters)

    def _jump(self) -> None:
        """To the next instant at which something is due."""
        timers = self._timers
        while timers and timers[0][2].cancelled_:
            heappop(timers)
        if not timers:
            raise NobodyWakes("everything waits, and nothing will ever happen")
        self.now_ns = max(self.now_ns, timers[0][0])
        while timers and timers[0][0] <= self.now_ns:
            handle = heappop(timers)[2]
            if not handle.cancelled_:
                self._ready.append(handle)

    # ---- what asyncio asks of a loop ----

    def time(self) -> float:
        return self.now_ns / SECOND

    def call_soon(self, callback: Callable, *args: Any, context: contextvars.Context | None = None) -> Handle:
        handle = Handle(callback, args, context, self.now_ns)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable, *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        # Rounded up, so that nobody wakes before what he waits for; and by a nanosecond at least, or a wait for what a
        # float cannot say any more would never end.
        at = self.now_ns + (int(delay * SECOND + 0.99) or 1) if delay > 0 else self.now_ns
        handle = Handle(callback, args, context, at)
        self._count += 1
        heappush(self._timers, (at, self._count, handle))
        return handle

    def call_at(
        self, when: float, callback: Callable, *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def create_future(self) -> asyncio.Future:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine, *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task that failed unseen, or was dropped: nothing in a simulation may go unseen. What is dropped together
        with the loop had no end to come to."""
        if self._closed:
            return
        about = context.get("task") or context.get("future") or ""
        raise RuntimeError(f"{context.get('message')} {about}".strip()) from context.get("exception")


class VirtualClock:
    """The loop's time as a Clock (see `delivery.clock`)."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._read_at = -1
        self._now = EPOCH

    def now(self) -> datetime:
        ns = self._loop.now_ns
        if ns != self._read_at:
            self._read_at = ns
            self._now = EPOCH + timedelta(microseconds=ns // 1000)
        return self._now

    def monotonic(self) -> float:
        return self._loop.now_ns / SECOND

    def monotonic_ns(self) -> int:
        return self._loop.now_ns
