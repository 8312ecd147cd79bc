"""The execution log of a run: `<output>/<date>/<run id>.json`, everything about it and every recipient's end.

Written as a stream: a million recipients need no more memory than one. Credentials are not in it: of an engine it has
name, kind and plain options.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from campaigns.conf import conf
from campaigns.models import Run, RunEvent, RunProblem
from delivery.models import Delivery, Engine, Message

RECIPIENT = ("address", "state", "attempts", "resends", "code", "words", "provider_id", "tried_at", "settled_at")


def write(run: Run) -> Path:
    """Writes the log of a run that has ended. The file appears whole or not at all. Returns its path."""
    path = conf().output_dir / f"{run.created_at:%Y-%m-%d}" / f"{run.pk}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        _write(run, file)
    partial.replace(path)
    return path


def _write(run: Run, file: TextIO) -> None:
    head = json.dumps(_head(run), ensure_ascii=False, indent=1, default=str)
    file.write(head.removesuffix("\n}") + ',\n "recipients": [')
    separator = "\n  "
    for recipient in _recipients(run):
        file.write(separator + json.dumps(recipient, ensure_ascii=False, default=str))
        separator = ",\n  "
    file.write("\n ]\n}\n")


def _head(run: Run) -> dict[str, object]:
    message = Message.objects.filter(batch=run.batch_id).first()
    return {
        "run_id": run.pk,
        "state": run.state,
        "trigger": run.trigger,
        "triggered_by": run.triggered_by,
        "error": run.error,
        "frozen": run.frozen,
        "message": message and {"subject": message.subject, "from": message.from_address, "token": message.token},
        "engines": list(_engines(run)),
        "created_at": run.created_at,
        "sending_at": run.sending_at,
        "ended_at": run.ended_at,
        "rows_read": run.rows_read,
        "problem_counts": run.problem_counts,
        "problems": list(RunProblem.objects.filter(run=run).values("kind", "reason", "position", "address", "detail")),
        "events": list(RunEvent.objects.filter(run=run).values("state", "by", "why", "at")),
        "total": run.batch.total if run.batch else 0,
        "counts": run.counts,
    }


def _engines(run: Run) -> Iterator[dict[str, object]]:
    if run.batch:
        for engine in Engine.objects.filter(memberships__pool=run.batch.pool_id).order_by("memberships__position"):
            yield {"name": engine.name, "kind": engine.kind, "options": engine.options}


def _recipients(run: Run) -> Iterator[dict[str, object]]:
    if run.batch:
        span = {"id__gte": run.batch.first_id or 0, "id__lte": run.batch.last_id or 0}
        rows = Delivery.objects.filter(batch=run.batch_id, **span).order_by("id")
        yield from rows.values(*RECIPIENT).iterator(chunk_size=2000)
