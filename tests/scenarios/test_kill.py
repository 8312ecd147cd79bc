"""Nothing lost, nothing doubled in silence: a real `run_workflow` is killed at random moments until it is through.

The process works on a database of its own and sends to a recording sink, which notes down every mail before it says
that it took it. So the sink knows what went out, the database what was meant to, and the execution log what was told.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from tests.recording_sink import Behaviour
from tests.servers import dying_with_parent
from tests.sinks import ROOT, RecordingSink

PEOPLE = 800
# Every address stands in the audience so many times: duplicates cost time in initialising, where it is killed too.
REPEATS = 5
CONNECTIONS = 2
MARKED_AHEAD = 256  # what a worker may mark beyond what its connections carry
PATIENCE = 60.0  # seconds for one process to come to the moment that is waited for

# Sets up what the command needs, in a process of its own: this one's Django belongs to the session's database.
SET_UP = """
import json, os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "outreach.settings"
django.setup()
from django.core.management import call_command
from campaigns.audiences.stored import store_upload
from campaigns.authoring import save_version
from campaigns.models import Audience, Step, Template, Workflow
from delivery.models import Engine, Pool, PoolMember

wanted = json.load(sys.stdin)
call_command("migrate", verbosity=0)
options = {"host": "127.0.0.1", "port": wanted["port"], "security": "none", "max_connections": wanted["connections"]}
engine = Engine.objects.create(name="sink", slug="sink", kind="smtp", options=options)
# A try is a mark, and every kill makes some: as many tries as a delivery may need.
pool = Pool.objects.create(name="pool", slug="pool", max_attempts=100, first_wait_seconds=0)
PoolMember.objects.create(pool=pool, engine=engine)
audience = Audience.objects.create(name="people", slug="people", kind="csv")
store_upload(audience, "people.csv", [wanted["csv"].encode()])
template = Template.objects.create(name="letter", slug="letter")
save_version(template, subject="Hello {{ name }}", text="Dear {{ name }}!", html="")
workflow = Workflow.objects.create(
    name="killed", slug="killed", audience=audience, pool=pool, from_address="a@shop.example",
    on_uncertain=wanted["policy"],
)
Step.objects.create(workflow=workflow, template=template)
"""


class Rows:
    """The run's database, read from outside: by SQL alone, and with no transaction left open."""

    def __init__(self, url: str) -> None:
        self._postgres = url.startswith("postgres")
        if self._postgres:
            self._connection = psycopg.connect(url, autocommit=True)
        else:
            self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)

    def read(self, query: str) -> list[tuple]:
        return self._connection.execute(query).fetchall()

    def column(self, query: str) -> set[object]:
        return {value for (value,) in self.read(query)}

    def await_quiet(self) -> None:
        """Returns when nobody else is connected any more: a statement outlives the process that sent it."""
        others = (
            "SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        deadline = time.monotonic() + PATIENCE
        while self._postgres and self.read(others):
            assert time.monotonic() < deadline, "somebody stays connected to the database of a killed process"
            time.sleep(0.005)

    def close(self) -> None:
        self._connection.close()


@dataclass
class Scene:
    """A workflow that is set up, the sink it sends to, and what is known of the processes that were ended."""

    sink: RecordingSink
    rows: Rows
    environment: dict[str, str]
    output: Path
    doubtful: list[set[str]] = field(default_factory=list)  # for each kill: who was marked and not settled

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            # The key, because a process may be killed when its run is complete and it has not said so yet: without one
            # the same command would then begin another run.
            [sys.executable, "manage.py", "run_workflow", "killed", "--json", "--idempotency-key", "once"],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=dying_with_parent(signal.SIGKILL),
        )

    def await_moment(self, process: subprocess.Popen, has_come: Callable[[], bool]) -> bool:
        """True once the moment has come; False when the process did all there was to do before."""
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            if has_come():
                return True
            assert time.monotonic() < deadline, "the moment to kill it does not come"
            time.sleep(0.002)
        assert process.returncode == 0, process.communicate()
        return False

    def kill(self, process: subprocess.Popen) -> None:
        process.kill()
        process.communicate()
        self.rows.await_quiet()
        self.doubtful.append(self.rows.column("SELECT address FROM delivery_delivery WHERE state = 'sending'"))

    def recorded(self) -> Counter[str]:
        """How often the sink took a mail, by recipient."""
        return Counter(recipient for message in self.sink.received() for recipient in message.recipients)

    def rows_read(self) -> int:
        """How far the audience is written; -1 while nobody does that."""
        found = self.rows.read("SELECT rows_read FROM campaigns_run WHERE state = 'initializing'")
        return found[0][0] if found else -1

    def log(self) -> dict:
        """The execution log of the one run there is."""
        [path] = self.output.rglob("*.json")
        return json.loads(path.read_text())


