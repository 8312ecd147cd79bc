"""How much one rendering may do, counted in steps and characters, never in seconds.

A limit by count falls at the same place in every thread and on every machine, which a timer does not. The unit is the
step: a turn of a loop, a call or a filter, plus what it touches (CHARACTERS_PER_STEP, ITEMS_PER_STEP). As every new
string and list is paid for, the steps bound the memory too. This module knows values; it knows no template.
"""

from collections.abc import Iterable
from dataclasses import dataclass

MAX_DEPTH = 50  # of lists in lists and of macros in macros; hash() of a deep tuple would overflow the C stack
MAX_ITEMS = 200_000  # in one list, those of its inner lists counted each time they occur
MAX_BITS = 10_000  # of a whole number; Python refuses to print one of more than 4,300 digits (14,000 bits) anyway
MAX_WIDTH = 10_000  # of a padded field, an indentation, a batch
CHARACTERS_PER_STEP = 32
ITEMS_PER_STEP = 8
ESCAPED = 5  # the characters that HTML escaping makes of one, at most (`&#34;`)

CONTAINERS = (list, tuple, dict, type({}.keys()), type({}.values()), type({}.items()))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one rendering of all parts may use: `steps` in total, `size` in characters for each string and each part."""

    steps: int = 200_000
    size: int = 2_000_000


class LimitReached(Exception):
    """The template was stopped. The message says why, as the end of a sentence: "it builds …"."""


class OutOfSteps(LimitReached):
    """All steps are used up. The message is "after … steps"."""


class Budget:
    """What is left of the limits in one rendering. Used by one thread."""

    __slots__ = ("depth", "limits", "steps")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.steps = limits.steps
        self.depth = 0

    def charge(self, steps: int) -> None:
        """Takes steps away; OutOfSteps when none are left."""
        self.steps -= steps
        if self.steps < 0:
            raise OutOfSteps(f"after {self.limits.steps:,} steps")

    def enter(self) -> None:
        """Goes one macro (or turn of a recursive loop) deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise LimitReached(f"macros or recursive loops call each other more than {MAX_DEPTH} deep")

    def leave(self) -> None:
        """Comes back from what was entered."""
        self.depth -= 1

    def fits(self, length: int) -> None:
        """Refuses a string before it is built, if it would be (or may become) longer than the size limit."""
        if length > self.limits.size:
            raise LimitReached(f"it builds a string of more than {self.limits.size:,} characters")

    def width(self, *numbers: object) -> None:
        """Refuses a width, an indentation or the like that only serves to fill memory."""
        for number in numbers:
            if isinstance(number, int) and abs(number) > MAX_WIDTH:
                raise LimitReached(f"it asks for a width of more than {MAX_WIDTH:,}")

    def bits(self, count: int) -> None:
        """Refuses a whole number of so many bits."""
        if count > MAX_BITS:
            raise LimitReached("it makes a whole number of more than 3,000 digits")

    def weigh(self, value: object) -> int:
        """About the length of `str(value)`; charges what it costs to walk, compare or hash it."""
        if isinstance(value, str):
            length = len(value)
            self.fits(length)
            self.charge(length // CHARACTERS_PER_STEP)
            return length
        if isinstance(value, CONTAINERS):
            return self._weigh_items(value)
        if isinstance(value, int):
            self.bits(value.bit_length())
            return 1 + value.bit_length() // 3
        if isinstance(value, range):
            self.charge(len(value) // ITEMS_PER_STEP)
        return 32

    def _weigh_items(self, value: Iterable[object]) -> int:
        """The sum over all inner lists, level by level: what occurs twice counts twice, as it would when printed."""
        length, items, depth, level = 0, 0, 0, [value]
        while level:
            depth += 1
            if depth > MAX_DEPTH:
                raise LimitReached(f"it nests lists more than {MAX_DEPTH} deep")
            inner: list[Iterable[object]] = []
            for container in level:
                items += len(container)  # type: ignore[arg-type]
                if items > MAX_ITEMS:
                    raise LimitReached(f"it builds a list of more than {MAX_ITEMS:,} items")
                self.charge(1 + len(container) // ITEMS_PER_STEP)  # type: ignore[arg-type]
                length += 2
                for item in container:
                    length += 2 + self._weigh_item(item, inner)
                if isinstance(container, dict):
                    for item in container.values():
                        length += 2 + self._weigh_item(item, inner)
                self.fits(length)
            level = inner
        self.charge(length // CHARACTERS_PER_STEP)
        return length

    @staticmethod
    def _weigh_item(item: object, inner: list[Iterable[object]]) -> int:
        if isinstance(item, str):
            return len(item)
        if isinstance(item, CONTAINERS):
            inner.append(item)
            return 0
        return 1 + item.bit_length() // 3 if isinstance(item, int) else 32

    def hold(self, value: object) -> object:
        """The value, after a look whether it is too large to keep."""
        if isinstance(value, (str, int, *CONTAINERS)):
            self.weigh(value)
        return value

    def count(self, items: object) -> int:
        """How many items a filter or a loop will visit, charged one step each; 0 for what cannot be counted."""
        try:
            number = len(items)  # type: ignore[arg-type]
        except TypeError:
            return 0
        self.charge(number)
        return number

    def collect(self, items: Iterable[object]) -> list[object]:
        """A list of what a lazy filter yields. Templates get no generators: those would work after the bill is paid."""
        collected = []
        for item in items:
            self.charge(1)
            collected.append(item)
        self.weigh(collected)
        return collected
