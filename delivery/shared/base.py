"""The interface of what all workers share about engines. Calls block: a worker makes them in a thread of its own."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from delivery.core.condition import Condition
from delivery.core.throttle import Rate

# The next condition of an engine, from its present one and the store's time; None: leave it as it is.
Change = Callable[[Condition, datetime], Condition | None]


class SharedAway(Exception):
    """The store cannot be asked now; asking again later makes sense."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """`tokens` messages may go; when there are none, ask again after `wait` nanoseconds. `left` is the state in which
    each bucket was left: by it tokens are given back. `more` is how many could have been drawn beside them."""

    tokens: int
    wait: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    more: int = field(default=0, compare=False)


class Shared(Protocol):
    """Every method is atomic over all processes, by the store's own clock, and raises SharedAway.

    A bucket is named by a key; one that nobody drew from is full. `current` is the engine that a sticky pool is with.
    """

    def draw(self, rates: Mapping[str, Rate], wanted: int) -> Drawn:
        """As many of `wanted` tokens as every one of these buckets can give now; of none is anything taken that
        another refuses."""
        ...

    def levels(self, rates: Mapping[str, Rate]) -> dict[str, int]:
        """How many tokens each of these buckets could give now. Nothing is taken."""
        ...

    def give_back(self, rates: Mapping[str, Rate], left: Mapping[str, int], tokens: int) -> None:
        """Tokens of a grant at these rates, certainly not used. A bucket that somebody has drawn from since keeps them:
        they lapse. So asking twice is harmless."""
        ...

    def conditions(self, engine_ids: Iterable[int]) -> dict[int, Condition]:
        """How these engines are; one of which nothing is known is as new."""
        ...

    def change(self, engine_id: int, change: Change) -> bool:
        """Applies `change` to an engine's condition, anew if somebody else was faster. Whether it changed anything."""
        ...

    def current(self, pool_id: int) -> int | None:
        """The engine that a sticky pool is with; None before it was with any."""
        ...

    def move(self, pool_id: int, before: int | None, after: int | None) -> bool:
        """Moves a sticky pool from one engine to another. False when it was not with `before` any more."""
        ...
