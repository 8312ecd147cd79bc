"""The states of a run, and the only code that writes them.

queued → initializing → sending → completed; failed and cancelled from any state before; sending ⇄ paused. Each move is
one conditional UPDATE: of two processes that want the same move, one gets it.
"""

from datetime import datetime

from django.db import transaction
from django.db.models import Q

from campaigns.exceptions import IllegalMove
from campaigns.models import Run, RunEvent, RunState

SOURCES: dict[RunState, tuple[RunState, ...]] = {
    RunState.INITIALIZING: (RunState.QUEUED,),
    RunState.SENDING: (RunState.INITIALIZING, RunState.PAUSED),
    RunState.PAUSED: (RunState.SENDING,),
    RunState.COMPLETED: (RunState.SENDING,),
    RunState.FAILED: (RunState.QUEUED, RunState.INITIALIZING, RunState.SENDING),
    RunState.CANCELLED: (RunState.QUEUED, RunState.INITIALIZING, RunState.SENDING, RunState.PAUSED),
}


def legal_moves(state: str) -> set[RunState]:
    """Where a run in `state` may go."""
    return {target for target, sources in SOURCES.items() if state in sources}


def try_move(
    run_id: int,
    target: RunState,
    *,
    by: str = "",
    why: str = "",
    sources: tuple[RunState, ...] | None = None,
    only: Q | None = None,
    **fields: object,
) -> bool:
    """Moves a run to `target`, from `sources` (every legal one by default), if `only` holds; writes `fields` with it
    and records the event. False when the run is elsewhere by now."""
    allowed = sources or SOURCES[target]
    with transaction.atomic():
        rows = Run.objects.filter(only or Q(), pk=run_id, state__in=allowed)
        if not rows.update(state=target, **fields):
            return False
        RunEvent.objects.create(run_id=run_id, state=target, by=by[:150], why=why[:500])
    return True


def move(run_id: int, target: RunState, **kwargs: object) -> None:
    """As `try_move`. Raises IllegalMove, saying why."""
    if not try_move(run_id, target, **kwargs):
        state = Run.objects.values_list("state", flat=True).get(pk=run_id)
        sources = " or ".join(s.value for s in SOURCES[target])
        raise IllegalMove(f"Run {run_id} is {state}: only a run that is {sources} can become {target.value}.")


def claim_initializing(run_id: int, owner: str, until: datetime, now: datetime, *, gone: str = "") -> bool:
    """Takes the sole right to initialise a run: a queued one, or one whose initialiser has been silent for too long or
    is `gone` (its name)."""
    if try_move(
        run_id, RunState.INITIALIZING, initializer=owner, initializer_until=until, initializing_at=now, error=""
    ):
        return True
    silent = Q(initializer_until__lt=now)
    if gone:
        silent |= Q(initializer=gone)
    return try_move(
        run_id,
        RunState.INITIALIZING,
        why="taken over from a process that ended",
        sources=(RunState.INITIALIZING,),
        only=silent,
        initializer=owner,
        initializer_until=until,
    )


def still_initializing(run_id: int, owner: str, until: datetime, **fields: object) -> bool:
    """Renews the right to initialise; False when it is lost or the run was cancelled."""
    mine = Run.objects.filter(pk=run_id, state=RunState.INITIALIZING, initializer=owner)
    return bool(mine.update(initializer_until=until, **fields))
