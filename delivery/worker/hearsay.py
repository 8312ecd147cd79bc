"""What outcomes say of engines, on its way to what all workers share.

It is passed on in batches; until the answer is back, an engine that said to stop or to slow down is taken at its word.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection

from delivery.core.condition import Health, News
from delivery.core.dispatch import Verdict
from delivery.core.envelope import Outcome
from delivery.engine_desk import EngineDesk
from delivery.worker.bell import Bell
from delivery.worker.database import Database


class Hearsay:
    """One worker's. `look_again` reads how engines stand after what was said of them has been written."""

    def __init__(
        self, database: Database, desk: EngineDesk, look_again: Callable[[Collection[int]], Awaitable[None]]
    ) -> None:
        self._database = database
        self._desk = desk
        self._look_again = look_again
        self._news: dict[int, list[News]] = defaultdict(list)
        self._hears = Bell()
        self._refusing: set[int] = set()  # what the workers share does not say so yet
        self._passed_on = Bell()

    def is_about(self, engine_id: int) -> bool:
        """Whether something that was said of the engine is still to be passed on."""
        return engine_id in self._news

    def refuses(self, engine_id: int) -> bool:
        """Whether it said that it wants no more, and that is still to be passed on."""
        return engine_id in self._refusing

    async def passed_on(self, engine_id: int) -> None:
        """Returns once it is known to all how an engine stands that said it wants no more."""
        while engine_id in self._refusing:
            self._passed_on.clear()
            await self._passed_on.wait()

    def hear(self, engine_id: int, verdict: Verdict, outcome: Outcome) -> None:
        """Takes in what an outcome says of its engine."""
        if verdict.health in (Health.FATAL, Health.SLOW_DOWN):
            self._refusing.add(engine_id)
        self._news[engine_id].append(News(verdict.health, f"{outcome.code} {outcome.text}".strip(), verdict.pause))
        self._hears.set()

    async def pass_on_for_ever(self) -> None:
        """Writes the news, many in one go, and reads back what others made of it."""
        while True:
            await self._hears.wait()
            self._hears.clear()
            await self._look_again(await self.pass_on())
            self._refusing &= self._news.keys()
            self._passed_on.set()

    async def pass_on(self) -> list[int]:
        """Writes the news there is. Returns of which engines."""
        about = list(self._news)
        for engine_id in about:
            await self._database.ask(self._desk.record, engine_id, self._news.pop(engine_id))
        return about
