"""Outreach as a deployment has it, on one machine: PostgreSQL, gunicorn and a worker cluster, each as
`docs/deploying.md` starts it. And what the API's benchmark needs in its database."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from cryptography.fernet import Fernet

from tests.clusters import Cluster
from tests.servers import await_port, dying_with_parent, end, free_port

GUNICORN = ("--workers", "2", "--threads", "8", "--worker-tmp-dir", "/dev/shm")  # docs/deploying.md

# In a process of its own, for it needs the settings: a workflow into a vendor by script, and a token.
SET_UP = """
import json, os
os.environ["DJANGO_SETTINGS_MODULE"] = "outreach.settings"
import django
django.setup()
from django.contrib.auth.models import Group, User
from campaigns.authoring import save_version
from campaigns.models import Audience, AudienceKind, ContactList, Step, Template, Workflow
from delivery.models import Engine, Pool, PoolMember
from outreach.access import tokens
from outreach.access.roles import SENDER

engine = Engine.objects.create(name="Script", slug="script", kind="scripted", options={"script": "vendor:latency=5ms"})
pool = Pool.objects.create(name="Main", slug="main")
PoolMember.objects.create(pool=pool, engine=engine)
contacts = ContactList.objects.create(name="Nobody", slug="nobody")
audience = Audience.objects.create(name="Nobody", slug="nobody", kind=AudienceKind.LIST, contact_list=contacts)
template = Template.objects.create(name="Welcome", slug="welcome")
save_version(template, subject="Welcome, {{ name }}", text="Hello {{ name }}!\\n", html="<p>Hello {{ name }}!</p>")
workflow = Workflow.objects.create(
    name="Welcome", slug="welcome", audience=audience, pool=pool, from_name="Shop", from_address="shop@shop.example"
)
Step.objects.create(workflow=workflow, template=template)
user = User.objects.create_user("program")
user.groups.add(Group.objects.get(name=SENDER))
print(json.dumps({"token": tokens.make("bench", user, ["read", "send"], by="bench").text}))
"""

# The log of so many mails and runs that were sent long ago.
BATCH = """
INSERT INTO delivery_batch (label, reference, scope, pool_id, state, hold_reason, growing, priority, sequenced, ordered,
    stops_on, uncertain_policy, total, left_as, created_at, done_at)
SELECT 'old', %s, '', id, 'done', '', false, 0, false, false, '[]', 'hold', %s, 'cancelled', now(), now()
FROM delivery_pool WHERE slug = 'main' RETURNING id
"""
MESSAGE = """
INSERT INTO delivery_message (batch_id, token, subject, text, html, headers, from_name, from_address, reply_to,
    return_path, unsubscribe, position, rules)
VALUES (%s, %s, 'old', 'old', '', '{}', '', 'shop@shop.example', '', 'shop@shop.example', false, 1, '{}') RETURNING id
"""
RUN = """
INSERT INTO campaigns_run (workflow_id, correlation_id, state, trigger, triggered_by, created_at, sending_at, ended_at,
    filled_at, log_path, {columns})
