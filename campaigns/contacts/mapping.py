"""How the columns of a file are read: which one is the address, which the name, which become attributes. Pure.

Columns are called by their headings, attributes as templates write them. A column that is not named is ignored.
"""

from collections.abc import Mapping as Given
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from campaigns.audiences.columns import ADDRESS_FIELDS, NAME_FIELD, field_name

# A template has these of every contact, whatever its attributes.
TAKEN = ("email", "name")
LONGEST_NAME = 100
LISTED = 30


@dataclass(frozen=True, slots=True)
class Mapping:
    """The headings of address and name ("": there is none), and the attributes by heading."""

    address: str = ""
    name: str = ""
    attributes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Given[str, object]) -> Self:
        """As `as_json` has written it."""
        return cls(given["address"], given["name"], dict(given["attributes"]))

    def as_json(self) -> dict[str, object]:
        return {"address": self.address, "name": self.name, "attributes": self.attributes}


def guess(headings: Sequence[str]) -> Mapping:
    """What the headings suggest: every column that is neither address nor name becomes an attribute."""
    by_name: dict[str, str] = {}
    for heading in headings:
        by_name.setdefault(heading.casefold(), heading)
    address = next((by_name[name] for name in ADDRESS_FIELDS if name in by_name), "")
    if not address:
        address = next((heading for heading in headings if _sounds_like_an_address(heading)), "")
    name = by_name.get(NAME_FIELD, "")
    attributes = {
        heading: field_name(heading)
        for heading in headings
        if heading not in (address, name) and field_name(heading) not in TAKEN
    }
    return Mapping(address, name, attributes)


def _sounds_like_an_address(heading: str) -> bool:
    """`E-Mail-Adresse`, `Email Address`, `user_email`."""
    plain = "".join(filter(str.isalnum, heading.casefold()))
    return "email" in plain or plain.endswith("mail")


def problems_with(mapping: Mapping, headings: Sequence[str]) -> dict[str, object]:
    """What cannot be, by place: {"address": "…", "attributes": {"City": "…"}}."""
    problems: dict[str, object] = {}
    there = ", ".join(repr(heading[:60]) for heading in headings[:LISTED])
    if mapping.address not in headings:
        problems["address"] = f"Which column holds the address? There is: {there}."
    if mapping.name and mapping.name not in headings:
        problems["name"] = f"There is no column {mapping.name[:60]!r}. There is: {there}."
    elif mapping.name and mapping.name == mapping.address:
        problems["name"] = "This is the column of the address already."
    attributes: dict[str, str] = {}
    used: dict[str, str] = {}
    for heading, name in mapping.attributes.items():
        if heading not in headings:
            attributes[heading] = f"There is no such column. There is: {there}."
        elif words := _problem_with_attribute(name):
            attributes[heading] = words
        elif name in used:
            attributes[heading] = f"The column {used[name][:60]!r} becomes {name!r} already: choose another name."
        used.setdefault(name, heading)
    if attributes:
        problems["attributes"] = attributes
    return problems


def _problem_with_attribute(name: str) -> str:
    good = f"A good one: {field_name(name)}." if field_name(name) not in ("", *TAKEN) else "A good one: city."
    if name in TAKEN:
        return f"Every contact has {' and '.join(TAKEN)} already: choose another name, such as other_{name}."
    if field_name(name) != name:
        return f"Templates cannot write {name[:60]!r}: letters, digits and underscores. {good}"
    if len(name) > LONGEST_NAME:
        return f"A name of an attribute has at most {LONGEST_NAME} characters. A good one: city."
    return ""
