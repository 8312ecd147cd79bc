"""The pages about the workers show django-q2's tables, run nothing that stands in them, and change nothing."""

import os
import pickle
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib import admin
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django_q.models import Failure, OrmQ, Schedule, Success, Task
from django_q.signing import SignedPackage
from django_q.tasks import async_task
from picklefield.fields import PickledObject

from campaigns.models import Cluster
from campaigns.pickled import CannotBeShown, queued_task, stored_text
from tests import redis_server
from tests.delivery.admin_pages import signed_in, superuser, text_of, viewer
from tests.sinks import ROOT

NOW = timezone.now()
PAGES = ("campaigns_cluster", "django_q_ormq", "django_q_failure", "django_q_schedule")


class Trap:
    """Makes a directory in whoever loads its pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def stored(value: object) -> PickledObject:
    """A value as a pickled column holds it."""
    return PickledObject(b64encode(pickle.dumps(value)).decode())


def failure(**fields: object) -> Failure:
    task = {"id": f"{Task.objects.count():032}", "name": "run 7", "func": "campaigns.tasks.work_on"}
    times = {"started": NOW, "stopped": NOW, "success": False}
    return Failure.objects.create(**task | times | fields)


def queued(payload: str) -> OrmQ:
    return OrmQ.objects.create(key="outreach", payload=payload, lock=NOW)


def cluster(**fields: object) -> Cluster:
    row = {"owner": f"o{Cluster.objects.count()}", "host": "mars", "workers": 4, "started_at": NOW, "beat_at": NOW}
    return Cluster.objects.create(**row | fields)


def one_of_each() -> dict[str, str]:
    """A row for every page; its key by the page's name."""
    schedule = Schedule.objects.create(name="tick", func="campaigns.tasks.tick", schedule_type="I", minutes=1)
    rows = (cluster(), queued(SignedPackage.dumps({"name": "run 7", "func": "campaigns.tasks.work_on"})), failure())
    return dict(zip(PAGES, [str(row.pk) for row in (*rows, schedule)], strict=True))


def pages(rows: dict[str, str]) -> list[str]:
    lists = [reverse(f"admin:{page}_changelist") for page in rows]
    return lists + [reverse(f"admin:{page}_change", args=[pk]) for page, pk in rows.items()]


# ---- nothing is run ----


def test_no_page_runs_what_is_planted_in_the_tables(db, tmp_path):
    sprung = tmp_path / "sprung"
    trap = stored(Trap(sprung))
    rows = {
        "django_q_ormq": queued(SignedPackage.dumps({"name": Trap(sprung), "func": "x"})).pk,
        "django_q_failure": failure(args=trap, kwargs=trap, result=trap).pk,
    }
    unsigned = queued(str(trap))
    root = superuser()
    urls = [*pages(rows), reverse("admin:django_q_ormq_change", args=[unsigned.pk])]
    failed = reverse("admin:django_q_failure_changelist")

    shown = [root.get(url) for url in urls]
    asked = [root.get(f"{failed}?{query}={trap}").status_code for query in ("result", "args__in", "q")]
    forced = root.get(f"{urls[-2]}?_to_field=result").status_code
    texts = [text_of(page) for page in shown]

    assert not sprung.exists()
    assert [page.status_code for page in shown] == [200] * 5
    assert all("cannot be shown" in text for text in texts)
    assert set(asked) <= {200, 302, 400}
    assert forced in (302, 400)
    # And it is a trap: Django's own way of reading the row springs it.
    assert Failure.objects.filter(pk=rows["django_q_failure"]).first() is not None
    assert sprung.exists()


def test_every_page_is_read_only_for_everybody(db):
    rows = one_of_each()
    root = superuser()
    before = [list(model.objects.values()) for model in (Cluster, OrmQ, Task, Schedule)]

    answers = {}
    for page, pk in rows.items():
        for deed, arguments in (("add", []), ("change", [pk]), ("delete", [pk])):
            url = reverse(f"admin:{page}_{deed}", args=arguments)
            answers[page, deed] = root.post(url, {"post": "yes", "func": "os.system", "args": "'id'"}).status_code
    for page, pk in rows.items():
        for action in ("resubmit_task", "delete_selected"):
            root.post(reverse(f"admin:{page}_changelist"), {"action": action, "_selected_action": [pk], "post": "yes"})

    assert set(answers.values()) == {403}
    assert [list(model.objects.values()) for model in (Cluster, OrmQ, Task, Schedule)] == before


def test_no_page_of_django_qs_own_is_left():
    kept = {OrmQ, Failure, Schedule}
    there = {model for model in apps.get_app_config("django_q").get_models() if admin.site.is_registered(model)}

    assert there == kept
    assert {admin.site.get_model_admin(model).__module__ for model in kept} == {"campaigns.admin.tasks"}
    with pytest.raises(NoReverseMatch):
        reverse(f"admin:django_q_{Success._meta.model_name}_changelist")


def test_who_may_look_sees_the_pages_and_an_outsider_does_not(db, django_user_model):
    rows = one_of_each()
    outsider = signed_in(django_user_model.objects.create(username="outsider", is_staff=True))
    looking = viewer()

    assert {looking.get(url).status_code for url in pages(rows)} == {200}
    assert {outsider.get(url).status_code for url in pages(rows)} == {403}
    assert {Client().get(url).status_code for url in pages(rows)} == {302}


# ---- what they show ----


def test_a_task_that_waits_is_shown_by_its_name_and_function(db):
    async_task("campaigns.tasks.work_on", 7, task_name="run 7")

    page = text_of(superuser().get(reverse("admin:django_q_ormq_changelist")))

    assert "run 7" in page
    assert "campaigns.tasks.work_on" in page
    assert "cannot be shown" not in page
    assert "Redis" not in page


