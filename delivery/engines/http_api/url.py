"""The URL of a call: its host is fixed, its path and query may be templates."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from delivery.engines.http_api.fields import names_of
from delivery.templating import Budget, Omitted, TemplateProblem
from delivery.templating.marks import Marks
from delivery.templating.values import URL, TextPart, is_template

_ORIGIN = re.compile(r"https?://[^/?#]+", re.IGNORECASE)


class UrlTemplate:
    """See the module. A value fills its place in the path or the query and cannot leave it. `names` are the fields that
    it uses, `origin` is scheme and host."""

    def __init__(self, source: str) -> None:
        """Raises TemplateProblem."""
        self._part = TextPart("URL", source, URL)
        self._fixed = "" if is_template(source) else source
        self.names = names_of([self._part])
        self.origin = _origin_of(source)
        marked = Marks(source).marked
        if "#" in marked or any(character.isspace() for character in marked):
            raise TemplateProblem("URL", 1, "The URL has a # or a space outside of a template: take it out.")
        self._segments = urlsplit(marked).path.split("/")

    def render(self, data: Mapping[str, object], budget: Budget) -> str:
        """Raises TemplateProblem."""
        if self._fixed:
            return self._fixed
        try:
            url = self._part.render_line(data, budget)
        except Omitted:
            raise TemplateProblem("URL", 1, "The URL: a value is empty, and a URL cannot leave it out.") from None
        # Between slashes, dots would lead to another place, and nothing to all of a collection.
        for written, segment in zip(self._segments, urlsplit(url).path.split("/"), strict=False):
            if segment in ("", ".", "..") and segment != written:
                raise TemplateProblem("URL", 1, f"The URL leads elsewhere: between two slashes comes “{segment}”.")
        return url


def _origin_of(url: str) -> str:
    found = _ORIGIN.match(url)
    if not found or is_template(found[0]):
        raise TemplateProblem("URL", 1, "The URL begins with a fixed host, such as https://api.example/v1/messages.")
    return found[0]
