"""The words that are to be composed: who wants them, which worker has them, what came of it, what a person says.

A composition is claimed under the worker's lease, as a delivery is leased. Nothing is marked: composing twice harms
nobody, so what a dead worker had is simply wanted again, and a result whose lease was lost is dropped. In the
transaction that writes the words its delivery has one thing less to wait for (`links.satisfied`).
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import connection, transaction

from delivery.composed_body import tidy
from delivery.core.envelope import MAX_WORDS, UNKEPT
from delivery.models import NO_DEADLINE, Batch, Composition, CompositionState, Delivery, DeliveryState, Lease, Message
from delivery.models.batch import BatchState
from delivery.queue import links
from delivery.queue.dialect import (
    database_now,
    ids,
    instant,
    is_postgres,
    read_instant,
    skip_locked,
    table,
    values,
    while_it_stands,
)
from delivery.queue.ends import PREDECESSOR
from delivery.signals import reviewed

C = table(Composition)
AT_ONCE = 500  # of what lapses, in one transaction
PUT_OFF = timedelta(minutes=1)  # what waits for a predecessor that failed
ENDED = "its delivery has ended"
NOT_REVIEWED = "nobody reviewed its words before its deadline"

_WANTED, _REVIEW, _DONE = CompositionState.WANTED, CompositionState.REVIEW, CompositionState.DONE
_FALLBACK = CompositionState.FALLBACK


class Source(NamedTuple):
    """An open batch that wants words of a composer now. `deadline` is the earliest of them."""

    batch: int
    engine: int
    priority: int
    deadline: datetime


class ToCompose(NamedTuple):
    """A claimed composition. `data` is JSON text; `text` is what was composed for it before, "" when nothing was."""

    id: int
    batch: int
    message: int
    engine: int
    address: str
    name: str
    data: str
    deadline: datetime
    attempts: int
    text: str


class Wording(NamedTuple):
    """What a message says about its composing. `token` is that of its keys."""

    token: str
    prompt: str
    review: bool


class Result(NamedTuple):
    """What came of a claimed composition: `state` is DONE, REVIEW (there is a text; a person decides), FALLBACK (the
    template is used) or WANTED (again, at `not_before`). `attempts` is the count from now on. An empty `text` or
    `words` leaves what was there."""

    id: int
    state: str
    attempts: int
    text: str = ""
    words: str = ""
    not_before: datetime | None = None


_RESULT = {"id": int, "state": str, "attempts": int, "text": str, "words": str, "not_before": datetime}  # in order


def want(delivery_ids: Sequence[int], now: datetime) -> None:
    """Asks for the words of deliveries that were just made, or came back, and wait for them by one in `pending`. Where
    they are there already, that is one thing less to wait for at once. Part of the caller's transaction."""
    engine = "(m.composing ->> 'engine')::bigint" if is_postgres() else "json_extract(m.composing, '$.engine')"
    condition, parameters = ids("d.id", delivery_ids)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {C} (delivery_id, batch_id, engine_id, deadline) "
            f"SELECT d.id, d.batch_id, {engine}, d.deadline "
            f"FROM {table(Delivery)} AS d JOIN {table(Message)} AS m ON m.id = d.message_id "
            f"WHERE {condition} AND m.composing IS NOT NULL ORDER BY d.id "
            "ON CONFLICT (delivery_id) DO NOTHING RETURNING delivery_id",
            parameters,
        )
        new = {delivery_id for (delivery_id,) in cursor.fetchall()}
    if known := set(delivery_ids) - new:
        _want_again(sorted(known), now)


def _want_again(delivery_ids: Sequence[int], now: datetime) -> None:
    """Deliveries that came back after they were skipped. What was composed for them is still good."""
    condition, parameters = ids(f"{C}.delivery_id", delivery_ids)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {C} SET deadline = d.deadline, "
            f"state = CASE {C}.state WHEN 'lapsed' THEN 'wanted' ELSE {C}.state END "
            f"FROM {table(Delivery)} AS d WHERE d.id = {C}.delivery_id AND {condition} "
            f"RETURNING {C}.delivery_id, {C}.state",
            parameters,
        )
        found = cursor.fetchall()
    links.satisfied(sorted(pk for pk, state in found if state in (_DONE, _FALLBACK)), now)


# ---- for a worker ----


def sources(only: int | None = None) -> list[Source]:
    """The open batches that want words now, and of whom: the most urgent first, then the earliest deadline; `only` one
    of them if given. One look into an index for each."""
    messages = Message.objects.filter(batch__state=BatchState.OPEN, composing__isnull=False)
    if only is not None:
        messages = messages.filter(batch=only)
    asked = {
        (row[0], row[1], row[2]["engine"]) for row in messages.values_list("batch__priority", "batch", "composing")
    }
    now = instant(database_now())
    found = []
    with connection.cursor() as cursor:
        for priority, batch_id, engine_id in asked:
            cursor.execute(
                f"SELECT deadline FROM {C} WHERE batch_id = %s AND engine_id = %s AND state = 'wanted' "
                "AND (not_before IS NULL OR not_before <= %s) ORDER BY deadline, delivery_id LIMIT 1",
                [batch_id, engine_id, now],
            )
            if row := cursor.fetchone():
                found.append(Source(batch_id, engine_id, priority, read_instant(row[0])))
    return sorted(found, key=lambda source: (source.priority, source.deadline, source.batch, source.engine))


