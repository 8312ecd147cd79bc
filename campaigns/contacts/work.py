"""The work on an import between two states, chunk by chunk. A chunk, what was counted of it and the place in the file
are one transaction, and the first thing in it is the right to write: what a process leaves behind is always whole
chunks, and whoever comes after it goes on at the place that stands there.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from django.db import transaction

from campaigns.audiences.exceptions import AudienceError
from campaigns.audiences.rows import BadRow
from campaigns.contacts import states, writing
from campaigns.contacts.merging import Said, digest, written
from campaigns.contacts.rows import NewContact, read
from campaigns.models import Contact, ContactChange, ContactImport, ImportChunk, ImportProblem, ImportState

UNDONE_AT_ONCE = 2000
FORGOTTEN_AT_ONCE = 10_000

DELETED, RESTORED, KEPT, GONE = "deleted", "restored", "kept", "gone"
NOTHING_UNDONE = dict.fromkeys((DELETED, RESTORED, KEPT, GONE), 0)
NOTHING = dict.fromkeys(("rows", "new", "changed", "unchanged", "bad", "suppressed", "suppressed_in_part"), 0)


class Stopping(Exception):
    """This process ends: the rest is left to another one."""


class _Lost(Exception):
    """Somebody else works on it now, or something else was asked for."""


def work_on(import_id: int, between: Callable[[], None] = lambda: None) -> bool:
    """Brings an import to the end of what it is at. `between` is called after each chunk, and may raise Stopping. False
    when it was not this process's to do."""
    of = states.claim(import_id)
    if of is None:
        return False
    deed = {ImportState.CHECKING: _check, ImportState.IMPORTING: _import, ImportState.UNDOING: _undo}[of.state]
    try:
        deed(of, between)
    except _Lost:
        return False
    except Stopping:
        states.release(of)
        raise
    return True


# ---- checking ----


def _check(of: ContactImport, between: Callable[[], None]) -> None:
    """From the beginning, always: it has written nothing that counts. A file that cannot be read to its end is
    refused as a whole."""
    _forget_problems(of)
    counts, reasons = Counter(NOTHING), Counter()
    try:
        for chunk in read(of):
            contacts, bad = _parted(chunk)
            counts.update(_counted(chunk, bad) + writing.forecast(of, contacts))
            reasons.update(row.reason.value for row in bad)
            with transaction.atomic():
                _hold(of, position=counts["rows"])
                ImportProblem.objects.bulk_create(_problem(of, row) for row in bad)
            between()
    except AudienceError as error:
        _arrive(of, ImportState.REFUSED, error=str(error))
        return
    _arrive(of, ImportState.CHECKED, forecast=_plain(counts), problem_counts=dict(reasons))


def _forget_problems(of: ContactImport) -> None:
    while ids := list(of.problems.values_list("pk", flat=True)[:FORGOTTEN_AT_ONCE]):
        with transaction.atomic():
            _hold(of)
            ImportProblem.objects.filter(pk__in=ids).delete()


def _problem(of: ContactImport, row: BadRow) -> ImportProblem:
    return ImportProblem(contact_import=of, row=row.position, reason=row.reason.value, detail=row.detail, raw=row.raw)


# ---- importing ----


def _import(of: ContactImport, between: Callable[[], None]) -> None:
    """Its bad rows are those of the check, which are kept already. It passes over what another process has written:
    read all the same, for an address may come again."""
    counts, position = Counter(NOTHING | of.counts), 0
    for chunk in read(of):
        position += len(chunk)
        if position <= of.position:
            _hold(of)
        else:
            contacts, bad = _parted(chunk)
            with transaction.atomic():
                _hold(of)
                counts.update(_counted(chunk, bad) + writing.write(of, contacts))
                _hold(of, position=position, counts=_plain(counts))
        between()
    with transaction.atomic():
        _arrive(of, ImportState.DONE, counts=_plain(counts))
        # Nobody needs the addresses of those twice whom the list has now.
        ImportChunk.objects.filter(contact_import=of).delete()


def _parted(chunk: Sequence[NewContact | BadRow]) -> tuple[list[NewContact], list[BadRow]]:
    contacts = [row for row in chunk if isinstance(row, NewContact)]
    return contacts, [row for row in chunk if isinstance(row, BadRow)]


def _counted(chunk: Sequence[object], bad: Sequence[BadRow]) -> Counter[str]:
    return Counter(rows=len(chunk), bad=len(bad))


# ---- undoing ----


def _undo(of: ContactImport, between: Callable[[], None]) -> None:
    """The last change first. What was changed since stays as it is, and is listed among the problems."""
    counts = Counter(NOTHING_UNDONE | of.undone)
    while changes := list(of.changes.order_by("-pk")[:UNDONE_AT_ONCE]):
        with transaction.atomic():
            _hold(of)
            counts.update(_take_back(of, changes))
            _hold(of, undone=_plain(counts))
        between()
    with transaction.atomic():
        _arrive(of, ImportState.UNDONE, undone=_plain(counts))
        ImportChunk.objects.filter(contact_import=of).delete()


def _take_back(of: ContactImport, changes: Iterable[ContactChange]) -> Counter[str]:
    counts: Counter[str] = Counter()
    ids = [change.contact_id for change in changes]
    rows = Contact.objects.filter(pk__in=ids, contact_list=of.contact_list_id).order_by("identity").select_for_update()
    there = {contact.pk: contact for contact in rows}
    deleted: list[int] = []
    restored: list[tuple[int, str, Said]] = []
    kept: list[ImportProblem] = []
    for change in changes:
        contact = there.get(change.contact_id)
        if contact is None:
            counts[GONE] += 1
        elif _digest(contact) != change.after:
            counts[KEPT] += 1
            detail = "The contact was changed after the import, so undoing that left it as it is."
            kept.append(
                ImportProblem(
                    contact_import=of, row=change.row, reason="changed_since", detail=detail, raw=contact.address[:200]
                )
            )
        elif change.before is None:
            counts[DELETED] += 1
            deleted.append(contact.pk)
        else:
            counts[RESTORED] += 1
            restored.append((contact.pk, Said(**change.before)))
    Contact.objects.filter(pk__in=deleted).delete()
    writing.give_back(restored)
    ImportProblem.objects.bulk_create(kept)
    ContactChange.objects.filter(pk__in=[change.pk for change in changes]).delete()
    return counts


def _digest(contact: Contact) -> str:
    return digest(contact.address, contact.name, written(Said(contact.name, contact.attributes)))


# ---- the right to it ----


def _hold(of: ContactImport, **fields: object) -> None:
    if not states.renew(of, **fields):
        raise _Lost


def _arrive(of: ContactImport, target: ImportState, **fields: object) -> None:
    if not states.arrive(of, target, **fields):
        raise _Lost


def _plain(counts: Counter[str]) -> dict[str, int]:
    return dict(counts)
