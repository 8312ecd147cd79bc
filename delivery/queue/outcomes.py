"""Intent before the hand-over, outcome after it, both for many deliveries in one statement.

`mark` is also the last gate: it refuses what is suppressed, held, cancelled, or no longer this worker's, in the very
statement that allows the rest.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

from django.db import connection

from delivery.core.envelope import Outcome
from delivery.models import Attempt, Batch, Delivery, DeliveryState, Suppression, SuppressionReason
from delivery.models.batch import LATE, BatchState
from delivery.queue import links
from delivery.queue.dialect import ids, instant, is_postgres, table, values
from delivery.queue.ends import Ended

ENDED = frozenset(DeliveryState) - {
    DeliveryState.WAITING,
    DeliveryState.READY,
    DeliveryState.LEASED,
    DeliveryState.SENDING,
}


class Mark(NamedTuple):
    """The intent to hand a delivery to an engine. `attempts` counts this try."""

    id: int
    engine: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A try that did not succeed, for the record."""

    engine: int
    outcome: Outcome
    seconds: float


class Settlement(NamedTuple):
    """What became of a delivery that this worker holds.

    `state` is an end state, READY (again, now) or WAITING (again, at `not_before`). `late`: it was accepted after its
    deadline. `turn` is that of its lease: it
    tells this try from others, when the lease was lost meanwhile, or when this very worker has leased the delivery anew
    before it heard that its settlement was written. `attempts` is the count from now on.
    """

    id: int
    batch: int
    state: str
    at: datetime
    turn: int
    attempts: int
    resends: int = 0
    not_before: datetime | None = None
    pinned: bool = False
    code: str = ""
    words: str = ""
    provider_id: str = ""
    failure: Failure | None = None
    suppress: tuple[str, str] | None = None  # (address, identity): a dead address
    late: bool = False
    message: int = 0
    linked: bool = True  # whether anything may follow from its end


# The updated table goes by its own name: SQLite knows no alias of it in RETURNING.
D = table(Delivery)


def _opaque(condition: str) -> str:
    """A condition that says nothing to the query planners, so that rows are looked up by the keys that were handed in.

    Planners believe that hardly any row is leased, and that to find those first is clever: PostgreSQL then reads the
    whole table and SQLite the whole list of values once for each leased row, a thousand times slower.
    """
    return f"CASE WHEN {condition} THEN true ELSE false END"


MINE = f"{D}.lease_id = %s AND {D}.state IN ('leased', 'sending')"
THIS_TURN = f"{D}.turn = v.turn"

MARK_COLUMNS = {"id": int, "engine": int, "attempts": int}  # the fields of Mark, in order


def mark(lease_id: int, marks: Sequence[Mark], now: datetime) -> set[int]:
    """Records the intent. Returns the ids that may be handed over; for the others `refused` says what becomes of them.

    Asking twice is harmless: a mark that this lease made already is made again.
    """
    if not marks:
        return set()
    source, parameters = values("v", MARK_COLUMNS, marks)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {D} SET state = 'sending', engine_id = v.engine, attempts = v.attempts, "
            f"tried_at = COALESCE({D}.tried_at, %s) "
            f"FROM {source}, {table(Batch)} AS b "
            f"WHERE {D}.id = v.id AND {_opaque(MINE)} "
            f"AND b.id = {D}.batch_id AND b.state = '{BatchState.OPEN.value}' "
            f"AND NOT EXISTS (SELECT 1 FROM {table(Suppression)} AS s "
            f"WHERE s.identity = {D}.identity AND s.scope IN ('', b.scope, b.reference)) RETURNING {D}.id",
            [instant(now), *parameters, lease_id],
        )
        return {i for (i,) in cursor.fetchall()}


def refused(lease_id: int, refused_ids: Sequence[int]) -> list[tuple[int, str, str]]:
    """Why marks were refused: (id, state to settle in, reason) for each delivery that is still this worker's. One that
    an engine may have taken on an earlier try is uncertain, whatever became of it since."""
    condition, parameters = ids("d.id", refused_ids)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT d.id, d.pinned, b.state, b.left_as, b.hold_reason, "
            f"(SELECT MIN(s.reason) FROM {table(Suppression)} AS s "
            "WHERE s.identity = d.identity AND s.scope IN ('', b.scope, b.reference)) "
            f"FROM {table(Delivery)} AS d JOIN {table(Batch)} AS b ON b.id = d.batch_id "
            f"WHERE {condition} AND d.lease_id = %s",
            [*parameters, lease_id],
        )
        rows = cursor.fetchall()
    verdicts = []
    for delivery_id, pinned, batch_state, left_as, words, reason in rows:
        if batch_state == BatchState.CANCELLED:
            state = DeliveryState(left_as)
        elif reason:
            state, words = DeliveryState.SUPPRESSED, f"suppressed: {SuppressionReason(reason).label}"
        else:
            state, words = DeliveryState.READY, ""
        if pinned and state is not DeliveryState.READY:
            state, words = DeliveryState.UNCERTAIN, f"{words}; an engine may have taken it before"
        verdicts.append((delivery_id, state.value, words))
    return verdicts


