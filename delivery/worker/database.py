"""The database as the event loop sees it: two threads with a connection each, and patience while it is away.

The ledger thread writes intents and outcomes and must never wait behind anything; the desk thread does the rest, also
what is asked of the shared state where that is not the database.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import connection, transaction

from delivery.queue.dialect import DatabaseAway, is_away
from delivery.shared.base import SharedAway

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

FIRST_WAIT = 0.1
LONGEST_WAIT = 2.0


class Database:
    """Runs functions that use Django's ORM. While the database is away, calls wait and are tried again: what is given
    to `commit` and `ask` must be safe to repeat."""

    def __init__(self) -> None:
        self._ledger = ThreadPoolExecutor(1, "ledger")
        self._desk = ThreadPoolExecutor(1, "desk")

    async def commit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function` in the ledger thread, in one transaction."""
        return await self._patiently(self._ledger, _in_transaction, function, *args, **kwargs)

    async def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function` in the desk thread; it makes its own transactions."""
        return await self._patiently(self._desk, _call, function, *args, **kwargs)

    async def ask_once(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """As `ask`, for what must not be repeated: None when the database is away, whatever it has done."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._desk, lambda: function(*args, **kwargs))
        except (*DatabaseAway, SharedAway) as error:
            if not _may_come_back(error):
                raise
            logger.warning("The database is away: %s", str(error).strip())
            await loop.run_in_executor(self._desk, _disconnect)
            return None

    async def close(self) -> None:
        """Closes both connections. Nothing may be under way."""
        loop = asyncio.get_running_loop()
        for executor in (self._ledger, self._desk):
            await loop.run_in_executor(executor, _disconnect)
            executor.shutdown()

    async def _patiently(self, executor: ThreadPoolExecutor, call: Callable, *args: object, **kwargs: object) -> object:
        loop = asyncio.get_running_loop()
        wait = FIRST_WAIT
        while True:
            try:
                return await loop.run_in_executor(executor, lambda: call(*args, **kwargs))
            except (*DatabaseAway, SharedAway) as error:
                if not _may_come_back(error):
                    raise
                logger.warning("The database is away, trying again in %.1f s: %s", wait, str(error).strip())
                await loop.run_in_executor(executor, _disconnect)
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT, wait * 2)


def _may_come_back(error: Exception) -> bool:
    return isinstance(error, SharedAway) or is_away(error)


def _disconnect() -> None:
    connection.close()  # each thread has its own; the name must be looked up there


def _call(function: Callable, *args: object, **kwargs: object) -> object:
    return function(*args, **kwargs)


def _in_transaction(function: Callable, *args: object, **kwargs: object) -> object:
    with transaction.atomic():
        return function(*args, **kwargs)
