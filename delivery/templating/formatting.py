"""The two ways of Python to format text, `"%5.2f" % x` and `"{:.2f}".format(x)`, with bounded widths and results."""

import re
from collections.abc import Mapping
from typing import Any

from jinja2.sandbox import SandboxedEnvironment, SandboxedFormatter
from markupsafe import EscapeFormatter, Markup

from delivery.templating.limits import ESCAPED, MAX_WIDTH, Budget, LimitReached

_DIRECTIVE = re.compile(r"[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?")
_DIGITS = re.compile(r"\d+")


def percent(budget: Budget, text: str, values: Any) -> str:
    """`text % values`, refused before it is built if it could pass the limits."""
    budget.weigh(text)
    budget.charge(text.count("%"))
    weight = budget.weigh(values)
    conversions, widths = _conversions(text)
    # A tuple's values are used once each; a mapping's or a single one may be used by every conversion.
    used = weight if isinstance(values, tuple) else weight * conversions
    budget.fits(len(text) + widths + used * (ESCAPED if isinstance(text, Markup) else 1))
    return text % values


def _conversions(text: str) -> tuple[int, int]:
    """How many conversions a %-format holds, and the sum of their widths and precisions."""
    number = widths = 0
    at = text.find("%")
    while at != -1:
        number += 1
        at = _after_key(text, at + 1)
        directive = _DIRECTIVE.match(text, at)
        widths += sum(_width(group) for group in directive.groups() if group)
        at = text.find("%", directive.end() + 1)
    return number, widths


def _after_key(text: str, at: int) -> int:
    """The position after `(key)`, where Python lets parentheses nest; `at` itself if there is no key."""
    depth = 0
    while at < len(text) and (depth or text[at] == "("):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
        if not depth:
            break
    return at


def _width(digits: str) -> int:
    if digits == "*" or len(digits) > 6 or int(digits) > MAX_WIDTH:
        raise LimitReached(f"it formats with a width given by `*` or of more than {MAX_WIDTH:,}")
    return int(digits)


class _Bounded:
    """What both formatters below add: each field is weighed before it is printed and charged after."""

    budget: Budget

    def format_field(self, value: Any, format_spec: str) -> str:
        for digits in _DIGITS.findall(format_spec):
            _width(digits)
        self.budget.charge(1)
        self.budget.weigh(value)
        text = super().format_field(value, format_spec)  # type: ignore[misc]
        self.budget.weigh(text)
        return text

    def convert_field(self, value: Any, conversion: str) -> Any:
        self.budget.weigh(value)
        return super().convert_field(value, conversion)  # type: ignore[misc]


class _PlainFormatter(_Bounded, SandboxedFormatter):
    pass


class _MarkupFormatter(_Bounded, SandboxedFormatter, EscapeFormatter):
    pass


def braces(
    environment: SandboxedEnvironment, budget: Budget, text: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str:
    """`text.format(*args, **kwargs)`, attributes by the rules of the sandbox, stopped where it passes the limits."""
    if isinstance(text, Markup):
        formatter: _Bounded = _MarkupFormatter(environment, escape=text.escape)
    else:
        formatter = _PlainFormatter(environment)
    formatter.budget = budget
    return type(text)(formatter.vformat(text, args, kwargs))  # type: ignore[attr-defined]
