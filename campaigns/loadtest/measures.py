"""What samples come to: percentiles that are samples themselves, and slices of time. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: its number, when it began (seconds after the storm did), how long it took, and what was said: an
    HTTP status, or in a word why there was no answer. `good` is what was hoped for."""

    number: int
    began: float
    seconds: float
    said: int | str
    good: bool

    @property
    def ended(self) -> float:
        return self.began + self.seconds


@dataclass(frozen=True, slots=True)
class Spread:
    """How long so many took, in seconds."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    longest: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of these, in order, that so large a share of all does not exceed (nearest rank)."""
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def spread(seconds: Iterable[float]) -> Spread | None:
    """None of nothing."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return Spread(
        count=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        p50=percentile(ordered, 0.5),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
        longest=ordered[-1],
    )


def per_second(count: int, seconds: float) -> float:
    """A rate; of no time at all, none."""
    return count / seconds if seconds > 0 else 0.0


def length_of_slice(seconds: float, slices: int, least: float = 0.25) -> float:
    """So long that these seconds are at most so many slices, and a round number: 0.25 s, 0.5 s, or whole seconds."""
    needed = max(seconds / slices, least)
    return next((length for length in (0.25, 0.5) if length >= needed), math.ceil(needed))


def in_slices(instants: Iterable[float], length: float, count: int) -> tuple[float, ...]:
    """How many a second there were in each of so many slices. What comes after them is left out."""
    found = [0] * count
    for at in instants:
        if 0 <= (number := int(at // length)) < count:
            found[number] += 1
    return tuple(n / length for n in found)


def percentiles_in_slices(
    timed: Iterable[tuple[float, float]], length: float, count: int, share: float
) -> tuple[float, ...]:
    """Of (instant, seconds): the percentile of what ended in each slice; 0 of a slice in which nothing did."""
    found: dict[int, list[float]] = defaultdict(list)
    for at, seconds in timed:
        found[int(at // length)].append(seconds)
    return tuple(percentile(sorted(found[n]), share) if n in found else 0.0 for n in range(count))
