"""The audience of a CSV file, wherever its bytes are kept.

Decides the delimiter, what a row of the file is, and when the file as a whole cannot be trusted. Where the bytes come
from is the caller's: a function that opens them anew for each reading.

Two kinds of damage are kept apart. What is wrong with one row (too few columns, a stray quote) is a `BadRow`. What
makes the rest of the file doubtful (another encoding, a quote that never closes) refuses the file: half an audience
must not pass for a whole one.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from campaigns.audiences.columns import Columns
from campaigns.audiences.csv_lines import read_lines
from campaigns.audiences.exceptions import AudienceRefused, AudienceUnreachable
from campaigns.audiences.reading import read
from campaigns.audiences.rows import BadRow, Reason, Row

DELIMITERS = ",;\t|"

_STRAY_QUOTE = 'text after a closing quote; a quote inside a quoted field is written twice ("")'


class CsvSource:
    """A CSV file as an audience.

    `open_chunks` yields the file's bytes in pieces of any size; it is called once for each reading, and what it
    returned is closed afterwards if it can be. `encoding` is believed when the file has no byte order mark (default
    UTF-8). `delimiter` is sniffed from the first line when it is not given. `address_field` and `name_field` are
    explained at `columns.Columns.of`.
    """

    def __init__(
        self,
        open_chunks: Callable[[], Iterable[bytes]],
        *,
        label: str = "the CSV file",
        address_field: str | None = None,
        name_field: str | None = None,
        encoding: str | None = None,
        delimiter: str | None = None,
    ) -> None:
        self._open_chunks = open_chunks
        self._label = label
        self._address_field = address_field
        self._name_field = name_field
        self._encoding = encoding or "utf-8"
        self._delimiter = delimiter or None

    def label(self) -> str:
        """What it is called in messages."""
        return self._label

    def fields(self) -> tuple[str, ...]:
        """The field names of the header; reads no more of the file than its beginning."""
        with self._opened() as records:
            return self._columns(records).fields

    def headings(self) -> list[str]:
        """The cells of the header as they stand, whatever becomes of them."""
        with self._opened() as records:
            return self._header(records)[1]

    def rows(self) -> Iterator[Row | BadRow]:
        """Every row after the header, at the line on which it starts. Empty lines are no rows."""
        with self._opened() as records:
            columns = self._columns(records)
            for line, cells in records:
                yield _judged(line, cells, records.text(), columns)

    @contextmanager
    def _opened(self) -> Iterator["_Records"]:
        chunks = self._chunks()
        try:
            yield _Records(read_lines(chunks, self._label, self._encoding), self._label, self._delimiter)
        finally:
            chunks.close()

    def _chunks(self) -> Iterator[bytes]:
        opened: Iterable[bytes] = ()
        try:
            opened = self._open_chunks()
            yield from opened
        except OSError as error:
            raise AudienceUnreachable(
                self._label,
                f"the file cannot be read ({error.strerror or error})",
                "See that it is still there and readable, then try again",
            ) from error
        finally:
            if hasattr(opened, "close"):
                opened.close()

    def _columns(self, records: "_Records") -> Columns:
        where, header = self._header(records)
        return Columns.of(where, header, address_field=self._address_field, name_field=self._name_field)

    def _header(self, records: "_Records") -> tuple[str, list[str]]:
        line, header = next(records, (1, []))
        where = f"{self._label}, line {line}"
        if not header:
            raise AudienceRefused(self._label, "the file is empty", "Its first line must name the columns")
        if isinstance(header, csv.Error):
            raise AudienceRefused(where, f"the header has {_STRAY_QUOTE}", "Correct the first line")
        if any("\0" in heading for heading in header):
            raise AudienceRefused(
                where,
                "the header has NUL characters: this is no text, or it is UTF-16 without a byte order mark",
                "Save the file as CSV in UTF-8, or set its encoding to utf-16-le",
            )
        return where, header


def _judged(line: int, cells: list[str] | csv.Error, text: str, columns: Columns) -> Row | BadRow:
    if isinstance(cells, csv.Error):
        return BadRow(line, Reason.NOT_A_ROW, f"The row has {_STRAY_QUOTE}.", text)
    if len(cells) != len(columns.fields):
        counts = f"The row has {len(cells)} column(s), the header has {len(columns.fields)}."
        return BadRow(line, Reason.NOT_A_ROW, counts, text)
    data = dict(zip(columns.fields, cells, strict=True))
    name = data[columns.name] if columns.name is not None else ""
    return read(line, data[columns.address], name, data, raw=text)


class _Records(Iterator[tuple[int, list[str] | csv.Error]]):
    """The records of a file, each with the line on which it starts; an error where quotes make no sense of one."""

    def __init__(self, lines: Iterator[str], where: str, delimiter: str | None) -> None:
        self._where = where
        self._lines = lines
        self._taken: list[str] = []
        self._blank_lines, first = 0, next(lines, "")
        while first == "\n":
            self._blank_lines, first = self._blank_lines + 1, next(lines, "")
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0'):
            raise AudienceRefused(
                where, f"{delimiter!r} is no delimiter", "Set one character, or none to have it found"
            )
        self._reader = csv.reader(self._take(first), delimiter=delimiter or _sniffed(first), strict=True)

    def text(self) -> str:
        """The record read last, as it stands in the file."""
        return "".join(self._taken).rstrip("\n")

    def __next__(self) -> tuple[int, list[str] | csv.Error]:
        cells: list[str] | csv.Error = []
        while not cells:
            self._taken.clear()
            line = self._blank_lines + self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except csv.Error as error:
                self._refuse_if_torn(line, str(error))
                cells = error
        return line, cells

    def _take(self, first: str) -> Iterator[str]:
        line: str | None = first or None
        while line is not None:
            self._taken.append(line)
            yield line
            line = next(self._lines, None)

    def _refuse_if_torn(self, line: int, error: str) -> None:
        """The csv module tells its errors apart by their words alone."""
        if error.startswith("unexpected end of data"):
            problem = "a quoted field starts here and never ends"
        elif error.startswith("field larger than field limit"):
            problem = f"a field that starts here is longer than {csv.field_size_limit():,} characters"
        else:
            return
        raise AudienceRefused(f"{self._where}, line {line}", problem, "Look for a quote that is opened and not closed")


def _sniffed(first: str) -> str:
    """The delimiter that makes the most columns of the first line; of equals the first in DELIMITERS."""
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([first], delimiter=delimiter), [])))
