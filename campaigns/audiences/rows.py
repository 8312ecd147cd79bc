"""The values a source yields, and the interface of every source.

Decides what a row is and what may be wrong with one. Knows no source and does not judge (see `reading`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

MAX_RAW = 200  # characters of a bad row that are kept: enough to find it again
MAX_DETAIL = 500


class Reason(StrEnum):
    """Why a row is no recipient."""

    NO_ADDRESS = "no_address"  # the field is empty
    IMPOSSIBLE_ADDRESS = "impossible_address"  # what is in the field cannot be an address
    DUPLICATE = "duplicate"  # the address was there before; found across the whole audience, by no source
    NOT_A_ROW = "not_a_row"  # the row does not have the shape of the others, or holds what cannot be stored
    WRONG_VALUE = "wrong_value"  # a field is missing, or is not of the type that is wanted


@dataclass(frozen=True, slots=True)
class Row:
    """One recipient. `position` is where the source has it: the line of a file, else the count of rows from 1.

    `address` is normalised (`delivery.addresses`), `name` is one line or "". `data` has every field under the name that
    templates use, the address field as it was read, with values that JSON can hold (`reading.plain`).
    """

    position: int
    address: str
    name: str
    data: dict[str, object]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no recipient. `detail` is a sentence for the operator; `raw` is what was read, cut at MAX_RAW.

    Both are safe to store: what a database cannot hold in a text (NUL, lone surrogates) is replaced.
    """

    position: int
    reason: Reason
    detail: str
    raw: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", _storable(self.detail, MAX_DETAIL))
        object.__setattr__(self, "raw", _storable(self.raw, MAX_RAW))


class Source(Protocol):
    """Where recipients come from. Every call reads anew, so that a run killed half-way can start again.

    All three may raise `exceptions.AudienceError`, `rows()` also half-way: then what it yielded before is not the
    audience and must not be used.
    """

    def fields(self) -> tuple[str, ...]:
        """The names that a template may use, in the order of the source. Cheap: reads no rows."""
        ...

    def rows(self) -> Iterator[Row | BadRow]:
        """Every row, good or bad, in the order of the source and in constant memory."""
        ...

    def label(self) -> str:
        """What it is called in messages: `contact list 'Customers'`."""
        ...


def _storable(text: str, limit: int) -> str:
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return text.replace("\0", "�").encode(errors="replace").decode()
