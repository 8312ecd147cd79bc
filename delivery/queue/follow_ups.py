"""Messages that follow others: the end of a mail makes the next one to the same recipient.

It waits for its time, or is skipped because its predecessor did not end as wanted; one that follows several is judged
by all of them, under a lock.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import connection

from delivery.core.sequence import On
from delivery.models import NO_DEADLINE, Delivery, DeliveryState, Message
from delivery.models.batch import FOLLOWED
from delivery.queue.dialect import database_now, ids, is_postgres, read_instant, table, values
from delivery.queue.ends import MAY_COME_BACK, PREDECESSOR, Consequences, Ended
from delivery.queue.plan import Plan, PlannedMessage

SOON = timedelta(seconds=1)  # in which workers look at the time by themselves
NEVER = "the time that it is to go at never comes"

_WAITING, _READY = DeliveryState.WAITING.value, DeliveryState.READY.value
_SKIPPED, _ACCEPTED = DeliveryState.SKIPPED.value, DeliveryState.ACCEPTED.value
_LABELS = {state.value: state.label for state in DeliveryState}
D = table(Delivery)


class _Fate(NamedTuple):
    """What becomes of deliveries of a message: many that end together make others of the same fate."""

    message: int
    state: str
    not_before: datetime | None
    deadline: datetime
    priority: int
    pending: int
    words: str
    code: str
    settled_at: datetime | None
    thread: int  # 0: none, 1: that of its predecessor, 2: that and its predecessor


_FATE_COLUMNS = {
    "message": int,
    "state": str,
    "not_before": datetime,
    "deadline": datetime,
    "priority": int,
    "pending": int,
    "words": str,
    "code": str,
    "settled_at": datetime,
    "thread": int,
}  # of _Fate, in order

_Row = tuple[int, _Fate]  # a delivery that is to be made because of the one with this id, or the one that is changed


def follow(batch_id: int, plan: Plan, ended: Sequence[Ended], now: datetime, found: Consequences) -> list[Ended]:
    """Makes the next mails to the recipients of those that ended. Returns which of them have ended at once."""
    rows: list[_Row] = []
    fates: dict[tuple[int, int, str, str], _Fate] = {}
    joined: dict[int, dict[int, str]] = defaultdict(dict)
    for delivery_id, message_id, end, data in _described(ended, plan.needs_data):
        for follower, on in plan.followers.get(message_id, ()):
            if len(follower.rules.after) > 1:
                joined[follower.id][delivery_id] = end
                continue
            case = message_id, follower.id, end, data
            fate = fates.get(case)
            if fate is None:
                fate = fates[case] = _next(plan.messages[message_id], follower, on, end, data, now)
            rows.append((delivery_id, fate))
    over = _write(batch_id, plan, rows, now, found)
    for message_id, predecessors in sorted(joined.items()):
        over += _join(batch_id, plan, plan.messages[message_id], predecessors, now, found)
    return over


def _described(ended: Sequence[Ended], with_data: bool) -> Iterable[tuple[int, int, str, str]]:
    """Of each: id, message, end, and the recipient's data if they matter."""
    if not with_data and all(each.message for each in ended):
        return ((each.id, each.message, each.state, "{}") for each in ended)
    ends = {each.id: each.state for each in ended}
    condition, parameters = ids("id", ends)
    data = "data" if with_data else "'{}'"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT id, message_id, {data} FROM {D} WHERE {condition} ORDER BY id", parameters)
        return [(i, message_id, ends[i], text) for i, message_id, text in cursor.fetchall()]


def _next(before: PlannedMessage, follower: PlannedMessage, on: On, end: str, data: str, now: datetime) -> _Fate:
    """What becomes of the mail of `follower` after one of `before` that ended now."""
    if on.fulfilled_by(end) is False:
        return _unwanted(before, follower, end, now)
    return _due(follower, now, data, now, thread=2 if end == _ACCEPTED else 1)


def _unwanted(before: PlannedMessage, follower: PlannedMessage, end: str, now: datetime) -> _Fate:
    words = f"message {before.position} to this recipient ended as {_LABELS[end]}"
    return _Fate(follower.id, _SKIPPED, None, NO_DEADLINE, 0, 0, words, PREDECESSOR, now, 0)


def _due(follower: PlannedMessage, since: datetime, data: str, now: datetime, thread: int) -> _Fate:
    """A mail whose predecessors ended as wanted, the last of them at `since`."""
    rules = follower.rules
    due = rules.planned(since, data)
    if due is None:
        return _Fate(follower.id, _SKIPPED, None, NO_DEADLINE, 0, 0, NEVER, "", now, 0)
    deadline = rules.deadline(due)
    not_before = rules.not_before(due, deadline)
    ready = not follower.is_composed and not_before <= now
    return _Fate(
        follower.id,
        _READY if ready else _WAITING,
        None if ready else not_before,
        deadline or NO_DEADLINE,
        rules.rank,
        int(follower.is_composed),
        "",
        "",
        None,
        thread if rules.thread else 0,
    )


