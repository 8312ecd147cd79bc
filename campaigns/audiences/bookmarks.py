"""How far audiences have been read that give only what is new: begun with, moved at the end of a run, reset.

A reading leaves what it has reached on the audience object it was opened for; only a run that has been filled
completely writes it down. So a reading that failed, was cancelled, or was a sample or a test moves nothing.
"""

from collections.abc import Callable

from django.db.models import F
from django.utils import timezone

from campaigns.audiences.exceptions import AudienceRefused
from campaigns.audiences.json_increment import Bookmark
from campaigns.models import Audience, AudienceBookmark, Run


def begin_reading(audience: Audience) -> tuple[Bookmark, Callable[[Bookmark], None]]:
    """Where a reading of the audience starts, and what it is to call when it has read to the end."""
    stored = AudienceBookmark.objects.filter(audience=audience).first() or AudienceBookmark(audience=audience)
    before = Bookmark.of(stored.value, stored.ties)
    audience.reached = None

    def read_to_the_end(reached: Bookmark) -> None:
        if reached != before:
            audience.reached = (stored.version, reached)

    return before, read_to_the_end


def source_read_to_the_end(run: Run) -> None:
    """Remembers how far the audience of `run` was read, now that every delivery of the run is written. Part of the
    transaction that says so. Nothing for other kinds of audiences and for tests.

    Raises AudienceRefused when another run has read the same audience since this one began: both have the same people.
    """
    audience = run.workflow.audience
    if audience.reached is None or run.test_limit is not None:
        return
    version, reached = audience.reached
    AudienceBookmark.objects.get_or_create(audience=audience)
    moved = AudienceBookmark.objects.filter(audience=audience, version=version).update(
        value=reached.value,
        ties=sorted(reached.ties),
        version=version + 1,
        moved_at=timezone.now(),
        run_id=run.pk,
    )
    if moved:
        return
    if not AudienceBookmark.objects.filter(audience=audience, value="").exists():
        raise AudienceRefused(
            f"audience {audience.name!r}",
            "another run has read it meanwhile, so that both would write to the same people",
            "Start again for what is new since then, and give each workflow an audience of its own",
        )


def reset_bookmark(audience: Audience) -> bool:
    """Lets the next run read the audience from the beginning; a run that is reading it now does not change that. False
    when it had no bookmark."""
    read = AudienceBookmark.objects.filter(audience=audience).exclude(value="")
    return bool(read.update(value="", ties=[], version=F("version") + 1, moved_at=timezone.now(), run_id=None))