def claim(lease_id: int, batch_id: int, engine_id: int, limit: int, until: datetime | None = None) -> list[ToCompose]:
    """Up to `limit` of what a batch wants of a composer, earliest deadline first, now in this worker's hands; with
    `until` only those whose deadline comes no later. None of a batch that is not open, nor under a lease that was taken
    back. What belongs to a delivery that has ended lapses on the way."""
    urgent = "" if until is None else "AND c.deadline <= %s "
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                f"WITH chosen AS (SELECT c.delivery_id FROM {C} AS c WHERE c.batch_id = %s AND c.engine_id = %s "
                f"AND c.state = 'wanted' AND (c.not_before IS NULL OR c.not_before <= %s) {urgent}"
                f"AND EXISTS (SELECT 1 FROM {table(Batch)} WHERE id = %s AND state = '{BatchState.OPEN.value}') "
                f"AND EXISTS (SELECT 1 FROM {table(Lease)} WHERE id = %s {while_it_stands()}) "
                f"ORDER BY c.deadline, c.delivery_id LIMIT %s {skip_locked('c')}) "
                f"UPDATE {C} SET state = 'claimed', lease_id = %s "
                "WHERE delivery_id IN (SELECT delivery_id FROM chosen) RETURNING delivery_id",
                [
                    batch_id,
                    engine_id,
                    instant(database_now()),
                    *([] if until is None else [instant(until)]),
                    batch_id,
                    lease_id,
                    limit,
                    lease_id,
                ],
            )
            claimed = [delivery_id for (delivery_id,) in cursor.fetchall()]
        return _still_wanted(claimed) if claimed else []


def _still_wanted(claimed: Sequence[int]) -> list[ToCompose]:
    """Those of the claimed whose delivery waits for its words. The others leave this worker's hands."""
    condition, parameters = ids("d.id", claimed)
    found, put_off = [], []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT d.id, d.batch_id, d.message_id, c.engine_id, d.address, d.name, d.data, c.deadline, c.attempts, "
            f"c.text, d.state, d.code FROM {table(Delivery)} AS d JOIN {C} AS c ON c.delivery_id = d.id "
            f"WHERE {condition} ORDER BY c.deadline, d.id",
            parameters,
        )
        for *row, state, code in cursor.fetchall():
            if state == DeliveryState.WAITING:
                found.append(ToCompose(*row[:7], read_instant(row[7]), *row[8:]))
            elif state == DeliveryState.SKIPPED and code == PREDECESSOR:  # which somebody may send again
                put_off.append(row[0])
    free = {"lease": None, "state": _WANTED, "not_before": database_now() + PUT_OFF}
    Composition.objects.filter(pk__in=put_off).update(**free)
    ended = set(claimed).difference(put_off, (each.id for each in found))
    Composition.objects.filter(pk__in=ended).update(lease=None, state=CompositionState.LAPSED, words=ENDED)
    return found


def wording(message_id: int) -> Wording:
    """What a message says about its composing."""
    token, asked = Message.objects.values_list("token", "composing").get(pk=message_id)
    return Wording(token, asked["prompt"], bool(asked.get("review")))


def settle(lease_id: int, results: Sequence[Result]) -> int:
    """Writes what came of compositions that this worker claimed, and lets go whose words are there. Part of the
    caller's transaction; asking twice changes nothing. What is not this worker's any more is dropped. Returns how many
    deliveries may go now."""
    if not results:
        return 0
    now = database_now()
    source, parameters = values("v", _RESULT, [_kept(each) for each in results])
    at = "%s::timestamptz" if is_postgres() else "%s"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {C} SET state = v.state, attempts = v.attempts, not_before = v.not_before, lease_id = NULL, "
            f"text = CASE v.text WHEN '' THEN {C}.text ELSE v.text END, "
            f"words = CASE v.words WHEN '' THEN {C}.words ELSE v.words END, "
            f"composed_at = CASE WHEN v.state IN ('done', 'review') THEN {at} ELSE composed_at END, "
            f"deadline = CASE WHEN v.state = 'review' AND {_goes_late()} THEN {at} ELSE deadline END "
            f"FROM {source} WHERE {C}.delivery_id = v.id "
            # By the keys that were handed in: see `delivery.queue.outcomes`.
            f"AND CASE WHEN {C}.lease_id = %s AND {C}.state = 'claimed' THEN true ELSE false END "
            f"RETURNING {C}.delivery_id, {C}.state",
            [instant(now), instant(NO_DEADLINE), *parameters, lease_id],
        )
        written = cursor.fetchall()
    return links.satisfied(sorted(pk for pk, state in written if state in (_DONE, _FALLBACK)), now)


