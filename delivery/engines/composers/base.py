"""The one interface between the worker and everything that composes.

A composer knows how to ask for words and how to read the answer. It knows no delivery, no deadline, no throttle, no
breaker and no retry policy: as an engine that sends, it reports an Outcome.
"""

from dataclasses import dataclass
from typing import Protocol

from delivery.core.envelope import Outcome
from delivery.engines.base import Finding


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked for, rendered for one recipient. `system` is said before it, where there is anything; `key` names
    this one try, so that a service that honours such keys does not compose the same twice."""

    user: str
    system: str = ""
    key: str = ""

    def __repr__(self) -> str:
        """What a log may say of it: nothing about its recipient."""
        return f"Prompt({self.key!r})"


@dataclass(frozen=True, slots=True)
class Composed:
    """What came of one try. `text` is there when the outcome is ACCEPTED, and only then."""

    outcome: Outcome
    text: str = ""

    def __repr__(self) -> str:
        return f"Composed({self.outcome!r}, {len(self.text)} characters)"


class Composer(Protocol):
    """One way to words, living in one event loop. `concurrency`: how many `compose` calls may be under way at once."""

    concurrency: int

    async def compose(self, prompt: Prompt) -> Composed:
        """The words for a prompt. Raises nothing but `asyncio.CancelledError`: every fault is an Outcome. None of them
        is UNKNOWN, for nothing happened to anybody: what may have been composed is composed again."""
        ...

    async def check(self, domains: frozenset[str]) -> list[Finding]:
        """What is wrong with the settings, found without composing anything; [] when all is well. (The From domains
        are nothing to a composer: all engines are asked alike.)"""
        ...

    async def close(self) -> None:
        """Ends the connections in order. Called once, with no `compose` under way."""
        ...
