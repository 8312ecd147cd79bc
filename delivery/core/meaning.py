"""What a refusal, or an acceptance, can mean: the right-hand side of every classification table.

A Meaning is the part of an Outcome that a row of a table decides; code, words and ids come from the reply itself.
"""

from dataclasses import dataclass
from datetime import timedelta

from delivery.core.envelope import Kind


@dataclass(frozen=True, slots=True)
class Meaning:
    """See Outcome for `kind`, `hard` and `faults_engine`. `wait` stands in when the reply names no time."""

    kind: Kind
    hard: bool = False
    faults_engine: bool = True
    wait: timedelta | None = None


TAKEN = Meaning(Kind.ACCEPTED)
DEAD = Meaning(Kind.RECIPIENT, hard=True)
UNWILLING = Meaning(Kind.RECIPIENT)
MESSAGE = Meaning(Kind.MESSAGE)
ENGINE = Meaning(Kind.ENGINE)
SLOWER = Meaning(Kind.THROTTLED)
UNUSUAL_RATE = Meaning(Kind.THROTTLED, wait=timedelta(minutes=10))  # Gmail asks for that much after 4.7.28
QUOTA_USED = Meaning(Kind.THROTTLED, wait=timedelta(hours=4))  # daily quotas roll: some is free again after hours
TROUBLE = Meaning(Kind.TRANSIENT)
THIS_MAILBOX = Meaning(Kind.TRANSIENT, faults_engine=False)
UNKNOWN = Meaning(Kind.UNKNOWN)

LONGEST_WAIT = timedelta(days=1)  # more than that is not believed, whoever says it
