"""What follows from the end of a delivery for others of its batch.

Two kinds of link. A message may follow others (`Message.rules`): then the end of a mail makes the next one to the same
recipient, waiting for its time, or skipped because its predecessor did not end as wanted. And a delivery may wait for
others by their names (`Dependency`): then their acceptance takes one off what it waits for (`pending`), and their
failure skips it, or counts as good, by the rules. What is skipped has ended, too, and so on down the line.

All in the transaction that wrote the end, for many deliveries at a time. Whoever locks several deliveries that others
might lock does so in the order of their ids.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from django.db import connection, transaction

from delivery import metrics
from delivery.core.sequence import On, Rules
from delivery.models import NO_DEADLINE, Batch, Delivery, DeliveryState, Dependency, Message
from delivery.models.batch import FOLLOWED, BatchState
from delivery.queue import tallies
from delivery.queue.dialect import database_now, ids, instant, is_postgres, read_instant, table, values

# So long it takes at least from the end of one delivery to the hand-over of the next: lease and mark are written in
# between, and marks gather for ten milliseconds.
SURE_GAP = timedelta(milliseconds=5)
SOON = timedelta(seconds=1)  # in which workers look at the time by themselves
AT_ONCE = 5000  # of what is made up
BEYOND = 50_000  # ids that a batch's range is widened by at once: its row is touched as rarely
NEVER = "the time that it is to go at never comes"
PREDECESSOR = "predecessor"  # the code of what was skipped because of another delivery: it may come back

_WAITING, _READY = DeliveryState.WAITING.value, DeliveryState.READY.value
_SKIPPED, _ACCEPTED = DeliveryState.SKIPPED.value, DeliveryState.ACCEPTED.value
_LABELS = {state.value: state.label for state in DeliveryState}
D = table(Delivery)


class Ended(NamedTuple):
    """A delivery that has just come to an end of this name. `message`: 0 where it would have to be looked up."""

    id: int
    batch: int
    state: str
    message: int = 0


@dataclass(slots=True)
class Consequences:
    """What came of ends: changes of the tallies, how many deliveries ended with them, and how many may go now or soon
    and could not before."""

    changes: Counter[tuple[int, str]] = field(default_factory=Counter)
    last_ids: dict[int, int] = field(default_factory=dict)
    skipped: int = 0
    released: int = 0

    def count_skipped(self, batch_id: int, count: int) -> None:
        self.changes[batch_id, _SKIPPED] += count
        self.skipped += count

    def write(self) -> None:
        """Writes what is one row for a whole batch. Last of all: others wait for these rows."""
        for batch_id, last_id in sorted(self.last_ids.items()):
            _widen(batch_id, last_id)
        tallies.add(self.changes)
        if self.skipped:
            metrics.settled({DeliveryState.SKIPPED: self.skipped})


class _Message(NamedTuple):
    """A message of a batch, as far as order is concerned."""

    id: int
    position: int
    rules: Rules
    is_composed: bool


class _Plan(NamedTuple):
    """The messages of a batch, and which follow each of them."""

    messages: Mapping[int, _Message]
    followers: Mapping[int, Sequence[tuple[_Message, On]]]
    needs_data: bool


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


def consequences(ended: Iterable[Ended], *, done_too: bool = False) -> Consequences:
    """Carries out what follows from these ends; the caller has it written, last of all. To a batch that is cancelled
    nothing is added, nor to one that is done, unless the caller opens that again (`done_too`)."""
    return _carry_out(Consequences(), ended, done_too)


def _carry_out(found: Consequences, ended: Iterable[Ended], done_too: bool = False) -> Consequences:
    by_batch: dict[int, list[Ended]] = defaultdict(list)
    for each in ended:
        by_batch[each.batch].append(each)
    if not by_batch:
        return found
    over = [BatchState.CANCELLED] if done_too else [BatchState.CANCELLED, BatchState.DONE]
    for batch_id, reference, sequenced, ordered in _linked(by_batch, over):
        now = database_now()
        line = by_batch[batch_id]
        while line:
            further = _follow(batch_id, _plan(batch_id, reference), line, now, found) if sequenced else []
            if ordered:
                further += _release(batch_id, _plan(batch_id, reference), line, now, found)
            line = further
    return found


def _linked(batch_ids: Collection[int], over: Sequence[str]) -> list[tuple[int, str, bool, bool]]:
    condition, parameters = ids("id", sorted(batch_ids))
    gone = ", ".join(f"'{state}'" for state in over)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, reference, sequenced, ordered FROM {table(Batch)} "
            f"WHERE {condition} AND (sequenced OR ordered) AND state NOT IN ({gone}) ORDER BY id",
            parameters,
        )
        return cursor.fetchall()


@lru_cache(maxsize=64)
def _plan(batch_id: int, reference: str) -> _Plan:
    """Messages never change; the reference is part of the key because databases use ids again, in tests at least."""
    messages = {
        message.pk: _Message(message.pk, message.position, Rules.of(message.rules), message.composing is not None)
        for message in Message.objects.filter(batch=batch_id)
    }
    followers: dict[int, list[tuple[_Message, On]]] = defaultdict(list)
    for message in messages.values():
        for edge in message.rules.after:
            followers[edge.message].append((message, edge.on))
    return _Plan(messages, followers, any(message.rules.per_recipient for message in messages.values()))


# ---- messages that follow others ----


def _follow(batch_id: int, plan: _Plan, ended: Sequence[Ended], now: datetime, found: Consequences) -> list[Ended]:
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


def _next(before: _Message, follower: _Message, on: On, end: str, data: str, now: datetime) -> _Fate:
    """What becomes of the mail of `follower` after one of `before` that ended now."""
    if on.fulfilled_by(end) is False:
        return _unwanted(before, follower, end, now)
    return _due(follower, now, data, now, thread=2 if end == _ACCEPTED else 1)


def _unwanted(before: _Message, follower: _Message, end: str, now: datetime) -> _Fate:
    words = f"message {before.position} to this recipient ended as {_LABELS[end]}"
    return _Fate(follower.id, _SKIPPED, None, NO_DEADLINE, 0, 0, words, PREDECESSOR, now, 0)


def _due(follower: _Message, since: datetime, data: str, now: datetime, thread: int) -> _Fate:
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


def _write(batch_id: int, plan: _Plan, rows: Sequence[_Row], now: datetime, found: Consequences) -> list[Ended]:
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


def _take_stock(batch_id: int, plan: _Plan, made: Sequence[tuple[int, int, str]], found: Consequences) -> list[Ended]:
    """Counts what has become of deliveries (id, message, state); asks for the words of those that are to be composed.
    Returns the skipped ones."""
    skipped = [Ended(delivery_id, batch_id, state) for delivery_id, _, state in made if state == _SKIPPED]
    found.count_skipped(batch_id, len(skipped))
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


def _widen(batch_id: int, last_id: int) -> None:
    """The range of a batch's ids takes in this one."""
    Batch.objects.filter(pk=batch_id, last_id__lt=last_id).update(last_id=last_id + BEYOND)


