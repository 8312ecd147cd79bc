"""The audience of a SELECT on a named database.

Decides when a query is checked and how its columns become fields. The text is judged by `sql_check`; that it can only
read is seen to by the driver of its database (`sql_postgres`, `sql_sqlite`), whatever the text.
"""

import time
from collections.abc import Callable, Iterator

from campaigns.audiences import sql_postgres, sql_sqlite
from campaigns.audiences.columns import Columns
from campaigns.audiences.reading import read
from campaigns.audiences.rows import BadRow, Row
from campaigns.audiences.sql_check import check_query, without_end
from campaigns.audiences.sql_connection import POSTGRES, SQLITE, SqlConnection
from campaigns.audiences.sql_deadline import Deadline, TimeLimits

_DRIVERS = {POSTGRES: sql_postgres, SQLITE: sql_sqlite}


class SqlSource:
    """The rows of a query as an audience, streamed from a connection of its own that is opened for each reading.

    `limits` bound the time, counted by `monotonic`. `address_field` and `name_field` are explained at
    `columns.Columns.of`; fields are the query's columns.
    """

    def __init__(
        self,
        connection: SqlConnection,
        query: str,
        *,
        label: str | None = None,
        address_field: str | None = None,
        name_field: str | None = None,
        limits: TimeLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._query = query
        self._label = label or f"query on {connection.name!r}"
        self._address_field = address_field
        self._name_field = name_field
        self._limits = limits or TimeLimits()
        self._monotonic = monotonic
        self._driver = _DRIVERS[connection.dialect]

    def label(self) -> str:
        """What it is called in messages."""
        return self._label

    def fields(self) -> tuple[str, ...]:
        """The query's columns under their field names; the database plans the query and returns no row."""
        names = self._driver.column_names(self._connection, self._checked(), self._deadline())
        return self._columns(names).fields

    def rows(self) -> Iterator[Row | BadRow]:
        """Every row in the order in which the database returns them, counted from 1."""
        with self._driver.result(self._connection, self._checked(), self._deadline()) as (names, records):
            columns = self._columns(names)
            for position, values in enumerate(records, 1):
                data = dict(zip(columns.fields, values, strict=True))
                name = data[columns.name] if columns.name is not None else None
                yield read(position, data[columns.address], name, data)

    def _checked(self) -> str:
        check_query(self._query, self._connection.dialect, where=self._label)
        return without_end(self._query, self._connection.dialect)

    def _columns(self, names: tuple[str, ...]) -> Columns:
        return Columns.of(self._label, names, address_field=self._address_field, name_field=self._name_field)

    def _deadline(self) -> Deadline:
        return Deadline(self._label, self._limits, self._monotonic)
