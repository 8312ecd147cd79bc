"""The execution log of a run: `<output>/<date>/<run id>.json`, everything about it and every recipient's end.

Written as a stream: a million recipients need no more memory than one. Rows are read by their keys, some thousand at a
time, so that no cursor stays open on the server and nothing is asked of a connection between two reads. Credentials are
not in it: of an engine it has the plain options, and which secrets there are.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from django.db.models import QuerySet

from campaigns.conf import conf
from campaigns.models import Run, RunEvent, RunProblem
from delivery.engines import KINDS
from delivery.models import Delivery, Engine, Message
from delivery.queue import late
from delivery.redaction import HIDDEN, redacted

RECIPIENT = (
    "message", "address", "key", "state", "engine", "attempts", "resends", "code", "words", "provider_id",
    "tried_at", "settled_at",
)  # fmt: skip
PROBLEM = ("kind", "reason", "position", "address", "detail")
CHUNK = 2000  # rows for each read

ShouldStop = Callable[[], bool]
Row = dict[str, object]


class Stopped(Exception):
    """Whoever wrote the log has to end; nothing of it is left, and it can be written again."""


def write(run: Run, should_stop: ShouldStop = lambda: False) -> Path:
    """Writes the log of a run that has ended. The file appears whole or not at all. Returns its path.

    Asks `should_stop` before each chunk of rows, and raises Stopped when it says yes.
    """
    path = conf().output_dir / f"{run.created_at:%Y-%m-%d}" / f"{run.pk}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            _write(run, file, should_stop)
            file.flush()
            os.fsync(file.fileno())  # the run is going to point at it
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def open_for_reading(run: Run) -> BinaryIO:
    """The log that was written of a run. Raises FileNotFoundError when it is not here: also when the path that the run
    has leads out of the folder of logs."""
    path = Path(run.log_path).resolve()
    if not path.is_relative_to(conf().output_dir.resolve()):
        raise FileNotFoundError(run.log_path)
    return path.open("rb")


def _write(run: Run, file: TextIO, should_stop: ShouldStop) -> None:
    file.write(json.dumps(_head(run), ensure_ascii=False, indent=1, default=str).removesuffix("\n}"))
    _array(file, "problems", _problems(run, should_stop))
    _array(file, "recipients", _recipients(run, should_stop))
    file.write("\n}\n")


def _array(file: TextIO, name: str, rows: Iterator[Row]) -> None:
    file.write(f',\n "{name}": [')
    separator = "\n  "
    for row in rows:
        file.write(separator + json.dumps(row, ensure_ascii=False, default=str))
        separator = ",\n  "
    file.write("\n ]")


def _head(run: Run) -> Row:
    messages = list(Message.objects.filter(batch=run.batch_id).order_by("position"))
    workflow = run.workflow
    return {
        "run_id": run.pk,
        "correlation_id": run.correlation_id,
        "state": run.state,
        "trigger": run.trigger,
        "triggered_by": run.triggered_by,
        "test_limit": run.test_limit,
        "error": run.error,
        # What it was called when the run began; a run that never came so far has what it is called now.
        "workflow": run.frozen.get("workflow", {"id": workflow.pk, "slug": workflow.slug, "name": workflow.name}),
        "template": {**run.frozen.get("template", {}), "step": run.frozen.get("step")} if run.frozen else None,
        "frozen": run.frozen,
        "message": _message(messages[0]) if messages else None,
        "messages": [_message(message) for message in messages],
        "engines": [_engine(engine) for engine in _engines(run)],
        "created_at": run.created_at,
        "initializing_at": run.initializing_at,
        "sending_at": run.sending_at,
        "ended_at": run.ended_at,
        "rows_read": run.rows_read,
        "problem_counts": run.problem_counts,
        "events": list(RunEvent.objects.filter(run=run).values("state", "by", "why", "at")),
        "total": run.batch.size if run.batch else 0,
        "counts": run.counts,
        "late": late(run.batch_id) if run.batch else 0,
    }


def _message(message: Message) -> Row:
    return {
        "step": message.position,
        "subject": message.subject,
        "from": message.from_address,
        "token": message.token,
    }


def _engines(run: Run) -> QuerySet[Engine]:
    pool = run.batch.pool_id if run.batch else None
    return Engine.objects.filter(memberships__pool=pool).order_by("memberships__position")


def _engine(engine: Engine) -> Row:
    """An engine as it is set up now. Which secrets its kind has is said without a look at them."""
    kind = KINDS.get(engine.kind)
    secrets = dict.fromkeys(sorted(kind.secret_fields), HIDDEN) if kind and engine.secrets else {}
    return {
        "name": engine.name,
        "slug": engine.slug,
        "kind": engine.kind,
        "options": redacted(engine.options),
        "secrets": secrets,
    }


def _problems(run: Run, should_stop: ShouldStop) -> Iterator[Row]:
    yield from _by_key(RunProblem.objects.filter(run=run), PROBLEM, 0, should_stop)


def _recipients(run: Run, should_stop: ShouldStop) -> Iterator[Row]:
    if not run.batch:
        return
    # Also engines that have left the pool since.
    names = dict(Engine.objects.values_list("pk", "name"))
    steps = dict(Message.objects.filter(batch=run.batch_id).values_list("pk", "position"))
    rows = Delivery.objects.filter(batch=run.batch_id, id__lte=run.batch.last_id or 0)
    for row in _by_key(rows, RECIPIENT, (run.batch.first_id or 1) - 1, should_stop):
        row["engine"] = names.get(row["engine"])
        yield {"step": steps[row.pop("message")], **row}


def _by_key(rows: QuerySet, columns: tuple[str, ...], after: int, should_stop: ShouldStop) -> Iterator[Row]:
    """The rows whose key is larger than `after`, in the order of their keys. Raises Stopped."""
    while True:
        if should_stop():
            raise Stopped("The execution log was not finished: this process ends.")
        chunk = list(rows.filter(pk__gt=after).order_by("pk").values_list("pk", *columns)[:CHUNK])
        for _, *cells in chunk:
            yield dict(zip(columns, cells, strict=True))
        if len(chunk) < CHUNK:
            return
        after = chunk[-1][0]
