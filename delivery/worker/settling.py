"""From a verdict of the core to the row's next state: what a Settlement says, in each of the cases. Pure."""

from datetime import datetime

from delivery.addresses import identity
from delivery.core.dispatch import Verdict
from delivery.core.envelope import Kind, Outcome
from delivery.models import DeliveryState
from delivery.queue.leasing import Leased
from delivery.queue.outcomes import Failure, Settlement


def answered(
    leased: Leased, verdict: Verdict, outcome: Outcome, engine_id: int, seconds: float, now: datetime
) -> Settlement:
    """What follows from an engine's answer."""
    failed = outcome.kind is not Kind.ACCEPTED
    if verdict.end:
        state = DeliveryState(verdict.end)
    elif verdict.again_at and verdict.again_at > now:
        state = DeliveryState.WAITING
    else:
        state = DeliveryState.READY
    resent = outcome.kind is Kind.UNKNOWN and not verdict.end
    return Settlement(
        id=leased.id,
        batch=leased.batch,
        state=state,
        at=now,
        tries=leased.attempts + 1,
        attempts=verdict.attempts,
        resends=leased.resends + resent,
        not_before=verdict.again_at if state is DeliveryState.WAITING else None,
        pinned=verdict.pinned,
        code=outcome.code[:40],
        words=outcome.text,
        provider_id=outcome.provider_id[:255],
        failure=Failure(engine_id, outcome, seconds) if failed else None,
        suppress=(leased.address, identity(leased.address)) if verdict.suppress else None,
    )


def unanswered(
    leased: Leased,
    state: DeliveryState,
    now: datetime,
    *,
    marked: bool = False,
    not_before: datetime | None = None,
    words: str = "",
) -> Settlement:
    """What becomes of a delivery that no engine was asked about: it waits, goes back, or has an end without a try.
    `marked`: the intent was recorded; it is taken back."""
    return Settlement(
        id=leased.id,
        batch=leased.batch,
        state=state,
        at=now,
        tries=leased.attempts + marked,
        attempts=leased.attempts,
        resends=leased.resends,
        not_before=not_before,
        pinned=leased.pinned,
        words=words,
    )
