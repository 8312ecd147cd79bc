"""The audience of a contact list kept in our own database.

Decides nothing: the caller supplies the contacts in batches and the names of the attributes. Addresses were
normalised when they were imported; they are judged again here because rows may have come in by other ways.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from campaigns.audiences.reading import read
from campaigns.audiences.rows import BadRow, Row

Contact = tuple[str, str, Mapping[str, object]]  # address, name, attributes


class ContactListSource:
    """Stored contacts as an audience.

    `batches` is called once for each reading and yields the contacts piece by piece. `fields` are the attributes that
    the list declares; one that a contact lacks is left out of that row's data, so that strict templates report it.
    """

    def __init__(self, batches: Callable[[], Iterator[Sequence[Contact]]], fields: Sequence[str], label: str) -> None:
        self._batches = batches
        self._fields = tuple(fields)
        self._label = label

    def label(self) -> str:
        """What it is called in messages."""
        return self._label

    def fields(self) -> tuple[str, ...]:
        """The attributes that the list declares."""
        return self._fields

    def rows(self) -> Iterator[Row | BadRow]:
        """Every contact in the order of the batches, counted from 1."""
        position = 0
        for batch in self._batches():
            for address, name, attributes in batch:
                position += 1
                yield read(position, address, name, attributes)
