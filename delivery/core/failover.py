"""Which engine of a pool gets a delivery, or when it makes sense to ask again.

Decides by the order of the pool and by what each engine is able to do now. Knows nothing of rates: a slow engine is
still able; how long it takes is the throttle's business.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from delivery.core.breaker import Breaker


@dataclass(frozen=True, slots=True)
class EngineView:
    """What the policy may know of one engine at one instant. `domains`: the From domains it may send for; empty for
    any. `paused_until`: the provider asked to wait that long, or an operator holds it."""

    id: int
    breaker: Breaker
    enabled: bool = True
    domains: frozenset[str] = frozenset()
    paused_until: datetime | None = None

    def sends_for(self, domain: str) -> bool:
        """A domain stands for its subdomains too."""
        if not self.domains or domain in self.domains:
            return True
        return any(domain.endswith("." + allowed) for allowed in self.domains)

    def able_at(self, now: datetime) -> datetime | None:
        """`now` when it may be asked, a later instant, or None when only a person can change that."""
        at = self.breaker.able_at(now) if self.enabled else None
        if at is None or self.paused_until is None:
            return at
        return max(at, self.paused_until)


@dataclass(frozen=True, slots=True)
class Choice:
    """Either an engine, or the instant at which to ask again (None: nobody knows)."""

    engine: int | None = None
    at: datetime | None = None


def choose(
    engines: Iterable[EngineView], domain: str, now: datetime, *, avoid: int | None = None, pinned: int | None = None
) -> Choice:
    """The first able engine in the pool's order that may send for `domain`.

    `avoid` is the engine that failed this delivery last: it is taken only when no other is able. `pinned` is the only
    one that may be asked at all, because it may have the mail already.
    """
    fitting = [e for e in engines if e.sends_for(domain) and (pinned is None or e.id == pinned)]
    soonest: datetime | None = None
    fallback: int | None = None
    for engine in fitting:
        at = engine.able_at(now)
        if at == now:
            if engine.id != avoid:
                return Choice(engine.id)
            fallback = engine.id
        elif at is not None and (soonest is None or at < soonest):
            soonest = at
    if fallback is not None:
        return Choice(fallback)
    return Choice(None, soonest)
