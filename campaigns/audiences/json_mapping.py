"""Which values of an item become which fields: lines `name = path : type`, and what they make of an item.

    email = contact.email
    age = profile.age : optional integer
    address = "case-{id}@replies.example"

What stands in quotes is a text of the operator's own, with values of the item at paths in braces. Without any lines
every scalar of an item is a field under its own name.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from campaigns.audiences.columns import field_name
from campaigns.audiences.json_path import MISSING, PATH, Path, find, parse_path
from campaigns.audiences.json_types import Type, Unfit, fit

EXAMPLE = "email = contact.email"
OPTIONAL = "optional"
MAX_FIELDS = 200
_SOURCE = re.compile(rf"(?P<path>{PATH})\s*(?::(?P<words>.*))?")
_PIECES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Mapped:
    """One field. `optional`: an item that lacks it is a recipient all the same."""

    name: str
    path: Path
    written: str
    type: Type = Type.TEXT
    optional: bool = False

    def of(self, item: object) -> object:
        """The field's value. Raises `Unfit`, with a sentence."""
        value = find(item, self.path)
        if value is MISSING:
            if not self.optional:
                raise Unfit(f"There is nothing at {self.written}, where the field {self.name!r} is looked for.")
            return None
        try:
            return fit(value, self.type)
        except Unfit as unfit:
            raise Unfit(f"The field {self.name!r} ({self.written}) {unfit}.") from None


@dataclass(frozen=True, slots=True)
class Worded:
    """A field that is a text with values of the item in it. `pieces`: texts, and paths with how they are written."""

    name: str
    written: str
    pieces: tuple[str | tuple[Path, str], ...]
    type: Type = Type.TEXT

    def of(self, item: object) -> str:
        """The field's value. Raises `Unfit`, with a sentence: a text with a hole in it is none."""
        return "".join(piece if isinstance(piece, str) else self._value(item, *piece) for piece in self.pieces)

    def _value(self, item: object, path: Path, written: str) -> str:
        value = find(item, path)
        if value is MISSING or value is None or value == "":
            raise Unfit(f"There is nothing at {written}, of which the field {self.name!r} is made.")
        try:
            return str(fit(value, Type.TEXT))
        except Unfit as unfit:
            raise Unfit(f"The field {self.name!r} ({written}) {unfit}.") from None


def parse_mapping(text: str) -> tuple[Mapped | Worded, ...]:
    """The fields that these lines describe, in their order; () for none. Empty lines and those that start with # are
    skipped. Raises ValueError, with a sentence that names the line."""
    fields: dict[str, Mapped | Worded] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            field = _parsed(line)
        except ValueError as error:
            raise ValueError(f"Line {number}: {error}") from None
        if field.name in fields:
            raise ValueError(f"Line {number}: the field {field.name!r} is there twice. Give each a name of its own.")
        fields[field.name] = field
    if len(fields) > MAX_FIELDS:
        raise ValueError(f"There are {len(fields)} fields, more than {MAX_FIELDS}.")
    return tuple(fields.values())


def _parsed(line: str) -> Mapped | Worded:
    name, _, source = (part.strip() for part in line.partition("="))
    if source.startswith('"'):
        _refuse_bad_name(name)
        return Worded(name, source, tuple(_pieces(source)))
    found = _SOURCE.fullmatch(source)
    if not found or not found["path"]:
        raise ValueError(
            f"“{line.strip()[:100]}” is no field: write name = path, and a type after a colon if it is no text, such "
            f"as {EXAMPLE} or age = profile.age : integer."
        )
    _refuse_bad_name(name)
    written, words = found["path"], (found["words"] or "").split()
    types = [word for word in words if word != OPTIONAL] or [Type.TEXT.value]
    if len(types) != 1 or types[0] not in list(Type) or words.count(OPTIONAL) > 1:
        raise ValueError(
            f"“{' '.join(words)}” is no type: choose one of {', '.join(Type)}, with the word {OPTIONAL} before it if "
            f"items may lack the field, such as {name} = {written} : {OPTIONAL} integer."
        )
    return Mapped(name, parse_path(written), written, Type(types[0]), OPTIONAL in words)


def _refuse_bad_name(name: str) -> None:
    if not name or field_name(name) != name:
        better = field_name(name) or "first_name"
        raise ValueError(f"“{name}” is no name for templates: write letters, digits and underscores, such as {better}.")


def _pieces(source: str) -> Iterator[str | tuple[Path, str]]:
    """The texts and the paths between the quotes."""
    text = source[1:-1]
    if len(source) < 3 or not source.endswith('"') or re.search(r'["{}]', _PIECES.sub("", text)):
        raise ValueError(
            f"“{source[:100]}” is no text: write it between two quotes, with paths in braces, such as "
            '"case-{id}@replies.example".'
        )
    for number, piece in enumerate(_PIECES.split(text)):
        if number % 2:
            yield parse_path(piece), piece
        elif piece:
            yield piece


def scalars(item: Mapping[str, object]) -> dict[str, object]:
    """What an item says in plain values, under its own names."""
    return {name: value for name, value in item.items() if not isinstance(value, dict | list)}
