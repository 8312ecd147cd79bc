"""Imports of contacts, as tests make them: a file, a list, and every step in this process."""

from collections.abc import Iterable

from campaigns.contacts import states
from campaigns.contacts.mapping import Mapping
from campaigns.contacts.uploads import store
from campaigns.contacts.work import work_on
from campaigns.models import Contact, ContactImport, ContactList, ImportPolicy

BY = "olga"


def uploaded(to: ContactList, content: str | bytes, **options: str) -> ContactImport:
    """A file that waits for its check."""
    octets = content.encode() if isinstance(content, str) else content
    return store(to, "people.csv", [octets], by=BY, **options)


def checked(
    to: ContactList, content: str | bytes, *, policy: str = ImportPolicy.FILL, mapping: Mapping | None = None
) -> ContactImport:
    """A file after its check, whatever came of it."""
    of = uploaded(to, content)
    states.check(of, BY, mapping or Mapping.of(of.mapping), policy)
    work_on(of.pk)
    of.refresh_from_db()
    return of


def imported(to: ContactList, content: str | bytes, **options: object) -> ContactImport:
    """A file after its import."""
    return finished(checked(to, content, **options))


def finished(of: ContactImport) -> ContactImport:
    """A checked import after its import."""
    states.start(of, BY)
    work_on(of.pk)
    of.refresh_from_db()
    return of


def undone(of: ContactImport) -> ContactImport:
    """An import after its undoing."""
    states.undo(of, BY)
    work_on(of.pk)
    of.refresh_from_db()
    return of


def people(of: ContactList) -> dict[str, tuple[str, dict[str, object]]]:
    """Who is on a list: name and attributes, by address."""
    rows = Contact.objects.filter(contact_list=of).order_by("address")
    return {
        address: (name, attributes) for address, name, attributes in rows.values_list("address", "name", "attributes")
    }


def csv_of(rows: Iterable[tuple[str, ...]]) -> str:
    """Plain cells as a file."""
    return "".join(",".join(row) + "\n" for row in rows)