SETTLE_COLUMNS = {
    "id": int,
    "state": str,
    "attempts": int,
    "resends": int,
    "turn": int,
    "not_before": datetime,
    "pinned": bool,
    "code": str,
    "words": str,
    "provider_id": str,
    "settled_at": datetime,
}
plain = attrgetter(*tuple(SETTLE_COLUMNS)[:-1])  # what a settlement says in so many words


# What may still be sent needs a batch that somebody works on.
TAKES = (
    "(v.state NOT IN ('ready', 'waiting') OR EXISTS "
    f"(SELECT 1 FROM {table(Batch)} AS b WHERE b.id = {D}.batch_id AND b.state <> '{BatchState.DONE.value}'))"
)


GOES_AGAIN = f"{D}.state IN ('ready', 'waiting') AND {D}.pinned"


def settle(lease_id: int, settlements: Sequence[Settlement]) -> int:
    """Writes what became of deliveries, what follows from that for others, tallies, failures and suppressions. Part of
    the caller's transaction. Returns how many others may go now because of it.

    A settlement that comes after the lease was lost is taken when the delivery waits as uncertain for just this
    answer, or is to be sent again for want of it and turns out to be accepted; otherwise another worker has gone on,
    and only the failure is kept. To a batch that is done nothing comes back to be sent: there it stays uncertain.
    Asking twice changes nothing.
    """
    settled = _write(settlements, _opaque(f"{MINE} AND {THIS_TURN}"), [lease_id])
    late = [s for s in settlements if s.id not in settled]
    answered: set[int] = set()
    if late:
        _keep_undone({s.batch for s in late})
        answered = _write(late, f"{D}.lease_id IS NULL AND {D}.state = 'uncertain' AND {THIS_TURN} AND {TAKES}", [])
        # Given up for lost and to be sent again, and nobody has it yet: now it is known that it need not be.
        accepted = [s for s in late if s.id not in answered and s.state == DeliveryState.ACCEPTED]
        settled |= _write(accepted, f"{D}.lease_id IS NULL AND {GOES_AGAIN} AND {THIS_TURN}", [])
    ended = [s for s in settlements if s.state in ENDED and (s.id in settled or s.id in answered)]
    found = links.consequences(Ended(s.id, s.batch, s.state, s.message) for s in ended if s.linked)
    found.ended += ended
    for settlement in ended:
        found.changes[settlement.batch, settlement.state] += 1
        if settlement.late:
            found.changes[settlement.batch, LATE] += 1
    for settlement in settlements:
        if settlement.id in answered:
            found.changes[settlement.batch, DeliveryState.UNCERTAIN.value] -= 1
    _keep_failures(settlements)
    _suppress(settlements)
    found.write()
    return found.released


def _keep_undone(batch_ids: Collection[int]) -> None:
    """Keeps open batches from being called done until the end of this transaction, and sees those that were."""
    if is_postgres():
        condition, parameters = ids("id", sorted(batch_ids))
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT id FROM {table(Batch)} WHERE {condition} ORDER BY id FOR SHARE", parameters)


def _write(settlements: Sequence[Settlement], condition: str, condition_parameters: list[object]) -> set[int]:
    if not settlements:
        return set()
    rows = [(*plain(s), s.at if s.state in ENDED else None) for s in settlements]
    source, parameters = values("v", SETTLE_COLUMNS, rows)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {D} SET state = v.state, attempts = v.attempts, resends = v.resends, "
            "not_before = v.not_before, settled_at = v.settled_at, pinned = v.pinned, "
            "code = v.code, words = v.words, provider_id = v.provider_id, lease_id = NULL "
            f"FROM {source} WHERE {D}.id = v.id AND {condition} RETURNING {D}.id",
            [*parameters, *condition_parameters],
        )
        return {i for (i,) in cursor.fetchall()}


def _keep_failures(settlements: Sequence[Settlement]) -> None:
    failed = [s for s in settlements if s.failure]
    if failed:
        Attempt.objects.bulk_create(
            [
                Attempt(
                    delivery_id=s.id,
                    engine_id=s.failure.engine,
                    kind=s.failure.outcome.kind,
                    code=s.failure.outcome.code[:40],
                    words=s.failure.outcome.text,
                    seconds=s.failure.seconds,
                    at=s.at,
                )
                for s in failed
            ],
            ignore_conflicts=True,
        )


def _suppress(settlements: Sequence[Settlement]) -> None:
    dead = [
        Suppression(
            address=s.suppress[0],
            identity=s.suppress[1],
            reason=SuppressionReason.HARD_BOUNCE,
            source=f"delivery {s.id}: {s.code} {s.words}"[:200],
        )
        for s in settlements
        if s.suppress
    ]
    if dead:
        Suppression.objects.bulk_create(dead, ignore_conflicts=True)
