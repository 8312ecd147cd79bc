"""Writes the deliveries of a batch in bulk, each recipient once.

On PostgreSQL by COPY into a staging table that lives as long as the transaction, and from there with ON CONFLICT DO
NOTHING: the unique constraint finds duplicates over the whole batch, nothing holds an audience in memory.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from delivery.core.envelope import MAX_WORDS
from delivery.core.sequence import PLAIN, Rules
from delivery.models import NO_DEADLINE, Delivery, DeliveryState, Dependency
from delivery.queue import batches, follow_ups, links
from delivery.queue.dialect import database_now, instant, is_postgres, table, values
from delivery.queue.ends import Ended

# The columns that differ from row to row.
STAGED = {
    "address": str,
    "identity": str,
    "key": str,
    "name": str,
    "data": str,
    "state": str,
    "words": str,
    "deadline": datetime,
    "not_before": datetime,
    "pending": int,
    "settled_at": datetime,
}
_STATE = list(STAGED).index("state")
_TYPES = {str: "text", int: "smallint", datetime: "timestamptz"}
_SKIPPED, _READY, _WAITING = DeliveryState.SKIPPED.value, DeliveryState.READY.value, DeliveryState.WAITING.value

Name = tuple[str, str]  # identity and key: what makes a recipient's delivery one of its kind in its message


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """One recipient to be written. `position` is the caller's own number for it, given back for duplicates.

    `skipped` is why this one gets no mail: then the delivery is written with its end, and accounted for. `key` is its
    name, where others wait for it; `after` are the names of those that it waits for itself. `deadline` is until when it
    should be gone.
    """

    position: int
    address: str
    identity: str
    name: str
    data: dict[str, object]
    skipped: str = ""
    key: str = ""
    after: tuple[str, ...] = ()
    deadline: datetime | None = None


class Filler:
    """Writes deliveries of one message of one batch, which begins: it follows no other. Those of a `composed` one wait
    for their words."""

    def __init__(
        self, batch_id: int, message_id: int, priority: int, rules: Rules = PLAIN, *, composed: bool = False
    ) -> None:
        self._batch = batch_id
        self._common = [batch_id, message_id, priority]
        self._rules = rules
        self._composed = composed

    def write(self, deliveries: Sequence[NewDelivery]) -> list[NewDelivery]:
        """Writes a chunk in one transaction. Returns those whose recipient, or key, this message has already."""
        first: dict[Name, NewDelivery] = {}
        keys: set[str] = set()
        duplicates = []
        for delivery in deliveries:
            name = delivery.identity, delivery.key
            if name in first or delivery.key in keys:
                duplicates.append(delivery)
                continue
            first[name] = delivery
            if delivery.key:
                keys.add(delivery.key)
        now = database_now()
        rows = [self._row(delivery, now) for delivery in first.values()]
        unsent = {name for name, row in zip(first, rows, strict=True) if row[_STATE] == _SKIPPED}
        with transaction.atomic():
            written = self._copy(rows) if is_postgres() else self._insert(rows)
            batches.grew(self._batch, written.values())
            self._write_dependencies(first, written)
            if self._composed:
                follow_ups.want_words([delivery_id for name, delivery_id in written.items() if name not in unsent])
            skipped = [Ended(i, self._batch, _SKIPPED) for name, i in written.items() if name in unsent]
            found = links.consequences(skipped)
            found.add_skipped(self._batch, skipped)
            found.write()
        duplicates += [d for name, d in first.items() if name not in written]
        return sorted(duplicates, key=lambda d: d.position)

    def _row(self, delivery: NewDelivery, now: datetime) -> tuple[object, ...]:
        rules = self._rules
        data = json.dumps(delivery.data)
        due = rules.planned(now, data)
        deadline = rules.deadline(due or now, delivery.deadline)
        not_before = rules.not_before(due or now, deadline)
        pending = len(delivery.after) + self._composed
        words = delivery.skipped[:MAX_WORDS]
        if delivery.skipped:
            state, not_before, settled_at = _SKIPPED, None, now
        elif due is None:
            state, words, not_before, settled_at = _SKIPPED, follow_ups.NEVER, None, now
        elif pending or not_before > now:
            state, settled_at = _WAITING, None
        else:
            state, not_before, settled_at = _READY, None, None
        return (
            delivery.address,
            delivery.identity,
            delivery.key,
            delivery.name[:200],
            data,
            state,
            words,
            deadline,
            not_before,
            pending,
            settled_at,
        )

    def _copy(self, rows: list[tuple[object, ...]]) -> dict[Name, int]:
        columns = ", ".join(f"{name} {'jsonb' if name == 'data' else _TYPES[kind]}" for name, kind in STAGED.items())
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS delivery_staging ({columns}) ON COMMIT DELETE ROWS")
            cursor.execute("DELETE FROM delivery_staging")  # another chunk's of this transaction
            with cursor.copy("COPY delivery_staging FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        return self._insert_from("delivery_staging AS v", [])

    def _insert(self, rows: list[tuple[object, ...]]) -> dict[Name, int]:
        if not rows:
            return {}
        source, parameters = values("v", STAGED, rows)
        # The WHERE is SQLite's: without it "ON CONFLICT" after a SELECT reads as a join's ON.
        return self._insert_from(f"{source} WHERE true", parameters)

    def _insert_from(self, source: str, parameters: list[object]) -> dict[Name, int]:
        """The ids of what was written, by the recipient's name."""
        names = ", ".join(STAGED)
        none = "%s::timestamptz" if is_postgres() else "%s"
        chosen = ", ".join(f"COALESCE(v.deadline, {none})" if name == "deadline" else f"v.{name}" for name in STAGED)
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table(Delivery)} (batch_id, message_id, priority, {names}) "
                f"SELECT %s, %s, %s, {chosen} FROM {source} ON CONFLICT DO NOTHING RETURNING identity, key, id",
                [*self._common, instant(NO_DEADLINE), *parameters],
            )
            return {(identity, key): delivery_id for identity, key, delivery_id in cursor.fetchall()}

    def _write_dependencies(self, deliveries: Mapping[Name, NewDelivery], written: Mapping[Name, int]) -> None:
        edges = [
            (written[name], on_key)
            for name, delivery in deliveries.items()
            if delivery.after and name in written
            for on_key in delivery.after
        ]
        if edges:
            source, parameters = values("v", {"delivery": int, "on_key": str}, edges)
            with connection.cursor() as cursor:
                cursor.execute(
                    f"INSERT INTO {table(Dependency)} (batch_id, delivery_id, on_key) "
                    f"SELECT %s, v.delivery, v.on_key FROM {source}",
                    [self._batch, *parameters],
                )
