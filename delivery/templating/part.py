"""One template: compiled, run within a budget, and its errors told to the operator.

Decides how what goes wrong in Jinja is said, with the part's name and a line. What templates may do and cost is decided
in `sandbox` and below; what a text is good for, by who puts parts together.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from types import TracebackType
from typing import TypeVar

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.utils import missing
from markupsafe import escape

from delivery.templating.filters import TESTS, WITHHELD_FILTERS
from delivery.templating.limits import Budget, LimitReached, OutOfSteps
from delivery.templating.names import Names, find_names
from delivery.templating.problem import TemplateProblem, describe_part
from delivery.templating.retyping import Omitted, ValueRefused
from delivery.templating.sandbox import BoundedContext, BoundedEnvironment, UnknownName, meter

MAX_SOURCE = 500_000  # characters of one part's template; Gmail cuts a mail at a fifth of that
MAX_NODES = 20_000  # of Jinja's syntax tree, about ten for a tag; compiling takes some 50 µs for each
_MAX_NAME = 60  # characters, and
_MAX_NAMES = 1000  # names that are looked through for a similar one: difflib is slow
_MAX_REASON = 300  # characters of Python's own words that are passed on; they may quote the data at length

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FOREIGN = {nodes.Include: "include", nodes.Import: "import", nodes.FromImport: "from", nodes.Extends: "extends"}

Result = TypeVar("Result")

_needs_escaping = re.compile("[&<>\"']").search


def escape_if_needed(value: object) -> str:
    """As `markupsafe.escape`, without the cost of marking as safe what holds nothing to escape: nearly every value."""
    if type(value) is str and _needs_escaping(value) is None:
        return value
    return escape(value)


class Part:
    """One template. `label` names it in what is said about it: "subject", "header X-Foo"."""

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
                self._template = self._compiled(tree)
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
            known = self._environment.offered
            if isinstance(node, nodes.Filter) and node.name not in known:
                raise self._problem(node.lineno, f"there is no filter `{node.name}`" + suggest(node.name, known))
            if isinstance(node, nodes.Test) and node.name not in TESTS:
                raise self._problem(node.lineno, f"there is no test `{node.name}`" + suggest(node.name, TESTS))

    def _compiled(self, tree: nodes.Template) -> Template:
        template = self._environment.from_string(meter(tree, self._environment))
        # What Jinja's generated code calls before it writes a value into HTML.
        template.root_render_func.__globals__["escape"] = escape_if_needed
        return template

    def render(self, data: Mapping[str, object], budget: Budget) -> str:
        """The part's text."""
        return self._run(data, budget, _joined) if self._template else ""

    def _run(
        self, data: Mapping[str, object], budget: Budget, collect: Callable[[Iterator[str], BoundedContext], Result]
    ) -> Result:
        """What `collect` makes of the template's output and of what it leaves on its context."""
        context = self._environment.context_class(
            self._environment, {**self._environment.globals, **data}, None, self._template.blocks
        )
        context.budget = budget
        output = self._template.root_render_func(context)
        try:
            return collect(output, context)
        except Omitted:
            raise
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
        if isinstance(error, (SecurityError, UndefinedError, ValueRefused)):
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
        suggestion = suggest(str(error.name), owner) if isinstance(owner, Mapping) else ""
        return self._problem(
            line,
            f"the data has no `{path}`{suggestion}: correct the name, add it to the data, or write"
            f" `{{{{ {path}|default('') }}}}`",
        )


def _joined(output: Iterator[str], context: BoundedContext) -> str:
    chunks: list[str] = []
    append, size = chunks.append, context.budget.limits.size
    room = size
    for chunk in output:
        append(chunk)
        room -= len(chunk)
        if room < 0:
            raise LimitReached(f"its result is longer than {size:,} characters")
    return "".join(chunks)


def suggest(name: str, names: Iterable[object]) -> str:
    """ " (did you mean `…`?)" when one of the names is much like this one; else ""."""
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
