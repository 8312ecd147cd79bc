"""`make bench-api`: how quickly the API answers, with web server, workers, PostgreSQL (durable) and the one who asks on
one machine.

gunicorn and runworkers are started as `docs/deploying.md` has them; the one who asks is the code of `manage.py
loadtest`. Measured are asynchronous triggers of one recipient and single messages, each into an engine by script while
the workers send them; a run, looked at again and again; and the list of deliveries at its first page and at its ten
thousandth. All of it once more when the log has grown tenfold. Beside it what is physically possible: an empty Django
view in the same gunicorn, and a bare `INSERT … ; COMMIT` for each request over as many connections. The last line is
one JSON object.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote

from tests.benchmarks.report import closing_line, table
from tests.benchmarks.web import GUNICORN, Installation, gunicorn
from tests.postgres import PostgresServer
from tests.servers import free_port

AT_ONCE = 50
PAGE = 50
FAR = 10_000  # the number of a page
CONNECTIONS = 16  # as many as gunicorn has threads
GOALS = {"async_triggers_per_s": 300, "messages_per_s": 300}
MOST_MS = {"async_p95_ms": 150, "run_p95_ms": 30, "list_page1_ms": 50, "list_page10000_ms": 50}

# In a process for each half of the connections: bare rows, each in a transaction of its own.
COMMITS = """
import sys, threading, time
import psycopg
url, connections, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
counts = [0] * connections
def write(n):
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < ends_at:
            connection.execute("INSERT INTO bare (words) VALUES (%s)", ["x" * 100])
            counts[n] += 1
ends_at = time.monotonic() + seconds
threads = [threading.Thread(target=write, args=[n]) for n in range(connections)]
for each in threads: each.start()
for each in threads: each.join()
print(sum(counts) / seconds)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """A rate, and what one request took."""

    what: str
    per_second: float
    p50: float
    p95: float
    p99: float

    def row(self) -> dict[str, object]:
        return {
            "request": self.what,
            "per second": self.per_second,
            "p50 ms": self.p50 * 1000,
            "p95 ms": self.p95 * 1000,
            "p99 ms": self.p99 * 1000,
        }


