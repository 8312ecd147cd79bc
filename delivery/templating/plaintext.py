"""From an HTML template to a plain-text template: the text part of a message whose author wrote only the HTML.

Decides how HTML reads as text. Renders nothing, and is run once per version, not per recipient.

Every control tag ({% … %}) comes out, in order and wherever it stood (in a style sheet, in an attribute), so that
pairs stay pairs; expressions come out where their text does.
"""

import re
from dataclasses import dataclass
from html.parser import HTMLParser

from delivery.templating.content import compile_content
from delivery.templating.marks import Marks, Tag
from delivery.templating.problem import TemplateProblem

# Python 3.11 decodes `&sect` in `?a=1&section=2`; browsers do not.
_LOOSE_AMPERSAND = re.compile(r"&(?![a-zA-Z][a-zA-Z0-9]*;|#[0-9]+;|#[xX][0-9a-fA-F]+;)")
_PADDING = re.compile("(?:[\u00ad\u034f\u200b\u200c\ufeff]\\s*){2,}")  # of hidden preview texts

_SKIPPED = frozenset({"head", "script", "style", "template", "title"})
_PARAGRAPHS = frozenset(
    {"blockquote", "dl", "fieldset", "figure", "form", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "ol", "p", "pre"}
    | {"table", "ul"}
)
_LINES = frozenset(
    {"address", "article", "aside", "body", "caption", "center", "dd", "div", "dt", "figcaption", "footer", "header"}
    | {"html", "li", "main", "nav", "section", "tbody", "tfoot", "thead", "tr"}
)
_RULE = "-" * 40


def html_to_text_template(html_source: str) -> str:
    """A plain-text template that says what the HTML template says; TemplateProblem when that cannot be compiled."""
    compile_content("", "", html_source)
    marks = Marks(html_source)
    converter = _Converter(marks)
    converter.feed(_LOOSE_AMPERSAND.sub("&amp;", marks.marked))
    converter.close()
    text = marks.restore(converter.text()).strip()
    try:
        compile_content("", text, "")
    except TemplateProblem:
        # Tags that cut through an HTML element, such as {% if a %}<a href="1">{% else %}<a {% endif %}.
        raise TemplateProblem(
            "html",
            1,
            "The HTML mixes tags of Jinja and of HTML so that no text can be made of it: write the text part.",
        ) from None
    return text + "\n" if text else ""


@dataclass(slots=True)
class _Link:
    target: str
    start: int  # where its text begins in the output


@dataclass(slots=True)
class _List:
    ordered: bool
    depth: int  # prefixes that were there when the list began
    loops: int  # `for` tags that were open then
    number: int = 0


@dataclass(slots=True)
class _Prefix:
    """What begins each line of an item or a quotation; `first` only its first line."""

    first: str
    other: str

    def take(self) -> str:
        taken, self.first = self.first, self.other
        return taken


