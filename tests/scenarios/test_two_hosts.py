"""Two hosts, each with a cluster, one PostgreSQL, one Redis: they share a run, and its limit.

The hosts are network namespaces (`tests/scenarios/namespaces.py`). The sink notes who brought each mail, and when.
"""

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests import postgres, redis_server
from tests.clusters import PATIENCE, RUN_WORKERS, Cluster, python
from tests.delivery.pumping import crowded
from tests.scenarios import namespaces
from tests.sinks import RecordingSink

pytestmark = [pytest.mark.once, pytest.mark.postgres]

SECOND = 1_000_000_000
PEOPLE = 2000
RATE = 400  # mails a second
# A quarter of a second's worth of a burst is kept for tokens that are used late; what is left goes at once.
BURST = 200
NAMES = {"venus", "mars"}

SET_UP = """
import json, os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "outreach.settings"
django.setup()
from django.core.management import call_command
from campaigns.audiences.stored import store_upload
from campaigns.authoring import save_version
from campaigns.models import Audience, Step, Template, Workflow
from delivery.models import Engine, EngineLimit, Pool, PoolMember

wanted = json.load(sys.stdin)
call_command("migrate", verbosity=0)
options = {"host": wanted["address"], "port": wanted["port"], "security": "none", "max_connections": 4}
engine = Engine.objects.create(name="sink", slug="sink", kind="smtp", options=options)
EngineLimit.objects.create(engine=engine, quantity=wanted["rate"], period="second", burst=wanted["burst"])
pool = Pool.objects.create(name="pool", slug="pool")
PoolMember.objects.create(pool=pool, engine=engine)
audience = Audience.objects.create(name="people", slug="people", kind="csv")
rows = "\\n".join(["email", *(f"person-{n:04}@example.test" for n in range(wanted["people"]))])
store_upload(audience, "people.csv", [rows.encode()])
template = Template.objects.create(name="letter", slug="letter")
save_version(template, subject="Hello", text="Hello!", html="")
workflow = Workflow.objects.create(
    name="shared", slug="shared", audience=audience, pool=pool, from_address="a@shop.example"
)
Step.objects.create(workflow=workflow, template=template)
"""


@dataclass
class Scene:
    """Two hosts, and what they have in common. Everything here is seen from a third one, which is this."""

    hosts: dict[str, namespaces.Host]
    clusters: dict[str, Cluster]
    sink: RecordingSink
    database: psycopg.Connection
    environment: dict[str, str]

    def read(self, query: str) -> list[tuple]:
        return self.database.execute(query).fetchall()

    def wait_until(self, has_come: Callable[[], bool]) -> None:
        """Returns once the moment has come; fails when a cluster ends before."""
        deadline = time.monotonic() + PATIENCE
        while not has_come():
            for cluster in self.clusters.values():
                cluster.check()
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.02)

    def told(self) -> str:
        return "\n".join(f"{name}:\n{cluster.end_of_log()}" for name, cluster in self.clusters.items())

    def holders(self) -> set[str]:
        """The hosts that hold a lease at this moment."""
        return {owner.partition("/")[0] for (owner,) in self.read("SELECT owner FROM delivery_lease")}


