"""Which names of the data a template uses, where, and which of them it can do without.

Reads a parsed template and runs nothing. A name is optional when each use of it stands under a guard: `x is defined`,
`x|default(…)`, or a branch that is only reached when such a test said so. A name used once without a guard is needed,
even if only in a branch: which branches run is not known before.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from jinja2 import meta, nodes

Known = frozenset[str]


@dataclass(frozen=True, slots=True)
class Names:
    """What a template uses. `lines` has the first line of each name; `paths` every dotted use with its line."""

    needed: frozenset[str]
    optional: frozenset[str]
    lines: dict[str, int]
    paths: tuple[tuple[str, int], ...]


def find_names(tree: nodes.Template) -> Names:
    """The names of one template. The tree must not be metered yet."""
    reader = _Reader()
    reader.block(tree.body, frozenset(tree.environment.globals) | {"self"})  # type: ignore[union-attr]
    used = meta.find_undeclared_variables(tree)
    needed = frozenset(reader.needed & used)
    return Names(needed, frozenset(used - needed), reader.lines, tuple(reader.paths))


def dotted(node: nodes.Node) -> str:
    """`contact.name` for a name and the constant attributes after it; "" for any other expression."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        owner = dotted(node.node)
        return f"{owner}.{node.attr}" if owner else ""
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        owner = dotted(node.node)
        return f"{owner}.{node.arg.value}" if owner else ""
    return ""


def _stored(target: nodes.Node) -> Known:
    """The names that an assignment makes."""
    names = (target, *target.find_all(nodes.Name))
    return frozenset(name.name for name in names if isinstance(name, nodes.Name))


def _defined_if(test: nodes.Node | None, outcome: bool) -> Known:
    """The names that are surely there when the test came out so."""
    if isinstance(test, nodes.Not):
        return _defined_if(test.node, not outcome)
    if isinstance(test, (nodes.And, nodes.Or)):
        left, right = _defined_if(test.left, outcome), _defined_if(test.right, outcome)
        return left | right if isinstance(test, nodes.And) is outcome else left & right
    guard = "defined" if outcome else "undefined"
    if isinstance(test, nodes.Test) and test.name == guard and isinstance(test.node, nodes.Name):
        return frozenset({test.node.name})
    return frozenset()


@dataclass(slots=True)
class _Reader:
    """Goes through a template in the order of execution. `known`: the names surely set or defined at that point."""

    needed: set[str] = field(default_factory=set)
    lines: dict[str, int] = field(default_factory=dict)
    paths: list[tuple[str, int]] = field(default_factory=list)

    def block(self, body: Iterable[nodes.Node], known: Known) -> Known:
        for node in body:
            known = self.statement(node, known)
        return known

    def statement(self, node: nodes.Node, known: Known) -> Known:
        """Reads one statement; the names that are known after it."""
        if isinstance(node, nodes.If):
            return self._if(node, known)
        if isinstance(node, nodes.Assign):
            self.expression(node.node, known)
            self.expression(node.target, known)
            return known | _stored(node.target)
        if isinstance(node, nodes.AssignBlock):
            self.expressions([node.filter], known)
            self.block(node.body, known)
            return known | _stored(node.target)
        if isinstance(node, nodes.Macro):
            self._macro(node, known | {node.name})
            return known | {node.name}
        if isinstance(node, nodes.CallBlock):
            self.expression(node.call, known)
            self._macro(node, known)
        elif isinstance(node, nodes.For):
            self.expression(node.iter, known)
            inner = known | _stored(node.target) | {"loop"}
            self.expressions([node.test], inner)
            self.block(node.body, inner | _defined_if(node.test, True))
            self.block(node.else_, known)
        elif isinstance(node, nodes.With):
            self.expressions(node.values, known)
            self.block(node.body, known.union(*map(_stored, node.targets)))
        elif isinstance(node, nodes.FilterBlock):
            self.expression(node.filter, known)
            self.block(node.body, known)
        elif isinstance(node, nodes.Block):
            self.block(node.body, known | {"super"})
        elif isinstance(node, (nodes.Scope, nodes.ScopedEvalContextModifier)):
            self.expressions(getattr(node, "options", ()), known)
            self.block(node.body, known)
        else:
            self.expressions(node.iter_child_nodes(), known)
        return known

    def _if(self, node: nodes.If, known: Known) -> Known:
        ends = []
        for branch in (node, *node.elif_):
            self.expression(branch.test, known)
            ends.append(self.block(branch.body, known | _defined_if(branch.test, True)))
            known |= _defined_if(branch.test, False)
        ends.append(self.block(node.else_, known))
        return frozenset.intersection(*ends)

    def _macro(self, node: nodes.Macro | nodes.CallBlock, known: Known) -> None:
        inner = known.union(*map(_stored, node.args)) | {"caller", "kwargs", "varargs"}
        self.expressions(node.defaults, inner)
        self.block(node.body, inner)

    def expressions(self, parts: Iterable[nodes.Node | None], known: Known) -> None:
        for node in parts:
            if node is not None:
                self.expression(node, known)

    def expression(self, node: nodes.Node, known: Known) -> None:
        """Reads one expression."""
        if isinstance(node, nodes.NSRef) or (isinstance(node, nodes.Name) and node.ctx == "load"):
            self._use(node, known)
        elif isinstance(node, (nodes.And, nodes.Or)):
            self.expression(node.left, known)
            self.expression(node.right, known | _defined_if(node.left, isinstance(node, nodes.And)))
        elif isinstance(node, nodes.CondExpr):
            self.expression(node.test, known)
            self.expression(node.expr1, known | _defined_if(node.test, True))
            self.expressions([node.expr2], known | _defined_if(node.test, False))
        else:
            if path := dotted(node):
                self.paths.append((path, node.lineno))
            for child in self._unguarded(node):
                self.expression(child, known)

    def _unguarded(self, node: nodes.Node) -> Iterator[nodes.Node]:
        """The children, without the name that the node itself guards."""
        guard = (isinstance(node, nodes.Test) and node.name in ("defined", "undefined")) or (
            isinstance(node, nodes.Filter) and node.name in ("default", "d")
        )
        for child in node.iter_child_nodes():
            if guard and child is node.node and isinstance(child, nodes.Name):  # type: ignore[attr-defined]
                self.lines.setdefault(child.name, child.lineno)
            else:
                yield child

    def _use(self, node: nodes.Name | nodes.NSRef, known: Known) -> None:
        self.lines.setdefault(node.name, node.lineno)
        self.paths.append((node.name, node.lineno))
        if node.name not in known:
            self.needed.add(node.name)
