"""What one run has beside or in place of its workflow's settings: recipients, context, priority, deadline, pool."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from campaigns.audiences.inline import InlineSource, WithContext
from campaigns.audiences.rows import Source
from campaigns.audiences.stored import open_source
from campaigns.models import Run, RunRecipients
from delivery.models import Pool

MOST_RECIPIENTS = 10_000

Rows = Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Overrides:
    """`recipients`: rows in place of the audience. `context`: fields that every recipient has who does not say
    otherwise. `deadline`: until when each mail should be gone, unless a recipient's own is earlier."""

    recipients: Rows | None = None
    context: Mapping[str, object] = field(default_factory=dict)
    priority: int | None = None
    deadline: datetime | None = None
    pool: Pool | None = None

    def as_json(self) -> dict[str, object]:
        """What a run remembers of them. The recipients have a place of their own."""
        kept = {
            "recipients": None if self.recipients is None else len(self.recipients),
            "context": dict(self.context),
            "deadline": self.deadline and self.deadline.isoformat(),
            "pool": self.pool and self.pool.pk,
        }
        return {name: value for name, value in kept.items() if value}


NONE = Overrides()


def refuse_bad_recipients(rows: Rows) -> None:
    """Raises AudienceRefused for rows of which no field holds the address, or whose fields no template could name."""
    InlineSource(rows)


def keep_recipients(run: Run, rows: Rows) -> None:
    """Writes the recipients of a run that has just been made. Part of the caller's transaction."""
    RunRecipients.objects.create(run=run, content=zlib.compress(json.dumps(list(rows)).encode(), 1))


def forget_recipients(run: Run) -> None:
    """All of them are deliveries."""
    if run.overrides.get("recipients"):
        RunRecipients.objects.filter(run=run).delete()


def is_inline(run: Run) -> bool:
    """Whether the recipients were given with the run."""
    return bool(run.overrides.get("recipients"))


def source_of(run: Run) -> Source:
    """Where the recipients of a run come from. Raises AudienceError."""
    source = _inline(run) if is_inline(run) else open_source(run.workflow.audience)
    context = run.overrides.get("context")
    return WithContext(source, context) if context else source


def _inline(run: Run) -> InlineSource:
    audience = run.workflow.audience
    rows = json.loads(zlib.decompress(bytes(RunRecipients.objects.get(run=run).content)))
    return InlineSource(rows, address_field=audience.address_field, name_field=audience.name_field)


def deadline_of(run: Run) -> datetime | None:
    """Until when each mail of a run should be gone."""
    written = run.overrides.get("deadline")
    return datetime.fromisoformat(written) if written else None


def pool_of(run: Run) -> Pool:
    """The pool that a run goes through."""
    chosen = run.overrides.get("pool")
    return Pool.objects.get(pk=chosen) if chosen else run.workflow.pool
