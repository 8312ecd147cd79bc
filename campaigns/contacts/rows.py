"""From the rows of a file to the contacts that they make, each address once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from campaigns.audiences.columns import field_name
from campaigns.audiences.exceptions import AudienceRefused
from campaigns.audiences.rows import BadRow, Reason, Row
from campaigns.contacts.mapping import Mapping
from campaigns.contacts.merging import Said
from campaigns.contacts.uploads import MOST_ROWS, source
from campaigns.exports.formats import FORMULA
from campaigns.models import ContactImport
from delivery.addresses import identity

AT_ONCE = 2000
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class NewContact:
    """One contact as the file has it, and the line on which it stands."""

    row: int
    address: str
    identity: str
    said: Said


def read(of: ContactImport) -> Iterator[Sequence[NewContact | BadRow]]:
    """Everything in the file, in its order, so many rows at once. Raises AudienceError."""
    rows = _each(of)
    while chunk := list(islice(rows, AT_ONCE)):
        yield chunk


def _each(of: ContactImport) -> Iterator[NewContact | BadRow]:
    mapping = Mapping.of(of.mapping)
    fields = [(field_name(heading), name) for heading, name in mapping.attributes.items()]
    # Of the identities only the hash is kept, some 70 bytes each: two of a million are equal by chance once in thirty
    # million files.
    seen: set[int] = set()
    for count, row in enumerate(source(of).rows(), 1):
        if count > MOST_ROWS:
            raise AudienceRefused(
                of.filename,
                f"it has more than {MOST_ROWS:,} rows",
                "Part it, each part with the line that names the columns",
            )
        yield row if isinstance(row, BadRow) else _judged(row, fields, mapping, seen)


def _judged(row: Row, fields: list[tuple[str, str]], mapping: Mapping, seen: set[int]) -> NewContact | BadRow:
    name = row.name if mapping.name else ""
    if row.address.startswith("'") and row.address[1:2] in FORMULA:
        detail = (
            f"The apostrophe before {row.address[1:][:60]!r} looks like that of an export to spreadsheets: take it "
            "away if it does not belong there, or enter the address by hand if it does."
        )
        return BadRow(row.position, Reason.IMPOSSIBLE_ADDRESS, detail, row.address)
    if len(name) > LONGEST_NAME:
        return BadRow(row.position, Reason.WRONG_VALUE, f"The name has more than {LONGEST_NAME} characters.", name)
    same = identity(row.address)
    if hash(same) in seen:
        return BadRow(row.position, Reason.DUPLICATE, "The address stands further up in the file.", row.address)
    seen.add(hash(same))
    return NewContact(row.position, row.address, same, Said(name, {name: row.data[field] for field, name in fields}))
