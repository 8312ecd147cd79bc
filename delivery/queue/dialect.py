"""What PostgreSQL and SQLite say differently, so that every statement of the queue is written once.

Knows no table. Both databases have `UPDATE ... FROM` and `RETURNING`; they differ in how many values travel with one
statement, in row locks, and in how instants look.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from django.db import connection, models
from django.db.utils import InterfaceError, OperationalError

# What a lost, restarting or busy database raises, among other things: `is_away` tells.
DatabaseAway = (OperationalError, InterfaceError)

_POSTGRES_TYPES = {int: "bigint", str: "text", bool: "boolean", float: "double precision", datetime: "timestamptz"}


def is_postgres() -> bool:
    return connection.vendor == "postgresql"


def is_away(error: Exception) -> bool:
    """True when waiting may help: the connection is gone, the server restarts, SQLite's one writer is busy. False for
    a statement that will never work; SQLite reports a missing table by the same exception."""
    if is_postgres():
        return True
    return any(word in str(error) for word in ("locked", "busy", "unable to open"))


def values(alias: str, columns: dict[str, type], rows: Sequence[Sequence[object]]) -> tuple[str, list[object]]:
    """`rows` as a table expression for a FROM clause, and its parameters. One parameter a column, not one a cell."""
    names = ", ".join(columns)
    if is_postgres():
        arrays = ", ".join(f"%s::{_POSTGRES_TYPES[kind]}[]" for kind in columns.values())
        return f"unnest({arrays}) AS {alias}({names})", [list(column) for column in zip(*rows, strict=True)]
    picks = ", ".join(f"json_extract(value, '$[{i}]') AS {name}" for i, name in enumerate(columns))
    return f"(SELECT {picks} FROM json_each(%s)) AS {alias}", [_json([_plain(cell) for cell in row] for row in rows)]


def ids(name: str, wanted: Iterable[int]) -> tuple[str, list[object]]:
    """A condition that `name` is one of `wanted`, with its parameters."""
    if is_postgres():
        return f"{name} = ANY(%s)", [list(wanted)]
    return f"{name} IN (SELECT value FROM json_each(%s))", [_json(wanted)]


def skip_locked(alias: str) -> str:
    """Row locks that pass over what others hold. SQLite has one writer at a time and needs none."""
    return f"FOR UPDATE OF {alias} SKIP LOCKED" if is_postgres() else ""


def while_it_stands() -> str:
    """A row lock that keeps a row from being deleted until the transaction ends. It does not keep it from changing."""
    return "FOR KEY SHARE" if is_postgres() else ""


def instant(value: datetime | None) -> object:
    """An instant as a parameter."""
    return value if is_postgres() or value is None else _plain(value)


def read_instant(value: object) -> datetime | None:
    """An instant as a cursor returned it. SQLite's are naive, and text where it knows no declared type."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def database_now() -> datetime:
    """The instant by the database's clock: the one clock that all hosts share. SQLite lives on this host."""
    if not is_postgres():
        return datetime.now(UTC)
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


def table(model: type[models.Model]) -> str:
    return model._meta.db_table


def _plain(cell: object) -> object:
    if isinstance(cell, datetime):
        # As Django itself writes instants to SQLite, so that comparisons of text are comparisons of time.
        return str(cell.astimezone(UTC).replace(tzinfo=None))
    return cell


def _json(value: Iterable[object]) -> str:
    return json.dumps(list(value))
