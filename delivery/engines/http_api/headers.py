"""Further headers of a call: lines `Name: value`, in which the value may be a template."""

import re
from collections.abc import Mapping

from delivery.engines.http_api.fields import names_of
from delivery.templating import Budget, Omitted, TemplateProblem
from delivery.templating.values import RECORD, TextPart, is_template

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110 §5.6.2
# Written by the client itself, or what would change where the request ends.
_OWNED = frozenset({"host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "expect"})
_USUAL = {"Content-Type": "application/json", "Accept": "application/json"}


class HeaderTemplates:
    """See the module. `names` are the fields that the values use, `own` the headers' own names in lower case."""

    def __init__(self, source: str) -> None:
        """Raises TemplateProblem."""
        self._fixed: dict[str, str] = {}
        self._parts: dict[str, TextPart] = {}
        self.own: frozenset[str] = frozenset()
        for number, line in enumerate(source.splitlines(), 1):
            if line.strip():
                self._take(number, *(piece.strip() for piece in line.partition(":")))
        self.names = names_of(self._parts.values())
        self._fixed = {name: value for name, value in _USUAL.items() if name.lower() not in self.own} | self._fixed

    def _take(self, number: int, name: str, colon: str, value: str) -> None:
        if not colon or not is_header_name(name):
            raise _problem(number, f"“{name}{colon}” is no header: write “Name: value”.")
        if name.lower() in _OWNED | self.own:
            raise _problem(number, f"{name} is written by the client itself, or stands there twice.")
        self.own |= {name.lower()}
        if is_template(value):
            self._parts[name] = TextPart(f"header {name}", value, RECORD)
        elif _is_sendable(value):
            self._fixed[name] = value
        else:
            raise _problem(number, f"The value of {name} has letters that no header can carry.")

    def render(self, data: Mapping[str, object], budget: Budget) -> dict[str, str]:
        """Those that have a value, and what every JSON call has. Raises TemplateProblem."""
        headers = dict(self._fixed)
        for name, part in self._parts.items():
            try:
                value = part.render_line(data, budget)
            except Omitted:
                continue
            if not _is_sendable(value):
                words = f"The header {name} would have letters beyond ASCII: use the filter `urlencode`."
                raise TemplateProblem(part.label, 1, words)
            headers[name] = value
        return headers


def is_header_name(name: str) -> bool:
    """Whether HTTP can have a header of this name."""
    return _NAME.fullmatch(name) is not None


def _is_sendable(value: str) -> bool:
    return value.isascii() and value.isprintable()


def _problem(line: int, words: str) -> TemplateProblem:
    return TemplateProblem("headers", line, f"Headers, line {line}: {words}")
