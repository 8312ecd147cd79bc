"""What the API's records need not keep for ever goes, a little with each tick of the cluster."""

import time
from datetime import timedelta

from django.utils import timezone

from delivery.core.throttle import SECOND
from delivery.models import Bucket
from outreach.access.throttling import BUCKETS
from outreach.conf import access
from outreach.models import AuditEntry

AT_ONCE = 20_000  # rows of a tick: more than a busy minute writes, and nobody is held up
DAY = timedelta(days=1)


def forget_old(**kwargs: object) -> None:
    """Receiver of `campaigns.signals.ticked`."""
    _forget_entries()
    _forget_buckets()


def _forget_entries() -> None:
    # Ids grow with time, so what is old is at the beginning of the primary key, and nothing else is looked at.
    limit = timezone.now() - access().audit_kept
    entries = AuditEntry.objects.order_by("pk").values_list("pk", "at")
    oldest = entries.first()
    if oldest and oldest[1] < limit:
        AuditEntry.objects.filter(pk__in=[pk for pk, at in entries[:AT_ONCE] if at < limit]).delete()


def _forget_buckets() -> None:
    """A bucket whose state is long past is full, as one that nobody has drawn from."""
    past = time.time_ns() - int(DAY.total_seconds()) * SECOND
    stale = Bucket.objects.filter(key__startswith=BUCKETS, state__lt=past).values_list("pk", flat=True)
    if keys := list(stale[:AT_ONCE]):
        Bucket.objects.filter(pk__in=keys, state__lt=past).delete()
