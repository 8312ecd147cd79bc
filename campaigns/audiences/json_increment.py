"""Only what is new since the last time: which items of a list that are, and how far it has been read.

Items bear a value that grows, such as the time of their last change. The highest that was seen is the bookmark. It is
sent with the next reading, and judged here as well: an API may send what is equal to it again, or ignore it. Several
items may bear the highest value, and more of them come later; so those that were there are remembered one by one.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import blake2b
from typing import Self

from campaigns.audiences.json_path import MISSING, Path, find
from campaigns.audiences.json_types import Type, Unfit, fit, moment, shown

MAX_TIES = 10_000  # items with the same value that a bookmark remembers: some 200 KB
MAX_VALUE = 200  # characters

Key = int | float | str | date | datetime

# What can be compared, and how. Of times the instant counts, whatever the offset.
_KEYS: Mapping[Type, Callable[[object], Key]] = {
    Type.INTEGER: lambda value: fit(value, Type.INTEGER),
    Type.NUMBER: lambda value: fit(value, Type.NUMBER),
    Type.TEXT: lambda value: fit(value, Type.TEXT),
    Type.DATE: lambda value: date.fromisoformat(fit(value, Type.DATE)),
    Type.DATETIME: lambda value: fit(value, Type.DATETIME) and moment(value),
}
COMPARABLE = tuple(_KEYS)


class TooManyTies(Exception):
    """So many items bear the highest value that they cannot be told from those that come later."""


@dataclass(frozen=True, slots=True)
class Since:
    """Where an item's growing value is, its type, and the query parameter that asks for what is newer."""

    parameter: str
    path: Path
    written: str
    type: Type

    def value_of(self, item: object) -> str:
        """The value as the API writes it. Raises `Unfit`, with a sentence."""
        value = find(item, self.path)
        if value is MISSING or value is None or value == "":
            raise Unfit(f"There is nothing at {self.written}, by which new items are told from old ones.")
        text = value if isinstance(value, str) else json.dumps(value)
        try:
            self.key_of(value if not isinstance(value, str) else text)
        except Unfit as unfit:
            raise Unfit(f"The value at {self.written} {unfit}.") from None
        if len(text) > MAX_VALUE or not text.isprintable():
            raise Unfit(f"The value at {self.written} is no line of up to {MAX_VALUE} printable characters.")
        return text

    def key_of(self, value: object) -> Key:
        """The value in a form that compares. Raises `Unfit`."""
        if self.type is Type.DATETIME and isinstance(value, str) and _is_number(value):
            value = float(value)  # seconds since 1970, as a bookmark keeps them
        return _KEYS[self.type](value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Bookmark:
    """How far a list has been read: the highest value seen, as the API writes it ("": nothing yet), and which of the
    items that bear it were there (their digests)."""

    value: str = ""
    ties: frozenset[str] = field(default_factory=frozenset, repr=False)

    @classmethod
    def of(cls, value: str, ties: object) -> Self:
        """A bookmark that was stored."""
        return cls(value, frozenset(ties if isinstance(ties, list | tuple | set | frozenset) else ()))


class Reading:
    """One reading of a list, from a bookmark to the next."""

    def __init__(self, since: Since, bookmark: Bookmark) -> None:
        """Raises `Unfit` when the bookmark is not of the type that `since` says."""
        self._since = since
        self._before = bookmark
        try:
            self._from = since.key_of(bookmark.value) if bookmark.value else None
        except Unfit:
            raise Unfit(f"It was read up to {shown(bookmark.value)}, which is no {since.type}") from None
        self._value, self._highest, self._ties = bookmark.value, self._from, set(bookmark.ties)

    def is_new(self, item: object) -> bool:
        """Whether the item was not there the last time; takes it into account. Raises `Unfit`, with a sentence, when
        it does not say, and `TooManyTies`."""
        value = self._since.value_of(item)
        key = self._since.key_of(value)
        if self._from is not None and key < self._from:
            return False
        digest = _digest(item)
        if self._from is not None and key == self._from and digest in self._before.ties:
            return False
        if self._highest is None or key > self._highest:
            self._value, self._highest, self._ties = value, key, set()
        if key == self._highest:
            self._ties.add(digest)
            if len(self._ties) > MAX_TIES:
                raise TooManyTies
        return True

    def reached(self) -> Bookmark:
        """The bookmark after all items that were taken."""
        return Bookmark(self._value, frozenset(self._ties))


def _digest(item: object) -> str:
    written = json.dumps(item, sort_keys=True).encode()
    return blake2b(written, digest_size=8).hexdigest()
