"""An export as an answer: the rows of a table, in one of the formats, and lines in the log of who took it.

Reading is not in the audit trail. Who takes a whole list of addresses away is in the log: at its beginning, and how
many rows it came to, also when he hung up half-way.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from django.http import StreamingHttpResponse

from campaigns.exports.formats import CSV, JSON_LINES, MEDIA_TYPES, Rows, as_csv, as_json_lines

logger = logging.getLogger(__name__)

# Spreadsheets take a file without it for one in the code page of the country.
BYTE_ORDER_MARK = "\ufeff".encode()


@dataclass(frozen=True)
class Table:
    """What is exported: its columns, and rows in pieces. In CSV the last column, an object, becomes columns of its
    own: `flat` says which of its fields under which headings. It is asked when the first octets are gone already: to
    find them may take a moment."""

    name: str
    columns: Sequence[str]
    rows: Callable[[], Rows]
    flat: Callable[[], Mapping[str, str]] | None = None
    about: dict[str, object] = field(default_factory=dict)


def answer(table: Table, form: str, *, by: str, for_spreadsheets: bool = False) -> StreamingHttpResponse:
    """The file, row by row as it is read."""
    taken = _Taken(table, form, by)
    content = as_json_lines(table.columns, taken.rows()) if form == JSON_LINES else _csv_of(table, taken)
    response = StreamingHttpResponse(
        taken.told(content, BYTE_ORDER_MARK if for_spreadsheets and form == CSV else b""),
        content_type=f"{MEDIA_TYPES[form]}; charset=utf-8",
    )
    response.headers["Content-Disposition"] = f'attachment; filename="{table.name}.{form}"'
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would gather it first
    return response


def _csv_of(table: Table, taken: "_Taken") -> Iterator[bytes]:
    if table.flat is None:
        return as_csv([table.columns], taken.rows())
    fields: list[str] = []

    def columns() -> Iterator[Sequence[str]]:
        yield table.columns[:-1]
        named = table.flat()
        fields.extend(named.values())
        yield list(named)

    def rows() -> Rows:
        for piece in taken.rows():
            yield [(*row[:-1], *map((row[-1] or {}).get, fields)) for row in piece]

    return as_csv(columns(), rows())


class _Taken:
    """One export: counts its rows, and tells of its beginning and its end."""

    def __init__(self, table: Table, form: str, by: str) -> None:
        self._table = table
        self._about = {"export": table.name, "format": form, "by": by, **table.about}
        self._rows = 0

    def rows(self) -> Rows:
        for piece in self._table.rows():
            self._rows += len(piece)
            yield piece

    def told(self, content: Iterator[bytes], first: bytes) -> Iterator[bytes]:
        logger.info("export begins", extra=self._about)
        whole = False
        try:
            if first:
                yield first
            yield from content
            whole = True
        finally:
            logger.info("export ends", extra=self._about | {"rows": self._rows, "whole": whole})
