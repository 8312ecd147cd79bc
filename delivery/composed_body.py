"""The words that a model wrote, as the body of a mail: tidied as text, and as HTML.

Decides that they are plain text: nothing in them is markup, whatever it looks like, and no link is made of them. Pure.
"""

import re
from html import escape

from delivery.core.envelope import UNKEPT

_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_EMPTY_LINES = re.compile(r"\n{3,}")
_PARAGRAPHS = re.compile(r"\n{2,}")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
# Which way the letters run, and nothing that is seen: a model has no need of it, and whoever misuses one has.
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")


def tidy(text: str) -> str:
    """The text with plain line ends, without what no database keeps, and with no more than one empty line in a row."""
    text = _LINE_END.sub("\n", text)
    text = _DIRECTION.sub("", UNKEPT.sub(" ", text))
    return _EMPTY_LINES.sub("\n\n", _TRAILING.sub("", text)).strip()


def to_html(text: str) -> str:
    """The text as HTML: escaped, a paragraph for each block between empty lines, a break for each other line end."""
    paragraphs = _PARAGRAPHS.split(tidy(text))
    return "\n".join(f"<p>{'<br>'.join(escape(paragraph).split(chr(10)))}</p>" for paragraph in paragraphs if paragraph)
