"""The audience of a JSON list that an HTTP API gives, page by page.

Decides what an item of the list is, which items are recipients, and when the list as a whole cannot be trusted: half of
it must not pass for the whole. How pages are fetched is known by `http_fetch`, which is next by `http_paging`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from campaigns.audiences.columns import Columns
from campaigns.audiences.exceptions import AudienceRefused
from campaigns.audiences.http_fetch import Fetcher, Surroundings, fetching
from campaigns.audiences.http_paging import Page, PagingProblem, Walk
from campaigns.audiences.http_settings import HttpSettings
from campaigns.audiences.http_url import with_parameters, without_query
from campaigns.audiences.json_increment import MAX_TIES, Bookmark, Reading, TooManyTies
from campaigns.audiences.json_mapping import MAX_FIELDS, scalars
from campaigns.audiences.json_path import find, nested_deeper
from campaigns.audiences.json_types import Unfit, shown
from campaigns.audiences.reading import read
from campaigns.audiences.rows import MAX_RAW, BadRow, Reason, Row
from delivery.core.answer import Answer

MAX_DEPTH = 32  # lists and objects in each other, within one item
# A thousand items are held at once while a run is written.
MAX_ITEM = 100_000  # characters of an item, as JSON
_NO_CONTENT = 204


class HttpJsonSource:
    """A list over HTTP as an audience.

    `bookmark` is how far the list was read the last time, for settings that ask for what is new since then;
    `read_to_the_end` is called with the new one after the last row, and at no other time. `address_field` and
    `name_field` are explained at `columns.Columns.of`; fields are those of the settings, else the scalars of the first
    page that has items. `around` is what is outside: clocks, chance, networks.
    """

    def __init__(
        self,
        settings: HttpSettings,
        *,
        label: str = "the list",
        address_field: str | None = None,
        name_field: str | None = None,
        bookmark: Bookmark | None = None,
        read_to_the_end: Callable[[Bookmark], None] = lambda reached: None,
        around: Surroundings | None = None,
    ) -> None:
        self._settings = settings
        self._label = f"{label} ({without_query(settings.url)})"
        self._address_field = address_field
        self._name_field = name_field
        self._bookmark = bookmark or Bookmark()
        self._read_to_the_end = read_to_the_end
        self._around = around or Surroundings()

    def label(self) -> str:
        """What it is called in messages."""
        return self._label

    def fields(self) -> tuple[str, ...]:
        """The names that the settings give; without any, the first page with items is fetched and asked."""
        if self._settings.fields:
            return self._named().columns.fields
        with self._pages() as pages:
            return self._found(next((page for page in pages if page.items), None)).columns.fields

    def rows(self) -> Iterator[Row | BadRow]:
        """Every item, in the order of the list, counted from 1 over all pages. Of a list that is read by what is new,
        the items that were there the last time are counted and left out."""
        reading = self._reading()
        shape = self._named() if self._settings.fields else None
        position = 0
        with self._pages() as pages:
            for page in pages:
                if shape is None and page.items:
                    shape = self._found(page)
                for item in page.items:
                    position += 1
                    row = self._judged(position, item, shape, reading)
                    if row is not None:
                        yield row
        if shape is None:
            self._found(None)
        if reading is not None:
            self._read_to_the_end(reading.reached())

    # ---- pages ----

    @contextmanager
    def _pages(self) -> Iterator[Iterator[Page]]:
        with fetching(self._settings, self._label, self._around) as fetcher:
            yield self._walked(fetcher)

    def _walked(self, fetcher: Fetcher) -> Iterator[Page]:
        walk, number = Walk(self._settings.paging, self._start()), 1
        url: str | None = walk.first()
        while url is not None:
            if number > self._settings.limits.pages:
                raise AudienceRefused(
                    self._label,
                    f"it has more than {self._settings.limits.pages:,} pages",
                    "Ask for larger pages, raise the limit, or correct the paging if the list should have ended",
                )
            page = self._page(url, number, fetcher)
            try:
                url = walk.after(page)
            except PagingProblem as problem:
                where = f"{self._label}, page {number}"
                raise AudienceRefused(where, fetcher.show(problem.problem), problem.remedy) from None
            yield page
            number += 1

    def _start(self) -> str:
        since = self._settings.since
        if since is None or not self._bookmark.value:
            return self._settings.url
        return with_parameters(self._settings.url, [(since.parameter, self._bookmark.value)])

    def _page(self, url: str, number: int, fetcher: Fetcher) -> Page:
        answer = fetcher.get(url, number)
        if answer.status == _NO_CONTENT:
            return Page(url, answer.headers, None, [])
        where = f"{self._label}, page {number}"
        document = _parsed(answer, where)
        items = find(document, self._settings.items)
        if not isinstance(items, list):
            there = _described(items, document) if self._settings.items else shown(items)
            raise AudienceRefused(
                where,
                f"there is no list at {self._settings.items_written}: there is {fetcher.show(there)}",
                "Set the path to where the list lies, such as data.items, or leave it empty for the document itself",
            )
        return Page(url, answer.headers, document, items)

    # ---- the shape of the rows ----

    def _named(self) -> "_Shape":
        return self._shape([field.name for field in self._settings.fields])

    def _found(self, page: Page | None) -> "_Shape":
        if page is None:
            raise AudienceRefused(
                self._label,
                "the list is empty, and no fields are named from which templates could be checked",
                "Name the fields, such as email = contact.email, or start again when there are items",
            )
        names = dict.fromkeys(name for item in page.items if isinstance(item, dict) for name in scalars(item))
        if len(names) > MAX_FIELDS:
            raise AudienceRefused(
                self._label,
                f"its items have {len(names):,} fields, more than {MAX_FIELDS}",
                "Name those that are wanted, such as email = contact.email",
            )
        return self._shape(list(names))

    def _shape(self, names: list[str]) -> "_Shape":
        columns = Columns.of(self._label, names, address_field=self._address_field, name_field=self._name_field)
        return _Shape(columns, dict(zip(names, columns.fields, strict=True)))

    # ---- items ----

    def _reading(self) -> Reading | None:
        if self._settings.since is None:
            return None
        try:
            return Reading(self._settings.since, self._bookmark)
        except Unfit as unfit:
            raise AudienceRefused(
                self._label, str(unfit), "Choose the type that it has, or let it be read from the beginning"
            ) from None

    def _judged(self, position: int, item: object, shape: "_Shape", reading: Reading | None) -> Row | BadRow | None:
        if nested_deeper(item, MAX_DEPTH):
            return BadRow(position, Reason.NOT_A_ROW, f"The item is nested deeper than {MAX_DEPTH} levels.", "")
        written = json.dumps(item, ensure_ascii=False)
        if len(written) > MAX_ITEM:
            return BadRow(position, Reason.NOT_A_ROW, f"The item is longer than {MAX_ITEM:,} characters.", written)
        try:
            if reading is not None and not reading.is_new(item):
                return None
            data = self._data(item, shape)
        except Unfit as unfit:
            return BadRow(position, Reason.WRONG_VALUE, str(unfit), written)
        except TooManyTies:
            raise AudienceRefused(
                f"{self._label}, item {position}",
                f"more than {MAX_TIES:,} items have the same highest value, so that what is new cannot be told",
                "Choose a value that differs from item to item, such as an id",
            ) from None
        if data is None:
            return BadRow(position, Reason.NOT_A_ROW, f"The item is {shown(item)}, and not an object.", written)
        columns = shape.columns
        name = data.get(columns.name) if columns.name is not None else None
        return read(position, data.get(columns.address), name, data, raw=written[:MAX_RAW])

    def _data(self, item: object, shape: "_Shape") -> dict[str, object] | None:
        """The fields of an item; None when it can have none. Raises `Unfit`."""
        if self._settings.fields:
            return {field.name: field.of(item) for field in self._settings.fields}
        if not isinstance(item, dict):
            return None
        return {shape.field_of[name]: value for name, value in scalars(item).items() if name in shape.field_of}


@dataclass(frozen=True, slots=True)
class _Shape:
    """What rows look like: their columns, and the field of each name that items use."""

    columns: Columns
    field_of: Mapping[str, str]


def _parsed(answer: Answer, where: str) -> object:
    try:
        return json.loads(answer.body, parse_constant=_refuse_constant)
    except RecursionError:
        problem = "its JSON is nested too deeply"
    except ValueError as error:
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        what = f"{kind}, no JSON" if kind and "json" not in kind else "no JSON"
        told = isinstance(error, json.JSONDecodeError)
        at = f" ({error.msg}, line {error.lineno}, column {error.colno})" if told else ""
        problem = f"the answer is {what}{at}" if answer.body.strip() else "the answer is empty"
    raise AudienceRefused(
        where, problem, "See that the URL is the one of the list, and not of a page for people or of a login"
    )


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _described(found: object, document: object) -> str:
    what = shown(found) if isinstance(found, dict | str | int | float) or found is None else "nothing"
    if isinstance(document, dict):
        names = ", ".join(map(repr, list(document)[:20])) or "no fields"
        return f"{what}; the page has {names}"
    return f"{what}; the page is {shown(document)}"