def test_a_failed_task_is_shown_with_its_error(db):
    error = 'boom <b> : Traceback (most recent call last):\n  File "x", line 1\nValueError: boom'
    row = failure(result=error, name="run 9")
    root = superuser()

    listed = text_of(root.get(reverse("admin:django_q_failure_changelist")))
    page = root.get(reverse("admin:django_q_failure_change", args=[row.pk]))

    assert "run 9" in listed
    assert "boom <b> : Traceback" in listed
    assert "ValueError: boom" not in listed
    assert "ValueError: boom" in text_of(page)
    assert "boom <b>" not in page.content.decode()


def test_a_schedule_is_shown_with_its_function_and_its_next_run(db):
    one_of_each()

    page = text_of(superuser().get(reverse("admin:django_q_schedule_changelist")))

    assert all(words in page for words in ("tick", "campaigns.tasks.tick", "every 1 min"))


@pytest.mark.parametrize(
    ("minutes_ago", "stopping", "state"),
    [
        ({"worked_at": 0}, False, "working"),
        ({"worked_at": 60}, False, "idle"),
        ({}, False, "idle"),
        ({"worked_at": 0}, True, "stopping"),
        ({"beat_at": 5, "worked_at": 0}, True, "silent since"),
    ],
)
def test_a_cluster_is_shown_with_what_it_does(db, minutes_ago, stopping, state):
    ago = {"beat_at": 0} | minutes_ago
    cluster(stopping=stopping, **{name: timezone.now() - timedelta(minutes=n) for name, n in ago.items()})
    states = {"working", "idle", "stopping", "silent since"}

    page = text_of(superuser().get(reverse("admin:campaigns_cluster_changelist"))).partition("result_list")[2]

    assert "mars" in page
    assert {word for word in states if word in page} == {state}


def test_without_a_cluster_the_page_says_how_to_start_one(db):
    page = text_of(superuser().get(reverse("admin:campaigns_cluster_changelist")))

    assert "manage.py runworkers" in page


SHOW_WAITING = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "outreach.settings"
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.conf import settings
settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
from django_q.tasks import async_task
if os.environ.get("ENQUEUE"):
    for _ in range(3):
        async_task("math.sqrt", 4)
from tests.delivery.admin_pages import superuser, text_of
print(text_of(superuser().get("/admin/django_q/ormq/", headers={"host": "localhost"})))
"""


@pytest.mark.once
@pytest.mark.parametrize(
    ("there", "words"), [(True, "in Redis (OUTREACH_BROKER): 3 of them"), (False, "Redis does not answer")]
)
def test_with_redis_as_the_broker_the_page_says_how_many_wait_there(tmp_path, there, words):
    redis_server.needed()
    with redis_server.RedisServer() as server:
        environment = os.environ | {
            "DATABASE_URL": f"sqlite:///{tmp_path / 'redis.sqlite3'}",
            "OUTREACH_VAR_DIR": str(tmp_path),
            "OUTREACH_BROKER": "redis",
            "REDIS_URL": server.url,
            "ENQUEUE": "yes" if there else "",
        }
        if not there:
            server.stop()

        process = subprocess.run(
            [sys.executable, "-c", SHOW_WAITING], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )

    assert process.returncode == 0, process.stderr
    assert words in process.stdout


# ---- reading what is stored ----


def test_a_signed_task_is_read_with_the_instant_at_which_it_was_enqueued():
    task = queued_task(SignedPackage.dumps({"name": "run 7", "func": "a.b", "args": (7,), "started": NOW}))

    assert (task.name, task.func, task.since) == ("run 7", "a.b", NOW)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "a:b:c",
        SignedPackage.dumps({"name": "n", "func": "f"})[:-1],
        SignedPackage.dumps({"name": "n", "func": "f"}).replace(":", "A:", 1),
        SignedPackage.dumps({"name": "n", "func": os.getcwd}),
        SignedPackage.dumps({"name": 7, "func": "f"}),
        SignedPackage.dumps(["n", "f"]),
        SignedPackage.dumps({"name": "n" * 100_000, "func": "f"}),
    ],
    ids=["empty", "no task", "cut off", "changed", "names a function", "wrong types", "no dict", "too long"],
)
def test_a_task_that_is_not_plain_or_not_signed_cannot_be_shown(payload):
    with pytest.raises(CannotBeShown):
        queued_task(payload)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_text_is_read_whatever_version_of_python_stored_it(protocol):
    text = "Größe\n" * 50

    assert stored_text(b64encode(pickle.dumps(text, protocol)).decode()) == text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        pickle.dumps(7),
        pickle.dumps(os.getcwd),
        pickle.dumps(datetime(2026, 3, 1, tzinfo=UTC)),  # not now: each test process would have a test of its own
        pickle.dumps("text")[:-3],
        b"\x80\x04Nr\xff\xff\xff\x0f.",  # LONG_BINPUT: a memo of 64 GiB
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",  # BINBYTES8 of as much
        b"\x80\x04e.",
        b"cos\ngetcwd\n(tR.",
        b"(ios\ngetcwd\n.",
        b"\x80\x02\x82\x01.",  # EXT1
    ],
)
def test_what_is_no_plain_text_cannot_be_shown(data):
    with pytest.raises(CannotBeShown):
        stored_text(b64encode(data).decode())


def test_what_is_no_pickle_at_all_cannot_be_shown():
    with pytest.raises(CannotBeShown):
        stored_text("not base64!")