# What was skipped for the sake of its predecessor, and for nothing else.
_MAY_COME_BACK = f"{D}.state = '{_SKIPPED}' AND {D}.code = '{PREDECESSOR}'"
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
            f"AND {D}.message_id = v.message AND {D}.key = p.key AND {_MAY_COME_BACK} "
            f"RETURNING {D}.id, {D}.message_id, {D}.state",
            parameters,
        )
        return cursor.fetchall()


def _join(
    batch_id: int, plan: _Plan, message: _Message, ended: Mapping[int, str], now: datetime, found: Consequences
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


def _blocked(delivery_id: int, message: _Message, end: str) -> _Row:
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


def _standing(message: _Message, predecessors: Sequence[int]) -> dict[_Joined, dict[int, _End]]:
    """The mails of `message` that follow these deliveries and are still to be judged, locked, and how the mails before
    each of them have ended, by message."""
    condition, parameters = ids("p.id", predecessors)
    lock = f"FOR UPDATE OF {D}" if is_postgres() else ""
    same = f"p.identity = {D}.identity AND p.key = {D}.key"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {D}.id FROM {D} JOIN {D} AS p ON {same} WHERE {condition} AND {D}.message_id = %s "
            f"AND ({D}.state = '{_WAITING}' AND {D}.pending > 0 OR {_MAY_COME_BACK}) ORDER BY {D}.id {lock}",
            [*parameters, message.id],
        )
        locked = {delivery_id for (delivery_id,) in cursor.fetchall()}
        condition, parameters = ids(f"{D}.id", sorted(locked))
        before, messages = ids("p.message_id", [edge.message for edge in message.rules.after])
        # Another statement, and so another look: what whoever had the lock before has written is seen.
        cursor.execute(
            f"SELECT {D}.id, {D}.state, {D}.data, p.message_id, p.state, p.settled_at "
            f"FROM {D} JOIN {D} AS p ON {same} WHERE {condition} AND {before} "
            f"AND ({D}.state = '{_WAITING}' AND {D}.pending > 0 OR {_MAY_COME_BACK})",
            [*parameters, *messages],
        )
        found: dict[_Joined, dict[int, _End]] = defaultdict(dict)
        for delivery_id, state, data, message_id, end, settled_at in cursor.fetchall():
            found[_Joined(delivery_id, state, data)][message_id] = _End(end, read_instant(settled_at))
    return found


