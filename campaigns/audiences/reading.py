"""From what a source read to a `Row` or a `BadRow`: the same judgement for every source.

Decides what makes a row a recipient, and how its values are written in JSON. Duplicates are not looked for here: they
are found across the whole audience by the database.
"""

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal

from campaigns.audiences.rows import BadRow, Reason, Row
from delivery.addresses import ImpossibleAddress, normalise


class Unstorable(ValueError):
    """A value holds what no text can hold that is stored or mailed: a NUL character or bytes that are not UTF-8."""


def read(
    position: int, address: object, name: object, data: Mapping[str, object], *, raw: str | None = None
) -> Row | BadRow:
    """The recipient that these values make, or why they make none. `raw` is shown for a bad row instead of `data`."""
    text = "" if address is None else str(address)
    if not text or text.isspace():
        return _bad(position, Reason.NO_ADDRESS, "The address is empty.", data, raw)
    try:
        normal = normalise(text)
    except ImpossibleAddress as error:
        return _bad(position, Reason.IMPOSSIBLE_ADDRESS, error.reason, data, raw)
    fields: dict[str, object] = {}
    field = "name"
    try:
        one_line = "" if name is None else " ".join(str(plain(name)).split())
        for field, value in data.items():
            fields[field] = plain(value)
    except Unstorable as error:
        return _bad(position, Reason.NOT_A_ROW, f"The field {field!r} holds {error}.", data, raw)
    return Row(position, normal, one_line, fields)


def plain(value: object) -> object:
    """The value as JSON can hold it.

    Texts, whole numbers, true, false and none stay; a finite float stays, another becomes "nan", "inf" or "-inf".
    Dates and times become ISO 8601, decimals their digits ("12.50": a float would lose them), binary values hex. Lists
    and mappings keep their shape. All else (UUIDs, durations, network addresses …) becomes its text.
    Raises `Unstorable`.
    """
    match value:
        case str():
            return _text(value)
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case bytes() | bytearray() | memoryview():
            return value.hex()
        case Mapping():
            return {_text(str(key)): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    if "\0" in text:
        raise Unstorable("a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unstorable("bytes that are not UTF-8") from None
    return text


def _bad(position: int, reason: Reason, detail: str, data: Mapping[str, object], raw: str | None) -> BadRow:
    if raw is None:
        raw = json.dumps(dict(data), default=str, ensure_ascii=False)
    return BadRow(position, reason, detail, raw)