@pytest.fixture(params=["redis", "database"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """With Redis for limits and wake-ups, or with the database for all of it. Both clusters are started."""
    namespaces.needed()
    redis_server.needed()
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(namespaces.Network())
        server = stack.enter_context(postgres.PostgresServer(fsync=False, network=network.network))
        redis = stack.enter_context(redis_server.RedisServer(network.address))
        sink = stack.enter_context(RecordingSink(address=network.address))
        from_here = server.create_database("shared")
        environment = os.environ | {
            "DATABASE_URL": from_here.replace("127.0.0.1", network.address),
            "OUTREACH_BROKER": request.param,
            "REDIS_URL": redis.url.replace("127.0.0.1", network.address) if request.param == "redis" else "",
            "OUTREACH_VAR_DIR": str(tmp_path / "var"),
            "OUTREACH_OUTPUT_DIR": str(tmp_path / "output"),
            "OUTREACH_WORKERS": "1",
            # How long the survivor of a killed host waits for it.
            "OUTREACH_LEASE_SECONDS": "10",
        }
        wanted = {"address": network.address, "port": sink.port, "rate": RATE, "burst": BURST, "people": PEOPLE}
        done = python(environment, "-c", SET_UP, given=json.dumps(wanted))
        assert done.returncode == 0, done.stderr
        hosts = {name: network.host(name) for name in sorted(NAMES)}
        clusters = {}
        for name, host in hosts.items():
            command = host.command(*RUN_WORKERS)
            clusters[name] = Cluster(environment, tmp_path / name, command=command, wrapped=True)
            stack.enter_context(clusters[name])
        database = stack.enter_context(psycopg.connect(from_here, autocommit=True))
        yield Scene(hosts, clusters, sink, database, environment)


def heartbeats(scene: Scene) -> set[str]:
    return {host for (host,) in scene.read("SELECT host FROM campaigns_cluster WHERE NOT stopping")}


def test_two_hosts_share_a_run_and_its_limit(scene):
    scene.wait_until(lambda: heartbeats(scene) == NAMES)
    holders: set[str] = set()

    started = python(scene.environment, "manage.py", "run_workflow", "shared", "--detach")
    assert started.returncode == 0, started.stderr
    scene.wait_until(
        lambda: holders.update(scene.holders()) or scene.read("SELECT state FROM campaigns_run") == [("completed",)]
    )
    received = scene.sink.received()
    codes = {name: cluster.stop() for name, cluster in scene.clusters.items()}

    # Nobody is left out, nobody gets it twice, and every delivery says so.
    assert Counter(r for mail in received for r in mail.recipients) == Counter(
        f"person-{n:04}@example.test" for n in range(PEOPLE)
    )
    assert scene.read("SELECT state, count(*) FROM delivery_delivery GROUP BY state") == [("accepted", PEOPLE)]
    # Both worked: by their leases, and by where the mails came from.
    assert holders == NAMES
    brought = Counter(mail.peer for mail in received)
    assert brought.keys() == {host.address for host in scene.hosts.values()}
    print(f"brought by each host: {dict(brought)}")
    # One limit for both, and it is made use of.
    instants = [mail.at_ns for mail in received]
    assert crowded(instants, SECOND // RATE, BURST) == []
    assert max(instants) - min(instants) < 3 * SECOND * PEOPLE / RATE
    assert codes == dict.fromkeys(NAMES, 0)


def test_a_host_whose_head_is_killed_is_missed_and_the_other_one_ends_the_run(scene):
    scene.wait_until(lambda: heartbeats(scene) == NAMES)
    started = python(scene.environment, "manage.py", "run_workflow", "shared", "--detach")
    assert started.returncode == 0, started.stderr
    addresses = {scene.hosts[name].address: name for name in NAMES}
    scene.wait_until(lambda: scene.sink.received() != [])

    dead = addresses[scene.sink.received()[0].peer]
    scene.clusters.pop(dead).kill()
    scene.wait_until(lambda: scene.read("SELECT state FROM campaigns_run") == [("completed",)])

    ends = dict(scene.read("SELECT state, count(*) FROM delivery_delivery GROUP BY state"))
    received = Counter(r for mail in scene.sink.received() for r in mail.recipients)
    assert sum(ends.values()) == PEOPLE
    assert ends.keys() <= {"accepted", "uncertain"}
    assert set(received.values()) == {1}
    assert ends["accepted"] <= len(received) <= PEOPLE
    (survivor,) = scene.clusters.values()
    assert survivor.stop() == 0


def test_a_host_that_was_cut_off_for_longer_than_its_lease_doubles_nothing_when_it_is_back(scene):
    scene.wait_until(lambda: heartbeats(scene) == NAMES)
    started = python(scene.environment, "manage.py", "run_workflow", "shared", "--detach")
    assert started.returncode == 0, started.stderr
    scene.wait_until(lambda: {mail.peer for mail in scene.sink.received()} == addresses_of(scene))
    lost = min(NAMES)

    scene.hosts[lost].cut()
    scene.wait_until(lambda: scene.read("SELECT state FROM campaigns_run") == [("completed",)])
    ended = dict(scene.read("SELECT address, state FROM delivery_delivery"))
    silent_since = scene.read(f"SELECT beat_at FROM campaigns_cluster WHERE host = '{lost}'")
    scene.hosts[lost].mend()
    # It works again, and stops once what it had to say has been said: from then on nothing changes any more.
    scene.wait_until(lambda: scene.read(f"SELECT beat_at FROM campaigns_cluster WHERE host = '{lost}'") > silent_since)
    codes = {name: cluster.stop() for name, cluster in scene.clusters.items()}

    ends = dict(scene.read("SELECT address, state FROM delivery_delivery"))
    received = Counter(r for mail in scene.sink.received() for r in mail.recipients)
    tally = dict(scene.read("SELECT state, sum(count) FROM delivery_tally GROUP BY state HAVING sum(count) > 0"))
    assert set(ended.values()) <= {"accepted", "uncertain"}
    assert len(ends) == PEOPLE
    assert set(received.values()) == {1}
    # What it said too late is taken where somebody waited for just that, and changes nothing else.
    assert {ended[address] for address in ends if ends[address] != ended[address]} <= {"uncertain"}
    assert {address for address, end in ends.items() if end == "accepted"} <= received.keys()
    assert received.keys() <= ends.keys()
    assert tally == Counter(ends.values())
    assert scene.read("SELECT count(*) FROM delivery_lease") == [(0,)]
    assert codes == dict.fromkeys(NAMES, 0)


def addresses_of(scene: Scene) -> set[str]:
    return {host.address for host in scene.hosts.values()}