def people(rng: random.Random) -> list[str]:
    addresses = [f"person-{n:03}@example.test" for n in range(PEOPLE)] * REPEATS
    rng.shuffle(addresses)
    return addresses


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path, rng: random.Random):
    """Called with a policy and the sink's behaviour: a Scene on an empty database of the session's kind."""
    scenes = []
    if request.config.getoption("database") == "postgres":
        url = request.getfixturevalue("postgres_url")
    else:
        url = f"sqlite:///{tmp_path / 'killed.sqlite3'}"

    def set_up(policy: str, behaviour: Behaviour | None = None) -> Scene:
        sink = RecordingSink(behaviour)
        sink.__enter__()
        environment = os.environ | {
            "DATABASE_URL": url,
            "OUTREACH_VAR_DIR": str(tmp_path / "var"),
            "OUTREACH_OUTPUT_DIR": str(tmp_path / "output"),
            "OUTREACH_LISTED_PROBLEMS": "10",
        }
        csv = "\n".join(["email,name", *(f"{address},{address[:10]}" for address in people(rng))])
        wanted = {"port": sink.port, "connections": CONNECTIONS, "policy": policy, "csv": csv}
        subprocess.run(
            [sys.executable, "-c", SET_UP],
            cwd=ROOT,
            env=environment,
            input=json.dumps(wanted),
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        scenes.append(Scene(sink, Rows(url), environment, tmp_path / "output"))
        return scenes[-1]

    yield set_up
    for made in scenes:
        made.rows.close()
        made.sink.stop()
        made.sink.__exit__(None, None, None)


def killed_until_done(scene: Scene, rng: random.Random, kills: int) -> dict:
    """Starts the command again and again and kills it so many times, at random moments; then lets it be. Returns what
    the last one reported."""
    half_way = rng.randrange(0, PEOPLE * REPEATS // 2, 1000)
    process = scene.start()
    assert scene.await_moment(process, lambda: scene.rows_read() >= half_way)
    scene.kill(process)
    assert scene.recorded() == Counter(), "nothing is sent before every recipient is written"

    for _ in range(kills):
        enough = len(scene.sink.received()) + rng.randint(1, 60)
        process = scene.start()
        if not scene.await_moment(process, lambda enough=enough: len(scene.sink.received()) >= enough):
            break
        scene.kill(process)
    else:
        process = scene.start()
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    print(f"killed {len(scene.doubtful)} times, in doubt then: {[len(marked) for marked in scene.doubtful]}")
    return json.loads(output)


def assert_everybody_is_accounted_for(scene: Scene, report: dict) -> dict[str, str]:
    """Report, execution log, rows and sink tell the same story. Returns the end of each recipient."""
    recorded = scene.recorded()
    log = scene.log()
    ends = {recipient["address"]: recipient["state"] for recipient in log["recipients"]}
    told = {state: n for state, n in report["counts"].items() if n}

    assert report["state"] == log["state"] == "completed"
    assert len(log["recipients"]) == len(ends) == PEOPLE == report["total"] == sum(told.values())
    assert told == Counter(ends.values()) == {state: n for state, n in log["counts"].items() if n}
    assert dict(scene.rows.read("SELECT address, state FROM delivery_delivery")) == ends
    assert report["problems"] == {"duplicate": PEOPLE * (REPEATS - 1)}
    assert scene.rows.read("SELECT count(*) FROM delivery_lease") == [(0,)]
    # Accepted by our word means taken by the sink's, and what the sink took is accepted or said to be in doubt.
    accepted = {address for address, end in ends.items() if end == "accepted"}
    uncertain = {address for address, end in ends.items() if end == "uncertain"}
    assert accepted <= recorded.keys() <= accepted | uncertain
    assert all(len(marked) <= CONNECTIONS + MARKED_AHEAD for marked in scene.doubtful)
    return ends


def test_killed_again_and_again_nothing_is_lost_and_what_is_in_doubt_is_held(scene, rng, seed):
    killed = scene("hold")

    report = killed_until_done(killed, rng, kills=6)

    ends = assert_everybody_is_accounted_for(killed, report)
    uncertain = {address for address, end in ends.items() if end == "uncertain"}
    assert set(ends.values()) <= {"accepted", "uncertain"}
    assert set(killed.recorded().values()) == {1}
    # In doubt is exactly who was marked when a process died: each of them once, and nobody else.
    assert Counter(uncertain) == sum((Counter(marked) for marked in killed.doubtful), Counter())
    assert uncertain


def test_killed_again_and_again_everybody_gets_the_mail_and_twice_only_who_was_in_doubt(scene, rng, seed):
    killed = scene("resend")

    report = killed_until_done(killed, rng, kills=6)

    ends = assert_everybody_is_accounted_for(killed, report)
    in_doubt = sum((Counter(marked) for marked in killed.doubtful), Counter())
    resends = {r["address"]: r["resends"] for r in killed.log()["recipients"]}
    assert set(ends.values()) == {"accepted"}
    assert all(times - 1 <= in_doubt[address] for address, times in killed.recorded().items())
    # Every double is on record: resent as often as it was in doubt.
    assert Counter(resends) == in_doubt
    # And a receiver can tell a double from another mail: it bears the same Message-ID.
    message_ids = {(message.recipients, message.message_id) for message in killed.sink.received()}
    assert len(message_ids) == PEOPLE


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_leaves_nothing_in_doubt_and_the_same_command_does_the_rest(scene, rng, asked):
    stopped = scene("hold", Behaviour(latency=0.005))
    process = stopped.start()
    enough = rng.randint(1, PEOPLE // 2)
    assert stopped.await_moment(process, lambda: len(stopped.sink.received()) >= enough)

    process.send_signal(asked)
    output, _ = process.communicate(timeout=PATIENCE)

    report = json.loads(output)
    accepted = len(stopped.sink.received())
    assert process.returncode == 1
    assert enough <= accepted < PEOPLE
    assert (report["state"], report["counts"]) == ("sending", {"accepted": accepted})
    states = "SELECT state, count(*) FROM delivery_delivery GROUP BY state"
    assert dict(stopped.rows.read(states)) == {"accepted": accepted, "ready": PEOPLE - accepted}

    process = stopped.start()
    output, errors = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, errors
    ends = assert_everybody_is_accounted_for(stopped, json.loads(output))
    assert Counter(ends.values()) == {"accepted": PEOPLE}
    assert set(stopped.recorded().values()) == {1}
