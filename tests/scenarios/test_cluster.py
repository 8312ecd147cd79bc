"""Every kind of process of `manage.py runworkers` is killed, frozen or asked to end: the cluster works again, or ends
as it promises, and leaves nothing behind.

A probe is a task that makes a directory, put into the broker's table by SQL.
"""

import contextlib
import itertools
import os
import signal
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from django_q.signals import post_execute_in_worker

from tests import postgres
from tests.clusters import Cluster
from tests.recording_sink import Behaviour
from tests.scenarios.families import Family, alive, children, descendants, family_of, kill
from tests.scenarios.operators import Operator, csv_of
from tests.scenarios.rows import Rows
from tests.servers import free_port
from tests.sinks import RecordingSink

WORKERS = 2
CONNECTIONS = 2
IN_FLIGHT = 2 * CONNECTIONS  # one behind the other on each
MARKED_AHEAD = 256
PEOPLE = 500
BACK = 5.0  # seconds in which a cluster is back
NOISE = 1.0  # of a busy machine
SOON = 10.0  # seconds in which a worker's slice ends when it is asked to
GRACE = 25.0  # seconds a stop may take at most
ITS_LEASE = 8  # seconds that a host that vanished is waited for
SOON_SEEN = 15.0  # seconds: a heartbeat's rhythm, and the rest of the run; a tick may be a minute away
STUCK = 5  # seconds after which a cluster that takes no work is started anew
HOPELESS = 30.0  # seconds: a heartbeat's rhythm, STUCK, and a start


@dataclass(frozen=True)
class Installation:
    """A database that is set up, to be copied for each test, and tasks that wait to be put into it."""

    url: str
    sink_port: int
    probes: Iterator[tuple[Path, str]]
    suicide: str


@pytest.fixture(scope="module")
def installation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installation")
    with contextlib.ExitStack() as stack:
        if request.config.getoption("database") == "postgres":
            server, name = request.getfixturevalue("postgres_server_url"), f"installation_{uuid.uuid4().hex}"
            url = postgres.create_database(server, name)
            stack.callback(postgres.drop_database, server, name)
        else:
            url = f"sqlite:///{folder / 'installation.sqlite3'}"
        port = free_port()
        with Operator(_environment(url, folder), folder / "operator") as operator:
            engine = {"slug": "sink", "host": "127.0.0.1", "port": port, "connections": CONNECTIONS}
            workflow = {"slug": "letters", "engine": "sink", "csv": csv_of("example.test", PEOPLE)}
            operator.ask("set_up", engines=[engine], workflows=[workflow])
            paths = [folder / f"probe-{n}" for n in range(100)]
            calls = [*(("os.mkdir", [str(path)]) for path in paths), (f"{__name__}.die_with_the_lock", [])]
            *payloads, suicide = operator.ask("tasks", calls=calls)
        yield Installation(url, port, iter(zip(paths, payloads, strict=True)), suicide)


def _environment(url: str, folder: Path) -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": url,
        "OUTREACH_VAR_DIR": str(folder / "var"),
        "OUTREACH_OUTPUT_DIR": str(folder / "output"),
        "OUTREACH_WORKERS": str(WORKERS),
        "OUTREACH_STUCK_SECONDS": str(STUCK),
        "OUTREACH_LEASE_SECONDS": "5",
        "OUTREACH_BROKER": "database",
        "REDIS_URL": "",
    }


class Scene:
    """A copy of the installation, a sink, and the clusters that work on them."""

    def __init__(self, url: str, folder: Path, installation: Installation, stack: contextlib.ExitStack) -> None:
        self.environment = _environment(url, folder)
        self.rows = Rows(url)
        self._folder = folder
        self._installation = installation
        self._stack = stack
        self._numbers = itertools.count()
        self.sink = RecordingSink(Behaviour(latency=0.04))
        self.sink.port = installation.sink_port
        stack.callback(self.rows.close)
        stack.enter_context(self.sink)

    def started(self) -> Cluster:
        """A cluster of which every process is there."""
        cluster = self.starting()
        cluster.wait_until(lambda: family_of(cluster.head, WORKERS))
        return cluster

    def starting(self) -> Cluster:
        return self._stack.enter_context(Cluster(self.environment, self._folder / f"cluster-{next(self._numbers)}"))

    def probe(self) -> Path:
        """Asks for a directory. It is there when a worker has worked."""
        path, payload = next(self._installation.probes)
        self._give(payload)
        return path

    def give_suicide(self) -> None:
        """Has a worker die at a moment at which it holds the lock that it shares with its sentinel."""
        self._give(self._installation.suicide)

    def _give(self, payload: str) -> None:
        now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"  # to the microsecond, or SQLite compares other texts
        self.rows.do("INSERT INTO django_q_ormq (key, payload, lock) VALUES ('outreach', ?, ?)", (payload, now))

    def run(self) -> int:
        """Starts a run of PEOPLE letters."""
        with Operator(self.environment, self._folder / "operator") as operator:
            return operator.ask("start", workflow="letters", key=uuid.uuid4().hex)

    def await_mails(self, cluster: Cluster, count: int) -> None:
        cluster.wait_until(lambda: len(self.sink.received()) >= count)

    def holders(self) -> set[int]:
        """The processes that hold a lease."""
        return {int(owner.rsplit(":", 2)[1]) for owner in self.rows.column("SELECT owner FROM delivery_lease")}

    def states(self) -> Counter[str]:
        return Counter(dict(self.rows.read("SELECT state, count(*) FROM delivery_delivery GROUP BY state")))

    def in_doubt(self) -> int:
        """How many times it was not known what became of a mail."""
        return self.rows.one("SELECT count(*) FROM delivery_attempt WHERE kind = 'unknown'")

    def is_completed(self) -> bool:
        return self.rows.column("SELECT state FROM campaigns_run") == ["completed"]

    def received(self) -> Counter[str]:
        return Counter(recipient for mail in self.sink.received() for recipient in mail.recipients)


@pytest.fixture
def scene(request: pytest.FixtureRequest, installation: Installation, tmp_path: Path) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        if installation.url.startswith("postgres"):
            url = stack.enter_context(_copied(request.getfixturevalue("postgres_server_url"), installation.url))
        else:
            url = f"sqlite:///{tmp_path / 'scene.sqlite3'}"
            _copy_sqlite(installation.url, url)
        yield Scene(url, tmp_path, installation, stack)


def _copy_sqlite(source: str, target: str) -> None:
    connections = [sqlite3.connect(url.removeprefix("sqlite:///")) for url in (source, target)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(connections[0]))
        connections[0].backup(stack.enter_context(contextlib.closing(connections[1])))


@contextlib.contextmanager
def _copied(server: str, url: str) -> Iterator[str]:
    name = f"scene_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{url.rpartition("/")[2]}"')
    yield postgres.database_url(server, name)
    postgres.drop_database(server, name)


def wait(has_come: Callable[[], object], patience: float) -> float:
    """Returns once the moment has come: after how many seconds."""
    begun = time.monotonic()
    while not has_come():
        assert time.monotonic() - begun < patience, f"it has not come after {patience:g} s"
        time.sleep(0.01)
    return time.monotonic() - begun


def seconds_until_it_works_again(scene: Scene, cluster: Cluster, before: Family) -> float:
    """From now until a new set of processes, with nobody of the old one left, has done something."""
    begun = time.monotonic()

    def is_new() -> bool:
        family = family_of(cluster.head, WORKERS)
        return family is not None and not family.set & before.set

    cluster.wait_until(is_new)
    assert alive(before.set) == []
    cluster.wait_until(scene.probe().exists)
    return time.monotonic() - begun


def stopped(cluster: Cluster) -> tuple[int, float, list[int]]:
    """Asks it to end. Its exit code, the seconds it took, and which of its processes live on."""
    everybody = [cluster.head, *descendants(cluster.head)]
    begun = time.monotonic()
    code = cluster.stop()
    return code, time.monotonic() - begun, alive(everybody)


def assert_it_stops_in_order(cluster: Cluster, within: float = SOON) -> None:
    code, seconds, left = stopped(cluster)
    assert (code, left) == (0, [])
    assert seconds < within


KINDS = {
    "sentinel": lambda family: family.sentinel,
    "first worker": lambda family: family.workers[0],
    "second worker": lambda family: family.workers[1],
    "monitor": lambda family: family.monitor,
    "pusher": lambda family: family.pusher,
}


@pytest.mark.parametrize("kind", KINDS)
def test_whichever_idle_process_is_killed_it_works_again_within_five_seconds(scene, kind):
    cluster = scene.started()
    cluster.wait_until(scene.probe().exists)
    family = family_of(cluster.head, WORKERS)

    kill(KINDS[kind](family))
    seconds = seconds_until_it_works_again(scene, cluster, family)

    assert seconds < BACK + NOISE
    assert_it_stops_in_order(cluster, within=3 + NOISE)


def die_with_the_lock() -> None:
    """A task for a worker, which says under the lock that it has done one."""
    post_execute_in_worker.connect(lambda **_: kill(os.getpid()), weak=False)


def test_a_worker_killed_while_it_holds_the_lock_it_shares_with_the_sentinel_is_missed_all_the_same(scene):
    cluster = scene.started()
    family = family_of(cluster.head, WORKERS)

    scene.give_suicide()
    seconds = seconds_until_it_works_again(scene, cluster, family)

    assert seconds < BACK + NOISE
    assert "was ended by signal 9" in cluster.log.read_text()


def test_the_processes_are_what_the_tests_take_them_for(scene):
    cluster = scene.started()
    cluster.wait_until(scene.probe().exists)

    family = family_of(cluster.head, WORKERS)

    said = cluster.log.read_text()
    assert f"monitoring at {family.monitor}" in said
    assert f"pushing tasks at {family.pusher}" in said
    assert all(f"ready for work at {worker}" in said for worker in family.workers)


def test_a_worker_killed_at_work_costs_the_run_nothing_but_what_was_in_flight(scene):
    cluster = scene.started()
    scene.run()
    scene.await_mails(cluster, 20)
    family = family_of(cluster.head, WORKERS)
    busy = (scene.holders() & set(family.workers)).pop()

    kill(busy)
    seconds = seconds_until_it_works_again(scene, cluster, family)
    cluster.wait_until(scene.is_completed)

    assert seconds < BACK + NOISE
    states, received = scene.states(), scene.received()
    assert states["accepted"] + states["uncertain"] == PEOPLE
    assert states["uncertain"] <= WORKERS * (IN_FLIGHT + MARKED_AHEAD)  # the other one went down with it
    assert set(received.values()) == {1}
    assert states["accepted"] <= len(received)
    assert_it_stops_in_order(cluster)


@pytest.mark.parametrize("at_work", [False, True], ids=["idle", "at work"])
def test_of_a_killed_head_nothing_lives_on(scene, at_work):
    cluster = scene.started()
    if at_work:
        scene.run()
        scene.await_mails(cluster, 1)
    everybody = descendants(cluster.head)
    assert len(everybody) == WORKERS + 3

    kill(cluster.head)

    assert wait(lambda: alive(everybody) == [], patience=BACK) < 1
    # Its heartbeat is left to grow old: nobody was there to take it back.
    assert scene.rows.column("SELECT stopping FROM campaigns_cluster") in ([False], [0])


def test_asked_to_stop_in_the_middle_of_a_run_it_ends_soon_with_nothing_in_doubt_and_another_one_goes_on(scene):
    going, staying = scene.started(), scene.started()
    scene.run()
    families = [family_of(cluster.head, WORKERS) for cluster in (going, staying)]
    seen: set[int] = set()
    # Side by side they share the run.
    going.wait_until(lambda: seen.update(scene.holders()) or all(seen & set(family.workers) for family in families))
    scene.await_mails(going, 20)

    code, seconds, left = stopped(going)
    so_far = len(scene.sink.received())
    staying.wait_until(scene.is_completed)

    assert (code, left) == (0, [])
    assert seconds < SOON
    assert so_far < PEOPLE, "the run was over before it could be interrupted"
    assert scene.states() == {"accepted": PEOPLE}
    assert scene.received() == dict.fromkeys(scene.received(), 1)
    assert scene.in_doubt() == 0
    assert_it_stops_in_order(staying)


