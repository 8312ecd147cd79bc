"""Jinja's tags and expressions swapped for opaque marks and back, so that an HTML parser can work on a template.

Decides where a piece of Jinja begins and ends (as Jinja's own lexer says, which knows that braces in strings are no
braces) and keeps text that merely looks like Jinja from becoming Jinja. Knows no HTML.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from delivery.templating.sandbox import HTML

_PRIVATE_USE = range(0xE000, 0xF8FF)
_TRAILING_BLANKS = re.compile(r"[^\S\n]+\n")
_OPENING = frozenset({"if", "for"})
_MIDDLE = frozenset({"elif", "else"})
_CLOSING = frozenset({"endif", "endfor"})


@dataclass(frozen=True, slots=True)
class Tag:
    """A piece of Jinja. `name` is the first word of a control tag ({% … %}), "" for an expression ({{ … }})."""

    source: str
    name: str = ""


class Marks:
    """The pieces of Jinja of one template, and the marks that stand for them."""

    def __init__(self, source: str) -> None:
        self._mark = next(chr(code) for code in _PRIVATE_USE if chr(code) not in source)
        self._tags: list[Tag] = []
        self.pattern = re.compile(f"({self._mark}[0-9]+{self._mark})")
        self.marked = "".join(
            text if kind == "data" else self.add(Tag(text, _first_word(text) if kind == "block" else ""))
            for kind, text in _pieces(source)
            if kind != "comment"
        )

    def add(self, tag: Tag) -> str:
        """The mark of one more tag."""
        self._tags.append(tag)
        return f"{self._mark}{len(self._tags) - 1}{self._mark}"

    def tag(self, mark: str) -> Tag | None:
        """The tag that the string stands for; None when it is text."""
        return self._tags[int(mark.strip(self._mark))] if self.pattern.fullmatch(mark) else None

    def sources(self, text: str) -> str:
        """The text with the source of each tag, as it was written."""
        return self.pattern.sub(lambda found: self.tag(found[0]).source, text)  # type: ignore[union-attr]

    def restore(self, text: str) -> str:
        """The text as a template again: braces that were text stay text, an `if` or `for` around nothing is gone."""
        text = re.sub(rf"\{{(?=[{{%#{self._mark}])", self.add(Tag("{{ '{' }}")), text)
        kept: list[Tag] = []
        for piece in self.pattern.split(text):
            tag = self.tag(piece)
            if tag is None:
                kept.append(Tag(_TRAILING_BLANKS.sub("\n", piece)))
            elif tag.name not in _CLOSING or not _drop_empty(kept):
                kept.append(tag)
        return "".join(tag.source for tag in kept)


def _drop_empty(kept: list[Tag]) -> bool:
    """Takes the last `if` or `for` away, with its `else`, if nothing stands after it."""
    at = len(kept) - 1
    while at >= 0 and (kept[at].name in _MIDDLE or not kept[at].source):
        at -= 1
    if at < 0 or kept[at].name not in _OPENING:
        return False
    del kept[at:]
    return True


def _first_word(tag: str) -> str:
    word = re.search(r"\w+", tag)
    return word[0] if word else ""


def _pieces(source: str) -> Iterator[tuple[str, str]]:
    """("data" | "block" | "variable" | "comment", source). The signs that strip white space are left out: the lexer
    has stripped it already, and in the text they would eat the line breaks made there."""
    kind = "data"
    collected: list[str] = []
    for _, piece, value in HTML.lex(source):
        opened, _, edge = piece.rpartition("_")
        if edge == "begin" and opened in ("block", "variable", "comment"):
            kind, collected = opened, [value.rstrip("-+")]
        elif edge == "end" and opened == kind:
            collected.append(value.strip().lstrip("-+"))
            yield kind, "".join(collected)
            kind = "data"
        elif kind != "data":
            collected.append(value)
        elif piece == "data":
            yield kind, value
