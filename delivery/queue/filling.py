"""Writes the deliveries of a batch in bulk, each recipient once.

On PostgreSQL by COPY into a staging table that lives as long as the transaction, and from there with ON CONFLICT DO
NOTHING: the unique constraint finds duplicates over the whole batch, nothing holds an audience in memory.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection, transaction

from delivery import metrics
from delivery.core.envelope import MAX_WORDS
from delivery.models import Delivery, DeliveryState
from delivery.queue import batches, tallies
from delivery.queue.dialect import database_now, instant, is_postgres, table, values

STAGED = {"address": str, "identity": str, "name": str, "data": str, "skipped": str}


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """One recipient to be written. `position` is the caller's own number for it, given back for duplicates.

    `skipped` is why this one gets no mail: then the delivery is written with its end, and accounted for.
    """

    position: int
    address: str
    identity: str
    name: str
    data: dict[str, object]
    skipped: str = ""


class Filler:
    """Writes deliveries of one message of one batch."""

    def __init__(self, batch_id: int, message_id: int, priority: int) -> None:
        self._common = [batch_id, message_id, priority]

    def write(self, deliveries: Sequence[NewDelivery]) -> list[NewDelivery]:
        """Writes a chunk in one transaction. Returns those whose recipient this message has already."""
        first: dict[str, NewDelivery] = {}
        duplicates = []
        for delivery in deliveries:
            if first.setdefault(delivery.identity, delivery) is not delivery:
                duplicates.append(delivery)
        rows = [
            (d.address, d.identity, d.name[:200], json.dumps(d.data), d.skipped[:MAX_WORDS]) for d in first.values()
        ]
        with transaction.atomic():
            written = self._copy(rows) if is_postgres() else self._insert(rows)
            skipped = sum(1 for d in first.values() if d.skipped and d.identity in written)
            batches.grew(self._common[0], written.values())
            tallies.add(Counter({(self._common[0], DeliveryState.SKIPPED.value): skipped}))
            metrics.settled({DeliveryState.SKIPPED: skipped})
        duplicates += [d for identity, d in first.items() if identity not in written]
        return sorted(duplicates, key=lambda d: d.position)

    def _copy(self, rows: list[tuple[str, ...]]) -> dict[str, int]:
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE TEMPORARY TABLE IF NOT EXISTS delivery_staging "
                "(address text, identity text, name text, data jsonb, skipped text) ON COMMIT DELETE ROWS"
            )
            cursor.execute("DELETE FROM delivery_staging")  # another chunk's of this transaction
            with cursor.copy("COPY delivery_staging FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        return self._insert_from("delivery_staging AS v", [])

    def _insert(self, rows: list[tuple[str, ...]]) -> dict[str, int]:
        if not rows:
            return {}
        source, parameters = values("v", STAGED, rows)
        # The WHERE is SQLite's: without it "ON CONFLICT" after a SELECT reads as a join's ON.
        return self._insert_from(f"{source} WHERE true", parameters)

    def _insert_from(self, source: str, parameters: list[object]) -> dict[str, int]:
        """The ids of what was written, by the recipient's identity."""
        skipped, ready = DeliveryState.SKIPPED.value, DeliveryState.READY.value
        # NULL in a CASE takes its type from the other branch; SQLite has no types to mind.
        now = "%s::timestamptz" if is_postgres() else "%s"
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table(Delivery)} (batch_id, message_id, priority, address, identity, name, data, words, "
                "state, settled_at) SELECT %s, %s, %s, v.address, v.identity, v.name, v.data, v.skipped, "
                f"CASE v.skipped WHEN '' THEN '{ready}' ELSE '{skipped}' END, "
                f"CASE v.skipped WHEN '' THEN NULL ELSE {now} END "
                f"FROM {source} ON CONFLICT (identity, message_id) DO NOTHING RETURNING identity, id",
                [*self._common, instant(database_now()), *parameters],
            )
            return dict(cursor.fetchall())
