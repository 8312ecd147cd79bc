"""Health: 503 with the reason whenever work could not be done, within seconds, and nothing that helps an intruder."""

import json
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone

from campaigns.models import Cluster
from outreach.health import MOST_UNANSWERED, Finding, Unready, findings
from tests.sinks import ROOT

ASK = """
import json, time, django
django.setup()
from django.test import Client
begun = time.monotonic()
answers = {path: Client(SERVER_NAME="localhost").get(path) for path in ("/health/live", "/health/ready", "/health")}
print(json.dumps({
    "seconds": time.monotonic() - begun,
    **{path: [answer.status_code, answer.json()] for path, answer in answers.items()},
}))
"""


def seen(seconds_ago: float = 0, **fields: object) -> Cluster:
    """A cluster that gave a sign of life so long ago."""
    now = timezone.now()
    return Cluster.objects.create(
        **{"owner": "host:1:1", "host": "host", "workers": 2, "started_at": now} | fields,
        beat_at=now - timedelta(seconds=seconds_ago),
    )


def said(path: str = "/health/ready") -> tuple[int, str, dict[str, tuple[str, str]]]:
    """What a page answers: the HTTP status, the status in words, and each check."""
    response = Client().get(path)
    document = response.json()
    checks = {name: (check["status"], check["words"]) for name, check in document.get("checks", {}).items()}
    return response.status_code, document["status"], checks


GOOD = {
    "database": ("ok", "answers"),
    "broker": ("ok", "answers"),
    "migrations": ("ok", "all applied"),
    "workers": ("ok", "1 cluster alive"),
}


# --- Ready -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_all_is_well_when_everything_answers_and_a_worker_was_seen():
    seen(5)

    assert said() == (200, "ok", GOOD)
    assert said("/health") == (200, "ok", {"process": ("ok", "answers"), **GOOD})


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("cluster", [None, {"seconds_ago": 31}, {"stopping": True}])
def test_without_a_worker_seen_lately_it_is_not_ready_and_says_what_to_start(cluster):
    if cluster:
        seen(**cluster)

    status, word, checks = said()

    assert (status, word) == (503, "failed")
    assert checks["workers"][0] == "failed"
    assert "manage.py runworkers" in checks["workers"][1]
    assert {name: checks[name] for name in checks if name != "workers"} == {
        name: GOOD[name] for name in GOOD if name != "workers"
    }
    assert said("/health")[:2] == (503, "failed")


@pytest.mark.django_db(transaction=True)
def test_where_workers_are_not_needed_their_lack_is_said_and_does_not_count(outreach):
    outreach(READY_NEEDS_WORKER=False)

    status, word, checks = said()

    assert (status, word, checks["workers"][0]) == (200, "ok", "ignored")


@pytest.mark.django_db(transaction=True)
def test_a_migration_that_is_not_applied_is_named():
    seen()
    recorder = MigrationRecorder(connection)
    recorder.record_unapplied("campaigns", "0001_initial")
    try:
        status, _, checks = said()
    finally:
        recorder.record_applied("campaigns", "0001_initial")

    assert status == 503
    assert checks["migrations"] == (
        "failed",
        "1 not applied, the first is campaigns.0001_initial: run `manage.py migrate`",
    )
    assert said()[0] == 200


# --- A database that is away -----------------------------------------------------------------------------------------


def asked(environment: dict[str, str], url: str) -> dict:
    process = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=ROOT,
        env=environment | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "outreach.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(process.stdout) | {"stderr": process.stderr}


@pytest.mark.django_db(transaction=True)
def test_a_database_that_refuses_is_a_503_and_the_process_is_alive(process_environment):
    answers = asked(process_environment, "postgres://keeper:hunter2@127.0.0.1:1/letters")

    assert answers["/health/live"] == [200, {"status": "ok"}]
    for path in ("/health/ready", "/health"):
        status, document = answers[path]
        assert (status, document["status"]) == (503, "failed")
        assert document["checks"]["database"] == {"status": "failed", "words": "does not answer"}
    assert not any(word in json.dumps(answers["/health"]) for word in ("keeper", "hunter2", "127.0.0.1", "letters"))
    assert "Not ready: database" in answers["stderr"]
    assert "hunter2" not in answers["stderr"]


@pytest.mark.django_db(transaction=True)
def test_a_database_that_never_answers_is_a_503_within_a_few_seconds(process_environment):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answers = asked(process_environment, f"postgres://keeper@127.0.0.1:{silent.getsockname()[1]}/letters")

    assert answers["/health/live"] == [200, {"status": "ok"}]
    status, document = answers["/health"]
    assert status == 503
    assert document["checks"]["database"] == {"status": "failed", "words": "no answer within 3 s"}
    assert answers["seconds"] < 9  # twice three, and what loading the pages takes


@pytest.mark.django_db(transaction=True)
def test_questions_that_hang_do_not_pile_up_threads():
    answer = threading.Event()

    def hang() -> str:
        assert answer.wait(30)
        return "late"

    before = threading.active_count()
    try:
        found = [findings({"hanging": hang}, patience=0.05) for _ in range(3 * MOST_UNANSWERED)]
        threads = threading.active_count() - before
    finally:
        answer.set()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)

    assert found == [{"hanging": Finding(False, "no answer within 0.05 s")}] * (3 * MOST_UNANSWERED)
    assert threads == MOST_UNANSWERED
    assert findings({"prompt": lambda: "there"}) == {"prompt": Finding(True, "there")}


@pytest.mark.django_db(transaction=True)
def test_each_question_has_its_own_answer_and_a_defect_says_nothing_of_itself():
    def broken() -> str:
        raise RuntimeError("hunter2 at db.example")

    def lacking() -> str:
        raise Unready("start it")

    assert findings({"broken": broken, "lacking": lacking, "good": lambda: "there"}) == {
        "broken": Finding(False, "does not answer"),
        "lacking": Finding(False, "start it"),
        "good": Finding(True, "there"),
    }


# --- The pages -------------------------------------------------------------------------------------------------------


def test_life_needs_no_database(client):
    # Without the mark django_db, a question to the database would be an error.
    response = client.get("/health/live")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert "no-store" in response.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_can_only_be_read(client, path):
    assert client.post(path).status_code == 405


@pytest.mark.django_db(transaction=True)
def test_a_head_request_gets_the_status_alone(client):
    response = client.head("/health/ready")

    assert (response.status_code, response.content) == (503, b"")
