"""Filters for records: they make a value of the type that an API wants, or refuse one that it would not take.

    required                 neither missing nor empty
    omit                     leaves the key out where the value is missing or empty; what follows is not asked then
    int   float   bool       a whole number, a number, true or false, from a value or from its text
    one_of("a", "b")         one of these
    match("[A-Z]{2}[0-9]+")  the whole text matches the pattern (see `patterns`)
    date("%d.%m.%Y")         a date or instant in ISO 8601, written in another way; `read="%d/%m/%Y"` for other input

Jinja's own `int` and `float` make 0 of what is no number; these refuse it. A refusal is said of the value, in words for
the operator; who calls says of which field.
"""

import math
import re
from collections.abc import Callable
from datetime import date as Date
from datetime import datetime
from typing import Any

from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Context, Undefined
from jinja2.utils import pass_context

from delivery.templating.patterns import LONGEST_VALUE, matcher

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(?:\.0{1,6})?")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?")
_TRUTH = {
    **dict.fromkeys(("true", "yes", "on", "1", "t", "y"), True),
    **dict.fromkeys(("false", "no", "off", "0", "f", "n"), False),
}
_SHOWN = 40  # characters of a value that is refused
_LONGEST_DATE = 100  # characters, of a date as of a format
_FORMAT = re.compile("(?:[^%]|%-?[A-Za-z%])*")  # without widths, which fill memory


class ValueRefused(TemplateRuntimeError):
    """A value is not what the record needs. The message is a clause: "“abc” is no whole number"."""


class Omitted(Exception):
    """The key is to be left out."""


def _shown(value: object) -> str:
    if isinstance(value, bool | int | float):
        return str(value)
    text = value if isinstance(value, str) else type(value).__name__
    return f"“{text[:_SHOWN]}…”" if len(text) > _SHOWN else f"“{text}”"


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _required(value: Any) -> Any:
    if not isinstance(value, Undefined) and _is_empty(value):
        raise ValueRefused("the value is empty")
    return value


def _omit(value: Any) -> Any:
    if isinstance(value, Undefined) or _is_empty(value):
        raise Omitted
    return value


def _text(value: Any) -> str:
    """The value's text; an unknown name says so by itself."""
    return str(_required(value)).strip()


def _int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not _WHOLE.fullmatch(_text(value)):
        raise ValueRefused(f"{_shown(value)} is no whole number")
    return int(_text(value).partition(".")[0])


def _float(value: Any) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    elif _NUMBER.fullmatch(_text(value)):
        number = float(_text(value))
    else:
        raise ValueRefused(f"{_shown(value)} is no number")
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueRefused(f"{_shown(value)} is no number that JSON has")
    return number


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    try:
        return _TRUTH[_text(value).lower()]
    except KeyError:
        raise ValueRefused(f"{_shown(value)} is neither true nor false") from None


def _one_of(value: Any, *choices: Any) -> Any:
    if not isinstance(value, Undefined) and value in choices:
        return value
    _text(value)
    raise ValueRefused(f"{_shown(value)} is none of {', '.join(map(str, choices))}")


def _match(value: Any, pattern: str) -> str:
    text = _text(value)
    if len(text) > LONGEST_VALUE:
        raise ValueRefused(f"{_shown(text)} is longer than the {LONGEST_VALUE} characters that `match` looks at")
    if not matcher(pattern)(text):
        raise ValueRefused(f"{_shown(text)} does not match {pattern}")
    return text


def _date(value: Any, write: str = "", read: str = "") -> str:
    text = _text(value)
    if max(len(text), len(write), len(read)) > _LONGEST_DATE or not _FORMAT.fullmatch(write):
        raise ValueRefused(f"{_shown(text)} is no date, or its format is none that `date` takes")
    found = _read_date(text, read)
    return found.strftime(write) if write else found.isoformat()


def _read_date(text: str, read: str) -> Date | datetime:
    try:
        if read:
            found = datetime.strptime(text, read)
            # Of a format without hours the midnight was written by nobody.
            return found if re.search("%[HIMSpfzcXT]", read) else found.date()
        return Date.fromisoformat(text) if len(text) <= len("2026-12-31") else datetime.fromisoformat(text)
    except ValueError:
        expected = f"written as {read}" if read else "in ISO 8601, such as 2026-12-31 or 2026-12-31T23:59:00+01:00"
        raise ValueRefused(f"{_shown(text)} is no date {expected}") from None


def _paid(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter within the budget. It takes the context, which keeps Jinja from running it while it compiles."""

    @pass_context
    def bounded(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        context.budget.charge(1 + len(args))
        if not isinstance(value, Undefined):
            context.budget.weigh(value)
        for argument in (*args, *kwargs.values()):
            context.budget.weigh(argument)
        return function(value, *args, **kwargs)

    return bounded


RETYPING: dict[str, Callable[..., Any]] = {
    name: _paid(function)
    for name, function in {
        "required": _required,
        "omit": _omit,
        "int": _int,
        "float": _float,
        "bool": _bool,
        "one_of": _one_of,
        "match": _match,
        "date": _date,
    }.items()
}