def _goes_late() -> str:
    """A condition that a mail goes after its deadline, too: then there is time to review its words."""
    late = "m.rules ->> 'late' = 'true'" if is_postgres() else "json_extract(m.rules, '$.late')"
    return (
        f"EXISTS (SELECT 1 FROM {table(Delivery)} AS d JOIN {table(Message)} AS m ON m.id = d.message_id "
        f"WHERE d.id = {C}.delivery_id AND {late})"
    )


def _kept(result: Result) -> Result:
    return result._replace(words=UNKEPT.sub(" ", result.words)[:MAX_WORDS])


def give_back(lease_id: int) -> int:
    """What this worker has claimed is wanted again. Returns how many."""
    rows = Composition.objects.filter(lease=lease_id, state=CompositionState.CLAIMED)
    return rows.update(state=_WANTED, lease=None)


def take_back() -> int:
    """What was claimed under leases that are gone is wanted again. Returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {C} SET state = 'wanted', lease_id = NULL WHERE state = 'claimed' AND lease_id IS NOT NULL "
            f"AND NOT EXISTS (SELECT 1 FROM {table(Lease)} AS l WHERE l.id = {C}.lease_id)"
        )
        return cursor.rowcount


def lapse() -> int:
    """Ends what was to be reviewed before a deadline that has passed: unreviewed words do not go out, and the template
    was not asked for. Returns how many."""
    now = database_now()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"WITH chosen AS (SELECT c.delivery_id FROM {C} AS c WHERE c.state = 'review' AND c.deadline < %s "
            f"ORDER BY c.deadline, c.delivery_id LIMIT %s {skip_locked('c')}) "
            f"UPDATE {C} SET state = 'lapsed', words = %s "
            "WHERE delivery_id IN (SELECT delivery_id FROM chosen) RETURNING delivery_id",
            [instant(now), AT_ONCE, NOT_REVIEWED],
        )
        lapsed = sorted(delivery_id for (delivery_id,) in cursor.fetchall())
        if lapsed:
            links.skip(lapsed, NOT_REVIEWED, now)
    return len(lapsed)


def due(batch_id: int) -> datetime | None:
    """When there is next something to do for the words of a batch: now, when a wait before another try or the time for
    a review is over, or None: not before somebody else's work is done."""
    with connection.cursor() as cursor:
        wanted = f"FROM {C} WHERE batch_id = %s AND state = 'wanted'"
        cursor.execute(f"SELECT 1 {wanted} AND not_before IS NULL LIMIT 1", [batch_id])
        if cursor.fetchone():
            return database_now()
        cursor.execute(f"SELECT MIN(not_before) {wanted}", [batch_id])
        again = cursor.fetchone()[0]
        cursor.execute(f"SELECT MIN(deadline) FROM {C} WHERE batch_id = %s AND state = 'review'", [batch_id])
        review = cursor.fetchone()[0]
    instants = [read_instant(each) for each in (again, review) if each is not None]
    return min((at for at in instants if at < NO_DEADLINE), default=None)


def texts(delivery_ids: Collection[int]) -> dict[int, str]:
    """The words that are to be sent, of those deliveries that have any."""
    condition, parameters = ids("delivery_id", delivery_ids)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT delivery_id, text FROM {C} WHERE {condition} AND state = 'done'", parameters)
        return dict(cursor.fetchall())


# ---- for a person ----


def approve(delivery_ids: Collection[int], by: str) -> int:
    """The words may go. Returns of how many that was still to be said."""
    return _reviewed(delivery_ids, by, _DONE, links.satisfied)


def reword(delivery_id: int, text: str, by: str) -> bool:
    """A person's own words go instead. False when that was no longer to be said. Raises ValueError for no words."""
    text = tidy(text)
    if not text:
        raise ValueError("There is no text: enter one, or use the template.")
    return bool(_reviewed([delivery_id], by, _DONE, links.satisfied, text=text))


def use_template(delivery_ids: Collection[int], by: str) -> int:
    """The template goes instead of the words. Returns of how many that was still to be said."""
    return _reviewed(delivery_ids, by, _FALLBACK, links.satisfied)


def reject(delivery_ids: Collection[int], by: str) -> int:
    """Nothing goes: the deliveries are skipped, with who said so. Returns of how many that was still to be said."""

    def skip(rejected: Sequence[int], now: datetime) -> int:
        return links.skip(rejected, f"rejected in review by {by}", now)

    return _reviewed(delivery_ids, by, CompositionState.REJECTED, skip)


def _reviewed(
    delivery_ids: Collection[int],
    by: str,
    state: CompositionState,
    follow: Callable[[Sequence[int], datetime], int],
    **fields: object,
) -> int:
    """Each decision is one person's: of two that review the same words, one did it."""
    now = database_now()
    with transaction.atomic():
        rows = Composition.objects.select_for_update().filter(pk__in=list(delivery_ids), state=_REVIEW)
        found = list(rows.order_by("pk").values_list("pk", flat=True))  # locked in this order, by whoever locks several
        Composition.objects.filter(pk__in=found).update(state=state, reviewed_by=by[:150], reviewed_at=now, **fields)
        if found:
            follow(found, now)
            transaction.on_commit(lambda: reviewed.send(Composition))
    return len(found)
