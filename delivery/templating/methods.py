"""Which methods of text, lists and dictionaries a template may call, and what is looked at before they run.

An allow-list: what is not named here does not exist for a template. A check sees the value and the arguments and
refuses before anything large is built or slow is begun; results are weighed afterwards by the caller.
"""

from collections.abc import Callable
from typing import Any

from jinja2.runtime import BlockReference, LoopContext, Macro
from jinja2.utils import Cycler
from markupsafe import Markup

from delivery.templating.limits import ESCAPED, Budget

_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # where str.splitlines cuts
_LONG = 10_000  # from here on a split at white space is paid for before it is known how many words there are
_CASE_GROWTH = 3  # "ΐ".upper() has three characters


def count_lines(text: str) -> int:
    """At least the number of lines that `str.splitlines` makes."""
    return 1 + sum(text.count(end) for end in _LINE_ENDS)


def check_replacement(budget: Budget, text: str, old: str, new_length: int) -> None:
    """Refuses a replacement whose result would be too long."""
    budget.fits(len(text) + text.count(old) * new_length)


def check_search(budget: Budget, text: str, *others: object) -> None:
    """Charges the worst case of stripping characters and of searching from the right: length times length."""
    for other in others:
        for wanted in other if isinstance(other, tuple) else (other,):
            if isinstance(wanted, str):
                budget.charge(1 + len(text) * len(wanted) // 1024)


def check_join(budget: Budget, separator_length: int, items: Any, growth: int) -> None:
    """Refuses to join what would be too long."""
    budget.fits(growth * (budget.weigh(items) + separator_length * budget.count(items)))


def _pad(budget: Budget, text: str, width: Any, *_: Any) -> None:
    budget.width(width)


def _expandtabs(budget: Budget, text: str, tabsize: Any = 8) -> None:
    budget.width(tabsize)
    budget.fits(len(text) + text.count("\t") * tabsize)


def _join(budget: Budget, text: str, items: Any) -> None:
    check_join(budget, len(text), items, ESCAPED if isinstance(text, Markup) else 1)


def _replace(budget: Budget, text: str, old: str, new: str, *_: Any) -> None:
    check_replacement(budget, text, old, len(new) * (ESCAPED if isinstance(text, Markup) else 1))


def _split(budget: Budget, text: str, sep: str | None = None, *_: Any, **__: Any) -> None:
    check_search(budget, text, sep)
    if sep:
        budget.charge(text.count(sep))
    elif len(text) > _LONG:
        budget.charge(len(text) // 4)


def _splitlines(budget: Budget, text: str, *_: Any, **__: Any) -> None:
    budget.charge(count_lines(text))


def _change_case(budget: Budget, text: str) -> None:
    budget.fits(len(text) * _CASE_GROWTH)


def _anything(budget: Budget, value: object, *_: Any, **__: Any) -> None:
    """The result is no larger than the value and found in one walk, which the caller pays."""


_Check = Callable[..., None]

TEXT_METHODS: dict[str, _Check] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _pad),
    **dict.fromkeys(("capitalize", "casefold", "lower", "swapcase", "title", "upper"), _change_case),
    **dict.fromkeys(("count", "find", "index", "partition", "rfind", "rindex", "rpartition"), check_search),
    **dict.fromkeys(("lstrip", "rstrip", "strip"), check_search),
    **dict.fromkeys(("split", "rsplit"), _split),
    **dict.fromkeys(("endswith", "startswith", "removeprefix", "removesuffix"), _anything),
    **dict.fromkeys(("isalnum", "isalpha", "isdecimal", "isdigit", "islower", "isnumeric"), _anything),
    **dict.fromkeys(("isspace", "istitle", "isupper", "format", "format_map"), _anything),
    "expandtabs": _expandtabs,
    "join": _join,
    "replace": _replace,
    "splitlines": _splitlines,
}

_LOOP = ("cycle", "changed", "depth", "depth0", "first", "index", "index0", "last", "length", "nextitem", "previtem")

# By exact type. Dictionaries are asked for the key first and for the method only when there is no such key.
ATTRIBUTES: dict[type, frozenset[str]] = {
    str: frozenset(TEXT_METHODS),
    Markup: frozenset({*TEXT_METHODS, "striptags", "unescape"}),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    float: frozenset({"is_integer"}),
    LoopContext: frozenset({*_LOOP, "revindex", "revindex0"}),
    Cycler: frozenset({"current", "next", "reset"}),
    Macro: frozenset({"arguments", "caller", "catch_kwargs", "catch_varargs", "name"}),
    BlockReference: frozenset({"super"}),
}
