"""A thread that does one thing after the other for an event loop, and can be left alone with what it does.

Not `asyncio.to_thread`: its threads are nobody's in particular, so none could keep a connection, and the interpreter
waits for them at its end, for ever if a backend does.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Tool = TypeVar("Tool")
Result = TypeVar("Result")


class Seat(Generic[Tool]):
    """One thread and its `tool`, which only the thread uses. `leave` is what it does with the tool at the end."""

    def __init__(self, tool: Tool, leave: Callable[[Tool], None]) -> None:
        self._tool = tool
        self._leave = leave
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self.left: asyncio.Future[None] = self._loop.create_future()
        # A daemon: what hangs in a backend must not keep the process from ending.
        threading.Thread(target=self._work, name="django-backend", daemon=True).start()

    def run(self, job: Callable[[Tool], Result]) -> "asyncio.Future[Result]":
        """What the job makes of the tool. Cancelled, it goes on and nobody hears of it."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._jobs.put(lambda: self._do(job, future))
        return future

    def vacate(self) -> None:
        """The thread leaves when it has done what it was given; then `left` is done."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        try:
            self._leave(self._tool)
        finally:
            self._tell(self.left.set_result, self.left, None)

    def _do(self, job: Callable[[Tool], Result], future: "asyncio.Future[Result]") -> None:
        try:
            result = job(self._tool)
        except BaseException as error:
            self._tell(future.set_exception, future, error)
        else:
            self._tell(future.set_result, future, result)

    def _tell(self, settle: Callable[[object], None], future: "asyncio.Future", news: object) -> None:
        def tell() -> None:
            if not future.done():  # else nobody waits any more
                settle(news)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there to hear it
            self._loop.call_soon_threadsafe(tell)
