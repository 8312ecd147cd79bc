"""The two questions of every attempt, composed of the other modules of the core.

`decide`: may this delivery go now, and through which engine? `conclude`: what follows from what the engine said? The
worker and the simulator ask exactly these two; neither adds a rule of its own.
"""

import random
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from delivery.core.condition import Health
from delivery.core.envelope import Kind, Outcome
from delivery.core.failover import Roster, choose
from delivery.core.retry import RetryPolicy, Trouble
from delivery.core.window import Opening

# How long a delivery waits when nothing says when an engine will be able again: a person has to act.
NOBODY_ABLE = timedelta(minutes=5)
NONE_ABLE = "no engine of the pool is able now"
OUTSIDE = "outside its sending window"
# Without a Retry-After, how long an engine that said "slow down" is left alone.
SLOW_DOWN = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(hours=24)  # a Retry-After beyond this is not believed


class UncertainPolicy(StrEnum):
    """What becomes of a delivery that was handed over and of which no answer is known."""

    HOLD = "hold"  # kept for a person or a provider's event
    RESEND = "resend"  # tried again: at the price that somebody may get the mail twice


class End(StrEnum):
    """The end states of a delivery that an attempt can lead to."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"
    DEAD = "dead"
    UNCERTAIN = "uncertain"


class Candidate(NamedTuple):
    """What the policy may know of one delivery. `attempts`: those that counted. `since`: when it was first tried; its
    age counts from there, because waiting for its turn in a long queue is no failure. `opening`: the present or the
    next one of its sending window, if it has one. `preferred`: the engine of the mail that it answers."""

    sender_domain: str
    attempts: int = 0
    since: datetime | None = None
    deadline: datetime | None = None
    last_engine: int | None = None
    pinned: bool = False  # only `last_engine` may be asked, because it may have the mail already
    opening: Opening | None = None
    preferred: int | None = None

    def in_time(self, now: datetime) -> bool:
        """Whether neither its deadline nor its sending window is against handing it over at `now`."""
        if self.deadline is not None and now > self.deadline:
            return False
        return self.opening is None or self.opening.admits(now)

    def given_up(self, end: End) -> End:
        """`end`, unless an engine may have the mail already: that is not known, and never guessed."""
        return End.UNCERTAIN if self.pinned else end


class Send(NamedTuple):
    engine: int


class Wait(NamedTuple):
    until: datetime
    reason: str


class GiveUp(NamedTuple):
    end: End
    reason: str


def decide(
    candidate: Candidate, roster: Roster, retry: RetryPolicy, now: datetime, rng: random.Random
) -> Send | Wait | GiveUp:
    """Send by which engine, wait until when, or give up. A delivery waits while no engine is able or may send for its
    domain, and is given up for that only when it was tried before and the policy's time is used up: a person can still
    mend an engine, nobody calls a dead letter back by himself."""
    if candidate.deadline is not None and now > candidate.deadline:
        return GiveUp(candidate.given_up(End.EXPIRED), "its deadline has passed")
    if candidate.opening is not None and not candidate.opening.admits(now):
        return _outside(candidate, candidate.opening.at, now)
    choice = choose(
        roster,
        candidate.sender_domain,
        now,
        rng,
        avoid=candidate.last_engine if candidate.attempts else None,
        prefer=candidate.preferred,
        pinned=candidate.last_engine if candidate.pinned else None,
    )
    if choice.engine is not None:
        return Send(choice.engine)
    if candidate.since is not None and now - candidate.since > retry.max_age:
        return GiveUp(candidate.given_up(End.DEAD), f"no engine was able for {retry.max_age}")
    if not choice.fits:
        return Wait(now + NOBODY_ABLE, f"no engine of the pool may send for {candidate.sender_domain}")
    return Wait(choice.at or now + NOBODY_ABLE, NONE_ABLE)


def _outside(candidate: Candidate, opens_at: datetime | None, now: datetime) -> Wait | GiveUp:
    """It waits for its window to open; what cannot make its deadline then is given up now, while somebody may still do
    something about it."""
    if opens_at is None:
        return GiveUp(candidate.given_up(End.EXPIRED), "its sending window never opens again")
    if candidate.deadline is not None and opens_at > candidate.deadline:
        return GiveUp(candidate.given_up(End.EXPIRED), "its deadline passes before its sending window opens")
    return Wait(max(opens_at, now), OUTSIDE)


class Verdict(NamedTuple):
    """What follows from one outcome.

    Either `end` is set, or the delivery is to be tried again at `again_at`. `attempts` is the count from now on.
    `suppress`: the address is dead. `pause`: how long the engine is to be left alone.
    """

    attempts: int
    end: End | None = None
    again_at: datetime | None = None
    pinned: bool = False
    suppress: bool = False
    health: Health = Health.GOOD
    pause: timedelta | None = None


def conclude(
    candidate: Candidate,
    outcome: Outcome,
    retry: RetryPolicy,
    uncertain: UncertainPolicy,
    now: datetime,
    rng: random.Random,
    *,
    alternatives: bool = False,
    honours_keys: bool = False,
) -> Verdict:
    """What follows from `outcome`. `alternatives`: another engine of the pool may send this too. `honours_keys`: the
    engine refuses to take the same idempotency key twice."""
    tried = candidate.attempts + 1
    since = candidate.since or now
    match outcome.kind:
        case Kind.ACCEPTED:
            return Verdict(tried, End.ACCEPTED)
        case Kind.TRANSIENT:
            health = Health.FAULT if outcome.faults_engine else Health.GOOD
            trouble = Trouble.ENGINE if outcome.faults_engine else Trouble.MAILBOX
            at = retry.next_at(trouble, tried, since, now, rng)
            if at and outcome.faults_engine and alternatives and not candidate.pinned:
                at = now
            return Verdict(
                tried, None if at else candidate.given_up(End.DEAD), at, pinned=candidate.pinned, health=health
            )
        case Kind.RECIPIENT:
            return Verdict(tried, End.REJECTED, suppress=outcome.hard)
        case Kind.MESSAGE:
            return Verdict(tried, End.REJECTED)
        case Kind.THROTTLED:
            pause = min(outcome.retry_after or SLOW_DOWN, LONGEST_PAUSE)
            return _again_uncounted(candidate, retry, now, Health.SLOW_DOWN, pause)
        case Kind.ENGINE:
            return _again_uncounted(candidate, retry, now, Health.FATAL, None)
        case Kind.UNKNOWN:
            if not honours_keys and uncertain is UncertainPolicy.HOLD:
                return Verdict(tried, End.UNCERTAIN, health=Health.FAULT)
            at = retry.next_at(Trouble.UNKNOWN, tried, since, now, rng)
            end = None if at else End.UNCERTAIN
            return Verdict(tried, end, at, pinned=True, health=Health.FAULT)


def _again_uncounted(
    candidate: Candidate, retry: RetryPolicy, now: datetime, health: Health, pause: timedelta | None
) -> Verdict:
    """Neither an attempt nor the recipient's fault: back to the queue, limited in time alone."""
    too_old = candidate.since is not None and now - candidate.since > retry.max_age
    end = candidate.given_up(End.DEAD) if too_old else None
    again_at = None if end else now
    return Verdict(candidate.attempts, end, again_at, pinned=candidate.pinned, health=health, pause=pause)
