"""What a field of a JSON item is wanted as, and whether a value can be that.

Decides which values fit a type and how they are kept. Nothing is guessed: what does not fit is `Unfit`, and says so.
The values returned are those that JSON can hold; dates and times are kept in ISO 8601.
"""

import json
import math
import re
from datetime import UTC, date, datetime
from enum import StrEnum

LARGEST = 2**63 - 1  # what the databases behind most APIs call an integer
SHOWN = 60  # characters of a value that a message repeats
# Above this, a number of seconds since 1970 is beyond the year 5000: it counts milliseconds.
_MOST_SECONDS = 100_000_000_000
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_YES = frozenset({"true", "yes", "1"})
_NO = frozenset({"false", "no", "0"})


class Type(StrEnum):
    """What a value is wanted as."""

    TEXT = "text"  # texts, and numbers as JSON writes them
    INTEGER = "integer"  # whole numbers, also written as text
    NUMBER = "number"  # finite numbers, also written as text
    BOOLEAN = "boolean"  # true and false, also yes, no, 1 and 0
    DATE = "date"  # 2026-01-31
    DATETIME = "datetime"  # 2026-01-31T09:30:00Z, or seconds since 1970; without an offset it is UTC
    LIST = "list"  # a list of texts and numbers, or one text with commas; becomes a list of texts
    JSON = "json"  # anything


class Unfit(ValueError):
    """A value that is not what it should be. The message is a part of a sentence: `holds “x”, which is no integer`."""


def fit(value: object, wanted: Type) -> object:
    """The value as this type, as JSON can hold it; None stays None, for any type. Raises `Unfit`."""
    if value is None or wanted is Type.JSON:
        return value
    fitted = _FITS[wanted](value)
    if fitted is None:
        raise Unfit(f"holds {shown(value)}, which is no {wanted}")
    return fitted


def moment(value: object) -> datetime | None:
    """The instant that a value of type datetime stands for, in UTC; None when it stands for none."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC) if abs(value) < _MOST_SECONDS else None
        if not isinstance(value, str) or not _DATE.match(value):
            return None
        at = datetime.fromisoformat(value.strip())
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def shown(value: object) -> str:
    """A value as a message repeats it, cut at SHOWN characters."""
    match value:
        case str():
            text = f"“{value[:SHOWN]}{'…' if len(value) > SHOWN else ''}”"
        case dict():
            text = "an object"
        case list():
            text = "a list"
        case _:
            text = _as_json(value)[:SHOWN]
    return text


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    return _as_json(value) if _is_number(value) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _integer(value: object) -> int | None:
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if abs(value) <= LARGEST else None


def _number(value: object) -> int | float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = int(value) if _INTEGER.fullmatch(value.strip()) else float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) <= LARGEST else None
    return value if math.isfinite(value) else None


def _boolean(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) else ""
    return True if word in _YES else False if word in _NO else None


def _date(value: object) -> str | None:
    if not isinstance(value, str) or not _DATE.fullmatch(value.strip()):
        return None
    try:
        return date.fromisoformat(value.strip()).isoformat()
    except ValueError:
        return None


def _datetime(value: object) -> str | None:
    at = moment(value)
    if at is None:
        return None
    if isinstance(value, str):  # its own offset says what its writer's clock showed
        given = datetime.fromisoformat(value.strip())
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).isoformat()
    return at.isoformat()


def _list(value: object) -> list[str] | None:
    if isinstance(value, str):
        return [piece.strip() for piece in value.split(",") if piece.strip()]
    if not isinstance(value, list):
        return None
    texts = [_text(each) for each in value]
    return None if None in texts else texts


_FITS = {
    Type.TEXT: _text,
    Type.INTEGER: _integer,
    Type.NUMBER: _number,
    Type.BOOLEAN: _boolean,
    Type.DATE: _date,
    Type.DATETIME: _datetime,
    Type.LIST: _list,
}
