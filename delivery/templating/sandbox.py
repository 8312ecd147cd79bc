"""The Jinja in which templates run: strict, sandboxed, and stopped by a budget.

Decides what a template may touch and where its work is counted; what things cost stands in `limits` and `filters`.
Three doors lead everything past the budget, which travels on the context of the one rendering:

- the syntax tree is rewritten before it is compiled: loops, macros, comparisons, `~`, literal lists and slices go
  through internal filters;
- every call and the operators that can make much of little go through methods of the environment;
- every filter is wrapped, and so is what `{{ … }}` writes.

Environments hold no state of a rendering, so any number of threads may use one.
"""

from collections.abc import Callable, Mapping
from types import BuiltinMethodType, MappingProxyType, MethodType
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.exceptions import SecurityError, TemplateRuntimeError, UndefinedError
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, TemplateReference
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Cycler, Joiner, Namespace, missing
from jinja2.visitor import NodeTransformer

from delivery.templating.filters import CHARGED, CONCAT, FILTERS, INTERNAL_FILTERS, TESTS, TURNS, WEIGHED, written
from delivery.templating.formatting import braces, percent
from delivery.templating.limits import CHARACTERS_PER_STEP, Budget
from delivery.templating.methods import ATTRIBUTES, TEXT_METHODS

_NODES_PER_STEP = 8


class UnknownName(UndefinedError):
    """A template used a name that is not in the data. `owner`: the value it was looked for in, or `missing`."""

    def __init__(self, message: str, name: object, owner: object) -> None:
        super().__init__(message)
        self.name = name
        self.owner = owner


class StrictName(StrictUndefined):
    """An undefined value that remembers what was looked for and where, for the error message."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: type[TemplateRuntimeError] = UndefinedError,
    ) -> None:
        super().__init__(hint, obj, name, exc)
        if hint is None and exc is UndefinedError:
            self._undefined_exception = lambda message: UnknownName(message, name, obj)


class BoundedContext(Context):
    """Jinja's context of one rendering, with the budget of that rendering."""

    budget: Budget

    def derived(self, locals: dict[str, Any] | None = None) -> "BoundedContext":
        """A context for a scoped block; it spends the same budget."""
        context = super().derived(locals)
        context.budget = self.budget
        return context


class BoundedNamespace(Namespace):
    """`namespace()`. Printed without its content, which could hold the namespace itself."""

    def __repr__(self) -> str:
        return "<namespace>"


