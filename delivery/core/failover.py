"""Which engine of a pool gets a delivery, or when it makes sense to ask again.

Decides by the pool's strategy and by what each engine is able to do now. Knows nothing of rates: a slow engine is still
able; how long it takes is the throttle's business.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from delivery.core.breaker import Breaker, State

# "Slow down" is no failure: a sticky pool waits so long for its engine before it moves to another one.
STICKY_PATIENCE = timedelta(minutes=1)


class Strategy(StrEnum):
    """How one of several able engines is chosen."""

    PRIORITY = "priority"  # always the first in the pool's order that is able
    STICKY = "sticky"  # the one that works, until it fails; then the first that is able
    WEIGHTED = "weighted"  # any that is able, by weight; weight 0 only when no other is


@dataclass(frozen=True, slots=True)
class EngineView:
    """What the policy may know of one engine at one instant. `domains`: the From domains it may send for; empty for
    any. `paused_until`: the provider asked to wait that long, or an operator holds it."""

    id: int
    breaker: Breaker
    enabled: bool = True
    domains: frozenset[str] = frozenset()
    paused_until: datetime | None = None
    weight: int = 1
    _suffixes: tuple[str, ...] = field(init=False, repr=False)
    _carefree: bool = field(init=False, repr=False)  # able at any time: asked for every mail, so it is known beforehand

    def __post_init__(self) -> None:
        carefree = self.enabled and self.paused_until is None and self.breaker.state is State.CLOSED
        object.__setattr__(self, "_carefree", carefree)
        object.__setattr__(self, "_suffixes", tuple("." + domain for domain in self.domains))

    def sends_for(self, domain: str) -> bool:
        """A domain stands for its subdomains too."""
        return not self.domains or domain in self.domains or domain.endswith(self._suffixes)

    def able_at(self, now: datetime) -> datetime | None:
        """`now` when it may be asked, a later instant, or None when only a person can change that."""
        if self._carefree:
            return now
        at = self.breaker.able_at(now) if self.enabled else None
        if at is None or self.paused_until is None:
            return at
        return max(at, self.paused_until)

    def works(self, now: datetime) -> bool:
        """Whether a sticky pool stays with it: it has not failed, and is not paused for long."""
        if not self.enabled or self.breaker.state is not State.CLOSED:
            return False
        return self.paused_until is None or self.paused_until - now <= STICKY_PATIENCE


@dataclass(frozen=True, slots=True)
class Roster:
    """The engines of a pool in order, and how one is chosen. `current` is the one a sticky pool is with."""

    engines: tuple[EngineView, ...]
    strategy: Strategy = Strategy.PRIORITY
    current: int | None = None

    def following(self, now: datetime) -> int | None:
        """The engine that a sticky pool is with from now on: the same while it works, else the first able one, if there
        is any."""
        if any(engine.id == self.current and engine.works(now) for engine in self.engines):
            return self.current
        return next((engine.id for engine in self.engines if engine.able_at(now) == now), self.current)


class Choice(NamedTuple):
    """Either an engine, or the instant at which to ask again (None: nobody knows). `fits`: whether any engine may send
    this at all."""

    engine: int | None = None
    at: datetime | None = None
    fits: bool = True


def choose(
    roster: Roster,
    domain: str,
    now: datetime,
    rng: random.Random,
    *,
    avoid: int | None = None,
    prefer: int | None = None,
    pinned: int | None = None,
) -> Choice:
    """The engine for a mail from `domain`.

    `avoid` is the engine that failed this delivery last: it is taken only when no other is able. `prefer` is taken when
    it is able. `pinned` is the only one that may be asked at all, because it may have the mail already.
    """
    able: list[EngineView] = []
    soonest: datetime | None = None
    fits = False
    by_priority = roster.strategy is Strategy.PRIORITY
    for engine in roster.engines:
        if (pinned is not None and engine.id != pinned) or not engine.sends_for(domain):
            continue
        fits = True
        at = engine.able_at(now)
        if at == now:
            if engine.id == prefer or (by_priority and engine.id != avoid and prefer is None):
                return Choice(engine.id)
            able.append(engine)
        elif at is not None:
            if roster.strategy is Strategy.STICKY and engine.id == roster.current != avoid and engine.works(now):
                return Choice(None, at)
            if soonest is None or at < soonest:
                soonest = at
    if not able:
        return Choice(None, soonest, fits)
    others = [engine for engine in able if engine.id != avoid] if avoid is not None else able
    return Choice(_preferred(others or able, roster, rng).id)


def _preferred(able: Sequence[EngineView], roster: Roster, rng: random.Random) -> EngineView:
    if len(able) == 1 or roster.strategy is Strategy.PRIORITY:  # by priority, only one that is to be avoided is left
        return able[0]
    if roster.strategy is Strategy.STICKY:
        return next((engine for engine in able if engine.id == roster.current), able[0])
    return _drawn(able, rng)


def _drawn(able: Sequence[EngineView], rng: random.Random) -> EngineView:
    """One of them by weight; the first when none has any."""
    point = rng.random() * sum(engine.weight for engine in able)
    for engine in able:
        point -= engine.weight
        if point < 0:
            return engine
    return able[0]