def _write(batch_id: int, plan: Plan, rows: Sequence[_Row], now: datetime, found: Consequences) -> list[Ended]:
    """Makes these mails. One that was skipped because of its predecessor, and whose predecessor came to another end
    since, comes back."""
    if not rows:
        return []
    _count_due(rows, now, found)
    made = _insert(batch_id, rows, found)
    if len(made) < len(rows):
        back = _bring_back([row for row in rows if row[1].state != _SKIPPED])
        found.changes[batch_id, _SKIPPED] -= len(back)
        made += back
    return _take_stock(batch_id, plan, made, found)


def _count_due(rows: Sequence[_Row], now: datetime, found: Consequences) -> None:
    """Counts those that wait for nothing but a time that comes soon."""
    soon = now + SOON
    found.released += sum(1 for _, fate in rows if fate.not_before and fate.not_before < soon and not fate.pending)


def _take_stock(batch_id: int, plan: Plan, made: Sequence[tuple[int, int, str]], found: Consequences) -> list[Ended]:
    """Counts what has become of deliveries (id, message, state); asks for the words of those that are to be composed.
    Returns the skipped ones."""
    skipped = [Ended(delivery_id, batch_id, state) for delivery_id, _, state in made if state == _SKIPPED]
    found.add_skipped(batch_id, skipped)
    found.released += sum(1 for _, _, state in made if state == _READY)
    want_words([i for i, message, state in made if state == _WAITING and plan.messages[message].is_composed])
    return skipped


def want_words(delivery_ids: Sequence[int]) -> None:
    if delivery_ids:
        from delivery.queue import composing  # which asks this module what follows from its results

        composing.want(delivery_ids, database_now())


def _threads() -> str:
    """The keys of the mails before a follow-up, the last one being that of its predecessor `p` of message `m`."""
    number = "to_hex(p.id)" if is_postgres() else "printf('%%x', p.id)"
    return (
        f"CASE v.thread WHEN 2 THEN LTRIM(p.thread || ' ' || m.token || '.' || {number}) "
        "WHEN 1 THEN p.thread ELSE '' END"
    )


def _fated(rows: Sequence[_Row]) -> tuple[str, list[object]]:
    """`v`: ids, each with the columns of its fate; and the parameters. Few fates, many ids."""
    numbers: dict[_Fate, int] = {}
    pairs = [(delivery_id, numbers.setdefault(fate, len(numbers))) for delivery_id, fate in rows]
    each, ids_of = values("i", {"id": int, "fate": int}, pairs)
    fates, cells = values("f", {"fate": int, **_FATE_COLUMNS}, [(number, *fate) for fate, number in numbers.items()])
    columns = ", ".join(f"f.{name}" for name in _FATE_COLUMNS)
    return f"(SELECT i.id, {columns} FROM {each} JOIN {fates} ON f.fate = i.fate) AS v", [*ids_of, *cells]


def _insert(batch_id: int, rows: Sequence[_Row], found: Consequences) -> list[tuple[int, int, str]]:
    """Makes deliveries to the recipients of others. Returns (id, message, state) of those that were not there."""
    source, parameters = _fated(rows)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {D} (batch_id, message_id, address, identity, key, name, data, thread, engine_id, state, "
            "priority, deadline, not_before, pending, words, code, settled_at) "
            f"SELECT p.batch_id, v.message, p.address, p.identity, p.key, p.name, p.data, {_threads()}, p.engine_id, "
            "v.state, v.priority, v.deadline, v.not_before, v.pending, v.words, v.code, v.settled_at "
            f"FROM {source} JOIN {D} AS p ON p.id = v.id JOIN {table(Message)} AS m ON m.id = p.message_id "
            # Two ends of one recipient make the same mail: of many recipients at a time they do so in one order.
            "WHERE true ORDER BY p.identity, p.key, v.message ON CONFLICT DO NOTHING RETURNING id, message_id, state",
            parameters,
        )
        made = cursor.fetchall()
    if made:
        found.changes[batch_id, FOLLOWED] += len(made)
        found.last_ids[batch_id] = max(found.last_ids.get(batch_id, 0), *(delivery_id for delivery_id, _, _ in made))
    return made


_AS_PLANNED = (
    "state = v.state, not_before = v.not_before, deadline = v.deadline, priority = v.priority, pending = v.pending, "
    "words = v.words, code = v.code, settled_at = v.settled_at"
)


def _bring_back(rows: Sequence[_Row]) -> list[tuple[int, int, str]]:
    """Those of the mails that are there and were skipped because of their predecessor become what they would be now."""
    if not rows:
        return []
    source, parameters = _fated(rows)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {D} SET {_AS_PLANNED} FROM {source}, {D} AS p WHERE p.id = v.id AND {D}.identity = p.identity "
            f"AND {D}.message_id = v.message AND {D}.key = p.key AND {MAY_COME_BACK} "
            f"RETURNING {D}.id, {D}.message_id, {D}.state",
            parameters,
        )
        return cursor.fetchall()


