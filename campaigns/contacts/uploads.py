"""The file of an import: kept in pieces as it comes, and read from them.

No transaction is open while a client sends: a slow one would hold the only writer of SQLite, and be cut off by
PostgreSQL.
"""

import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice

from campaigns.audiences.columns import Columns
from campaigns.audiences.csv_file import CsvSource
from campaigns.audiences.exceptions import AudienceRefused
from campaigns.audiences.rows import BadRow
from campaigns.audiences.stored import pieces
from campaigns.conf import conf
from campaigns.contacts.mapping import guess
from campaigns.models import ContactImport, ContactList, ImportChunk, ImportState

MOST_ROWS = 1_000_000
MOST_COLUMNS = 200
SAMPLE_ROWS = 5
LONGEST_CELL = 100  # characters of one in the sample


class FileTooLarge(Exception):
    """More than may be uploaded."""


def store(
    contact_list: ContactList,
    filename: str,
    chunks: Iterable[bytes],
    *,
    by: str,
    encoding: str = "",
    delimiter: str = "",
) -> ContactImport:
    """Keeps a file and guesses how it is to be read. Raises FileTooLarge, AudienceRefused: then nothing is kept."""
    kept = ContactImport.objects.create(
        contact_list=contact_list,
        filename=filename.replace("\0", "")[:255] or "contacts.csv",
        by=by[:150],
        encoding=encoding,
        delimiter=delimiter,
    )
    try:
        for position, piece in enumerate(pieces(_bounded(chunks))):
            ImportChunk.objects.create(contact_import=kept, position=position, content=zlib.compress(piece, 1))
            kept.size += len(piece)
        kept.columns = _headings(kept)
        mapping = guess(kept.columns)
        kept.mapping = mapping.as_json()
        kept.sample = [_shown(row, kept.columns) for row in islice(source(kept).rows(), SAMPLE_ROWS)]
        kept.state = ImportState.UPLOADED
        kept.save()
    except BaseException:
        kept.delete()
        raise
    return kept


def source(of: ContactImport) -> CsvSource:
    """The file as rows, the address in the column that the mapping says. Without one, in the first: the rows are
    looked at only."""
    return CsvSource(
        lambda: _read(of.pk),
        label=of.filename,
        address_field=of.mapping["address"] or of.columns[0],
        name_field=of.mapping["name"] or None,
        encoding=of.encoding or None,
        delimiter=of.delimiter or None,
    )


def _bounded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    most, octets = conf().import_megabytes, 0
    for chunk in chunks:
        octets += len(chunk)
        if octets > most * 1024**2:
            raise FileTooLarge(
                f"A file of contacts has at most {most} MB (OUTREACH_IMPORT_MEGABYTES). Part it, each part with the "
                "line that names the columns."
            )
        yield chunk


def _headings(of: ContactImport) -> list[str]:
    """The headings, no two alike. Raises AudienceRefused."""
    found = CsvSource(
        lambda: _read(of.pk), label=of.filename, encoding=of.encoding or None, delimiter=of.delimiter or None
    ).headings()
    headings = [unicodedata.normalize("NFC", heading).strip() for heading in found]
    if len(headings) > MOST_COLUMNS:
        raise AudienceRefused(
            of.filename, f"it has {len(headings)} columns; at most {MOST_COLUMNS} are read", "Leave out some of them"
        )
    Columns.of(f"{of.filename}, line 1", headings, address_field=headings[0])
    return headings


def _shown(row: object, headings: list[str]) -> list[str]:
    """The cells of a row as a person sees them; one that is none is one cell."""
    if isinstance(row, BadRow):
        return [row.raw]
    return [str(value)[:LONGEST_CELL] for value in list(row.data.values())[: len(headings)]]


def _read(import_id: int) -> Iterator[bytes]:
    position = 0
    while chunk := ImportChunk.objects.filter(contact_import=import_id, position=position).first():
        yield zlib.decompress(bytes(chunk.content))
        position += 1
