"""What a JSON body may be: bounded in size, depth and numbers, and of texts that every database can keep."""

import json
from collections.abc import Mapping

from django.conf import settings
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser
from rest_framework.renderers import JSONRenderer

DEEPEST = 32
LARGEST = 2**63 - 1


class TooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


class JsonParser(BaseParser):
    """JSON (RFC 8259) in UTF-8. Raises ParseError, TooLarge."""

    media_type = "application/json"
    renderer_class = JSONRenderer

    def parse(self, stream: object, media_type: str | None = None, parser_context: Mapping | None = None) -> object:
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        content = stream.read(most + 1)
        if len(content) > most:
            raise TooLarge(f"A body has at most {most // 1024**2} MB.")
        return parsed(content)


def parsed(content: bytes) -> object:
    """The value that a body holds. Raises ParseError."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ParseError(f"It is not UTF-8: {error.reason} at octet {error.start}.") from None
    try:
        value = json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
        _refuse_what_cannot_be_kept(value)
    except RecursionError:
        raise ParseError(f"It is nested more than {DEEPEST} deep.") from None
    except ValueError as error:
        raise ParseError(f"It is not JSON: {error}.") from None
    return value


def _no_number(name: str) -> None:
    raise ParseError(f"{name} is no number in JSON.")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object. Which of two equal names counts is nobody's guess (RFC 8259, section 4)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ParseError(f"The name {twice[:100]!r} is there twice in one object.")
    return found


def _refuse_what_cannot_be_kept(value: object) -> None:
    """Looks at everything once, level by level. Raises ParseError."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ParseError(f"It is nested more than {DEEPEST} deep.")
        below: list[object] = []
        for each in level:
            match each:
                case str():
                    _refuse_text(each)
                case bool() | None:
                    pass
                case int():
                    if not -LARGEST <= each <= LARGEST:
                        raise ParseError("A whole number in it is too large: at most 9223372036854775807.")
                case float():
                    if each in (float("inf"), float("-inf")):
                        raise ParseError("A number in it is too large: at most about 1.8e308.")
                case dict():
                    for name in each:
                        _refuse_text(name)
                    below += each.values()
                case list():
                    below += each
        level = below


def _refuse_text(text: str) -> None:
    if "\0" in text:
        raise ParseError("The character U+0000 is in it, which no text that is kept may hold.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ParseError("Half of a character (a lone surrogate) is in it, which no text has.") from None
