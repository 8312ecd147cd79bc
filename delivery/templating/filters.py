"""Jinja's filters and tests, each within the budget of the rendering.

Decides which filters a template has and what each costs. A filter's input is weighed before it runs, its result after,
and those that can make much of little are checked on their own arguments first. Filters that only look at a value
(`default`, `length`, `first` …) stay as Jinja wrote them: the turn of the loop they stand in is paid for.

All wrapped filters take the context. That is where the budget travels, and it keeps Jinja from running them on
constants while it compiles, where no budget would stop them.
"""

from collections.abc import Callable, Iterator
from typing import Any

from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_TESTS
from jinja2.exceptions import FilterArgumentError, TemplateRuntimeError
from jinja2.runtime import Context, Undefined, markup_join, str_join
from jinja2.utils import pass_context
from markupsafe import escape, soft_str

from delivery.templating.formatting import percent
from delivery.templating.limits import CHARACTERS_PER_STEP, CONTAINERS, ESCAPED, MAX_DEPTH, Budget
from delivery.templating.methods import check_join, check_replacement, check_search, count_lines

# A message must read the same however often it is tried, and pprint is for debugging.
WITHHELD_FILTERS = frozenset({"random", "pprint"})

# The characters that a filter makes of one character, at most.
_GROWTH = {
    **dict.fromkeys(("capitalize", "lower", "title", "upper"), 3),
    **dict.fromkeys(("e", "escape", "forceescape", "xmlattr"), ESCAPED),
    **dict.fromkeys(("float", "filesizeformat", "int", "safe", "string", "striptags"), 1),
    **dict.fromkeys(("center", "indent", "replace", "trim", "truncate", "wordcount", "wordwrap"), 1),
    "tojson": 12,  # \ud83d\ude00
    "urlencode": 12,  # %F0%9F%98%80
    "urlize": 2 * ESCAPED,  # the address and its text
}
_MAX_INDENT = 8
_WORD_BY_WORD = frozenset({"striptags", "title", "urlize", "wordcount", "wordwrap", "xmlattr"})

# Filters over items. Those in _COMPARING also compare, hash or print what is inside each item.
_OVER_ITEMS = frozenset(
    {"batch", "dictsort", "groupby", "items", "join", "list", "map", "max", "min", "reject", "rejectattr", "reverse"}
    | {"select", "selectattr", "slice", "sort", "sum", "unique"}
)
_COMPARING = frozenset({"dictsort", "groupby", "max", "min", "sort", "sum", "unique"})

_COSTLY_TESTS = frozenset(
    {"in", "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", "ge", ">=", "<", "lt", "lessthan", "<=", "le"}
    | {"divisibleby", "lower", "upper"}
)


def _text_length(budget: Budget, value: object) -> int:
    return 0 if value is None else budget.weigh(value)


def _growth(context: Context) -> int:
    return ESCAPED if context.eval_ctx.autoescape else 1


def _check_replace(context: Context, value: Any, old: Any, new: Any, count: int | None = None) -> None:
    # With Markup among the arguments the value is escaped before the search, which may find more in it.
    length = _text_length(context.budget, new) * _growth(context)
    context.budget.fits(ESCAPED * _text_length(context.budget, value))
    for text in (str(value), str(escape(value))):
        check_replacement(context.budget, text, str(old), length)


def _check_join(context: Context, value: Any, d: Any = "", attribute: Any = None) -> None:
    check_join(context.budget, _text_length(context.budget, d), value, _growth(context))


def _check_indent(context: Context, value: Any, width: Any = 4, first: Any = False, blank: Any = False) -> None:
    context.budget.width(width)
    lines = count_lines(soft_str(value))
    context.budget.charge(lines)
    context.budget.fits(len(value) + lines * (len(width) if isinstance(width, str) else width))