def _judged(each: _Joined, plan: _Plan, message: _Message, ends: Mapping[int, _End], now: datetime) -> _Fate | None:
    """What a mail that follows several becomes; None while that is not known."""
    known = [(edge, ends[edge.message]) for edge in message.rules.after if edge.message in ends]
    over = [(edge, end) for edge, end in known if end.settled_at is not None]
    for edge, end in over:
        if edge.on.fulfilled_by(end.state) is False:
            return _unwanted(plan.messages[edge.message], message, end.state, now)
    if len(over) < len(message.rules.after):
        return None
    return _due(message, max(end.settled_at for _, end in over), each.data, now, thread=0)


# ---- deliveries that wait for others by name ----


def _release(batch_id: int, plan: _Plan, ended: Sequence[Ended], now: datetime, found: Consequences) -> list[Ended]:
    """Takes off what deliveries wait for; skips those whose predecessor failed. Returns the skipped ones."""
    releases = any(message.rules.release for message in plan.messages.values())
    gap = max(message.rules.gap for message in plan.messages.values())
    good = [each.id for each in ended if each.state == _ACCEPTED or releases]
    failed = [each.id for each in ended if each.state != _ACCEPTED and not releases]
    met, why = _met(good), _failing(failed)
    _locked({*met, *why})  # all at once, in one order
    _lower(batch_id, met, now if gap <= SURE_GAP else now + gap, now, found)
    _wait_for_words(batch_id, met, found)
    return _skip(batch_id, why, PREDECESSOR, now, found)


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


def _lower(
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
    free = f"{left} <= 0 AND ({D}.state = '{_WAITING}'{f' OR {_MAY_COME_BACK}' if revives else ''})"
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
            f"WHERE {condition} AND {_MAY_COME_BACK} AND {D}.pending > 0 AND NOT EXISTS ("
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


def _skip(batch_id: int, why: Mapping[int, str], code: str, now: datetime, found: Consequences) -> list[Ended]:
    """Ends what waits, for these reasons. Returns those that did."""
    if not _locked(why):
        return []
    source, parameters = values("v", {"id": int, "words": str}, [(i, words[:500]) for i, words in why.items()])
    kind = "::timestamptz" if is_postgres() else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {D} SET state = '{_SKIPPED}', code = %s, words = v.words, settled_at = %s{kind} "
            f"FROM {source} WHERE {D}.id = v.id AND {D}.state = '{_WAITING}' RETURNING {D}.id",
            [code, instant(now), *parameters],
        )
        skipped = [Ended(delivery_id, batch_id, _SKIPPED) for (delivery_id,) in cursor.fetchall()]
    found.count_skipped(batch_id, len(skipped))
    return skipped


