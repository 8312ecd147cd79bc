"""The world that chaos is made in: a PostgreSQL server, two sinks, two clusters (one on a host of its own, where there
can be one), an operator, and perhaps Redis. Knows who works, what was started and what was taken; breaks nothing.
"""

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests import postgres, redis_server
from tests.clusters import RUN_WORKERS, Cluster
from tests.recording_sink import Behaviour
from tests.scenarios import namespaces
from tests.scenarios.families import Family, family_of, kill, own_number, started_at
from tests.scenarios.operators import Operator, csv_of
from tests.scenarios.rows import Rows
from tests.sinks import Received, RecordingSink

WORKERS = 2
LEASE = 5  # seconds
CONNECTIONS = 2
IN_FLIGHT = 2  # mails on each connection, one behind the other
RATE, BURST = 150, 75  # of the limited engine
LIMITED, FREE = "limited", "free"
PATIENCE = 60.0  # seconds for what must come
END = 100.0  # seconds for the rest of the work, once nothing is broken any more: lost wake-ups wait for a tick
HOLD, RESEND = "hold", "resend"


@dataclass(frozen=True)
class Plan:
    """What a workflow is set up with. Its people have a domain of their own, by which the sinks tell runs apart."""

    slug: str
    engine: str
    people: int
    repeats: int = 1
    policy: str = HOLD
    priority: int = 10
    start: str = "checked"

    @property
    def domain(self) -> str:
        return f"{self.slug}.test"

    def settings(self) -> dict[str, object]:
        csv = csv_of(self.domain, self.people, self.repeats)
        own = {"on_uncertain": self.policy, "priority": self.priority, "start": self.start}
        return {"slug": self.slug, "engine": self.engine, "csv": csv, **own}


@dataclass(frozen=True)
class Standstill:
    """A time in which nothing new of a run may be handed over: from then on, and until it was resumed. `under_way` are
    those that an engine may have had at its beginning."""

    slug: str
    since_ns: int
    under_way: frozenset[str]
    until_ns: int | None = None