class _Converter(HTMLParser):
    """Writes the text as the parser meets it.

    Line breaks and spaces are owed until something follows them, so that neighbouring blocks share theirs and no line
    ends in a space. A control tag at the start of a line leaves the line at its start: it makes no line of its own.
    """

    def __init__(self, marks: Marks) -> None:
        super().__init__(convert_charrefs=True)
        self._marks = marks
        self._out: list[str] = []
        self._owed = 0  # line breaks to be made before the next text
        self._made = 2  # line breaks made since the last text; it begins as after a blank line
        self._space = False  # a space is owed
        self._bare = False  # the line has nothing but its bullet
        self._skipped = self._preformatted = self._loops = 0
        self._links: list[_Link] = []
        self._lists: list[_List] = []
        self._prefixes: list[_Prefix] = []

    def text(self) -> str:
        """What was written."""
        return "".join(self._out)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break_for(tag)
        if tag in _SKIPPED:
            self._skipped += 1
        elif tag == "body":
            self._skipped = 0
        if tag != "a":
            self._controls(" ".join(f"{name} {value}" for name, value in attrs if name != "alt"))
        match tag:
            case "a":
                self._links.append(_Link(self._target(attrs), len(self._out)))
            case "br":
                self._break(min((self._owed or self._made) + 1, 2))
            case "hr":
                self._write(_RULE)
                self._break(2)
            case "img":
                self._flow(dict(attrs).get("alt") or "")
            case "ul" | "ol":
                self._lists.append(_List(tag == "ol", len(self._prefixes), self._loops))
            case "li":
                self._end_item()
                self._prefixes.append(_Prefix(self._bullet(), "  "))
            case "blockquote":
                self._prefixes.append(_Prefix("> ", "> "))
            case "pre":
                self._preformatted += 1

    def handle_endtag(self, tag: str) -> None:
        match tag:
            case "a":
                while self._links:
                    self._end_link(self._links.pop())
            case "td" | "th":
                self._end_cell()
            case "li":
                self._end_item()
            case "ul" | "ol" if self._lists:
                self._end_item()
                self._lists.pop()
            case "blockquote" if self._prefixes:
                self._prefixes.pop()
            case "pre":
                self._preformatted = max(0, self._preformatted - 1)
        if tag in _SKIPPED:
            self._skipped = max(0, self._skipped - 1)
        self._break_for(tag)

    def handle_data(self, data: str) -> None:
        self._flow(data)

    def handle_comment(self, data: str) -> None:
        self._controls(data)

    handle_decl = handle_pi = unknown_decl = handle_comment

    def _break_for(self, tag: str) -> None:
        if tag in ("ul", "ol") and self._prefixes:
            self._break(1)
        elif tag in _PARAGRAPHS:
            self._break(2)
        elif tag in _LINES:
            self._break(1)

    def _end_cell(self) -> None:
        # After the cell, not before the next: the next may be the same one again, in a loop.
        if not self._made and not self._owed and not self._skipped:
            self._out.append("  ")
            self._space = False

    def _end_item(self) -> None:
        del self._prefixes[self._lists[-1].depth if self._lists else 0 :]
        self._bare = False

    def _bullet(self) -> str:
        if not self._lists or not self._lists[-1].ordered:
            return "- "
        items = self._lists[-1]
        if self._loops > items.loops:
            return self._marks.add(Tag("{{ loop.index }}")) + ". "
        items.number += 1
        return f"{items.number}. "

    def _target(self, attrs: list[tuple[str, str | None]]) -> str:
        """The link's target. Where a condition chooses among several, all of them within that condition."""
        pieces = []
        for name, value in attrs:
            for piece in self._marks.pattern.split(name):
                tag = self._marks.tag(piece)
                if tag and tag.name:
                    pieces.append(piece)
                elif piece == "href":
                    pieces.append((value or "").strip())
            if not name.endswith("href"):
                self._controls(value or "")
        return "".join(pieces)

    def _end_link(self, link: _Link) -> None:
        words = self._marks.sources("".join(self._out[link.start :]).strip())
        target = self._marks.sources(link.target)
        if self._skipped or not target or target.startswith("#") or words in (target, target.removeprefix("mailto:")):
            return
        self._space = not self._made
        self._write(f"<{link.target}>")

    def _controls(self, text: str) -> None:
        """Writes the control tags in what is otherwise left out."""
        for mark in self._marks.pattern.findall(text):
            self._control(mark)

    def _flow(self, data: str) -> None:
        if self._skipped:
            self._controls(data)
            return
        if self._preformatted and self._owed:
            data = data.removeprefix("\n")
        for piece in self._marks.pattern.split(_PADDING.sub(" ", data)):
            tag = self._marks.tag(piece)
            if tag and tag.name:
                self._control(piece)
            elif tag:
                self._write(piece)
            elif self._preformatted:
                self._verbatim(piece)
            else:
                self._words(piece)

    def _words(self, text: str) -> None:
        if text[:1].isspace():
            self._owe_space()
        if words := text.split():
            self._write(" ".join(words))
            if text[-1:].isspace():
                self._owe_space()

    def _verbatim(self, text: str) -> None:
        for number, line in enumerate(text.split("\n")):
            if number:
                self._settle()
                self._out.append("\n")
                self._made = 1
            if line:
                self._write(line)

    def _owe_space(self) -> None:
        self._space = not self._made and not self._owed

    def _break(self, count: int) -> None:
        if not self._skipped and not self._bare:
            self._owed = max(self._owed, count)
            self._space = False

    def _settle(self) -> None:
        missing = self._owed - self._made
        if missing > 0:
            self._out.append("\n" * missing)
            self._made = self._owed
        self._owed = 0

    def _write(self, text: str) -> None:
        self._settle()
        if self._made:
            self._out.extend(prefix.take() for prefix in self._prefixes)
        elif self._space:
            self._out.append(" ")
        self._out.append(text)
        self._made = 0
        self._space = self._bare = False

    def _control(self, mark: str) -> None:
        name = self._marks.tag(mark).name  # type: ignore[union-attr]
        if not name:
            return
        self._loops += {"for": 1, "endfor": -1}.get(name, 0)
        item = self._prefixes[-1] if self._prefixes else None
        if item and item.first != item.other:
            # The text of each branch belongs after the bullet, not only that of the first.
            self._write("")
            self._bare = True
        self._settle()
        if self._space:
            self._out.append(" ")
            self._space = False
        self._out.append(mark)
