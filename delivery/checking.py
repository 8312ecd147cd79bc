"""Asks the provider whether an engine could work, without sending a mail: credentials, region, sender identities.

Decides how long anybody waits for that, and that no answer, and no missing one, is an error here. What is asked is each
engine's own business.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine

from delivery.engines import base, open_engine, problems_of
from delivery.engines.base import Finding
from delivery.exceptions import DeliveryError
from delivery.models import Engine

logger = logging.getLogger(__name__)

PATIENCE = 15.0  # seconds in all: somebody sits in front of the answer
GRACE = 2.0  # seconds to end connections in order


def check(
    engine: Engine,
    *,
    patience: float = PATIENCE,
    grace: float = GRACE,
    opening: Callable[[Engine], base.Engine] = open_engine,
) -> list[Finding]:
    """What is wrong with an engine's settings, [] when nothing is: what shows without asking, else what its provider
    says within `patience` seconds. Runs an event loop of its own, so it is not for coroutines; call it outside any
    transaction, which would wait as long."""
    try:
        if problems := problems_of(engine):
            return [Finding(problem) for problem in problems]
        opened = opening(engine)
    except DeliveryError as error:
        return [Finding(str(error))]
    loop = asyncio.new_event_loop()
    try:
        found = loop.run_until_complete(_ask(opened, engine, patience, grace))
    finally:
        # Not asyncio.run, which would wait for its threads: a silent name server keeps one busy longer than anybody
        # waits.
        loop.close()
    return [Finding(_one_line(finding.words), finding.certain) for finding in found]


async def _ask(opened: base.Engine, engine: Engine, patience: float, grace: float) -> list[Finding]:
    asking = await _at_most(patience, opened.check(engine.domains), grace)
    closing = await _at_most(grace, opened.close(), grace)
    await _end_the_rest(grace)
    broken = [_defect(engine, error) for task in (asking, closing) if (error := _error_of(task))]
    if not asking.done() or asking.cancelled():
        return [Finding(f"There was no complete answer within {patience:g} s.", certain=False), *broken]
    return broken if asking.exception() else [*asking.result(), *broken]


async def _at_most(seconds: float, deed: Coroutine[object, object, object], grace: float) -> asyncio.Task:
    """The task, over by itself or told to end when its time was up."""
    task = asyncio.ensure_future(deed)
    await asyncio.wait([task], timeout=seconds)
    if not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=grace)
    return task


async def _end_the_rest(grace: float) -> None:
    """Nothing of an engine outlives its loop."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=grace)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _error_of(task: asyncio.Task) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _defect(engine: Engine, error: BaseException) -> Finding:
    """What nobody foresaw. Its words may hold a credential, so only where it happened is written down."""
    name = type(error).__name__
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("The check of engine %s broke: %s\n%s", engine, name, where)
    return Finding(f"The check broke with {name}: the log says where.", certain=False)


def _one_line(words: str) -> str:
    """A server's words on one line, and without what a terminal would obey."""
    return " ".join("".join(each if each.isprintable() else " " for each in words).split())
