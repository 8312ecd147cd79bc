"""A template that yields a value: text, or what its one expression has for a value.

Decides when a value keeps its type, and which values a record can hold: those of JSON. Also the dialect of a URL, in
which every value is percent-encoded.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from jinja2 import Template, nodes
from jinja2.runtime import Context, Undefined
from jinja2.utils import pass_context

from delivery.templating.filters import written
from delivery.templating.limits import CONTAINERS, Budget
from delivery.templating.part import Part
from delivery.templating.patterns import problem_with_pattern
from delivery.templating.retyping import RETYPING, ValueRefused
from delivery.templating.sandbox import BoundedContext, BoundedEnvironment

_VALUE = "value"  # the variable in which the template leaves it
_MARKS = re.compile(r"\{[{%#]")


@pass_context
def _percent_encoded(context: Context, value: Any) -> str:
    """What `{{ value }}` writes into a URL: nothing in it can end the part of the URL that it stands in."""
    return quote(str(written(context, value)), safe="")


RECORD = BoundedEnvironment(autoescape=False, filters=RETYPING)
URL = BoundedEnvironment(autoescape=False, filters=RETYPING, finalize=_percent_encoded)


def is_template(source: str) -> bool:
    """Whether there is anything in it for Jinja."""
    return _MARKS.search(source) is not None


class TextPart(Part):
    """A template that may use the filters of records, and yields text."""

    __slots__ = ()

    def _check_names(self, tree: nodes.Template) -> None:
        super()._check_names(tree)
        for node in tree.find_all(nodes.Filter):
            first = node.args[0] if node.name == "match" and node.args else None
            if isinstance(first, nodes.Const) and (problem := problem_with_pattern(str(first.value))):
                raise self._problem(node.lineno, problem)


class ValuePart(TextPart):
    """A template within a record. Exactly one `{{ expression }}` keeps the type of its value, anything else is text."""

    __slots__ = ("_is_expression", "_keys")

    def _compiled(self, tree: nodes.Template) -> Template:
        self._is_expression, self._keys = False, ()
        match tree.body:
            case [nodes.Output(nodes=[expression])] if not isinstance(expression, nodes.TemplateData):
                self._is_expression, self._keys = True, _keys(expression)
                line = expression.lineno
                tree.body = [nodes.Assign(nodes.Name(_VALUE, "store", lineno=line), expression, lineno=line)]
        return super()._compiled(tree)

    def value(self, data: Mapping[str, object], budget: Budget) -> object:
        """What JSON can hold. Raises TemplateProblem, and Omitted when it is to be left out."""
        if self._keys:
            # Most fields of a record only take a value over, and starting a template costs ten times that.
            found: Any = data
            try:
                for key in self._keys:
                    found = found[key]
                return _held(budget.hold(found))
            except Exception:  # noqa: S110 - the template comes to the same, and can explain it
                pass
        return self._run(data, budget, _taken) if self._is_expression else self.render(data, budget)


def _keys(node: nodes.Node) -> tuple[str, ...]:
    """The keys to go by when the expression is no more than a name with dots; else ()."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr) and (owner := _keys(node.node)):
        return (*owner, node.attr)
    return ()


def _taken(output: Iterator[str], context: BoundedContext) -> object:
    for _ in output:  # runs the template, which writes nothing
        pass
    return _held(context.budget.hold(context.vars[_VALUE]))


def _held(value: object) -> object:
    """The value with what it holds, as JSON's types. How deep it goes has been weighed."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Undefined):
        return str(value)  # which says what is unknown
    if isinstance(value, dict):
        return {_key(key): _held(each) for key, each in value.items()}
    if isinstance(value, CONTAINERS):
        return [_held(each) for each in value]  # type: ignore[attr-defined]
    raise ValueRefused(f"a {type(value).__name__} is no value that JSON has")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise ValueRefused(f"the key {key!r} is no text")
    return key
