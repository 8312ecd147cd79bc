"""What the cluster's minute does for imports of contacts: wakes a worker where there should be one, and forgets."""

from datetime import datetime, timedelta

from campaigns import wake
from campaigns.contacts.states import unattended
from campaigns.models import ContactChange, ContactImport, ImportChunk, ImportState

# A file with the addresses of people that nobody has imported in that time.
UNUSED_KEPT = timedelta(days=7)
# How long an import can be undone.
UNDO_KEPT = timedelta(days=90)
AT_ONCE = 10_000

UNUSED = (ImportState.UPLOADING, ImportState.UPLOADED, ImportState.CHECKED, ImportState.REFUSED)


def wake_unattended(now: datetime) -> None:
    """Asks for a worker for each import that stands still."""
    for import_id in unattended(now).values_list("pk", flat=True):
        wake.ask_to_import(import_id)


def forget(now: datetime) -> None:
    """Files that were never imported go, and what would be needed to undo imports of long ago."""
    unused = ContactImport.objects.filter(state__in=UNUSED, created_at__lt=now - UNUSED_KEPT)
    for import_id in unused.values_list("pk", flat=True)[:10]:
        ImportChunk.objects.filter(contact_import=import_id).delete()
        ContactImport.objects.filter(pk=import_id, state__in=UNUSED).delete()
    old = ContactImport.objects.filter(state=ImportState.DONE, ended_at__lt=now - UNDO_KEPT)
    for import_id in old.filter(pk__in=ContactChange.objects.values("contact_import")).values_list("pk", flat=True)[:1]:
        ids = ContactChange.objects.filter(contact_import=import_id).values_list("pk", flat=True)[:AT_ONCE]
        ContactChange.objects.filter(pk__in=list(ids)).delete()