def _check_wordwrap(
    context: Context,
    value: str,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: Any = None,
    break_on_hyphens: bool = True,
) -> None:
    # textwrap copies the rest of a long word for each line it cuts from it.
    lines = count_lines(value)
    context.budget.charge(lines)
    context.budget.charge(sum(len(line) ** 2 for line in value.splitlines()) // 4096)
    lines += 2 * len(value) // max(width, 1)
    context.budget.fits(len(value) + lines * _text_length(context.budget, wrapstring or "\n"))


def _check_urlize(context: Context, value: str, *_: Any, **__: Any) -> None:
    # The patterns of urlize walk a word of brackets once for each bracket.
    context.budget.charge(sum(len(word) ** 2 for word in str(value).split()) // 64)


def _check_trim(context: Context, value: Any, chars: Any = None) -> None:
    check_search(context.budget, soft_str(value), chars)


def _check_tojson(context: Context, value: Any, indent: Any = 0) -> None:
    if indent not in range(_MAX_INDENT + 1):
        raise FilterArgumentError(f"tojson takes an indent from 0 to {_MAX_INDENT}")
    # An item weighs three characters or more, and each of its lines is indented MAX_DEPTH times at most.
    context.budget.fits(context.budget.weigh(value) * indent * MAX_DEPTH // 3)


def _check_sum(context: Context, value: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, (int, float)):
        raise FilterArgumentError("sum adds numbers only: leave `start` out or make it a number")


def _check_width(context: Context, value: Any, *args: Any, **kwargs: Any) -> None:
    context.budget.width(*args, *kwargs.values())


_CHECKS: dict[str, Callable[..., None]] = {
    "batch": _check_width,
    "center": _check_width,
    "indent": _check_indent,
    "join": _check_join,
    "replace": _check_replace,
    "round": _check_width,
    "slice": _check_width,
    "sum": _check_sum,
    "tojson": _check_tojson,
    "trim": _check_trim,
    "urlize": _check_urlize,
    "wordwrap": _check_wordwrap,
}


def _caller_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter with the context as first argument, whatever Jinja would pass it."""
    wanted = getattr(function, "jinja_pass_arg", None)
    if wanted is None:
        return lambda context, *args, **kwargs: function(*args, **kwargs)
    if wanted.name == "context":
        return function
    if wanted.name == "environment":
        return lambda context, *args, **kwargs: function(context.environment, *args, **kwargs)
    return lambda context, *args, **kwargs: function(context.eval_ctx, *args, **kwargs)


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    call = _caller_of(function)
    check = _CHECKS.get(name)
    growth = _GROWTH.get(name)
    words, over_items, comparing = name in _WORD_BY_WORD, name in _OVER_ITEMS, name in _COMPARING

    @pass_context
    def bounded(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        budget.charge(1 + len(args))
        if growth:
            length = budget.weigh(value)
            budget.fits(growth * length)
            if words:
                budget.charge(length // 2)
        if over_items:
            number = budget.count(value)
            for argument in (*args, *kwargs.values()):
                # An attribute "a.b.c" is looked up item by item, dot by dot.
                budget.charge(number * (budget.weigh(argument) // 16))
        if comparing:
            budget.weigh(value)
        if check:
            check(context, value, *args, **kwargs)
        result = call(context, value, *args, **kwargs)
        return budget.collect(result) if isinstance(result, Iterator) else budget.hold(result)

    return bounded


def _bounded_test(function: Callable[..., bool]) -> Callable[..., bool]:
    @pass_context
    def bounded(context: Context, *values: Any) -> bool:
        for value in values:
            context.budget.weigh(value)
        return function(*values)

    return bounded


@pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise FilterArgumentError("format takes positional or keyword arguments, not both")
    return context.budget.hold(percent(context.budget, soft_str(value), kwargs or args))


@pass_context
def _concat(context: Context, values: tuple[Any, ...]) -> str:
    """What `a ~ b` becomes."""
    budget = context.budget
    budget.fits(sum(budget.weigh(value) for value in values))
    return budget.hold(markup_join(values) if context.eval_ctx.autoescape else str_join(values))


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    """The value, once it is paid for that it will be compared, hashed or kept."""
    context.budget.weigh(value)
    return value


@pass_context
def _turns(context: Context, value: Any, cost: int) -> Any:
    """What a loop runs over, once all its turns are paid for."""
    context.budget.charge(context.budget.count(value) * cost)
    return value


@pass_context
def _charged(context: Context, value: Any, cost: int) -> Any:
    """The value; takes what the body that begins here costs."""
    context.budget.charge(cost)
    return value


# The names under which the compiled template finds these. No template can write them.
CONCAT, WEIGHED, TURNS, CHARGED = "#concat", "#weighed", "#turns", "#charged"
INTERNAL_FILTERS = {CONCAT: _concat, WEIGHED: _weighed, TURNS: _turns, CHARGED: _charged}

FILTERS: dict[str, Callable[..., Any]] = {
    name: _bounded(name, function) if name in _GROWTH or name in _OVER_ITEMS or name in _CHECKS else function
    for name, function in DEFAULT_FILTERS.items()
    if name not in WITHHELD_FILTERS
} | {"format": _format}

TESTS: dict[str, Callable[..., Any]] = {
    name: _bounded_test(function) if name in _COSTLY_TESTS else function for name, function in DEFAULT_TESTS.items()
}

_LONG = 65_536


@pass_context
def written(context: Context, value: Any) -> Any:
    """What `{{ value }}` writes, paid for. Stands before the escaping, which may make a string five times as long."""
    budget = context.budget
    if type(value) is str and len(value) < CHARACTERS_PER_STEP:  # nearly all: what `charge` does, without a call
        budget.steps -= 1
        if budget.steps < 0:
            budget.charge(0)
        return value
    if isinstance(value, str):
        length = len(value)
        if length > _LONG:
            length += (ESCAPED - 1) * sum(value.count(character) for character in "<>&\"'")
            budget.fits(length)
        budget.charge(1 + length // CHARACTERS_PER_STEP)
        return value
    budget.charge(1)
    if isinstance(value, CONTAINERS):
        budget.weigh(value)
        return written(context, str(value))
    if value is None:
        return ""  # as an empty cell of a CSV file: nobody is to be greeted as "None"
    if callable(value) and not isinstance(value, Undefined):
        raise TemplateRuntimeError(f"a {type(value).__name__} is not text: write `()` after it to call it")
    return value
