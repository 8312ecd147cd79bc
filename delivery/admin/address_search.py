"""Finding rows by an address in the way that uses the index on `identity`, on either database."""

from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest

from delivery.addresses import ImpossibleAddress, identity, normalise

_LAST = "\U0010ffff"


def compares_by_bytes() -> bool:
    """True when texts sort by their code points (SQLite; PostgreSQL with the collation C), so that everything with
    one beginning is one stretch of the index. In a language's collation it is not, nor does LIKE use such an index."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT CASE WHEN 'B' < 'a' THEN 1 ELSE 0 END")
        return bool(cursor.fetchone()[0])


def by_address(rows: QuerySet, written: str) -> QuerySet:
    """The rows of this address; of every address that begins so where the database finds those without reading all."""
    wanted = identity(written.strip())
    stored = _as_stored(wanted)
    if stored != wanted or not compares_by_bytes():
        return rows.filter(identity=stored)
    return rows.filter(identity__gte=wanted, identity__lt=wanted + _LAST)


def _as_stored(wanted: str) -> str:
    """The domain of what somebody typed may still be Unicode, and is stored as an A-label."""
    try:
        return identity(normalise(wanted))
    except ImpossibleAddress:
        return wanted


class AddressSearch:
    """Mixed into a ModelAdmin whose model has an `identity`: its search box takes an address."""

    search_fields = ("identity",)

    @property
    def search_help_text(self) -> str:
        return "An address, or its beginning" if compares_by_bytes() else "A whole address"

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        return (by_address(queryset, search_term) if search_term.strip() else queryset), False
