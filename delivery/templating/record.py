"""A JSON document in which every text may be a template, made once and filled in for each recipient.

The document's structure is fixed when it is compiled, so no value can break out of its place: escaping is right by
construction. Decides what a document may be; what a template may be is decided in `values`.
"""

import json
from collections.abc import Mapping

from delivery.templating.limits import Budget, Limits
from delivery.templating.problem import TemplateProblem
from delivery.templating.retyping import Omitted
from delivery.templating.values import RECORD, ValuePart, is_template

BODY = "body"
MOST_TEMPLATES = 500  # each takes a millisecond to compile
MAX_NESTING = 30


def compile_record(source: str, limits: Limits = Limits()) -> "CompiledRecord":  # noqa: B008 - frozen
    """The document ready to be filled in, any number of times. Raises TemplateProblem when it is not JSON or one of its
    templates is not right."""
    parts: list[ValuePart] = []
    tree = _compiled(_parsed(source), "", parts, 0)
    return CompiledRecord(tree, tuple(parts), limits)


class CompiledRecord:
    """See the module. Keeps nothing of a recipient, so threads may share one. `parts` are its templates."""

    def __init__(self, tree: object, parts: tuple[ValuePart, ...], limits: Limits) -> None:
        self._tree = tree
        self._limits = limits
        self.parts = parts

    def fill(self, data: Mapping[str, object], budget: Budget | None = None) -> object:
        """The record for this data, as JSON's types. Raises TemplateProblem for an unknown name or a value refused."""
        try:
            return _filled(self._tree, data, budget or Budget(self._limits))
        except Omitted:
            raise TemplateProblem(BODY, 1, "The whole body is left out: use `omit` within an object.") from None


def _filled(node: object, data: Mapping[str, object], budget: Budget) -> object:
    if isinstance(node, ValuePart):
        return node.value(data, budget)
    if isinstance(node, dict):
        record = {}
        for key, inner in node.items():
            try:
                record[key] = _filled(inner, data, budget)
            except Omitted:
                continue
        return record
    if isinstance(node, list):
        items: list[object] = []
        for inner in node:
            try:
                items.append(_filled(inner, data, budget))
            except Omitted:
                continue
        return items
    return node


def _compiled(node: object, path: str, parts: list[ValuePart], depth: int) -> object:
    if depth > MAX_NESTING:
        raise TemplateProblem(BODY, 1, f"The body nests more than {MAX_NESTING} deep.")
    if isinstance(node, dict):
        return {key: _compiled(inner, _below(path, key), parts, depth + 1) for key, inner in node.items()}
    if isinstance(node, list):
        return [_compiled(inner, f"{path}[{place}]", parts, depth + 1) for place, inner in enumerate(node)]
    if not isinstance(node, str) or not is_template(node):
        return node
    if len(parts) == MOST_TEMPLATES:
        raise TemplateProblem(BODY, 1, f"The body has more than {MOST_TEMPLATES} templates.")
    parts.append(ValuePart(f"field {path}" if path else BODY, node, RECORD))
    return parts[-1]


def _below(path: str, key: str) -> str:
    if is_template(key):
        raise TemplateProblem(BODY, 1, f"The key “{key}” is a template, and keys are fixed: only values may be one.")
    return f"{path}.{key}" if path else key


def _parsed(source: str) -> object:
    try:
        return json.loads(source, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        hint = ' Templates stand in quotes, also for numbers: "{{ data.age|int }}".' if is_template(source) else ""
        raise TemplateProblem(
            BODY, error.lineno, f"The body is no JSON, {where}: {error.msg[0].lower()}{error.msg[1:]}.{hint}"
        ) from None
    except RecursionError:
        raise TemplateProblem(BODY, 1, f"The body nests more than {MAX_NESTING} deep.") from None


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if sum(other == key for other, _ in pairs) > 1)
        raise TemplateProblem(BODY, 1, f"The body has the key “{twice}” twice in one object.")
    return found


def _no_constant(name: str) -> object:
    raise TemplateProblem(BODY, 1, f"The body has {name}, which JSON has not.")
