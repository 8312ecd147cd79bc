"""An operator in a process of its own: sets up workflows, starts runs, pauses, resumes and cancels them, as the web
process does. Takes one JSON object a line and answers each with one.

    python -m tests.scenarios.operator_desk

While the database is away it tries again, as a person does; every deed is one that may be repeated.
"""

# ruff: noqa: E402 - models are imported after Django is set up

import contextlib
import json
import os
import sys
import time

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "outreach.settings"
django.setup()

from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django_q.models import OrmQ
from django_q.tasks import async_task

from campaigns import control
from campaigns.audiences.stored import store_upload
from campaigns.authoring import save_version
from campaigns.exceptions import IllegalMove
from campaigns.launch import launch
from campaigns.models import Audience, Run, Step, Template, Trigger, Workflow
from delivery.models import Engine, EngineLimit, Pool, PoolMember

PATIENCE = 60.0  # seconds that the database may be away
ME = "the operator"


def set_up(engines: list[dict], workflows: list[dict]) -> None:
    """Tables, engines with a pool each of the same name, workflows with an audience each of the same name."""
    call_command("migrate", verbosity=0)
    with transaction.atomic():
        template = Template.objects.create(name="letter", slug="letter")
        save_version(template, subject="Hello {{ name }}", text="Dear {{ name }}!", html="")
        for engine in engines:
            _engine(**engine)
        for workflow in workflows:
            _workflow(template, **workflow)


def _engine(slug: str, host: str, port: int, connections: int, rate: int | None = None, burst: int | None = None):
    options = {"host": host, "port": port, "security": "none", "max_connections": connections}
    engine = Engine.objects.create(name=slug, slug=slug, kind="smtp", options=options, cool_off_seconds=1)
    if rate:
        EngineLimit.objects.create(engine=engine, quantity=rate, period="second", burst=burst)
    # A try is a mark, and every kill makes some: as many tries as a delivery may need.
    pool = Pool.objects.create(name=slug, slug=slug, max_attempts=100, first_wait_seconds=0)
    PoolMember.objects.create(pool=pool, engine=engine)


def _workflow(template: Template, slug: str, engine: str, csv: str, **settings: object) -> None:
    audience = Audience.objects.create(name=slug, slug=slug, kind="csv")
    store_upload(audience, "people.csv", [csv.encode()])
    pool = Pool.objects.get(slug=engine)
    workflow = Workflow.objects.create(
        name=slug, slug=slug, audience=audience, pool=pool, from_address="a@shop.example", **settings
    )
    Step.objects.create(workflow=workflow, template=template)


def start(workflow: str, key: str, callback_url: str = "") -> int:
    """The id of the run with this key."""
    of = Workflow.objects.get(slug=workflow)
    return launch(of, trigger=Trigger.API, by=ME, key=key, callback_url=callback_url).pk


def pause(run: int) -> str:
    """The state of the run afterwards: another one than paused when it came too late."""
    return _carried_out(control.pause, run)


def resume(run: int) -> str:
    return _carried_out(control.resume, run)


def cancel(run: int) -> str:
    return _carried_out(control.cancel, run)


def _carried_out(deed, run_id: int) -> str:
    run = Run.objects.get(pk=run_id)
    with contextlib.suppress(IllegalMove):  # too late, or it was done when the answer got lost
        deed(run, ME)
    run.refresh_from_db()
    return run.state


def tasks(calls: list[tuple[str, list]]) -> list[str]:
    """Tasks as they stand in the broker's table, one for each function and its arguments. They are put aside."""
    for function, arguments in calls:
        async_task(function, *arguments, task_name="probe")
    rows = OrmQ.objects.order_by("-pk")[: len(calls)]
    payloads = [row.payload for row in reversed(rows)]
    OrmQ.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return payloads


DEEDS = {deed.__name__: deed for deed in (set_up, start, pause, resume, cancel, tasks)}


def patiently(deed: str, **arguments: object) -> object:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return DEEDS[deed](**arguments)
        except DatabaseError:
            if time.monotonic() > deadline:
                raise
            connection.close()
            time.sleep(0.1)


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(patiently(**json.loads(line))), flush=True)
