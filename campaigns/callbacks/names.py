"""What may be told, by name, and which names a webhook asks for: `run.completed`, `delivery.*`, `*`. Pure."""

from collections.abc import Iterable

from delivery.models import OPEN_STATES, DeliveryState, EventKind

RUN = tuple(f"run.{state}" for state in ("sending", "paused", "completed", "failed", "cancelled"))
ENDS = tuple(f"delivery.{state.value}" for state in DeliveryState if state not in OPEN_STATES)
HEARD = tuple(f"delivery.{kind.value}" for kind in EventKind)
ENGINE = tuple(
    f"engine.{what}" for what in ("circuit_opened", "circuit_closed", "held", "released", "switched_off", "switched_on")
)
ALL = (*RUN, *ENDS, *HEARD, *ENGINE)
# What a run's own callback_url is told.
OF_A_RUN = frozenset({"run.paused", "run.completed", "run.failed", "run.cancelled"})

# What callbacks are called. A name of a run or an engine is a type by itself; deliveries come many at once.
ENDED, LISTENED, PING = "deliveries.ended", "deliveries.heard", "ping"
TYPES = (*RUN, ENDED, LISTENED, *ENGINE, PING)
MOST = 50


def meant(patterns: Iterable[str]) -> frozenset[str]:
    """The names that these patterns stand for."""
    return frozenset(name for pattern in patterns for name in ALL if _fits(pattern, name))


def _fits(pattern: str, name: str) -> bool:
    return pattern in ("*", name) or (pattern.endswith(".*") and name.startswith(pattern[:-1]))


def refuse_bad_patterns(patterns: object) -> None:
    """Raises ValueError, with a sentence, unless each of them stands for something."""
    if not isinstance(patterns, list) or not patterns:
        raise ValueError('Say of what it is to be told: a list such as ["run.*", "delivery.rejected"].')
    if len(patterns) > MOST:
        raise ValueError(f"{len(patterns)} are too many: at most {MOST}. run.* stands for all of a kind.")
    for pattern in patterns:
        if not isinstance(pattern, str) or not meant([pattern]):
            raise ValueError(f"There is no event {str(pattern)[:60]!r}. There is: {', '.join(ALL)}; run.* for all.")
