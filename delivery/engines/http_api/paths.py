"""Dotted paths into a JSON answer: `error.code`, `items.0.id`, with or without `$.` in front."""

import json
import re

from delivery.core.answer import plain

Path = tuple[str, ...]

PATH = r"\$?(?:\.?[\w-]+|\[\d+\])(?:\.[\w-]+|\[\d+\])*"
_STEP = re.compile(r"[\w-]+")
_LONGEST = 300  # characters of what is no text and is shown as JSON


def parse_path(text: str) -> Path:
    """The steps of a path; () for none. Raises ValueError, with a sentence."""
    text = text.strip()
    if not text or text == "$":
        return ()
    if not re.fullmatch(PATH, text):
        raise ValueError(f"“{text}” is no path: write names with dots between them, such as error.code or items.0.id.")
    return tuple(_STEP.findall(text.removeprefix("$")))


def find(document: object, path: Path) -> object:
    """What stands there; None when nothing does."""
    for step in path:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isdecimal() and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def said(value: object) -> str:
    """A value as text: `true`, `null` and lists as JSON writes them."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return plain(value)
    return plain(json.dumps(value, ensure_ascii=False)[:_LONGEST])
