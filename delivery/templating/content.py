"""The content of a message: templates in, text for one recipient out.

Decides what is asked of each part: the HTML is escaped; a subject and a header hold one line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from delivery.templating.limits import Budget, Limits
from delivery.templating.part import Part
from delivery.templating.problem import TemplateProblem
from delivery.templating.sandbox import HTML, PLAIN

_HEADER_NAME = re.compile("[!-9;-~]+")  # RFC 5322, 2.2: printable ASCII but the colon


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text for one recipient. `text` and `html` are "" where the message has no such part."""

    subject: str
    text: str
    html: str
    headers: tuple[tuple[str, str], ...] = ()


def compile_content(
    subject: str,
    text: str,
    html: str,
    headers: Mapping[str, str] = MappingProxyType({}),
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> "CompiledContent":
    """The content ready to render, any number of times; TemplateProblem when one of the templates is not right."""
    parts = [Part("subject", subject, PLAIN), Part("text", text, PLAIN), Part("html", html, HTML)]
    for name, source in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise TemplateProblem(f"header {name}", 1, f"{name!r} is no header name: use letters, digits and hyphens.")
        parts.append(Part(f"header {name}", source, PLAIN))
    return CompiledContent(parts, tuple(headers), limits)


class CompiledContent:
    """The compiled parts of one message version. Keeps nothing of a rendering, so threads may share one.

    `variables` are the names that the data must have; `optional_variables` those that the parts use only under
    `is defined` or `default(…)`.
    """

    def __init__(self, parts: list[Part], header_names: tuple[str, ...], limits: Limits) -> None:
        self._parts = parts
        self._header_names = header_names
        self._limits = limits
        self.variables: frozenset[str] = frozenset().union(*(part.names.needed for part in parts))
        used = frozenset().union(*(part.names.optional for part in parts))
        self.optional_variables: frozenset[str] = used - self.variables

    def where(self, name: str) -> tuple[str, int]:
        """The part and the line that use the variable first; KeyError for one that no part uses."""
        for part in self._parts:
            if name in part.names.needed | part.names.optional:
                return part.label, part.names.lines[name]
        raise KeyError(name)

    def render(self, data: Mapping[str, object]) -> Rendered:
        """The text for this data (what JSON can hold); TemplateProblem when a variable is unknown, a template fails or
        is stopped, or a subject or header would have a line break."""
        budget = Budget(self._limits)
        subject, text, html, *headers = self._parts
        return Rendered(
            subject.render_line(data, budget),
            text.render(data, budget),
            html.render(data, budget),
            tuple(
                (name, part.render_line(data, budget)) for name, part in zip(self._header_names, headers, strict=True)
            ),
        )