SELECT w.id, md5(i::text), 'completed', 'api', 'program', now(), now(), now(), now(), 'old', {values}
FROM campaigns_workflow w, generate_series(1, %s) AS i WHERE w.slug = 'welcome'
"""


class Installation:
    """A database with what is needed in it, and the environment of everything that runs on it."""

    def __init__(self, url: str, directory: Path, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.environment = os.environ | {
            "DATABASE_URL": url,
            "SECRET_KEY": "benchmark",
            "OUTREACH_SECRET_KEYS": Fernet.generate_key().decode(),
            "OUTREACH_LOG_LEVEL": "WARNING",
            "OUTREACH_ALLOWED_NETWORKS": "127.0.0.1/32",
            "OUTREACH_OUTPUT_DIR": str(directory / "output"),
            "OUTREACH_VAR_DIR": str(directory / "var"),
        }
        self.directory = directory
        self.rows = psycopg.connect(url, autocommit=True)
        self._manage("migrate", "--verbosity", "0")
        done = subprocess.run(
            [sys.executable, "-c", SET_UP], env=self.environment, text=True, check=True, capture_output=True
        )
        self.token: str = json.loads(done.stdout.splitlines()[-1])["token"]

    def _manage(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "manage.py", *arguments], env=self.environment, check=True, capture_output=True)

    @contextmanager
    def running(self, *, workers: int = 2, options: Sequence[str] = GUNICORN) -> Iterator[None]:
        """Web server and workers, side by side."""
        log = self.directory / "web.log"
        command = ("outreach.wsgi", *options, "--logger-class", "outreach.gunicorn_log.Logger")
        environment = self.environment | {"OUTREACH_WORKERS": str(workers)}
        with gunicorn(self.port, self.environment, log, *command):
            if not workers:
                yield
                return
            with Cluster(environment, self.directory / "cluster.log") as cluster:
                cluster.wait_until(lambda: self.one("SELECT count(*) FROM campaigns_cluster WHERE NOT stopping"))
                yield
                cluster.stop()

    def one(self, query: str, *parameters: object) -> object:
        """The one value that a query returns."""
        return self.rows.execute(query, parameters).fetchone()[0]

    def fill(self, name: str, deliveries: int, runs: int) -> None:
        """Grows the log by so many deliveries of one old batch, and so many old runs with their requests."""
        batch = self.one(BATCH, name, deliveries)
        message = self.one(MESSAGE, batch, name)
        first = self.one("SELECT coalesce(max(id), 0) + 1 FROM delivery_delivery")
        columns = "id, batch_id, message_id, address, identity, name, data, state, attempts, tried_at, settled_at"
        with self.rows.cursor() as cursor:
            with cursor.copy(f"COPY delivery_delivery ({columns}) FROM STDIN") as copy:
                for id in range(first, first + deliveries):
                    address = f"old-{id}@example.test"
                    at = "2026-01-02 03:04:05+00"
                    copy.write_row((id, batch, message, address, address, "Old", "{}", "accepted", 1, at, at))
            cursor.execute("SELECT setval(pg_get_serial_sequence('delivery_delivery', 'id'), %s)", [first + deliveries])
            last = first + deliveries - 1
            cursor.execute("UPDATE delivery_batch SET first_id = %s, last_id = %s WHERE id = %s", [first, last, batch])
            self._fill_runs(cursor, runs)
        self.rows.execute("VACUUM ANALYZE")

    def _fill_runs(self, cursor: psycopg.Cursor, runs: int) -> None:
        """Whatever else a run's row has is empty."""
        empty = {"jsonb": "'{}'::jsonb", "character varying": "''", "text": "''", "boolean": "false"}
        given = [
            "workflow_id",
            "correlation_id",
            "state",
            "trigger",
            "triggered_by",
            "created_at",
            "sending_at",
            "ended_at",
            "filled_at",
            "log_path",
            "id",
        ]
        found = cursor.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'campaigns_run' "
            "AND is_nullable = 'NO' AND column_default IS NULL AND NOT column_name = ANY(%s)",
            [given],
        ).fetchall()
        columns = {name: empty.get(kind, "0") for name, kind in found}
        cursor.execute(RUN.format(columns=", ".join(columns), values=", ".join(columns.values())), [runs])
        cursor.execute(
            'INSERT INTO campaigns_runrequest (at, mode, outcome, workflow_id, run_id, "by", request_id, key, words) '
            "SELECT r.created_at, 'async', 'started', r.workflow_id, r.id, 'program', md5(r.id::text), '', '' "
            "FROM campaigns_run r WHERE NOT EXISTS (SELECT FROM campaigns_runrequest q WHERE q.run_id = r.id)"
        )

    def close(self) -> None:
        self.rows.close()


@contextmanager
def gunicorn(port: int, environment: Mapping[str, str], log: Path, *arguments: str) -> Iterator[None]:
    """A web server on loopback for as long as the block lasts."""
    command = [sys.executable, "-m", "gunicorn", *arguments, "--bind", f"127.0.0.1:{port}"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, preexec_fn=dying_with_parent(signal.SIGKILL)
        )
    try:
        await_port(port, process, 60)
        yield
    finally:
        end(process, signal.SIGTERM, grace=40)


def port() -> int:
    return free_port()
