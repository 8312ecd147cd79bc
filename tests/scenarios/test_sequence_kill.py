"""Order survives kills: pumps of a run of three steps and of a run of recipients that depend on each other are killed
again and again, several at a time.

The sink notes down when it took which mail before it says so; each mail bears the number of its delivery. So what went
out, and in which order, is known from outside.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.scenarios.test_kill import PATIENCE, Rows
from tests.servers import dying_with_parent
from tests.sinks import ROOT, RecordingSink

PEOPLE = 150
PUMPS = 3
KILLS = 5
GAP_NS = 100_000

# Both in a process of their own: this one's Django belongs to the session's database.
SET_UP = """
import json, os, sys
import django
django.setup()
from django.core.management import call_command
from campaigns.audiences.stored import store_upload
from campaigns.authoring import save_version
from campaigns.initialize import initialize
from campaigns.launch import launch
from campaigns.models import Audience, Step, Template, Trigger, Workflow
from delivery.models import Engine, Pool, PoolMember

wanted = json.load(sys.stdin)
call_command("migrate", verbosity=0)
options = {"host": "127.0.0.1", "port": wanted["port"], "security": "none", "max_connections": 2}
engine = Engine.objects.create(name="sink", slug="sink", kind="smtp", options=options)
# A try is a mark, and every kill makes some: as many tries as a delivery may need.
pool = Pool.objects.create(name="pool", slug="pool", max_attempts=100, first_wait_seconds=0)
PoolMember.objects.create(pool=pool, engine=engine)
template = Template.objects.create(name="letter", slug="letter")
save_version(template, subject="Hello", text="Dear {{ id }}!", html="")
for slug, steps, links in (
    ("steps", {1: "", 2: "", 3: "1, 2"}, {}),
    ("graph", {1: ""}, {"key_field": "id", "depends_field": "after"}),
):
    audience = Audience.objects.create(name=slug, slug=slug, kind="csv", **links)
    store_upload(audience, "people.csv", [wanted["csv"].encode()])
    workflow = Workflow.objects.create(
        name=slug, slug=slug, audience=audience, pool=pool, from_address="a@shop.example",
        on_uncertain=wanted["policy"],
    )
    for position, after in steps.items():
        Step.objects.create(workflow=workflow, template=template, position=position, after=after)
    run = launch(workflow, trigger=Trigger.COMMAND, by="tester", here=True)
    assert initialize(run.pk)
