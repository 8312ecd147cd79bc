"""An audience that came with a request: rows as objects, each field under its name."""

from collections.abc import Iterator, Mapping, Sequence

from campaigns.audiences.columns import Columns, field_name
from campaigns.audiences.reading import plain, read
from campaigns.audiences.rows import BadRow, Row, Source

LABEL = "the recipients that came with the request"


class InlineSource:
    """Rows that are in memory. The audience's fields for address and name count where the rows have them.

    A field that a row lacks is left out of its data, so that strict templates report it.
    """

    def __init__(self, rows: Sequence[Mapping[str, object]], *, address_field: str = "", name_field: str = "") -> None:
        """Raises AudienceRefused when no field holds the address, or a name cannot be one."""
        self._rows = rows
        names = list(dict.fromkeys(name for row in rows for name in row))
        self._columns = Columns.of(
            LABEL,
            names,
            address_field=address_field if address_field in names else None,
            name_field=name_field if name_field in names else None,
        )
        self._fields = {name: field_name(name) for name in names}

    def label(self) -> str:
        """What it is called in messages."""
        return LABEL

    def fields(self) -> tuple[str, ...]:
        """The names that any row has."""
        return self._columns.fields

    def rows(self) -> Iterator[Row | BadRow]:
        """Every row, counted from 1."""
        columns = self._columns
        for position, row in enumerate(self._rows, 1):
            data = {self._fields[name]: value for name, value in row.items()}
            yield read(position, data.get(columns.address), data.get(columns.name or ""), data)


class WithContext:
    """A source each of whose rows has some fields more; where a row has one of them itself, that counts."""

    def __init__(self, source: Source, context: Mapping[str, object]) -> None:
        self._source = source
        self._context = {name: plain(value) for name, value in context.items()}

    def label(self) -> str:
        """What it is called in messages."""
        return self._source.label()

    def fields(self) -> tuple[str, ...]:
        """Those of the source, and those added."""
        return tuple(dict.fromkeys((*self._source.fields(), *self._context)))

    def rows(self) -> Iterator[Row | BadRow]:
        """Every row of the source."""
        for row in self._source.rows():
            if isinstance(row, Row):
                yield Row(row.position, row.address, row.name, {**self._context, **row.data})
            else:
                yield row
