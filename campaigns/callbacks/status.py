"""How far those are told who wanted to be told of a run."""

from collections.abc import Collection

from django.db.models import Count

from campaigns.models import Callback, CallbackState

# What is said of several: one that nobody will get without a person comes first.
_GRAVEST = (CallbackState.DEAD, CallbackState.WAITING, CallbackState.DELIVERED)


def status_of(run_ids: Collection[int]) -> dict[int, str]:
    """ "waiting", "delivered" or "dead", for those of these runs whose callback_url is to be told, or was."""
    found: dict[int, str] = {}
    told = Callback.objects.filter(run__in=list(run_ids), webhook=None).order_by()
    states = set(told.values_list("run", "state").distinct())
    for state in reversed(_GRAVEST):
        found |= {run_id: state.value for run_id, of_run in states if of_run == state}
    return found


def counts_of(run_id: int) -> dict[str, int]:
    """How many callbacks about a run there are, webhooks' included, by state."""
    return dict(Callback.objects.filter(run=run_id).order_by().values_list("state").annotate(Count("pk")))
