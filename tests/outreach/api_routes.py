"""Every operation of the API, read off the URL resolver: a new one is tested without anybody thinking of it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

from django.urls import NoReverseMatch, URLPattern, URLResolver, get_resolver, reverse
from rest_framework.permissions import BasePermission

METHODS = ("get", "post", "put", "patch", "delete")
READS = ("get",)
VALUES = ("999999", "csv")  # of what an address has in it


@dataclass(frozen=True)
class Operation:
    """A method of an address, with an id in it that nothing has."""

    method: str
    url: str
    permissions: tuple[BasePermission, ...]

    @property
    def reads(self) -> bool:
        return self.method in READS

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.url}"


def operations() -> list[Operation]:
    """All of them under /api/v1/, but the document of the API itself and its page, which anybody may read."""
    found = {str(each): each for each in _under(get_resolver(), "", "")}
    return [found[name] for name in sorted(found)]


def _under(resolver: URLResolver, route: str, namespace: str) -> Iterator[Operation]:
    for pattern in resolver.url_patterns:
        where = route + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            space = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from _under(pattern, where, space)
        elif where.startswith("api/v1/") and pattern.name not in ("schema", "docs"):
            yield from _of(pattern, namespace)


def _of(pattern: URLPattern, namespace: str) -> Iterator[Operation]:
    url = _address(namespace + pattern.name, list(pattern.pattern.regex.groupindex))
    view_class, actions = pattern.callback.cls, getattr(pattern.callback, "actions", None)
    for method in set(METHODS) & set(view_class.http_method_names):
        if (actions is not None and method in actions) or (actions is None and hasattr(view_class, method)):
            view = view_class(**getattr(pattern.callback, "initkwargs", {}))
            view.action = actions and actions[method]
            yield Operation(method, url, tuple(view.get_permissions()))


def _address(name: str, parts: list[str]) -> str:
    for values in product(VALUES, repeat=len(parts)):
        with suppress(NoReverseMatch):
            return reverse(name, kwargs=dict(zip(parts, values, strict=True)))
    raise AssertionError(f"None of {', '.join(VALUES)} is a {' or '.join(parts)} of {name}: add one that is.")