@dataclass
class World:
    """Everything that is there, and what has happened to it."""

    rng: random.Random
    rows: Rows
    server: postgres.PostgresServer
    redis: redis_server.RedisServer | None
    sinks: dict[str, RecordingSink]
    clusters: dict[str, Cluster]
    host: namespaces.Host | None
    operator: Operator
    plans: dict[str, Plan]
    output: Path
    runs: dict[str, int] = field(default_factory=dict)
    paused: Standstill | None = None
    standstills: list[Standstill] = field(default_factory=list)
    stalls: list[tuple[int, int]] = field(default_factory=list)  # from when to when mails on their way stood still
    lost_workers: int = 0  # that may have left something in doubt
    story: list[str] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)

    def tell(self, words: str) -> None:
        self.story.append(f"{time.monotonic() - self._begun:7.2f} s  {words}")

    def told(self) -> str:
        logs = "\n".join(f"--- the end of {name}'s log:\n{c.end_of_log()}" for name, c in self.clusters.items())
        return "\n".join([*self.story, logs])

    def sessions(self) -> str:
        """Who does what in the database, and who waits for whom."""
        found = self.rows.read(
            "SELECT pid, client_addr, state, now() - xact_start, wait_event, pg_blocking_pids(pid), left(query, 150) "
            "FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL ORDER BY xact_start"
        )
        return _lines(found)

    def state(self) -> str:
        """What there still is to do, and who does it."""
        runs = self.rows.read(
            "SELECT r.id, r.state, r.log_path, b.state, d.state, count(*) FROM campaigns_run r "
            "LEFT JOIN delivery_batch b ON b.id = r.batch_id LEFT JOIN delivery_delivery d ON d.batch_id = b.id "
            "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1"
        )
        leases = self.rows.read("SELECT id, owner, expires_at - now() FROM delivery_lease")
        clusters = self.rows.read("SELECT owner, beat_at - now(), worked_at - now(), stopping FROM campaigns_cluster")
        tasks = self.rows.read("SELECT id, lock - now() FROM django_q_ormq")
        lists = {"runs": runs, "leases": leases, "clusters": clusters, "tasks": tasks}
        listed = [f"{name}:\n{_lines(rows)}" for name, rows in lists.items()]
        return "\n".join([*listed, "sessions:", self.sessions()])

    # ---- waiting ----

    def wait_until(self, has_come: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        deadline = time.monotonic() + patience
        while not has_come():
            if time.monotonic() > deadline:
                raise AssertionError(f"in vain, for {patience:g} s, awaited: {what}.\n{self.state()}")
            time.sleep(0.02)

    def await_progress(self) -> None:
        """Returns after some more mails, or a while in which everything may stand still."""
        enough = self.mails() + self.rng.randint(1, 60)
        at_most = time.monotonic() + 5
        while self.mails() < enough and time.monotonic() < at_most:
            time.sleep(0.01)

    def mails(self) -> int:
        return sum(len(sink.received()) for sink in self.sinks.values())

    # ---- who works ----

    def family(self, name: str) -> Family:
        """The processes of a cluster, as soon as all of them are there."""
        found: list[Family] = []

        def is_complete() -> bool:
            with contextlib.suppress(ValueError):  # the command that starts it has not come so far
                found.extend(filter(None, [family_of(self.clusters[name].head, WORKERS)]))
            return bool(found)

        self.wait_until(is_complete, f"every process of {name}")
        return found[-1]

    def some_cluster(self) -> str:
        return self.rng.choice(sorted(self.clusters))

    def holders(self, name: str) -> list[str]:
        """Who holds a lease on a cluster's machine."""
        owners = self.rows.column("SELECT owner FROM delivery_lease ORDER BY id")
        return [owner for owner in owners if self._is_on(owner, name)]

    def busy_workers(self, name: str) -> dict[int, str]:
        """The workers of a cluster that hold a lease: their process ids, and the owners' names."""
        found = {self.process_of(owner, name): owner for owner in self.holders(name)}
        return {pid: owner for pid, owner in found.items() if pid is not None}

    def process_of(self, owner: str, name: str) -> int | None:
        """The worker of a cluster that bears an owner's name."""
        if not self._is_on(owner, name):
            return None
        _, number, started = owner.rsplit(":", 2)
        workers = self.family(name).workers
        return next((pid for pid in workers if (own_number(pid), started_at(pid)) == (number, started)), None)

    def _is_on(self, owner: str, name: str) -> bool:
        machine = self.host.name if self.host and name == self.host.name else socket.gethostname()
        return owner.partition("/")[0] == machine

    # ---- clusters, as a supervisor handles them ----

    def start_again(self, name: str) -> None:
        """Starts a cluster whose head has ended."""
        self.clusters[name].kill()  # buries it
        self.clusters[name].__enter__()

    def kill_head(self, name: str) -> None:
        kill(self.family(name).head)
        self.lost_workers += WORKERS
        self.start_again(name)

    # ---- runs ----

    def start_run(self, slug: str) -> int:
        self.runs[slug] = self.operator.ask("start", workflow=slug, key=slug)
        self.tell(f"run {self.runs[slug]} of {slug} starts")
        return self.runs[slug]

    def next_plan(self, kind: str) -> Plan | None:
        """The next of several that was not started yet."""
        return next((p for s, p in self.plans.items() if s.startswith(kind) and s not in self.runs), None)

    def state_of(self, slug: str) -> str:
        return self.rows.one(f"SELECT state FROM campaigns_run WHERE id = {self.runs[slug]}")

    def stand_still(self, slug: str) -> Standstill:
        """To be called after a pause or a cancel was said to be done."""
        under_way = self.rows.column(
            "SELECT address FROM delivery_delivery d JOIN campaigns_run r ON r.batch_id = d.batch_id "
            f"WHERE r.id = {self.runs[slug]} AND (d.state IN ('sending', 'uncertain') OR d.pinned)"
        )
        return Standstill(slug, time.monotonic_ns(), frozenset(under_way))

    def received(self) -> Iterator[Received]:
        for sink in self.sinks.values():
            yield from sink.received()

    def are_over(self) -> bool:
        """Whether every run has ended, its log is written, and nobody holds anything."""
        unfinished = self.rows.read(
            "SELECT 1 FROM campaigns_run r LEFT JOIN delivery_batch b ON b.id = r.batch_id "
            "WHERE r.state NOT IN ('completed', 'cancelled', 'failed') OR r.log_path = '' OR b.state <> 'done'"
        )
        return not unfinished and not self.rows.read("SELECT 1 FROM delivery_lease")

    def let_time_pass(self) -> None:
        """What would come by itself in some minutes: the next tick, and the end of a claim to initialise a run. Who is
        still at that is told that it is no longer his, if another one is faster; that is harmless, too."""
        self.rows.do("UPDATE campaigns_run SET initializer_until = now() WHERE filled_at IS NULL AND initializer <> ''")
        self.rows.do("UPDATE django_q_schedule SET next_run = now()")

    def let_be(self) -> None:
        """Breaks nothing any more; returns when all the work is done."""
        self.tell("left alone")
        self.let_time_pass()
        self.wait_until(self.are_over, "the end of all runs", END)
        self.tell("all runs are over")
        for name, cluster in self.clusters.items():
            assert cluster.stop() == 0, f"{name} did not end in order"


def _lines(rows: list[tuple]) -> str:
    return "\n".join(" | ".join(map(str, row)) for row in rows)


@contextlib.contextmanager
def made(folder: Path, rng: random.Random, plans: list[Plan], broker: str) -> Iterator[World]:
    """A world with these workflows set up and both clusters started; gone afterwards, whatever has happened in it."""
    with contextlib.ExitStack() as stack:
        network = None if namespaces.missing() else stack.enter_context(namespaces.Network())
        address = network.address if network else "127.0.0.1"
        # Without fsync: safe against the death of every process of the server, which is what is tried here.
        server = postgres.PostgresServer(fsync=False, network=network.network if network else "")
        stack.enter_context(server)
        from_here = server.create_database("chaos")
        redis = None
        if broker == "redis":
            redis = stack.enter_context(redis_server.RedisServer(network.address if network else ""))
        behaviours = {LIMITED: Behaviour(), FREE: Behaviour(latency=0.05)}
        sinks = {name: stack.enter_context(RecordingSink(behaviours[name], address)) for name in (LIMITED, FREE)}
        environment = os.environ | {
            "DATABASE_URL": from_here.replace("127.0.0.1", address),
            "OUTREACH_BROKER": broker,
            "REDIS_URL": redis.url.replace("127.0.0.1", address) if redis else "",
            "OUTREACH_VAR_DIR": str(folder / "var"),
            "OUTREACH_OUTPUT_DIR": str(folder / "output"),
            "OUTREACH_WORKERS": str(WORKERS),
            "OUTREACH_LEASE_SECONDS": str(LEASE),
            "OUTREACH_STUCK_SECONDS": "10",
        }
        operator = stack.enter_context(Operator(environment, folder / "operator"))
        common = {"host": address, "connections": CONNECTIONS}
        limits = {LIMITED: {"rate": RATE, "burst": BURST}, FREE: {}}
        engines = [{"slug": name, "port": sinks[name].port, **common, **limits[name]} for name in sinks]
        operator.ask("set_up", engines=engines, workflows=[plan.settings() for plan in plans])
        host = network.host("elsewhere") if network else None
        clusters = {"here": Cluster(environment, folder / "here")}
        if host:
            command = host.command(*RUN_WORKERS)
            clusters[host.name] = Cluster(environment, folder / host.name, command=command, wrapped=True)
        else:
            clusters["also here"] = Cluster(environment, folder / "also-here")
        for cluster in clusters.values():
            stack.enter_context(cluster)
        rows = Rows(from_here)
        stack.callback(rows.close)
        by_slug = {plan.slug: plan for plan in plans}
        yield World(rng, rows, server, redis, sinks, clusters, host, operator, by_slug, folder / "output")