# ---- what nobody carried out ----


def make_up(batch_id: int) -> bool:
    """Carries out what follows from ends and was not: they may have been written by a worker of a version that knew of
    no links. For a batch in which nothing goes on any more: it is read as a whole. Whether there was anything."""
    for _, reference, sequenced, ordered in _linked([batch_id], [BatchState.CANCELLED, BatchState.DONE]):
        plan = _plan(batch_id, reference)
        ended = _unfollowed(batch_id, plan) if sequenced else []
        ended += _unheard(batch_id) if ordered else []
        if ended:
            with transaction.atomic():
                consequences(ended).write()
            return True
    return False


def _unfollowed(batch_id: int, plan: _Plan) -> list[Ended]:
    """Some of the deliveries that have ended and were to be followed, and were not."""
    found: dict[int, Ended] = {}
    with connection.cursor() as cursor:
        for message_id, followers in plan.followers.items():
            for follower, _ in followers:
                cursor.execute(
                    f"SELECT p.id, p.state FROM {D} AS p WHERE p.batch_id = %s AND p.message_id = %s "
                    f"AND p.settled_at IS NOT NULL AND p.state <> '{DeliveryState.CANCELLED.value}' "
                    f"AND NOT EXISTS (SELECT 1 FROM {D} AS d WHERE d.identity = p.identity AND d.message_id = %s "
                    "AND d.key = p.key) LIMIT %s",
                    [batch_id, message_id, follower.id, AT_ONCE],
                )
                found |= {i: Ended(i, batch_id, state, message_id) for i, state in cursor.fetchall()}
    return list(found.values())


def _unheard(batch_id: int) -> list[Ended]:
    """Some of the deliveries that have ended and for which others still wait."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT DISTINCT p.id, p.state FROM {table(Dependency)} AS e JOIN {D} AS p ON p.id = e.predecessor_id "
            f"JOIN {D} AS d ON d.id = e.delivery_id JOIN {table(Batch)} AS b ON b.id = e.batch_id "
            "WHERE e.batch_id = %s AND e.delivery_id BETWEEN b.first_id AND b.last_id AND NOT e.met "
            f"AND p.settled_at IS NOT NULL AND d.state = '{_WAITING}' LIMIT %s",
            [batch_id, AT_ONCE],
        )
        return [Ended(i, batch_id, state) for i, state in cursor.fetchall()]


# ---- for whoever makes deliveries wait for something else ----


def lower(batch_id: int, delivery_ids: Iterable[int], found: Consequences) -> None:
    """One thing less to wait for, for each time that a delivery of the batch is named."""
    now = database_now()
    _lower(batch_id, Counter(delivery_ids), now, now, found)


def satisfied(delivery_ids: Sequence[int], now: datetime) -> int:
    """One thing less that each of these waits for. Part of the caller's transaction. Returns how many wait for nothing
    more but their time."""
    found = Consequences()
    for batch_id, some in _by_batch(delivery_ids).items():
        # What was skipped because of a predecessor does not come back for its words.
        _lower(batch_id, dict.fromkeys(some, 1), now, now, found, revives=False)
    found.write()
    return found.released


def skip(delivery_ids: Sequence[int], words: str, now: datetime) -> int:
    """Ends those of these that wait, with the reason. Part of the caller's transaction. Returns how many."""
    found = Consequences()
    skipped: list[Ended] = []
    for batch_id, some in _by_batch(delivery_ids).items():
        skipped += _skip(batch_id, dict.fromkeys(some, words), "", now, found)
    _carry_out(found, skipped)
    found.write()
    return len(skipped)


def _by_batch(delivery_ids: Sequence[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for delivery_id, batch_id in Delivery.objects.filter(pk__in=list(delivery_ids)).values_list("pk", "batch_id"):
        found[batch_id].append(delivery_id)
    return found
