"""From the bytes of a text file, in pieces of any size, to its lines.

Decides the encoding and what ends a line (LF, CRLF or CR; all become LF), and refuses what is no text. Knows nothing
of columns, quotes and rows.
"""

import codecs
import io
import itertools
from collections.abc import Iterable, Iterator

from campaigns.audiences.exceptions import AudienceRefused

BLOCK = 65_536  # bytes decoded at a time, whatever the pieces
MAX_LINE = 1_000_000  # characters

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_ZIP = b"PK\x03\x04"  # how .xlsx and .ods begin


def read_lines(chunks: Iterable[bytes], where: str, encoding: str) -> Iterator[str]:
    """The lines, each ending in a line feed except perhaps the last.

    A byte order mark says more than `encoding`, which is believed when there is none. Raises `AudienceRefused` for
    bytes that are not in the encoding, with the line, and for a line longer than MAX_LINE.
    """
    blocks = _blocks(chunks)
    first = next(blocks, b"")
    if first.startswith(_ZIP):
        raise AudienceRefused(where, "this is a spreadsheet or an archive, not a CSV file", "Export it as CSV (UTF-8)")
    for bom, marked in _BOMS:
        if first.startswith(bom):
            first, encoding = first[len(bom) :], marked
    decoder = _decoder(where, encoding)
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    count, pending = 0, ""
    for block in itertools.chain([first], blocks, [b""]):
        try:
            text = newlines.decode(decoder.decode(block, final=not block), final=not block)
        except UnicodeDecodeError as error:
            before = newlines.decode(error.object[: error.start].decode(encoding, "replace"), final=True)
            raise _undecodable(where, count + before.count("\n") + 1, encoding, error) from error
        except UnicodeError as error:  # the codec objects to the file as a whole
            raise AudienceRefused(where, str(error), "Save the file as UTF-8, or set its encoding") from error
        *complete, pending = (pending + text).split("\n")
        for line in complete:
            count += 1
            yield line + "\n"
        if len(pending) > MAX_LINE:
            raise AudienceRefused(
                f"{where}, line {count + 1}",
                f"the line is longer than {MAX_LINE:,} characters",
                "See that this is a CSV file with one row to a line",
            )
    if pending:
        yield pending


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= BLOCK:
            yield bytes(waiting[:BLOCK])
            del waiting[:BLOCK]
    if waiting:
        yield bytes(waiting)


def _decoder(where: str, encoding: str) -> codecs.IncrementalDecoder:
    try:
        "a".encode(encoding)  # refuses the codecs that are no text encodings, such as "hex" and "rot13"
        decoder = codecs.getincrementaldecoder(encoding)()
    except (LookupError, ValueError) as error:
        raise AudienceRefused(
            where, f"{encoding!r} is not an encoding", "Set one such as utf-8, cp1252, iso-8859-15 or utf-16-le"
        ) from error
    # With a mark the byte order is known by now. Without one, some versions of Python guess.
    if codecs.lookup(encoding).name == "utf-16":
        raise AudienceRefused(
            where, "UTF-16 without a byte order mark", "Save the file as UTF-8, or set its encoding to utf-16-le"
        )
    return decoder


def _undecodable(where: str, line: int, encoding: str, error: UnicodeDecodeError) -> AudienceRefused:
    return AudienceRefused(
        f"{where}, line {line}",
        f"the byte 0x{error.object[error.start]:02X} is not {encoding} ({error.reason})",
        "Save the file as UTF-8, or set its encoding (Excel on Windows often writes cp1252)",
    )
