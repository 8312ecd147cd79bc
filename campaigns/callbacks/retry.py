"""What an answer to a callback means, and when it is tried again. Pure.

Trouble that passes (no connection, no answer, 5xx, 408, 425, 429) is waited for from 5 seconds on, any other refusal
from 5 minutes on: somebody has to mend that. Both waits double up to two hours, half of each drawn by chance, and a
`Retry-After` makes them longer. What no try can mend is dead at once: 410, and addresses that may not be reached.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from campaigns.models import CallbackState
from delivery.core.retry import Backoff, Jitter

_JITTER = Jitter(0.5, 1.0)
_LONGEST = timedelta(hours=2)
PASSING = Backoff(base=timedelta(seconds=5), factor=2, longest=_LONGEST, jitter=_JITTER)
STANDING = Backoff(base=timedelta(minutes=5), factor=2, longest=_LONGEST, jitter=_JITTER)
GONE = 410
_PASSES = frozenset({408, 425, 429})
_LAST_TRY = timedelta(seconds=1)  # before the end: what would come later than the end comes at the end


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one try. `status`: None when there was no answer. `wait`: how long it asked to be left alone.
    `hopeless`: only a person can change that."""

    status: int | None
    words: str = ""
    seconds: float = 0.0
    wait: timedelta | None = None
    hopeless: bool = False

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status <= 299


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a callback. `next_at`: when it is tried again, while it waits."""

    state: CallbackState
    next_at: datetime | None = None


def judge(reply: Reply, attempts: int, gives_up_at: datetime, now: datetime, rng: random.Random) -> Verdict:
    """What follows from the reply to the attempt of this number, the first one being 1."""
    if reply.is_success:
        return Verdict(CallbackState.DELIVERED)
    if reply.hopeless or reply.status == GONE or now >= gives_up_at - _LAST_TRY:
        return Verdict(CallbackState.DEAD)
    passes = reply.status is None or reply.status >= 500 or reply.status in _PASSES
    wait = (PASSING if passes else STANDING).wait(attempts, rng)
    return Verdict(CallbackState.WAITING, min(now + max(wait, reply.wait or wait), gives_up_at))
