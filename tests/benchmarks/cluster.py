"""`make bench-cluster`: what a cluster of workers sends, beside its database and the sink on one machine.

On PostgreSQL (durable: every commit is on the disk) into Postfix's smtp-sink, one after the other: the same run by one,
two and four worker processes, and what smtp-source makes of as many messages (the limit: it composes nothing and
records nothing); a run that the engine's limit holds back; and the start of a run of a million recipients from SQL,
until the last of them is written, with the memory of the workers. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
from cryptography.fernet import Fernet

from tests.benchmarks import mix
from tests.benchmarks.report import closing_line, descendants, pss_mb, table
from tests.benchmarks.smtp_sink import SmtpSink, smtp_source
from tests.benchmarks.throughput import SESSIONS, SOURCE_SIZE
from tests.clusters import Cluster
from tests.postgres import PostgresServer

PATIENCE = 3600.0  # seconds for one run
LOOK = 0.05
RATE = 400  # messages a second, where the limit is what is measured

# In a process of its own, for it needs the run's settings: makes what is to be sent, or starts a run of it.
SET_UP = """
import json, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "outreach.settings"
import django
django.setup()
from campaigns.authoring import save_version
from campaigns.models import Audience, Step, Template, Workflow
from delivery.models import Engine, EngineLimit, Pool, PoolMember
from tests.benchmarks import mix

wanted = json.load(sys.stdin)
options = {"host": "127.0.0.1", "port": wanted["port"], "security": "none", "max_connections": 10,
           "max_messages_per_connection": 0}
template = Template.objects.create(name="mix", slug="mix")
save_version(template, subject=mix.SUBJECT, text=mix.TEXT, html=mix.HTML)
for slug, people, limit, start in wanted["workflows"]:
    engine = Engine.objects.create(name=slug, slug=slug, kind="smtp", options=options)
    if limit:
        EngineLimit.objects.create(engine=engine, quantity=limit, period="second")
    pool = Pool.objects.create(name=slug, slug=slug)
    PoolMember.objects.create(pool=pool, engine=engine)
    audience = Audience.objects.create(
        name=slug, slug=slug, kind="sql", connection="people",
        query=f"SELECT email, name, city, code FROM people WHERE id <= {people}",
    )
    workflow = Workflow.objects.create(
        name=slug, slug=slug, audience=audience, pool=pool, from_name="Käthe Größer",
        from_address="news@outreach.example", start=start,
    )
    Step.objects.create(workflow=workflow, template=template)
"""


class Bench:
    """A database with people in it, and what runs on it."""

    def __init__(self, server: PostgresServer, directory: Path, name: str, people: int) -> None:
        url, people_url = server.create_database(name), server.create_database(f"{name}_people")
        with psycopg.connect(people_url) as connection:
            columns = "id bigint PRIMARY KEY, email text, name text, city text, code text"
            connection.execute(f"CREATE TABLE people ({columns})")
            with connection.cursor().copy("COPY people FROM STDIN") as copy:
                for i in range(1, people + 1):
                    address, variables = mix.recipient(i)
                    copy.write_row((i, address, *(variables[key] for key in ("name", "city", "code"))))
        self.environment = os.environ | {
            "DATABASE_URL": url,
            "SECRET_KEY": "benchmark",
            "OUTREACH_SECRET_KEYS": Fernet.generate_key().decode(),
            "OUTREACH_LOG_LEVEL": "WARNING",
            "OUTREACH_AUDIENCE_DATABASES": json.dumps({"people": people_url}),
            "OUTREACH_OUTPUT_DIR": str(directory / "output"),
            "OUTREACH_VAR_DIR": str(directory / "var"),
        }
        self._directory = directory
        self._rows = psycopg.connect(url, autocommit=True)
        self._manage("migrate", "--verbosity", "0")

    def set_up(self, port: int, *workflows: tuple[str, int, int | None, str]) -> None:
        """Workflows by slug: how many people, at most how many messages a second, when they start."""
        subprocess.run(
            [sys.executable, "-c", SET_UP],
            input=json.dumps({"port": port, "workflows": workflows}),
            env=self.environment,
            text=True,
            check=True,
        )

    def _manage(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "manage.py", *arguments], env=self.environment, check=True, capture_output=True)

    @contextmanager
    def cluster(self, workers: int) -> Iterator[Cluster]:
        """A cluster that has reported."""
        environment = self.environment | {"OUTREACH_WORKERS": str(workers)}
        with Cluster(environment, self._directory / "cluster.log") as cluster:
            cluster.wait_until(lambda: self.one("SELECT count(*) FROM campaigns_cluster WHERE NOT stopping"))
            yield cluster
            if cluster.stop():
                raise SystemExit(f"The cluster did not stop in order:\n{cluster.end_of_log()}")

    def start(self, slug: str) -> int:
        """Queues a run, for the cluster. Returns its id."""
        self._manage("run_workflow", slug, "--detach")
        return self.one("SELECT max(id) FROM campaigns_run")

    def one(self, query: str, *parameters: object) -> object:
        """The one value that a query returns."""
        return self._rows.execute(query, parameters).fetchone()[0]

    def await_run(self, cluster: Cluster, run: int, column: str) -> None:
        """Returns once the run has a value there."""
        cluster.wait_until(
            lambda: self.one(f"SELECT {column} IS NOT NULL FROM campaigns_run WHERE id = %s", run), PATIENCE
        )

    def seconds(self, run: int, since: str, until: str) -> float:
        """How long the run took from one of its instants to another."""
        return float(self.one(f"SELECT extract(epoch FROM {until} - {since}) FROM campaigns_run WHERE id = %s", run))

    def close(self) -> None:
        self._rows.close()


def _workers_mb(cluster: Cluster) -> float:
    """The largest worker's own memory: its share of what it has in common with the others counted in."""
    return max((pss_mb(pid) for pid in descendants(cluster.head)), default=0.0)


