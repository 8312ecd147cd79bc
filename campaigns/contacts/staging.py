"""Rows that a statement is to be joined with: on PostgreSQL brought by COPY into a table that lives as long as the
transaction, for arrays of JSON take longer to quote than everything else together; on SQLite as one parameter."""

from collections.abc import Mapping, Sequence

from django.db import connection

from delivery.queue.dialect import is_postgres, values

_TYPES = {int: "bigint", str: "text"}


def staged(name: str, columns: Mapping[str, type], rows: Sequence[Sequence[object]]) -> tuple[str, list[object]]:
    """`rows` as an expression for a FROM clause, called v, and its parameters. Their order is kept. Part of the
    caller's transaction; what was staged under this name before is gone."""
    if not is_postgres():
        return values("v", columns, rows)
    with connection.cursor() as cursor:
        types = ", ".join(f"{column} {_TYPES[kind]}" for column, kind in columns.items())
        cursor.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({types}) ON COMMIT DELETE ROWS")
        cursor.execute(f"DELETE FROM {name}")  # noqa: S608
        with cursor.copy(f"COPY {name} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    return f"{name} AS v", []


def as_json(column: str) -> str:
    """A text as the column's JSON."""
    return f"{column}::jsonb" if is_postgres() else column


def run(statement: str, parameters: Sequence[object]) -> list[tuple]:
    """What the statement returns."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []
