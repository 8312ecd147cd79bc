"""Lists that stay fast however long the table is: newest first, paged by the last id seen, never counted.

COUNT(*) and OFFSET read every row they pass. `id < cursor ORDER BY id DESC LIMIT n` reads n rows on page 10,000 too.
"""

from dataclasses import dataclass

from django.contrib.admin import ShowFacets
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.views import ChangeList

BEFORE = "before"  # the page of what is older than this id
AFTER = "after"  # the page of what is newer


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, newest first, and the cursors of the pages beside it: None where there is no more."""

    rows: list[Model]
    newer_than: int | None
    older_than: int | None


def page_of(rows: QuerySet, size: int, *, before: int | None = None, after: int | None = None) -> Page:
    """One page: the newest, the one older than `before`, or the one newer than `after`."""
    if after is not None:
        found = list(rows.filter(pk__gt=after).order_by("pk")[: size + 1])
        if len(found) > size:
            return _page(found[:size][::-1], newer=True, older=True)
        before = None  # the newest page, and a full one
    if before is not None:
        rows = rows.filter(pk__lt=before)
    found = list(rows.order_by("-pk")[: size + 1])
    return _page(found[:size], newer=before is not None, older=len(found) > size)


def _page(rows: list[Model], *, newer: bool, older: bool) -> Page:
    return Page(rows, rows[0].pk if rows and newer else None, rows[-1].pk if rows and older else None)


class KeysetPaginator(Paginator):
    """Names the template of the links; which rows a page has is `page_of`'s."""

    template_name = "admin/keyset_links.html"
    count = 0  # asked for by nothing that is shown, and never computed


class KeysetChangeList(ChangeList):
    """A change list in pages of `page_of`. Its order is fixed."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: list[str] | None = None) -> QuerySet:
        # A cursor is no filter, and a link that changes a filter must not keep it.
        for name in (BEFORE, AFTER):
            self.params.pop(name, None)
            self.filter_params.pop(name, None)
        return super().get_queryset(request, exclude_parameters)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet) -> list[str]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        cursors = {name: _cursor(request, name) for name in (BEFORE, AFTER)}
        self.page = page_of(self.queryset, self.list_per_page, **cursors)
        self.paginator = KeysetPaginator([], self.list_per_page)
        self.result_list = self.page.rows
        # Equal, so that unfold shows neither: the one is no total, the other is not known.
        self.result_count = self.full_result_count = len(self.page.rows)
        self.show_admin_actions = bool(self.page.rows)
        self.show_full_result_count = self.can_show_all = self.multi_page = False

    @property
    def first_page(self) -> str | None:
        return self.get_query_string() if self.page.newer_than else None

    @property
    def newer_page(self) -> str | None:
        return self.page.newer_than and self.get_query_string({AFTER: self.page.newer_than})

    @property
    def older_page(self) -> str | None:
        return self.page.older_than and self.get_query_string({BEFORE: self.page.older_than})


def _cursor(request: HttpRequest, name: str) -> int | None:
    text = request.GET.get(name)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 18:  # what a BIGINT certainly holds
        raise IncorrectLookupParameters(f"{name} must be an id")
    return int(text)


class KeysetList:
    """Mixed into a ModelAdmin whose table may be long."""

    list_per_page = 100
    list_max_show_all = 0
    show_full_result_count = False
    sortable_by = ()
    show_facets = ShowFacets.NEVER  # they count, too

    def get_changelist(self, request: HttpRequest, **kwargs: object) -> type[KeysetChangeList]:
        return KeysetChangeList