def throughput(bench: Bench, workers: int) -> dict[str, object]:
    """One run by so many workers, alone."""
    with bench.cluster(workers) as cluster:
        run = bench.start("all")
        peak = 0.0
        while not bench.one("SELECT ended_at IS NOT NULL FROM campaigns_run WHERE id = %s", run):
            cluster.check()
            peak = max(peak, _workers_mb(cluster))
            time.sleep(0.5)
    state, counts = bench._rows.execute("SELECT state, counts FROM campaigns_run WHERE id = %s", (run,)).fetchone()
    sent = counts["accepted"]
    if state != "completed" or sent != sum(counts.values()):
        raise SystemExit(f"The run did not do what it measures: {state} {counts}")
    seconds = bench.seconds(run, "sending_at", "ended_at")
    return {"workers": workers, "messages": sent, "per second": sent / seconds, "MB each": peak}


def limited(bench: Bench, people: int) -> float:
    """The share of the configured rate that two workers reach."""
    with bench.cluster(2) as cluster:
        run = bench.start("limited")
        bench.await_run(cluster, run, "ended_at")
    seconds = bench.seconds(run, "sending_at", "ended_at")
    return (people - RATE) / seconds / RATE  # the burst is a second's worth, and comes for nothing


def million(bench: Bench) -> dict[str, float]:
    """The start of a large run by two workers, which send meanwhile."""
    with bench.cluster(2) as cluster:
        run = bench.start("million")
        found = {"worker_mb": 0.0}

        def first_mail() -> bool:
            return bool(
                bench.one(
                    "SELECT count(*) FROM delivery_tally t JOIN campaigns_run r ON r.batch_id = t.batch_id "
                    "WHERE r.id = %s AND t.state = 'accepted' AND t.count > 0",
                    run,
                )
            )

        _until(cluster, first_mail)
        found["first_mail_s"] = float(
            bench.one("SELECT extract(epoch FROM clock_timestamp() - created_at) FROM campaigns_run WHERE id = %s", run)
        )
        while not bench.one("SELECT filled_at IS NOT NULL FROM campaigns_run WHERE id = %s", run):
            cluster.check()
            found["worker_mb"] = max(found["worker_mb"], _workers_mb(cluster))
            time.sleep(0.5)
        found["materialise_s"] = bench.seconds(run, "created_at", "filled_at")
        found["sent_meanwhile"] = float(
            bench.one(
                "SELECT coalesce(sum(t.count), 0) FROM delivery_tally t JOIN campaigns_run r "
                "ON r.batch_id = t.batch_id WHERE r.id = %s",
                run,
            )
        )
        for _ in range(40):  # while it is sending only
            cluster.check()
            found["worker_mb"] = max(found["worker_mb"], _workers_mb(cluster))
            time.sleep(0.5)
    return found


def _until(cluster: Cluster, has_come: Callable[[], bool]) -> None:
    while not has_come():
        cluster.check()
        time.sleep(LOOK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=60_000, help="of each run that is measured")
    parser.add_argument("--people", type=int, default=1_000_000, help="of the large run")
    parser.add_argument("--only", choices=("throughput", "limited", "million"))
    options = parser.parse_args()
    wanted = {options.only} if options.only else {"throughput", "limited", "million"}
    rows: list[dict[str, object]] = []
    figures: dict[str, object] = {"messages": options.messages}
    with SmtpSink() as sink, PostgresServer(fsync=True) as server, tempfile.TemporaryDirectory() as directory:
        few = 15 * RATE
        people = options.people if "million" in wanted else options.messages
        bench = Bench(server, Path(directory), "bench", max(people, options.messages, few))
        bench.set_up(
            sink.port,
            ("all", options.messages, None, "checked"),
            ("limited", few, RATE, "checked"),
            ("million", options.people, None, "at_once"),
        )
        try:
            _measure(bench, sink, wanted, options.messages, few, rows, figures)
        finally:
            bench.close()
    if rows:
        print(table(rows))
    print(closing_line(figures))


def _measure(
    bench: Bench,
    sink: SmtpSink,
    wanted: set[str],
    messages: int,
    few: int,
    rows: list[dict[str, object]],
    figures: dict[str, object],
) -> None:
    if "throughput" in wanted:
        source = messages / smtp_source(sink.port, messages, sessions=SESSIONS, size=SOURCE_SIZE)
        rows += [throughput(bench, workers) for workers in (1, 2, 4)]
        speed: Mapping[object, float] = {row["workers"]: row["per second"] for row in rows}
        figures["deliveries_per_s"] = {str(workers): round(rate) for workers, rate in speed.items()}
        figures["smtp_source_per_s"] = round(source)
        figures["ratio_smtp_source"] = round(speed[2] / source, 3)
    if "limited" in wanted:
        figures["share_of_rate"] = round(limited(bench, few), 3)
    if "million" in wanted:
        figures |= {name: round(value, 1) for name, value in million(bench).items()}


if __name__ == "__main__":
    main()
