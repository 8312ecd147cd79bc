"""How commands name a run."""

from django.core.management.base import CommandError

from campaigns.models import Run

LISTED = 5


def run_named(wanted: str) -> Run:
    """The run with this id. Raises CommandError, with exit code 2, when there is none."""
    run = None
    if wanted.isascii() and wanted.isdigit() and len(wanted) <= 18:
        run = Run.objects.select_related("batch", "workflow").filter(pk=wanted).first()
    if run is None:
        latest = [f"{pk} ({slug}, {state})" for pk, slug, state in _latest()]
        hint = f"The latest are {', '.join(latest)}." if latest else "There is none yet."
        raise CommandError(f"There is no run {wanted!r}. {hint}", returncode=2)
    return run


def _latest() -> list[tuple[int, str, str]]:
    return list(Run.objects.order_by("-pk").values_list("pk", "workflow__slug", "state")[:LISTED])
