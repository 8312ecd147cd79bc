"""Whether this installation can do its work: asked by load balancers, container engines and people.

`/health/live`: this process answers. `/health/ready`: database, broker, migrations and workers are there. `/health`:
both, as one document. Nobody needs to prove who he is, so the words say what is wrong and never where or why: that is
in the log. A database that is away is an answer within PATIENCE, never a request that hangs.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_q.brokers import get_broker

from campaigns.models import SILENT_AFTER, Cluster
from delivery.queue.dialect import database_now
from outreach.conf import conf

logger = logging.getLogger(__name__)

PATIENCE = 3.0  # seconds for all questions together
MOST_UNANSWERED = 4  # threads that may wait for a server that does not answer; then nobody asks it again


class Unready(Exception):
    """What is missing, in a sentence for everybody."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one question."""

    good: bool
    words: str


Question = Callable[[], str]


# ---- the questions, in the order in which they make sense ----


def database() -> str:
    """Raises whatever a database that is away raises."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return "answers"


def broker() -> str:
    """Where wake-ups for workers are left. Raises whatever its client raises."""
    get_broker().queue_size()
    return "answers"


def migrations() -> str:
    """Raises Unready when the code expects tables that are not there."""
    missing = sorted(_expected() - set(MigrationRecorder(connection).applied_migrations()))
    if missing:
        first = ".".join(missing[0])
        raise Unready(f"{len(missing)} not applied, the first is {first}: run `manage.py migrate`")
    return "all applied"


@cache
def _expected() -> set[tuple[str, str]]:
    """All migrations of the code, which does not change while a process runs."""
    known = MigrationLoader(None).disk_migrations
    replaced = {old for migration in known.values() for old in migration.replaces}
    return set(known) - replaced


def workers() -> str:
    """Raises Unready when no cluster has given a sign of life lately."""
    alive = Cluster.objects.alive(database_now())
    count = alive.count()
    if not count:
        raise Unready(
            f"none was seen for {SILENT_AFTER.total_seconds():.0f} s: start `manage.py runworkers`, or set "
            "OUTREACH_READY_NEEDS_WORKER=false"
        )
    return f"{count} cluster{'s' if count > 1 else ''} alive"


QUESTIONS: Mapping[str, Question] = {
    "database": database,
    "broker": broker,
    "migrations": migrations,
    "workers": workers,
}


# ---- asking them ----

_unanswered = threading.BoundedSemaphore(MOST_UNANSWERED)


def findings(questions: Mapping[str, Question] = QUESTIONS, patience: float = PATIENCE) -> dict[str, Finding]:
    """What came of each question, within `patience` seconds.

    They are asked in a thread of their own, on a connection of its own: neither a driver's timeouts nor the state of a
    connection that was idle for an hour decide how long this takes."""
    found: dict[str, Finding] = {}
    deadline = time.monotonic() + patience
    if _unanswered.acquire(timeout=patience):
        thread = threading.Thread(target=_ask, args=(questions, found), daemon=True, name="health")
        thread.start()
        thread.join(max(0.0, deadline - time.monotonic()))
    late = Finding(False, f"no answer within {patience:g} s")
    return {name: found.get(name, late) for name in questions}


def _ask(questions: Mapping[str, Question], found: dict[str, Finding]) -> None:
    try:
        for name, question in questions.items():
            found[name] = _finding(name, question)
    finally:
        connection.close()
        _unanswered.release()


def _finding(name: str, question: Question) -> Finding:
    try:
        return Finding(True, question())
    except Unready as lack:
        return Finding(False, str(lack))
    except Exception as error:  # each driver has its own; whatever it is, the answer is no
        logger.warning("Not ready: %s: %s: %s", name, type(error).__name__, str(error).strip())
        return Finding(False, "does not answer")


def _readiness() -> tuple[bool, dict[str, object]]:
    found = findings()
    needed = {name for name in found if name != "workers" or conf().ready_needs_worker}
    checks = {
        name: {"status": "ok" if each.good else "failed" if name in needed else "ignored", "words": each.words}
        for name, each in found.items()
    }
    return all(found[name].good for name in needed), checks


def _answer(good: bool, document: Mapping[str, object]) -> JsonResponse:
    return JsonResponse({"status": "ok" if good else "failed", **document}, status=200 if good else 503)


# ---- the pages ----


@require_safe
@never_cache
def live(request: HttpRequest) -> JsonResponse:
    """200: this process answers. Asks nobody: a database that is away is no reason to restart a web server."""
    return _answer(True, {})


@require_safe
@never_cache
def ready(request: HttpRequest) -> JsonResponse:
    """200 when work can be taken and done, 503 when not, with the reason for each check that failed."""
    good, checks = _readiness()
    return _answer(good, {"checks": checks})


@require_safe
@never_cache
def health(request: HttpRequest) -> JsonResponse:
    """The sum of both."""
    good, checks = _readiness()
    process = {"status": "ok", "words": "answers"}
    return _answer(good, {"checks": {"process": process, **checks}})
