"""Paths into a JSON document: `data.items`, `phones[0].number`, `["@odata.nextLink"]`, with or without `$` in front.

Decides what stands at a path, and tells null from nothing. Other than `delivery.engines.http_api.paths`, which reads
answers, where the difference does not matter, and knows no names with dots in them.
"""

import re

Path = tuple[str | int, ...]

EXAMPLE = "data.items"
# A name in quotes may hold anything but quotes; elsewhere in a line it is told from what follows by them.
_STEP = r'[\w-]+|\[-?\d{1,6}\]|\["[^"]+"\]'
PATH = rf'(?:\$\.?)?(?:(?:{_STEP})(?:\.[\w-]+|\[-?\d{{1,6}}\]|\["[^"]+"\])*)?'
_ONE_STEP = re.compile(r'\["(?P<quoted>[^"]+)"\]|\[(?P<index>-?\d{1,6})\]|(?P<name>[\w-]+)')


class _Missing:
    """What stands where nothing stands."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


def parse_path(text: str) -> Path:
    """The steps of a path; () for the document itself, written "" or `$`. An index counts from 0, a negative one from
    the end. Raises ValueError, with a sentence."""
    text = text.strip()
    if not re.fullmatch(PATH, text):
        raise ValueError(f"“{text[:100]}” is no path: write names with dots between them, such as {EXAMPLE}.")
    return tuple(
        int(found["index"]) if found["index"] is not None else found["quoted"] or found["name"]
        for found in _ONE_STEP.finditer(text.removeprefix("$"))
    )


def find(document: object, path: Path) -> object:
    """What stands there; None also where a null stands on the way; MISSING when nothing does."""
    for step in path:
        if document is None:
            return None
        if isinstance(document, dict):
            document = document.get(str(step), MISSING)
        elif isinstance(document, list):
            document = _at(document, step)
        else:
            return MISSING
        if document is MISSING:
            return MISSING
    return document


def _at(items: list, step: str | int) -> object:
    if isinstance(step, str):
        if not (step.isascii() and step.isdecimal()):
            return MISSING
        step = int(step[:9])
    return items[step] if -len(items) <= step < len(items) else MISSING


def nested_deeper(value: object, depth: int) -> bool:
    """Whether lists and objects stand in each other deeper than `depth`; a scalar has depth 0."""
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return any(isinstance(each, dict | list) for each in level)