"""
PUMP = """
import django
django.setup()
from campaigns.work import pump
pump()
"""


@dataclass
class Scene:
    """Two runs that are filled, and the sink that they send to."""

    sink: RecordingSink
    rows: Rows
    environment: dict[str, str]
    depends: dict[str, list[str]]

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", PUMP],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=dying_with_parent(signal.SIGKILL),
        )

    def received(self) -> dict[int, list[int]]:
        """When the sink took each delivery, by its number."""
        found = defaultdict(list)
        for message in self.sink.received():
            found[int(message.message_id.partition("@")[0].rpartition(".")[2], 16)].append(message.at_ns)
        return found


def drawn_graph(rng: random.Random) -> dict[str, list[str]]:
    """Whom each depends on, in no order that the names would tell."""
    line = [f"k{number:03}" for number in range(PEOPLE)]
    rng.shuffle(line)
    return {
        name: rng.sample(line[max(0, place - 40) : place], min(place, rng.choice([0, 0, 1, 1, 2, 4])))
        for place, name in enumerate(line)
    }


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path, rng: random.Random):
    """Called with a policy: a Scene on an empty database of the session's kind."""
    made = []
    if request.config.getoption("database") == "postgres":
        url = request.getfixturevalue("postgres_url")
    else:
        url = f"sqlite:///{tmp_path / 'killed.sqlite3'}"

    def set_up(policy: str) -> Scene:
        sink = RecordingSink()
        sink.__enter__()
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "outreach.settings",
            "DATABASE_URL": url,
            "OUTREACH_VAR_DIR": str(tmp_path / "var"),
            "OUTREACH_OUTPUT_DIR": str(tmp_path / "output"),
        }
        depends = drawn_graph(rng)
        people = rng.sample(sorted(depends), len(depends))
        csv = "\n".join(["id,email,after", *(f'{n},{n}@example.test,"{",".join(depends[n])}"' for n in people)])
        subprocess.run(
            [sys.executable, "-c", SET_UP],
            cwd=ROOT,
            env=environment,
            input=json.dumps({"port": sink.port, "policy": policy, "csv": csv}),
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        made.append(Scene(sink, Rows(url), environment, depends))
        return made[-1]

    yield set_up
    for each in made:
        each.rows.close()
        each.sink.stop()
        each.sink.__exit__(None, None, None)


def killed_until_done(scene: Scene, rng: random.Random) -> int:
    """Keeps PUMPS pumps at work and kills one after the other; then lets them be. Returns how many were killed."""
    pumps = [scene.start() for _ in range(PUMPS)]
    killed = 0
    while killed < KILLS:
        enough = len(scene.sink.received()) + rng.randint(10, 120)
        deadline = time.monotonic() + PATIENCE
        while len(scene.sink.received()) < enough and any(pump.poll() is None for pump in pumps):
            assert time.monotonic() < deadline, "the moment to kill one does not come"
            time.sleep(0.002)
        at_work = [pump for pump in pumps if pump.poll() is None]
        if not at_work:
            break
        victim = rng.choice(at_work)
        victim.kill()
        victim.communicate()
        killed += 1
        pumps.remove(victim)
        pumps.append(scene.start())
    for pump in pumps:
        _, errors = pump.communicate(timeout=2 * PATIENCE)
        assert pump.returncode == 0, errors
    return killed


ROWS = """
SELECT d.id, b.label, m.position, d.address, d.state, d.resends
FROM delivery_delivery d JOIN delivery_message m ON m.id = d.message_id JOIN delivery_batch b ON b.id = d.batch_id
"""


@pytest.mark.parametrize("policy", ["hold", "resend"])
def test_killed_again_and_again_everybody_is_accounted_for_in_every_step_and_nobody_goes_too_soon(
    scene, rng, seed, policy
):
    print(f"seed {seed}")
    killed = scene(policy)

    kills = killed_until_done(killed, rng)

    rows = killed.rows.read(ROWS)
    received = killed.received()
    print(f"{kills} kills; {Counter((label, position, state) for _, label, position, _, state, _ in rows)}")
    assert kills
    assert_everybody_is_there_and_counts_reconcile(killed, rows)
    assert_doubles_are_on_record(rows, received, policy)
    ids = {(label.partition(",")[0], position, address): i for i, label, position, address, _, _ in rows}
    for name, predecessors in killed.depends.items():
        address = f"{name}@example.test"
        before = [ids["graph", 1, f"{other}@example.test"] for other in predecessors]
        assert_later(received, ids["graph", 1, address], before, GAP_NS)
        assert_later(received, ids["steps", 3, address], [ids["steps", step, address] for step in (1, 2)], 1)
    assert_skipped_for_a_reason(killed, rows, ids)


def assert_everybody_is_there_and_counts_reconcile(scene, rows):
    people = {f"{name}@example.test" for name in scene.depends}
    each_step = defaultdict(list)
    for _, label, position, address, _, _ in rows:
        each_step[label.partition(",")[0], position].append(address)
    assert set(each_step) == {("steps", 1), ("steps", 2), ("steps", 3), ("graph", 1)}
    assert all(len(found) == PEOPLE and set(found) == people for found in each_step.values())
    assert scene.rows.column("SELECT state FROM delivery_batch") == {"done"}
    assert scene.rows.column("SELECT state FROM campaigns_run") == {"completed"}
    assert scene.rows.read("SELECT count(*) FROM delivery_lease") == [(0,)]
    tallied = (
        "SELECT batch_id, state, sum(count) FROM delivery_tally WHERE state <> 'followed' GROUP BY batch_id, state"
    )
    counted = "SELECT batch_id, state, count(*) FROM delivery_delivery GROUP BY batch_id, state"
    assert {(b, s, int(n)) for b, s, n in scene.rows.read(tallied) if n} == set(scene.rows.read(counted))
    followed = "SELECT sum(count) FROM delivery_tally WHERE state = 'followed'"
    assert int(scene.rows.read(followed)[0][0]) == PEOPLE


def assert_doubles_are_on_record(rows, received, policy):
    for delivery_id, _, _, _, state, resends in rows:
        times = len(received.get(delivery_id, ()))
        if policy == "hold":
            assert state in ("accepted", "uncertain", "skipped")
            assert times <= 1
        else:
            assert state == "accepted"
            assert times <= 1 + resends
        assert (times > 0) or state != "accepted"
        assert not times or state != "skipped"


def assert_later(received, delivery_id, before, gap):
    """What was received, was so after all that it waited for."""
    if at := received.get(delivery_id):
        assert all(min(at) >= max(received[each]) + gap for each in before)


def assert_skipped_for_a_reason(scene, rows, ids):
    """Skipped is who waited for one that was not accepted, and nobody else."""
    states = {delivery_id: state for delivery_id, _, _, _, state, _ in rows}
    for name, predecessors in scene.depends.items():
        address = f"{name}@example.test"
        before = {states[ids["graph", 1, f"{other}@example.test"]] for other in predecessors}
        assert (states[ids["graph", 1, address]] == "skipped") is bool(before - {"accepted"})
        joined = {states[ids["steps", step, address]] for step in (1, 2)}
        assert (states[ids["steps", 3, address]] == "skipped") is bool(joined - {"accepted"})
