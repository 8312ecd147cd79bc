"""The states of a run, and the only code that writes them.

queued → initializing → sending → completed; failed and cancelled from any state before; sending ⇄ paused. Only a replay
leads back, from completed and failed to sending. Each move is one conditional UPDATE: of two processes that want the
same move, one gets it.
"""

import logging
from datetime import datetime

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Coalesce

from campaigns.callbacks import news
from campaigns.exceptions import IllegalMove
from campaigns.models import Run, RunEvent, RunState
from delivery.logs import bound
from delivery.redaction import without_addresses

logger = logging.getLogger(__name__)

SOURCES: dict[RunState, tuple[RunState, ...]] = {
    RunState.INITIALIZING: (RunState.QUEUED,),
    RunState.SENDING: (RunState.INITIALIZING, RunState.PAUSED),
    RunState.PAUSED: (RunState.SENDING,),
    RunState.COMPLETED: (RunState.SENDING,),
    RunState.FAILED: (RunState.QUEUED, RunState.INITIALIZING, RunState.SENDING, RunState.PAUSED),
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
        correlation_id, callback_url = Run.objects.values_list("correlation_id", "callback_url").get(pk=run_id)
        tell(run_id, target, by, why, correlation_id)
        if allowed != (target,):  # else only another process goes on with it
            news.run_moved(run_id, target.value, callback_url)
    return True


def tell(run_id: int, state: RunState, by: str, why: str, correlation_id: str = "") -> None:
    """Writes the log line of a move, once it is committed: a line about what was rolled back would be a lie. Part of
    the transaction that moves the run."""
    correlation_id = correlation_id or Run.objects.values_list("correlation_id", flat=True).get(pk=run_id)

    def write() -> None:
        with bound(run=run_id, correlation_id=correlation_id):
            logger.info("run is %s", state.value, extra={"state": state.value, "by": by, "why": without_addresses(why)})

    transaction.on_commit(write)


def move(run_id: int, target: RunState, **kwargs: object) -> None:
    """As `try_move`. Raises IllegalMove, saying why."""
    if not try_move(run_id, target, **kwargs):
        state = Run.objects.values_list("state", flat=True).get(pk=run_id)
        sources = " or ".join(s.value for s in SOURCES[target])
        raise IllegalMove(f"Run {run_id} is {state}: only a run that is {sources} can become {target.value}.")


def reopen(run_id: int, *, by: str, why: str) -> bool:
    """Brings a run that has completed or failed back to sending, because some of its deliveries go out again: what was
    written at its end will be written anew. Not among `legal_moves`: alone it would be a run that nothing is left of.
    False when the run has not ended so."""
    return try_move(
        run_id,
        RunState.SENDING,
        by=by,
        why=why,
        sources=(RunState.COMPLETED, RunState.FAILED),
        error="",
        # A run that is sending and not filled would have its audience read once more.
        filled_at=Coalesce("filled_at", "ended_at"),
        ended_at=None,
        times_out_at=None,
        counts={},
        log_path="",
    )


def claim_initializing(run_id: int, owner: str, until: datetime, now: datetime, *, gone: str = "") -> bool:
    """Takes the sole right to initialise a run: a queued one, or one whose initialiser has been silent for too long or
    is `gone` (its name). Also to go on filling one that is sending already."""
    right = {"initializer": owner, "initializer_until": until}
    if try_move(run_id, RunState.INITIALIZING, initializing_at=now, error="", **right):
        return True
    free = free_to_initialize(now)
    if gone:
        free |= Q(initializer=gone)
    for state, only in ((RunState.INITIALIZING, free), (RunState.SENDING, free & Q(filled_at=None))):
        why = "taken over from a process that ended"
        if try_move(run_id, state, why=why, sources=(state,), only=only, error="", **right):
            return True
    return False


def free_to_initialize(now: datetime) -> Q:
    """That nobody initialises a run, or somebody who has been silent for too long."""
    return Q(initializer_until__lte=now) | Q(initializer_until=None)


def still_initializing(run_id: int, owner: str, until: datetime, **fields: object) -> bool:
    """Renews the right to initialise; False when it is lost or the run was cancelled."""
    under_way = (RunState.INITIALIZING, RunState.SENDING, RunState.PAUSED)
    mine = Run.objects.filter(pk=run_id, state__in=under_way, filled_at=None, initializer=owner)
    return bool(mine.update(initializer_until=until, **fields))
