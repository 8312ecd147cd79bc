"""From the column names of a file or a query to field names, and which of them hold the address and the name.

Decides what a field is called in templates and which columns are refused. Sees names only, never a row.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from campaigns.audiences.exceptions import AudienceRefused

# In order of preference; "address" last, because beside one of the others it is a postal one.
ADDRESS_FIELDS = ("email", "e-mail", "mail", "address")
NAME_FIELD = "name"

MAX_LISTED = 30  # headings that a message names

# Names that Jinja2 reads as something else wherever a variable may stand.
_TAKEN_BY_JINJA = frozenset({"true", "false", "none", "True", "False", "None", "not", "self"})


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a source, in its order: their field names, and the fields that hold address and name."""

    fields: tuple[str, ...]
    address: str
    name: str | None

    @classmethod
    def of(
        cls, where: str, headings: Sequence[str], *, address_field: str | None = None, name_field: str | None = None
    ) -> Self:
        """The columns behind these headings, or `AudienceRefused` with the headings that were found.

        `address_field` and `name_field` name a heading or a field, in any case. Without them the address is the first
        of ADDRESS_FIELDS that is there, and the name is NAME_FIELD if that is there.
        """
        headings = [unicodedata.normalize("NFC", heading).strip() for heading in headings]
        fields = _field_names(where, headings)
        if address_field is not None:
            address = _chosen(where, headings, fields, "address", address_field)
        else:
            address = next(filter(None, (_find(headings, fields, name) for name in ADDRESS_FIELDS)), None)
        if address is None:
            raise AudienceRefused(
                where,
                f"no column holds the address; there are {_listed(headings)}",
                f"Name one of them {ADDRESS_FIELDS[0]!r}, or set the address field to the column that holds it",
            )
        if name_field is not None:
            name = _chosen(where, headings, fields, "name", name_field)
        else:
            name = _find(headings, fields, NAME_FIELD)
        return cls(tuple(fields), address, name)


def field_name(heading: str) -> str:
    """The heading as templates can write it: itself if it is an identifier, else in lower case with underscores
    (`First name` becomes `first_name`); "" if nothing of it can be used."""
    name = unicodedata.normalize("NFC", heading).strip()
    if not name.isidentifier():
        name = re.sub(r"\W+", "_", name).strip("_").lower()
        if not name.isidentifier():
            name = f"field_{name}" if f"field_{name}".isidentifier() and name else ""
    return f"{name}_" if name in _TAKEN_BY_JINJA else name


def _field_names(where: str, headings: Sequence[str]) -> list[str]:
    heading_of: dict[str, str] = {}
    for number, heading in enumerate(headings, 1):
        if not heading:
            raise AudienceRefused(
                where,
                f"column {number} has no name; there are {_listed(headings)}",
                "Give every column a name of its own",
            )
        field = field_name(heading)
        if not field:
            raise AudienceRefused(
                where,
                f"column {number} is called {heading!r}, of which no name for templates can be made",
                "Rename it: letters, digits and underscores",
            )
        if field in heading_of:
            other = heading_of[field]
            problem = (
                f"the column {heading!r} is there twice"
                if other == heading
                else f"the columns {other!r} and {heading!r} would both be {field!r} in templates"
            )
            raise AudienceRefused(where, f"{problem}; there are {_listed(headings)}", "Rename or leave out one of them")
        heading_of[field] = heading
    return list(heading_of)


def _chosen(where: str, headings: Sequence[str], fields: Sequence[str], what: str, wanted: str) -> str:
    field = _find(headings, fields, wanted)
    if field is None:
        raise AudienceRefused(
            where,
            f"there is no column {wanted!r}, which is set as the {what} field; there are {_listed(headings)}",
            f"Set the {what} field to one of these",
        )
    return field


def _find(headings: Sequence[str], fields: Sequence[str], wanted: str) -> str | None:
    """The field of that name: exactly so if there is one, else in any case."""
    wanted = unicodedata.normalize("NFC", wanted).strip()
    pairs = list(zip(headings, fields, strict=True))
    exact = (field for heading, field in pairs if wanted in (heading, field))
    folded = (field for heading, field in pairs if wanted.casefold() in (heading.casefold(), field.casefold()))
    return next(exact, None) or next(folded, None)


def _listed(headings: Sequence[str]) -> str:
    if not headings:
        return "none"
    more = f" and {len(headings) - MAX_LISTED} more" if len(headings) > MAX_LISTED else ""
    return ", ".join(repr(heading[:60]) for heading in headings[:MAX_LISTED]) + more
