"""From a verdict of the core to the row's next state: what a Settlement says, in each of the cases. Pure."""

from datetime import datetime

from delivery.addresses import identity
from delivery.core.dispatch import End, Verdict
from delivery.core.envelope import Kind, Outcome
from delivery.models import DeliveryState
from delivery.queue.leasing import Leased
from delivery.queue.outcomes import Failure, Settlement

_WAITING, _READY = DeliveryState.WAITING.value, DeliveryState.READY.value
_STATE = {end: DeliveryState(end).value for end in End}


def answered(
    leased: Leased, verdict: Verdict, outcome: Outcome, engine_id: int, seconds: float, now: datetime, linked: bool
) -> Settlement:
    """What follows from an engine's answer. `linked`: something may follow for other deliveries."""
    end, again_at = verdict.end, verdict.again_at
    waits = end is None and again_at is not None and again_at > now
    resent = outcome.kind is Kind.UNKNOWN and end is None
    # By position: one is made for each mail.
    return Settlement(
        leased.id,
        leased.batch,
        _STATE[end] if end is not None else (_WAITING if waits else _READY),
        now,
        leased.turn,
        verdict.attempts,
        leased.resends + resent,
        again_at if waits else None,
        verdict.pinned,
        outcome.code[:40],
        outcome.text,
        outcome.provider_id[:255],
        None if outcome.kind is Kind.ACCEPTED else Failure(engine_id, outcome, seconds),
        (leased.address, identity(leased.address)) if verdict.suppress else None,
        end is End.ACCEPTED and now > leased.deadline,
        leased.message,
        linked,
    )


def unanswered(
    leased: Leased,
    state: DeliveryState,
    now: datetime,
    *,
    not_before: datetime | None = None,
    words: str = "",
    linked: bool = True,
) -> Settlement:
    """What becomes of a delivery that no engine was asked about: it waits, goes back, or has an end without a try.
    An intent that was recorded is taken back."""
    return Settlement(
        id=leased.id,
        batch=leased.batch,
        state=state,
        at=now,
        turn=leased.turn,
        attempts=leased.attempts,
        resends=leased.resends,
        not_before=not_before,
        pinned=leased.pinned,
        words=words,
        message=leased.message,
        linked=linked,
    )