def test_what_a_host_that_vanished_held_is_taken_back_soon_although_nobody_is_awake(scene):
    cluster = scene.started()
    scene.run()
    scene.await_mails(cluster, 20)
    ends = f"{datetime.now(UTC) + timedelta(seconds=ITS_LEASE):%Y-%m-%d %H:%M:%S.%f}"
    scene.rows.do("INSERT INTO delivery_lease (owner, expires_at) VALUES ('vanished/id/1:2:3', ?)", (ends,))
    hung = "UPDATE delivery_delivery SET state = 'leased', lease_id = (SELECT max(id) FROM delivery_lease)"
    scene.rows.do(f"{hung} WHERE state = 'ready'")
    cluster.wait_until(lambda: not scene.holders() - {2})
    assert scene.states()["leased"], "nothing was left for the host that vanished"

    seconds = wait(scene.is_completed, ITS_LEASE + SOON_SEEN)

    assert scene.states() == {"accepted": PEOPLE}
    assert seconds > 1, "somebody was awake all the time"
    assert_it_stops_in_order(cluster)


def test_sigterm_to_the_whole_group_in_the_middle_of_a_slice_is_harmless(scene):
    cluster = scene.started()
    scene.run()
    scene.await_mails(cluster, 20)
    everybody = [cluster.head, *descendants(cluster.head)]

    os.killpg(cluster.head, signal.SIGTERM)
    seconds = wait(lambda: alive(everybody) == [], patience=GRACE)

    taken = len(scene.sink.received())
    assert cluster.stop() == 0
    assert seconds < SOON
    assert taken < PEOPLE, "the run was over before it could be interrupted"
    assert scene.states() == {"accepted": taken, "ready": PEOPLE - taken}
    assert scene.in_doubt() == 0
    assert scene.rows.column("SELECT owner FROM delivery_lease") == []


def test_a_deadlock_that_nobody_foresaw_is_seen_and_the_processes_are_started_anew(scene):
    cluster = scene.started()
    cluster.wait_until(scene.probe().exists)
    family = family_of(cluster.head, WORKERS)

    os.kill(family.pusher, signal.SIGSTOP)
    scene.probe()
    seconds = seconds_until_it_works_again(scene, cluster, family)

    assert STUCK <= seconds < HOPELESS
    assert "no worker takes one" in cluster.log.read_text()
    assert_it_stops_in_order(cluster)


@pytest.mark.once
def test_a_stop_is_bounded_even_when_a_process_is_frozen(scene):
    cluster = scene.started()
    cluster.wait_until(scene.probe().exists)
    os.kill(family_of(cluster.head, WORKERS).pusher, signal.SIGSTOP)

    assert_it_stops_in_order(cluster, within=GRACE + 3 + NOISE)


def test_asked_to_stop_while_it_starts_it_stops(scene):
    cluster = scene.starting()
    cluster.wait_until(lambda: children(cluster.head))

    assert_it_stops_in_order(cluster)


def test_a_heartbeat_appears_is_kept_fresh_and_goes_with_the_cluster(scene):
    cluster = scene.started()
    cluster.wait_until(lambda: scene.rows.column("SELECT workers FROM campaigns_cluster") == [WORKERS])
    first = scene.rows.one("SELECT beat_at FROM campaigns_cluster")
    cluster.wait_until(scene.probe().exists)

    cluster.wait_until(lambda: scene.rows.one("SELECT beat_at FROM campaigns_cluster") > first)
    cluster.wait_until(lambda: scene.rows.one("SELECT worked_at FROM campaigns_cluster"))
    assert_it_stops_in_order(cluster)

    assert scene.rows.column("SELECT owner FROM campaigns_cluster") == []
