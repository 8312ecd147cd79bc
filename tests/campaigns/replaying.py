"""Runs of which some deliveries did not get through, written as the queue writes them: rows and tallies together."""

from collections import Counter

from django.utils import timezone

from campaigns.finish import write_missing_logs
from campaigns.models import Run
from delivery import queue
from delivery.models import Delivery, DeliveryState
from delivery.queue import tallies
from tests.campaigns import cast


def over(*ends: str, **settings: object) -> Run:
    """A completed run in which so many deliveries ended so, the rest accepted."""
    slug = settings.setdefault("slug", "letters")
    people = cast.list_audience(cast.crowd(len(ends) + 2), slug=f"{slug}-people")
    run = cast.ended(cast.workflow(audience=people, **settings))
    end_as(run, *ends)
    counts = dict.fromkeys(run.counts, 0) | queue.progress(run.batch_id)
    Run.objects.filter(pk=run.pk).update(counts=counts)
    write_missing_logs()
    return cast.fresh(run)


def end_as(run: Run, *ends: str) -> None:
    """The first deliveries of a run end so, one after the other."""
    ids = Delivery.objects.filter(batch=run.batch_id).order_by("pk").values_list("pk", flat=True)
    for pk, end in zip(list(ids), ends, strict=False):
        before = Delivery.objects.get(pk=pk).state
        Delivery.objects.filter(pk=pk).update(state=end, code="550", words="no", attempts=5, settled_at=timezone.now())
        change = Counter({(run.batch_id, end): 1})
        if before == DeliveryState.ACCEPTED:
            change[run.batch_id, before] -= 1
        tallies.add(change)


def in_state(run: Run, *states: str) -> list[Delivery]:
    """The deliveries of a run in one of these states, in the order of writing."""
    return list(Delivery.objects.filter(batch=run.batch_id, state__in=states).order_by("pk"))
