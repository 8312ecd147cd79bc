"""What workers count, for whoever watches: cheap in the process, added up in the database over processes and hosts.

A series is a name and its labels. Counting touches one number in memory; `StoredMeter.flush` adds what has come since
to the table `Counter`, and pumps call it every few seconds. Decides nothing by it: the exact account of a run is its
tally, which is written with the deliveries themselves.
"""

import json
import os
import threading
from bisect import bisect_left
from collections.abc import Mapping
from functools import cache

from django.db import connection

from delivery.models import Counter
from delivery.queue.dialect import DatabaseAway, is_away, table

SETTLED = "deliveries_settled"  # labels: state, engine
ATTEMPTS = "attempts"  # kind, engine
ATTEMPT_SECONDS = "attempt_seconds"  # engine; observed
TOKEN_WAIT = "token_wait_seconds"  # noqa: S105 - engine
PUMP_SECONDS = "pump_seconds"  # state: busy, idle
PUMP_SLICES = "pump_slices"

# Upper bounds in seconds of what is observed: from a server on this host to the patience of an HTTP client.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BUCKET = "_bucket"  # the series of an observation's counts, by the label `le`: not cumulative
SUM = "_sum"

Labels = tuple[tuple[str, object], ...]  # sorted
Series = tuple[str, Labels]


class Count:
    """One series, to be kept by who counts often: `count.value += 1`. Written by one thread."""

    __slots__ = ("flushed", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.flushed = 0.0  # how much of it is in the table; written by who flushes


class Histogram:
    """The series of one observed quantity."""

    __slots__ = ("_counts", "_sum")

    def __init__(self, counts: list[Count], total: Count) -> None:
        self._counts = counts
        self._sum = total

    def observe(self, seconds: float) -> None:
        """Takes in one observation."""
        self._counts[bisect_left(BOUNDS, seconds)].value += 1
        self._sum.value += seconds


class Meter:
    """Counts in this process, and for it alone: the simulator's. Series begin with their first use."""

    def __init__(self) -> None:
        self._counts: dict[Series, Count] = {}

    def counter(self, name: str, **labels: object) -> Count:
        """The series of this name and these labels, to be kept and counted on."""
        series = (name, tuple(sorted(labels.items())))
        found = self._counts.get(series)
        # Two threads that want a new series must get the same one.
        return found if found is not None else self._counts.setdefault(series, Count())

    def histogram(self, name: str, **labels: object) -> Histogram:
        """The series of an observed quantity, to be kept and observed on."""
        counts = [self.counter(name + BUCKET, le=bound, **labels) for bound in (*BOUNDS, "+Inf")]
        return Histogram(counts, self.counter(name + SUM, **labels))

    def count(self, name: str, n: float = 1, **labels: object) -> None:
        """Adds `n`; for what happens seldom, as it looks the series up."""
        self.counter(name, **labels).value += n

    def observe(self, name: str, seconds: float, **labels: object) -> None:
        """Takes in one observation; for what happens seldom."""
        self.histogram(name, **labels).observe(seconds)

    def values(self) -> dict[Series, float]:
        """What was counted since the process began."""
        return {series: count.value for series, count in list(self._counts.items())}

    def flush(self) -> None:
        """Nothing: what this meter counts is for nobody else."""


class StoredMeter(Meter):
    """Counts for the table that all processes add to."""

    def __init__(self) -> None:
        super().__init__()
        self._flushing = threading.Lock()

    def flush(self) -> None:
        """Adds what was counted since the last time to the table. While the database is away that is left to the next
        time, and nothing gets lost; when it goes away in the very moment, the same few seconds may count twice."""
        with self._flushing:
            grown = [(series, count, count.value) for series, count in list(self._counts.items())]
            grown = [(series, count, value) for series, count, value in grown if value != count.flushed]
            try:
                add({series: value - count.flushed for series, count, value in grown})
            except DatabaseAway as error:
                if not is_away(error):
                    raise
                connection.close()  # whoever comes next in this thread gets a new one
                return
            for _, count, value in grown:
                count.flushed = value

    def forget(self) -> None:
        """For a process that was forked: what its parent has counted is its parent's to write."""
        self._flushing = threading.Lock()
        for count in self._counts.values():
            count.flushed = count.value


@cache
def meter() -> StoredMeter:
    """This process's meter."""
    made = StoredMeter()
    os.register_at_fork(after_in_child=made.forget)
    return made


SHARDS = 16


def add(changes: Mapping[Series, float]) -> None:
    """Adds to the table at once, by one statement; as part of the caller's transaction where there is one."""
    shard = os.getpid() % SHARDS
    # In a fixed order, so that two transactions on the same shard cannot wait for each other in a circle.
    rows = sorted((name, text_of(labels), shard, value) for (name, labels), value in changes.items() if value)
    if not rows:
        return
    cells = ", ".join(["(%s, %s, %s, %s)"] * len(rows))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table(Counter)} (name, labels, shard, value) VALUES {cells} "  # noqa: S608
            f"ON CONFLICT (name, labels, shard) DO UPDATE SET value = {table(Counter)}.value + excluded.value",
            [cell for row in rows for cell in row],
        )


def settled(ends: Mapping[str, int]) -> None:
    """Adds deliveries that ended without an engine or a pump, by end state: cancelled, taken back. Part of the caller's
    transaction."""
    add({(SETTLED, (("engine", None), ("state", str(state)))): n for state, n in ends.items()})


def text_of(labels: Labels) -> str:
    """Labels as the table has them: JSON with sorted keys, so that the same series is the same text."""
    return json.dumps(dict(labels), sort_keys=True, ensure_ascii=False)
