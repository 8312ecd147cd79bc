"""How lists are read: page by page from where the last one ended, narrowed, searched and ordered by what a view names.

A page costs the same wherever it is: a cursor says after which row it begins.
"""

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.filters import OrderingFilter, SearchFilter
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.views import APIView

MOST = 500
# What every list understands beside what it is narrowed by.
COMMON = ("cursor", "page_size", "format")


class Pages(CursorPagination):
    """Cursor pages. A view may say the `ordering` of its list: unique or nearly unique columns without NULL."""

    ordering = "id"
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = MOST
    invalid_cursor_message = "This cursor is none of ours: take it from `next` or `previous`."

    def paginate_queryset(self, queryset: QuerySet, request: Request, view: APIView | None = None) -> list | None:
        self.ordering = getattr(view, "ordering", None) or self.ordering
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValueError, ValidationError, OverflowError, TypeError):  # a position that is no value of the column
            raise NotFound(self.invalid_cursor_message) from None

    def decode_cursor(self, request: Request) -> Cursor | None:
        cursor = super().decode_cursor(request)
        if cursor and "\0" in (cursor.position or ""):  # no text that is kept has it, and PostgreSQL takes none
            raise NotFound(self.invalid_cursor_message)
        return cursor

    def get_page_size(self, request: Request) -> int:
        given = request.query_params.get(self.page_size_query_param)
        if given is None:
            return self.page_size
        if not (given.isascii() and given.isdigit() and len(given) < 6 and 0 < int(given) <= MOST):
            raise serializers.ValidationError({"page_size": f"A page has 1 to {MOST} rows."})
        return int(given)


class Narrowing(DjangoFilterBackend):
    """django-filter, which refuses what a list does not know: a misspelt filter must not show everything."""

    def filter_queryset(self, request: Request, queryset: QuerySet, view: APIView) -> QuerySet:
        known = set(COMMON)
        if getattr(view, "search_fields", None):
            known.add(SearchFilter.search_param)
        if getattr(view, "ordering_fields", None):
            known.add(OrderingFilter.ordering_param)
        filterset = self.get_filterset_class(view, queryset)
        if filterset is not None:
            known.update(filterset(queryset=queryset).form.fields)
        if unknown := sorted(set(request.query_params) - known):
            there = ", ".join(sorted(known))
            raise serializers.ValidationError(
                {name[:200]: f"A list is not narrowed by this. There is: {there}." for name in unknown}
            )
        return super().filter_queryset(request, queryset, view)


class Searching(SearchFilter):
    """Searching in the columns that a view names."""

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, object]]:
        return super().get_schema_operation_parameters(view) if getattr(view, "search_fields", None) else []


class Ordering(OrderingFilter):
    """Ordering by the columns that a view names, which refuses others. Ties are broken by the id."""

    def get_ordering(self, request: Request, queryset: QuerySet, view: APIView) -> tuple[str, ...]:
        given = request.query_params.get(self.ordering_param)
        if given is None:
            return self.get_default_ordering(view)
        valid = [name for name, _ in self.get_valid_fields(queryset, view)]
        if given.removeprefix("-") not in valid:
            raise serializers.ValidationError(
                {self.ordering_param: f"One of {', '.join(valid)}; with a minus before it, backwards."}
            )
        sign = "-" if given.startswith("-") else ""
        return (given, f"{sign}id") if given.removeprefix("-") != "id" else (given,)

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, object]]:
        names = getattr(view, "ordering_fields", None) or ()
        schema = {"type": "string", "enum": [each for name in names for each in (name, f"-{name}")]}
        words = "By which column; with a minus before it, backwards."
        parameter = {"name": self.ordering_param, "required": False, "in": "query", "description": words}
        return [parameter | {"schema": schema}] if names else []