def _join(
    batch_id: int, plan: Plan, message: PlannedMessage, ended: Mapping[int, str], now: datetime, found: Consequences
) -> list[Ended]:
    """A message that follows several: its mail is there from the first end on, and goes or is skipped by all of them.
    It is locked before these are looked at: of two that end at the same time, the later one sees both."""
    blocked = [_blocked(delivery_id, message, end) for delivery_id, end in ended.items()]
    _insert(batch_id, blocked, found)
    rows: list[_Row] = []
    for each, ends in _standing(message, sorted(ended)).items():
        fate = _judged(each, plan, message, ends, now)
        if fate is not None and not each.state == fate.state == _SKIPPED:
            rows.append((each.id, fate))
            found.changes[batch_id, _SKIPPED] -= each.state == _SKIPPED
    _count_due(rows, now, found)
    if not rows:
        return []
    source, parameters = _fated(rows)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {D} SET {_AS_PLANNED} FROM {source} WHERE {D}.id = v.id "
            f"RETURNING {D}.id, {D}.message_id, {D}.state",
            parameters,
        )
        return _take_stock(batch_id, plan, cursor.fetchall(), found)


def _blocked(delivery_id: int, message: PlannedMessage, end: str) -> _Row:
    thread = (2 if end == _ACCEPTED else 1) if message.rules.thread else 0
    waits_for = len(message.rules.after)
    return delivery_id, _Fate(message.id, _WAITING, None, NO_DEADLINE, 0, waits_for, "", "", None, thread)


class _Joined(NamedTuple):
    """A mail that follows several: what it is now."""

    id: int
    state: str
    data: str


class _End(NamedTuple):
    state: str
    settled_at: datetime | None


def _standing(message: PlannedMessage, predecessors: Sequence[int]) -> dict[_Joined, dict[int, _End]]:
    """The mails of `message` that follow these deliveries and are still to be judged, locked, and how the mails before
    each of them have ended, by message."""
    condition, parameters = ids("p.id", predecessors)
    lock = f"FOR UPDATE OF {D}" if is_postgres() else ""
    same = f"p.identity = {D}.identity AND p.key = {D}.key"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {D}.id FROM {D} JOIN {D} AS p ON {same} WHERE {condition} AND {D}.message_id = %s "
            f"AND ({D}.state = '{_WAITING}' AND {D}.pending > 0 OR {MAY_COME_BACK}) ORDER BY {D}.id {lock}",
            [*parameters, message.id],
        )
        locked = {delivery_id for (delivery_id,) in cursor.fetchall()}
        condition, parameters = ids(f"{D}.id", sorted(locked))
        before, messages = ids("p.message_id", [edge.message for edge in message.rules.after])
        # Another statement, and so another look: what whoever had the lock before has written is seen.
        cursor.execute(
            f"SELECT {D}.id, {D}.state, {D}.data, p.message_id, p.state, p.settled_at "
            f"FROM {D} JOIN {D} AS p ON {same} WHERE {condition} AND {before} "
            f"AND ({D}.state = '{_WAITING}' AND {D}.pending > 0 OR {MAY_COME_BACK})",
            [*parameters, *messages],
        )
        found: dict[_Joined, dict[int, _End]] = defaultdict(dict)
        for delivery_id, state, data, message_id, end, settled_at in cursor.fetchall():
            found[_Joined(delivery_id, state, data)][message_id] = _End(end, read_instant(settled_at))
    return found


def _judged(
    each: _Joined, plan: Plan, message: PlannedMessage, ends: Mapping[int, _End], now: datetime
) -> _Fate | None:
    """What a mail that follows several becomes; None while that is not known."""
    known = [(edge, ends[edge.message]) for edge in message.rules.after if edge.message in ends]
    over = [(edge, end) for edge, end in known if end.settled_at is not None]
    for edge, end in over:
        if edge.on.fulfilled_by(end.state) is False:
            return _unwanted(plan.messages[edge.message], message, end.state, now)
    if len(over) < len(message.rules.after):
        return None
    return _due(message, max(end.settled_at for _, end in over), each.data, now, thread=0)


def unfollowed(batch_id: int, plan: Plan, limit: int) -> list[Ended]:
    """Up to `limit` for each message of the deliveries that have ended and were to be followed, and were not."""
    found: dict[int, Ended] = {}
    with connection.cursor() as cursor:
        for message_id, followers in plan.followers.items():
            for follower, _ in followers:
                cursor.execute(
                    f"SELECT p.id, p.state FROM {D} AS p WHERE p.batch_id = %s AND p.message_id = %s "
                    f"AND p.settled_at IS NOT NULL AND p.state <> '{DeliveryState.CANCELLED.value}' "
                    f"AND NOT EXISTS (SELECT 1 FROM {D} AS d WHERE d.identity = p.identity AND d.message_id = %s "
                    "AND d.key = p.key) LIMIT %s",
                    [batch_id, message_id, follower.id, limit],
                )
                found |= {i: Ended(i, batch_id, state, message_id) for i, state in cursor.fetchall()}
    return list(found.values())