_GLOBALS = {"range": safe_range, "dict": dict, "cycler": Cycler, "joiner": Joiner, "namespace": BoundedNamespace}
_CALLABLE = (Macro, LoopContext, BlockReference, Joiner)
_METHODS = (BuiltinMethodType, MethodType)
_RECURSIVE = (Macro, LoopContext, BlockReference)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """An environment whose templates can reach only their data, and only as far as their budget goes. `offered` are the
    filters that a template may write."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    context_class = BoundedContext

    def __init__(
        self,
        *,
        autoescape: bool,
        filters: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
        finalize: Callable[..., Any] = written,
    ) -> None:
        """`filters` are offered beside the usual ones, and in their place. `finalize` is what `{{ value }}` writes; it
        must pay as `written` does."""
        super().__init__(
            autoescape=autoescape, undefined=StrictName, finalize=finalize, keep_trailing_newline=True, cache_size=0
        )
        self.globals = dict(_GLOBALS)
        self.offered = FILTERS | dict(filters)
        self.filters = self.offered | INTERNAL_FILTERS
        self.tests = dict(TESTS)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: of a dictionary its key, even one named like a method; else only what ATTRIBUTES lists."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        kind = type(obj)
        if attribute in ATTRIBUTES.get(kind, ()) or attribute in getattr(kind, "_fields", ()):
            return getattr(obj, attribute)
        if attribute.startswith("_"):
            return self.unsafe_undefined(obj, attribute)
        if kind is BoundedNamespace:
            return getattr(obj, attribute, None) if hasattr(obj, attribute) else self.undefined(obj=obj, name=attribute)
        if kind in (StrictName, TemplateReference):
            try:
                return obj[attribute]
            except LookupError:
                pass
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`: the item, else the attribute as above."""
        try:
            return obj[argument]
        except (TypeError, LookupError):
            if isinstance(argument, str):
                return self.getattr(obj, str(argument))
        return self.undefined(obj=obj, name=argument)

    def call_filter(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """What `map("name")` calls: the filters a template may write, not the internal ones."""
        if name in INTERNAL_FILTERS:
            raise TemplateRuntimeError(f"No filter named {name!r}.")
        return super().call_filter(name, *args, **kwargs)

    def call(self, context: BoundedContext, obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Every call that a template makes. What is not named here cannot be called."""
        budget = context.budget
        budget.charge(1 + len(args))
        for argument in args:
            budget.weigh(argument)
        if kwargs:
            budget.weigh({key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")})
        if isinstance(obj, _RECURSIVE):
            return self._call_deeper(context, obj, args, kwargs)
        owner = obj.__self__ if isinstance(obj, _METHODS) else None
        if isinstance(owner, str):
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
            return budget.hold(self._call_text_method(budget, owner, obj.__name__, args, kwargs))
        if type(owner) in ATTRIBUTES:
            if isinstance(owner, (list, tuple)):
                budget.weigh(owner)  # `index` and `count` compare every item
        elif not isinstance(obj, _CALLABLE) and obj not in _GLOBALS.values():
            raise SecurityError(f"a {type(obj).__name__} cannot be called")
        return budget.hold(super().call(context, obj, *args, **kwargs))

    def _call_deeper(self, context: BoundedContext, obj: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        budget = context.budget
        if isinstance(obj, LoopContext) and args:
            budget.count(args[0])
        budget.enter()
        try:
            return budget.hold(super().call(context, obj, *args, **kwargs))
        finally:
            budget.leave()

    def _call_text_method(
        self, budget: Budget, text: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        budget.weigh(text)
        if name == "format":
            return braces(self, budget, text, args, kwargs)
        if name == "format_map":
            return braces(self, budget, text, (), *args, **kwargs)
        if name in TEXT_METHODS:
            TEXT_METHODS[name](budget, text, *args, **kwargs)
        return getattr(text, name)(*args, **kwargs)

    def call_binop(self, context: BoundedContext, operator: str, left: Any, right: Any) -> Any:  # type: ignore[override]
        """`+`, `*`, `**` and `%`, refused where the result would be too large."""
        budget = context.budget
        if operator == "%" and isinstance(left, str):
            return budget.hold(percent(budget, left, right))
        if operator == "*":
            _check_product(budget, left, right)
            _check_product(budget, right, left)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            budget.bits(left.bit_length() * abs(right))
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            budget.fits(len(left) + len(right))
        return budget.hold(super().call_binop(context, operator, left, right))


def _check_product(budget: Budget, value: Any, times: Any) -> None:
    if not isinstance(times, int):
        return
    if isinstance(value, int):
        budget.bits(value.bit_length() + times.bit_length())
    elif isinstance(value, (str, list, tuple)) and times > 0:
        budget.fits(budget.weigh(value) * times)


_PLAIN = (nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair)


def _is_constant(node: nodes.Node) -> bool:
    return isinstance(node, _PLAIN) and all(_is_constant(child) for child in node.iter_child_nodes())


def _filtered(name: str, node: nodes.Expr, *arguments: int) -> nodes.Filter:
    constants = [nodes.Const(argument) for argument in arguments]
    return nodes.Filter(node, name, constants, [], None, None, lineno=node.lineno)


def _weighed(node: nodes.Expr) -> nodes.Expr:
    return node if _is_constant(node) else _filtered(WEIGHED, node)


def _cost(parts: list[nodes.Node]) -> int:
    """The steps of going through these nodes once; what loops and macros in them cost is counted there."""
    number = characters = 0
    pending = list(parts)
    while pending:
        node = pending.pop()
        number += 1
        if isinstance(node, nodes.TemplateData):
            characters += len(node.data)
        elif isinstance(node, nodes.Const) and isinstance(node.value, str):
            characters += len(node.value)
        pending.extend(node.iter_child_nodes())
    return 1 + number // _NODES_PER_STEP + characters // CHARACTERS_PER_STEP


class _Metering(NodeTransformer):
    """Rewrites a parsed template so that its work passes the budget."""

    def _toll(self, node: Any, cost: int) -> nodes.ExprStmt:
        toll = _filtered(CHARGED, nodes.Const(None, lineno=node.lineno), cost)
        return nodes.ExprStmt(toll, lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.For:
        cost = _cost([*node.body, *([node.test] if node.test else [])])
        self.generic_visit(node)
        if node.recursive:
            # Inner turns start in `loop(…)`, which knows only the items: the body has to pay for itself.
            node.body.insert(0, self._toll(node, cost))
            if node.test:
                node.test = _filtered(CHARGED, node.test, cost)
            cost = 1
        node.iter = _filtered(TURNS, node.iter, cost)
        return node

    def visit_Macro(self, node: Any) -> Any:
        cost = _cost([*node.body, *node.defaults])
        self.generic_visit(node)
        node.body.insert(0, self._toll(node, cost))
        return node

    visit_CallBlock = visit_Macro

    def visit_Block(self, node: nodes.Block) -> nodes.Block:
        cost = _cost(node.body)
        self.generic_visit(node)
        node.body.insert(0, self._toll(node, cost))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filtered(CONCAT, nodes.Tuple(node.nodes, "load", lineno=node.lineno))

    def visit_List(self, node: Any) -> Any:
        self.generic_visit(node)
        return _weighed(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        self.generic_visit(node)
        return _weighed(node) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:
        self.generic_visit(node)
        for pair in node.items:
            pair.key = _weighed(pair.key)
        return _weighed(node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        node.expr = _weighed(node.expr)
        for operand in node.ops:
            operand.expr = _weighed(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _weighed(node)
        node.arg = _weighed(node.arg)
        return node


def meter(tree: nodes.Template, environment: BoundedEnvironment) -> nodes.Template:
    """The same template with its work counted. Changes the tree in place."""
    _Metering().visit(tree)
    tree.set_environment(environment)
    return tree


PLAIN = BoundedEnvironment(autoescape=False)
HTML = BoundedEnvironment(autoescape=True)
