"""The states of an import, and the only code that writes them: what a person asks for, and the right to work on it.

Each move is one conditional UPDATE: of two who want the same move, one gets it.
"""

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet

from campaigns import wake
from campaigns.contacts.mapping import Mapping
from campaigns.exceptions import ImportImpossible
from campaigns.models import UNDER_WAY, ContactImport, ImportState
from delivery import owner
from delivery.queue import database_now

# A worker renews its right with each chunk, which takes a fraction of a second; on SQLite it may wait for others.
CLAIM = timedelta(seconds=60)

logger = logging.getLogger(__name__)

CHECKABLE = (ImportState.UPLOADED, ImportState.CHECKED, ImportState.REFUSED)
UNDOABLE = (ImportState.IMPORTING, ImportState.DONE)
NO_HOLDER = {"holder": "", "holder_until": None}


# ---- what a person asks for ----


def check(of: ContactImport, by: str, mapping: Mapping, policy: str) -> None:
    """Has the whole file read as it would be imported, and nothing written. Raises ImportImpossible."""
    fresh = {"position": 0, "forecast": {}, "problem_counts": {}, "error": ""}
    _ask(of, ImportState.CHECKING, CHECKABLE, by, mapping=mapping.as_json(), policy=policy, **fresh)


def start(of: ContactImport, by: str) -> None:
    """Has the file imported just as it was checked. Raises ImportImpossible."""
    _ask(of, ImportState.IMPORTING, (ImportState.CHECKED,), by, position=0, counts={}, started_at=database_now())


def undo(of: ContactImport, by: str) -> None:
    """Has everything taken back that the import did; one that is under way stops. Raises ImportImpossible."""
    _ask(of, ImportState.UNDOING, UNDOABLE, by, undone={})


WHAT_NEXT = {
    ImportState.UPLOADED: "Check it first.",
    ImportState.REFUSED: "Its file was refused: mend it and upload it again, or check it with another mapping.",
    ImportState.CHECKING: "Wait until it is checked.",
    ImportState.DONE: "It can be undone.",
}


def _ask(of: ContactImport, target: ImportState, sources: Collection[str], by: str, **fields: object) -> None:
    rows = ContactImport.objects.filter(pk=of.pk, state__in=sources)
    with transaction.atomic():
        if not rows.update(state=target, **NO_HOLDER, **fields):
            state = ImportState(ContactImport.objects.values_list("state", flat=True).get(pk=of.pk))
            possible = " or ".join(ImportState(source).label for source in sources)
            words = f"Import {of.pk} is {state.label}: this is possible when it is {possible}."
            raise ImportImpossible(f"{words} {WHAT_NEXT.get(state, '')}".rstrip())
        transaction.on_commit(lambda: wake.ask_to_import(of.pk))
    logger.info("import of contacts is %s", target.value, extra={"contact_import": of.pk, "by": by})
    of.refresh_from_db()


# ---- who works on it ----


def claim(import_id: int) -> ContactImport | None:
    """The sole right to work on an import, for this process. None: somebody has it, or there is nothing to do."""
    now = database_now()
    holder = ContactImport.objects.filter(pk=import_id).values_list("holder", flat=True).first()
    free = Q(holder_until=None) | Q(holder_until__lte=now)
    if holder and owner.is_gone(holder):
        free |= Q(holder=holder)
    rows = ContactImport.objects.filter(free, pk=import_id, state__in=UNDER_WAY)
    if not rows.update(holder=owner.name(), holder_until=now + CLAIM):
        return None
    return ContactImport.objects.select_related("contact_list").get(pk=import_id)


def renew(of: ContactImport, **fields: object) -> bool:
    """Renews the right and writes `fields`. False when it is lost: somebody has taken it over, or asked for something
    else. Inside a transaction it locks the import until the end."""
    return _mine(of).update(**{"holder_until": database_now() + CLAIM, **fields}) == 1


def arrive(of: ContactImport, target: ImportState, **fields: object) -> bool:
    """The work is done. False when the right to it is lost."""
    done = {"state": target, "ended_at": database_now(), **NO_HOLDER}
    if not _mine(of).update(**done, **fields):
        return False
    logger.info("import of contacts is %s", target.value, extra={"contact_import": of.pk})
    return True


def release(of: ContactImport) -> None:
    """Leaves it to anybody else."""
    _mine(of).update(**NO_HOLDER)


def unattended(now: datetime) -> QuerySet[ContactImport]:
    """Those that somebody should work on and nobody does."""
    under_way = ContactImport.objects.filter(state__in=UNDER_WAY)
    holders = under_way.exclude(holder="").values_list("holder", flat=True)
    gone = [holder for holder in holders if owner.is_gone(holder)]
    return under_way.filter(Q(holder_until=None) | Q(holder_until__lte=now) | Q(holder__in=gone))


def _mine(of: ContactImport) -> QuerySet[ContactImport]:
    return ContactImport.objects.filter(pk=of.pk, state=of.state, holder=owner.name())