async def measured(
    what: str, url: str, token: str, ask: Callable[..., Awaitable[object]], *, count: int, at_once: int
) -> Measured:
    """So many requests, after a tenth of them that are not counted. Any answer but a good one ends the benchmark."""
    from campaigns.loadtest.caller import Caller
    from campaigns.loadtest.measures import spread
    from campaigns.loadtest.storm import storm

    caller = Caller(url, token, [ip_network("127.0.0.1/32")], 60)

    async def one(number: int) -> tuple[int | str, bool]:
        said = await ask(caller, number)
        if said.status not in (200, 202):
            raise SystemExit(f"{what}: {said.status} {said.content[:500].decode(errors='replace')}")
        return said.status, True

    try:
        await storm(one, count=max(count // 10, at_once), at_once=at_once)
        found = await storm(one, count=count, at_once=at_once)
    finally:
        await caller.close()
    took = spread(sample.seconds for sample in found.samples)
    return Measured(what, len(found.samples) / found.seconds, took.p50, took.p95, took.p99)


def measure(what: str, url: str, token: str, ask: Callable, *, count: int, at_once: int = 1) -> Measured:
    import uvloop

    found = uvloop.run(measured(what, url, token, ask, count=count, at_once=at_once))
    print(f"  {what}: {found.per_second:,.0f}/s, p95 {found.p95 * 1000:.1f} ms", file=sys.stderr)
    return found


def trigger(caller, number: int):
    body = {"recipients": [{"email": f"load-{number}@example.test", "name": f"Load {number}"}]}
    return caller.post("/api/v1/workflows/welcome/runs/", json.dumps(body).encode())


def message(caller, number: int):
    body = {
        "to": f"single-{number}@example.test",
        "from_address": "shop@shop.example",
        "template": "welcome",
        "data": {"name": f"Single {number}"},
    }
    return caller.post("/api/v1/messages/", json.dumps(body).encode())


def path(where: str, caller, number: int):
    return caller.get(where)


def cursor_after(installation: Installation, rows: int) -> str:
    """Where a list of deliveries, the newest first, goes on after so many of them."""
    found = installation.rows.execute(
        "SELECT id FROM delivery_delivery ORDER BY id DESC OFFSET %s LIMIT 1", (rows - 1,)
    ).fetchone()
    if found is None:
        raise SystemExit(f"There are no {rows:,} deliveries.")
    return quote(b64encode(f"p={found[0]}".encode()).decode())


class Bench:
    """One pass over everything."""

    def __init__(self, installation: Installation, count: int) -> None:
        self._installation = installation
        self._count = count

    def everything(self, far: int) -> tuple[list[Measured], dict[str, float]]:
        """`far`: the page that is furthest away."""
        installation, count = self._installation, self._count
        reading = f"/api/v1/deliveries/?page_size={PAGE}"
        found = [
            self._ask("async trigger", trigger, count, AT_ONCE),
            self._ask("message", message, count, AT_ONCE),
        ]
        self._settle()
        run = installation.one("SELECT max(id) FROM campaigns_run WHERE ended_at IS NOT NULL")
        cursor = cursor_after(installation, PAGE * (far - 1))
        found += [
            self._ask("one run", partial(path, f"/api/v1/runs/{run}/"), count // 2),
            self._ask("one run, 8 at once", partial(path, f"/api/v1/runs/{run}/"), count, 8),
            self._ask("deliveries, page 1", partial(path, reading), count // 4),
            self._ask(f"deliveries, page {far:,}", partial(path, f"{reading}&cursor={cursor}"), count // 4),
        ]
        asked, messages, run_alone, _, near, distant = found
        return found, {
            "async_triggers_per_s": round(asked.per_second, 1),
            "async_p95_ms": round(asked.p95 * 1000, 1),
            "messages_per_s": round(messages.per_second, 1),
            "messages_p95_ms": round(messages.p95 * 1000, 1),
            "run_p95_ms": round(run_alone.p95 * 1000, 1),
            "list_page1_ms": round(near.p95 * 1000, 1),
            "list_page10000_ms": round(distant.p95 * 1000, 1),
        }

    def _ask(self, what: str, ask: Callable, count: int, at_once: int = 1) -> Measured:
        installation = self._installation
        return measure(what, installation.url, installation.token, ask, count=count, at_once=at_once)

    def _settle(self) -> None:
        """Returns once the workers have sent everything that was asked for."""
        installation, waited = self._installation, 0
        while left := installation.one(
            "SELECT (SELECT count(*) FROM campaigns_run WHERE ended_at IS NULL) + "
            "(SELECT count(*) FROM delivery_delivery WHERE state IN ('waiting', 'ready', 'leased', 'sending'))"
        ):
            waited += 1
            if waited > 600:
                raise SystemExit(f"The workers do not come to an end: {left} are left.")
            asyncio.run(asyncio.sleep(0.5))


def commits_per_second(url: str, server_url: str, seconds: float = 4) -> float:
    """Bare rows over as many connections as gunicorn has, from two processes as well."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE bare (id bigserial PRIMARY KEY, words text)")
    command = [sys.executable, "-c", COMMITS, url, str(CONNECTIONS // 2), str(seconds)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return sum(float(each.communicate()[0]) for each in processes)


def empty_views_per_second(installation: Installation, count: int) -> float:
    port, log = free_port(), installation.directory / "empty.log"
    with gunicorn(port, installation.environment, log, "tests.benchmarks.empty_view", *GUNICORN):
        url = f"http://127.0.0.1:{port}"
        return measure("empty view", url, "", partial(path, "/"), count=count, at_once=AT_ONCE).per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4000, help="requests of each kind")
    parser.add_argument("--deliveries", type=int, default=1_000_000, help="of the log in the end; a tenth before")
    parser.add_argument("--runs", type=int, default=100_000, help="of the log in the end; a tenth before")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    options = parser.parse_args()
    with PostgresServer(fsync=True) as server, tempfile.TemporaryDirectory() as directory:
        bare = commits_per_second(server.create_database("bare"), server.url("postgres"))
        url = server.create_database("api")
        installation = Installation(url, Path(directory), free_port())
        _use_settings_of(installation)
        try:
            figures = _passes(installation, options)
        finally:
            installation.close()
    figures["commits_per_s"] = round(bare)
    figures["goals_met"] = all(figures[name] >= goal for name, goal in GOALS.items()) and all(
        figures[name] < most for name, most in MOST_MS.items()
    )
    print(closing_line(figures))


def _use_settings_of(installation: Installation) -> None:
    """The code that asks reads Django's settings."""
    import os

    os.environ |= {
        name: value
        for name, value in installation.environment.items()
        if name.startswith("OUTREACH_") or name in ("DATABASE_URL", "SECRET_KEY")
    }
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "outreach.settings")
    import django

    django.setup()


def _passes(installation: Installation, options: argparse.Namespace) -> dict[str, object]:
    """Twice over everything, with a log that has grown tenfold in between."""
    bench = Bench(installation, options.count)
    few, far = options.deliveries // 10, options.deliveries // PAGE // 2
    installation.fill("few", few, options.runs // 10)
    figures: dict[str, object] = {"empty_view_per_s": round(empty_views_per_second(installation, options.count))}
    rows = []
    with installation.running(workers=options.workers):
        found, before = bench.everything(far // 10)
        rows += [each.row() | {"log": few} for each in found]
        installation.fill("many", options.deliveries - few, options.runs - options.runs // 10)
        found, after = bench.everything(far)
        rows += [each.row() | {"log": options.deliveries} for each in found]
    print(table(rows))
    figures |= after | {f"{name}_small_log": value for name, value in before.items()}
    return figures


if __name__ == "__main__":
    main()
