"""A cluster tells others what has happened, also when the process that was about to do so is killed, or all of them.

The receiver is a web server in this process; the cluster and the operator are processes of their own.
"""

import asyncio
import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.campaigns.receiving import Receiver, receiving
from tests.clusters import Cluster
from tests.delivery.http_server import Received, answer
from tests.scenarios.families import alive, family_of, kill
from tests.scenarios.operators import Operator, csv_of
from tests.scenarios.rows import Rows
from tests.sinks import RecordingSink

WORKERS = 2
PEOPLE = 20
AT_ONCE = 8.0  # seconds from the end of a run until it is told, on a busy machine: a look a second, and a free worker
BACK = 40.0  # seconds: the cluster is back in some, and its first tick takes back what the dead one had


class Scene:
    """An installation of one workflow, and the clusters that work on it."""

    def __init__(self, url: str, folder: Path, stack: contextlib.ExitStack) -> None:
        self.environment = os.environ | {
            "DATABASE_URL": url,
            "OUTREACH_VAR_DIR": str(folder / "var"),
            "OUTREACH_OUTPUT_DIR": str(folder / "output"),
            "OUTREACH_WORKERS": str(WORKERS),
            "OUTREACH_LEASE_SECONDS": "5",
            "OUTREACH_BROKER": "database",
            "OUTREACH_ALLOWED_NETWORKS": "127.0.0.0/8",
            "REDIS_URL": "",
        }
        self._folder, self._stack = folder, stack
        sink = stack.enter_context(RecordingSink())
        self.operator = stack.enter_context(Operator(self.environment, folder / "operator"))
        engine = {"slug": "sink", "host": "127.0.0.1", "port": sink.port, "connections": 2}
        workflow = {"slug": "letters", "engine": "sink", "csv": csv_of("example.test", PEOPLE)}
        self.operator.ask("set_up", engines=[engine], workflows=[workflow])
        self.rows = Rows(url)
        stack.callback(self.rows.close)

    def cluster(self) -> Cluster:
        cluster = self._stack.enter_context(Cluster(self.environment, self._folder / "cluster"))
        cluster.wait_until(lambda: family_of(cluster.head, WORKERS))
        return cluster

    def start(self, receiver: Receiver) -> int:
        return self.operator.ask("start", workflow="letters", key=uuid.uuid4().hex, callback_url=receiver.url)

    def is_completed(self) -> bool:
        return self.rows.column("SELECT state FROM campaigns_run") == ["completed"]

    def states(self) -> list[str]:
        return self.rows.column("SELECT state FROM campaigns_callback")

    def sender(self) -> int | None:
        """The process whose turn it is to tell."""
        owners = self.rows.column("SELECT owner FROM campaigns_callbacksender WHERE owner <> ''")
        return int(owners[0].rsplit(":", 2)[1]) if owners else None


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        if request.config.getoption("database") == "postgres":
            server, name = request.getfixturevalue("postgres_server_url"), f"callbacks_{uuid.uuid4().hex}"
            url = postgres.create_database(server, name)
            stack.callback(postgres.drop_database, server, name)
        else:
            url = f"sqlite:///{tmp_path / 'scene.sqlite3'}"
        yield Scene(url, tmp_path, stack)


class Hesitating:
    """Says nothing to the first request, and yes to all others."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        if not self.asked.is_set():
            self.asked.set()
            await asyncio.Event().wait()
        writer.write(answer(204, b""))
        await writer.drain()


def ids(receiver: Receiver) -> set[str]:
    return {each.headers["webhook-id"] for each in receiver.arrived}


def test_the_end_of_a_run_is_told_within_seconds(scene):
    with receiving() as receiver:
        cluster = scene.cluster()
        scene.start(receiver)
        cluster.wait_until(scene.is_completed)
        ended = time.monotonic()

        cluster.wait_until(lambda: scene.states() == ["delivered"])

        assert time.monotonic() - ended < AT_ONCE
        assert receiver.types == ["run.completed"]


def test_what_a_killed_worker_was_telling_another_one_tells_under_the_same_id(scene):
    hesitating = Hesitating()
    with receiving(hesitating) as receiver:
        cluster = scene.cluster()
        scene.start(receiver)
        cluster.wait_until(hesitating.asked.is_set)
        sender = scene.sender()

        kill(sender)
        begun = time.monotonic()
        cluster.wait_until(lambda: scene.states() == ["delivered"])

        assert alive([sender]) == []
        assert time.monotonic() - begun < BACK
        assert len(receiver.arrived) == 2
        assert len(ids(receiver)) == 1


def test_what_was_refused_before_a_cluster_was_killed_the_next_one_tells_again(scene):
    with receiving() as receiver:
        receiver.respond = lambda request: answer(503)
        cluster = scene.cluster()
        scene.start(receiver)
        cluster.wait_until(lambda: scene.rows.column("SELECT attempts FROM campaigns_callback WHERE attempts > 0"))
        cluster.kill()
        receiver.respond = lambda request: answer(200)

        scene.cluster().wait_until(lambda: scene.states() == ["delivered"])

        assert len(ids(receiver)) == 1
        assert len(receiver.arrived) >= 2
