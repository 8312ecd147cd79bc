"""Schedules and real worker clusters on PostgreSQL: a slot's run starts within seconds, and there is one of it."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from tests.clusters import Cluster, python
from tests.scenarios.operators import Operator, csv_of
from tests.scenarios.rows import Rows
from tests.sinks import RecordingSink

pytestmark = [pytest.mark.once, pytest.mark.postgres]

PEOPLE = 20
AHEAD = timedelta(seconds=3)  # of a slot, when its schedule is set up
IN_TIME = timedelta(seconds=10)

SET_UP = """
import json, os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "outreach.settings"
django.setup()
from datetime import timedelta
from campaigns import scheduling
from campaigns.models import Schedule, Workflow
from delivery.queue import database_now

now = database_now()
for name, ahead in json.load(sys.stdin).items():
    workflow = Workflow.objects.get(slug="letters")
    schedule = Schedule(workflow=workflow, name=name, kind="once", at=now + timedelta(seconds=ahead), time_zone="UTC")
    scheduling.save(schedule, by="operator", now=now)
"""


@dataclass
class Scene:
    """An installation with one workflow, and the clusters that are started on it."""

    environment: dict[str, str]
    rows: Rows
    sink: RecordingSink
    folder: Path
    stack: contextlib.ExitStack
    clusters: list[Cluster] = field(default_factory=list)

    def start(self, count: int) -> None:
        """Starts so many clusters and returns when all of them are there and one of them has worked: which one takes
        the first task is chance."""
        for number in range(count):
            log = self.folder / f"cluster-{number}"
            self.clusters.append(self.stack.enter_context(Cluster(self.environment, log)))
        self.clusters[0].wait_until(
            lambda: self.rows.read("SELECT count(*), count(worked_at) > 0 FROM campaigns_cluster") == [(count, True)]
        )

    def schedule(self, **ahead: float) -> None:
        """Sets up schedules that run once, so many seconds from now."""
        done = python(self.environment, "-c", SET_UP, given=json.dumps(ahead))
        assert done.returncode == 0, done.stderr

    def wait_for_runs(self, count: int) -> None:
        self.clusters[0].wait_until(
            lambda: self.rows.one("SELECT count(*) FROM campaigns_run WHERE state = 'completed'") >= count
        )

    def lateness(self) -> list[timedelta]:
        """By how much after its slot each run was begun."""
        begun = self.rows.read(
            "SELECT slot.at, run.initializing_at FROM campaigns_slot slot JOIN campaigns_run run ON run.id = run_id"
        )
        return [begun_at - at for at, begun_at in begun]


@pytest.fixture
def scene(postgres_url: str, tmp_path: Path) -> Iterator[Scene]:
    environment = os.environ | {
        "DATABASE_URL": postgres_url,
        "OUTREACH_VAR_DIR": str(tmp_path / "var"),
        "OUTREACH_OUTPUT_DIR": str(tmp_path / "output"),
        "OUTREACH_WORKERS": "2",
        "OUTREACH_BROKER": "database",
        "REDIS_URL": "",
    }
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(RecordingSink())
        with Operator(environment, tmp_path / "operator") as operator:
            engine = {"slug": "sink", "host": "127.0.0.1", "port": sink.port, "connections": 2}
            workflow = {"slug": "letters", "engine": "sink", "csv": csv_of("example.test", PEOPLE)}
            operator.ask("set_up", engines=[engine], workflows=[workflow])
        rows = Rows(postgres_url)
        stack.callback(rows.close)
        yield Scene(environment, rows, sink, tmp_path, stack)


def test_a_scheduled_run_starts_within_seconds_of_its_slot_on_an_idle_cluster(scene):
    scene.start(1)

    scene.schedule(soon=AHEAD.total_seconds())
    scene.wait_for_runs(1)

    (late,) = scene.lateness()
    print(f"begun {late.total_seconds():.2f} s after its slot")
    assert timedelta(0) <= late < IN_TIME
    assert scene.rows.read("SELECT trigger, triggered_by FROM campaigns_run") == [("schedule", "soon")]
    assert len(scene.sink.received()) == PEOPLE


def test_two_clusters_make_one_run_of_each_slot(scene):
    scene.start(2)
    ahead = {f"number {n}": AHEAD.total_seconds() + n * 0.7 for n in range(5)}

    scene.schedule(**ahead)
    scene.wait_for_runs(len(ahead))

    assert sorted(scene.rows.column("SELECT triggered_by FROM campaigns_run")) == sorted(ahead)
    assert scene.rows.read("SELECT outcome, count(*) FROM campaigns_slot GROUP BY outcome") == [("fired", len(ahead))]
    assert all(timedelta(0) <= late < IN_TIME for late in scene.lateness())
    assert [cluster.stop() for cluster in scene.clusters] == [0, 0]
    assert len(scene.sink.received()) == PEOPLE * len(ahead)


def test_a_slot_that_came_while_no_cluster_was_there_runs_when_one_comes(scene):
    scene.schedule(missed=0.001)

    scene.start(1)
    scene.wait_for_runs(1)

    assert scene.rows.column("SELECT triggered_by FROM campaigns_run") == ["missed"]
