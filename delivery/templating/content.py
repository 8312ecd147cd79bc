"""The content of a message: templates in, text for one recipient out.

Decides what is asked of each part (the HTML is escaped; a subject and a header hold one line) and how what goes wrong
in Jinja is told to the operator. What templates may do and cost is decided in `sandbox` and below.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType, TracebackType

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.utils import missing
from markupsafe import escape

from delivery.templating.filters import FILTERS, TESTS, WITHHELD_FILTERS
from delivery.templating.limits import Budget, LimitReached, Limits, OutOfSteps
from delivery.templating.names import Names, find_names
from delivery.templating.problem import TemplateProblem, describe_part
from delivery.templating.sandbox import HTML, PLAIN, BoundedEnvironment, UnknownName, meter

MAX_SOURCE = 500_000  # characters of one part's template; Gmail cuts a mail at a fifth of that
MAX_NODES = 20_000  # of Jinja's syntax tree, about ten for a tag; compiling takes some 50 µs for each
_MAX_NAME = 60  # characters, and
_MAX_NAMES = 1000  # names that are looked through for a similar one: difflib is slow
_MAX_REASON = 300  # characters of Python's own words that are passed on; they may quote the data at length

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HEADER_NAME = re.compile("[!-9;-~]+")  # RFC 5322, 2.2: printable ASCII but the colon
_FOREIGN = {nodes.Include: "include", nodes.Import: "import", nodes.FromImport: "from", nodes.Extends: "extends"}


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
    parts = [_Part("subject", subject, PLAIN), _Part("text", text, PLAIN), _Part("html", html, HTML)]
    for name, source in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise TemplateProblem(f"header {name}", 1, f"{name!r} is no header name: use letters, digits and hyphens.")
        parts.append(_Part(f"header {name}", source, PLAIN))
    return CompiledContent(parts, tuple(headers), limits)


class CompiledContent:
    """The compiled parts of one message version. Keeps nothing of a rendering, so threads may share one.

    `variables` are the names that the data must have; `optional_variables` those that the parts use only under
    `is defined` or `default(…)`.
    """

    def __init__(self, parts: "list[_Part]", header_names: tuple[str, ...], limits: Limits) -> None:
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


_needs_escaping = re.compile("[&<>\"']").search


def escape_if_needed(value: object) -> str:
    """As `markupsafe.escape`, without the cost of marking as safe what holds nothing to escape: nearly every value."""
    if type(value) is str and _needs_escaping(value) is None:
        return value
    return escape(value)


class _Part:
    """One template of the content."""

    __slots__ = ("_environment", "_template", "label", "names")

    def __init__(self, label: str, source: str, environment: BoundedEnvironment) -> None:
        self.label = label
        self._environment = environment
        self._template: Template | None = None
        if len(source) > MAX_SOURCE:
            raise TemplateProblem(
                label, 1, f"{self._title} is longer than {MAX_SOURCE:,} characters: put large content on a web page."
            )
        try:
            tree = environment.parse(source)
            self._check_size(tree)
            self._check_names(tree)
            self.names: Names = find_names(tree)
            if source:
                self._template = environment.from_string(meter(tree, environment))
                # What Jinja's generated code calls before it writes a value into HTML.
                self._template.root_render_func.__globals__["escape"] = escape_if_needed
        except TemplateProblem:
            raise
        except TemplateSyntaxError as error:
            raise TemplateProblem(
                label, error.lineno, f"{self._title} does not compile, line {error.lineno}: {error.message}"
            ) from None
        except Exception as error:
            # Python compiles what Jinja generates, and has limits of its own: nesting, numbers, doubled arguments.
            raise TemplateProblem(
                label, 1, f"{self._title} does not compile: {_reason(error)}. Make it simpler."
            ) from error

    @property
    def _title(self) -> str:
        described = describe_part(self.label)
        return described[0].upper() + described[1:]

    def _check_size(self, tree: nodes.Template) -> None:
        for number, node in enumerate(tree.find_all(nodes.Node)):
            if number >= MAX_NODES:
                raise self._problem(node.lineno, "there are too many tags and expressions: make the template smaller")

    def _check_names(self, tree: nodes.Template) -> None:
        """Refuses what cannot work here, with a better sentence than Jinja has at run time."""
        for node in tree.find_all((*_FOREIGN, nodes.Filter, nodes.Test)):
            if tag := _FOREIGN.get(type(node)):
                raise self._problem(
                    node.lineno, f"`{{% {tag} %}}` cannot be used: a template stands alone. Paste the content in"
                )
            if isinstance(node, nodes.Filter) and node.name in WITHHELD_FILTERS:
                raise self._problem(node.lineno, f"the filter `{node.name}` cannot be used in a message: take it out")
            if isinstance(node, nodes.Filter) and node.name not in FILTERS:
                raise self._problem(node.lineno, f"there is no filter `{node.name}`" + _suggest(node.name, FILTERS))
            if isinstance(node, nodes.Test) and node.name not in TESTS:
                raise self._problem(node.lineno, f"there is no test `{node.name}`" + _suggest(node.name, TESTS))

    def render(self, data: Mapping[str, object], budget: Budget) -> str:
        """The part's text."""
        if self._template is None:
            return ""
        chunks: list[str] = []
        room = budget.limits.size
        context = self._environment.context_class(
            self._environment, {**self._environment.globals, **data}, None, self._template.blocks
        )
        context.budget = budget
        output = self._template.root_render_func(context)
        try:
            for chunk in output:
                room -= len(chunk)
                if room < 0:
                    raise LimitReached(f"its result is longer than {budget.limits.size:,} characters")
                chunks.append(chunk)
            return "".join(chunks)
        except Exception as error:
            # Whatever Python raises is the template's doing: there is nothing else in these frames.
            problem = self._explain(error, self._line_of(error, output), data)
        # Outside the handler, so that the problem does not keep the frames and all that the template built.
        raise problem

    def render_line(self, data: Mapping[str, object], budget: Budget) -> str:
        """The part's text without white space around it; TemplateProblem when it is more than one line."""
        line = self.render(data, budget).strip()
        if found := _CONTROL.search(line):
            raise self._problem(
                1,
                f"a line break or control character ({found[0]!r}) comes out, which {describe_part(self.label)} cannot"
                " carry: take it out of the template or of the data",
            )
        return line

    def _line_of(self, error: Exception, output: Iterator[str]) -> int:
        """The line of the template that was at work: the innermost of its frames, or where the output stands."""
        line = output.gi_frame.f_lineno if output.gi_frame else 0
        trace: TracebackType | None = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_globals.get("__jinja_template__") is self._template:
                line = trace.tb_lineno
            trace = trace.tb_next
        return self._template.get_corresponding_lineno(line)

    def _problem(self, line: int, reason: str) -> TemplateProblem:
        return TemplateProblem(self.label, line, f"{self._title}, line {line}: {reason}.")

    def _explain(self, error: Exception, line: int, data: Mapping[str, object]) -> TemplateProblem:
        part = describe_part(self.label)
        if isinstance(error, OutOfSteps):
            return TemplateProblem(
                self.label, line, f"Stopped {error} at line {line} of {part}: a loop that does not end?"
            )
        if isinstance(error, LimitReached):
            return TemplateProblem(self.label, line, f"Stopped at line {line} of {part}: {error}. Make it smaller.")
        if isinstance(error, UnknownName):
            return self._explain_unknown(error, line, data)
        if isinstance(error, (SecurityError, UndefinedError)):
            return self._problem(line, _reason(error))
        return self._problem(line, f"{type(error).__name__}: {_reason(error)}")

    def _explain_unknown(self, error: UnknownName, line: int, data: Mapping[str, object]) -> TemplateProblem:
        """Finds the whole dotted path again: Jinja knows only its last name."""
        at_top = error.owner is missing
        uses = [
            (abs(at - line), at, path)
            for path, at in self.names.paths
            if (path == error.name if at_top else path.endswith(f".{error.name}"))
        ]
        _, line, path = min(uses, default=(0, line, _shorten(str(error.name), _MAX_NAME)))
        owner = data if at_top else error.owner
        suggestion = _suggest(str(error.name), owner) if isinstance(owner, Mapping) else ""
        return self._problem(
            line,
            f"the data has no `{path}`{suggestion}: correct the name, add it to the data, or write"
            f" `{{{{ {path}|default('') }}}}`",
        )


def _suggest(name: str, names: Iterable[object]) -> str:
    if len(name) > _MAX_NAME:
        return ""
    known = [known for known in islice(names, _MAX_NAMES) if isinstance(known, str) and len(known) <= _MAX_NAME]
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _reason(error: Exception) -> str:
    # A SyntaxError of Python names a line of what Jinja generated, which nobody has seen.
    words = (error.msg if isinstance(error, SyntaxError) else str(error)).rstrip(".")
    return _shorten(words, _MAX_REASON)


def _shorten(words: str, length: int) -> str:
    return words if len(words) <= length else words[:length] + "…"
