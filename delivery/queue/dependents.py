"""Deliveries that wait for others of their message by name: the acceptance of one takes one off what they wait for
(`pending`), its failure skips them, or counts as good, by the rules."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from django.db import connection

from delivery.core.envelope import MAX_WORDS
from delivery.models import Batch, Delivery, DeliveryState, Dependency
from delivery.queue.dialect import ids, instant, is_postgres, table, values
from delivery.queue.ends import MAY_COME_BACK, PREDECESSOR, Consequences, Ended
from delivery.queue.plan import Plan

# So long it takes at least from the end of one delivery to the hand-over of the next: lease and mark are written in
# between, and marks gather for ten milliseconds.
SURE_GAP = timedelta(milliseconds=5)

_WAITING, _READY = DeliveryState.WAITING.value, DeliveryState.READY.value
_SKIPPED, _ACCEPTED = DeliveryState.SKIPPED.value, DeliveryState.ACCEPTED.value
D = table(Delivery)


def release(batch_id: int, plan: Plan, ended: Sequence[Ended], now: datetime, found: Consequences) -> list[Ended]:
    """Takes off what deliveries wait for; skips those whose predecessor failed. Returns the skipped ones."""
    releases = any(message.rules.release for message in plan.messages.values())
    gap = max(message.rules.gap for message in plan.messages.values())
    good = [each.id for each in ended if each.state == _ACCEPTED or releases]
    failed = [each.id for each in ended if each.state != _ACCEPTED and not releases]
    met, why = _met(good), _failing(failed)
    _locked({*met, *why})  # all at once, in one order
    lower(batch_id, met, now if gap <= SURE_GAP else now + gap, now, found)
    _wait_for_words(batch_id, met, found)
    return skip(batch_id, why, PREDECESSOR, now, found)


def _met(predecessors: Sequence[int]) -> Counter[int]:
    """Who waits for these no longer, and for how many of them. Each is said once."""
    if not predecessors:
        return Counter()
    condition, parameters = ids("predecessor_id", sorted(predecessors))
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table(Dependency)} SET met = true WHERE {condition} AND NOT met RETURNING delivery_id", parameters
        )
        return Counter(delivery_id for (delivery_id,) in cursor.fetchall())


def lower(
    batch_id: int,
    fewer: Mapping[int, int],
    not_before: datetime,
    now: datetime,
    found: Consequences,
    *,
    revives: bool = True,
) -> None:
    """So many things less to wait for. What then waits for nothing goes at `not_before`, or when its own time comes."""
    before = _locked(fewer)
    if not before:
        return
    kind = "::timestamptz" if is_postgres() else ""
    greatest = "GREATEST" if is_postgres() else "MAX"
    at = f"{greatest}(COALESCE({D}.not_before, %s{kind}), %s{kind})"
    left = f"{D}.pending - v.n"
    free = f"{left} <= 0 AND ({D}.state = '{_WAITING}'{f' OR {MAY_COME_BACK}' if revives else ''})"
    source, parameters = values("v", {"id": int, "n": int}, sorted(fewer.items()))
    earliest = [instant(not_before)] * 2
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {D} SET pending = {left}, "
            f"state = CASE WHEN NOT ({free}) THEN {D}.state WHEN {at} <= %s{kind} THEN '{_READY}' "
            f"ELSE '{_WAITING}' END, "
            f"not_before = CASE WHEN NOT ({free}) THEN {D}.not_before WHEN {at} <= %s{kind} THEN NULL ELSE {at} END, "
            f"settled_at = CASE WHEN {free} THEN NULL ELSE {D}.settled_at END, "
            f"code = CASE WHEN {free} THEN '' ELSE {D}.code END, "
            f"words = CASE WHEN {free} THEN '' ELSE {D}.words END "
            f"FROM {source} WHERE {D}.id = v.id RETURNING {D}.id, {D}.state, {D}.pending",
            [*earliest, instant(now), *earliest, instant(now), *earliest, *parameters],
        )
        after = cursor.fetchall()
    found.released += sum(1 for i, state, pending in after if pending <= 0 and state in (_READY, _WAITING))
    back = sum(1 for i, state, _ in after if before[i] == _SKIPPED != state)
    found.changes[batch_id, _SKIPPED] -= back


def _wait_for_words(batch_id: int, delivery_ids: Collection[int], found: Consequences) -> None:
    """Those of these that were skipped and now wait for no predecessor any more, but for their words, wait again: what
    is skipped has ended, and its batch would be done without it. Locked by the caller."""
    if not delivery_ids:
        return
    condition, parameters = ids(f"{D}.id", sorted(delivery_ids))
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {D} SET state = '{_WAITING}', settled_at = NULL, code = '', words = '' "
            f"WHERE {condition} AND {MAY_COME_BACK} AND {D}.pending > 0 AND NOT EXISTS ("
            f"SELECT 1 FROM {table(Dependency)} AS e WHERE e.delivery_id = {D}.id AND NOT e.met)",
            parameters,
        )
        found.changes[batch_id, _SKIPPED] -= cursor.rowcount


def _locked(delivery_ids: Iterable[int]) -> dict[int, str]:
    """The states of these, which nobody else changes until the transaction ends. Locked in the order of their ids, as
    everybody does who locks several."""
    wanted = sorted(delivery_ids)
    if not wanted:
        return {}
    condition, parameters = ids("id", wanted)
    lock = "FOR UPDATE" if is_postgres() else ""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT id, state FROM {D} WHERE {condition} ORDER BY id {lock}", parameters)
        return dict(cursor.fetchall())


def _failing(failed: Sequence[int]) -> dict[int, str]:
    """Who waits for these, and what is said to them."""
    if not failed:
        return {}
    condition, parameters = ids("predecessor_id", sorted(failed))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT delivery_id, MIN(on_key) FROM {table(Dependency)} WHERE {condition} AND NOT met "
            "GROUP BY delivery_id ORDER BY delivery_id",
            parameters,
        )
        return {i: f"it depends on {on_key}, which was not accepted" for i, on_key in cursor.fetchall()}


def skip(batch_id: int, why: Mapping[int, str], code: str, now: datetime, found: Consequences) -> list[Ended]:
    """Ends what waits, for these reasons. Returns those that did."""
    if not _locked(why):
        return []
    source, parameters = values("v", {"id": int, "words": str}, [(i, words[:MAX_WORDS]) for i, words in why.items()])
    kind = "::timestamptz" if is_postgres() else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {D} SET state = '{_SKIPPED}', code = %s, words = v.words, settled_at = %s{kind} "
            f"FROM {source} WHERE {D}.id = v.id AND {D}.state = '{_WAITING}' RETURNING {D}.id",
            [code, instant(now), *parameters],
        )
        skipped = [Ended(delivery_id, batch_id, _SKIPPED) for (delivery_id,) in cursor.fetchall()]
    found.add_skipped(batch_id, skipped)
    return skipped


def unheard(batch_id: int, limit: int) -> list[Ended]:
    """Up to `limit` of the deliveries that have ended and for which others still wait."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT DISTINCT p.id, p.state FROM {table(Dependency)} AS e JOIN {D} AS p ON p.id = e.predecessor_id "
            f"JOIN {D} AS d ON d.id = e.delivery_id JOIN {table(Batch)} AS b ON b.id = e.batch_id "
            "WHERE e.batch_id = %s AND e.delivery_id BETWEEN b.first_id AND b.last_id AND NOT e.met "
            f"AND p.settled_at IS NOT NULL AND d.state = '{_WAITING}' LIMIT %s",
            [batch_id, limit],
        )
        return [Ended(i, batch_id, state) for i, state in cursor.fetchall()]
