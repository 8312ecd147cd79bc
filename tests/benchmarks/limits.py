"""`make bench-limits`: what a decision of the policy costs, and how exactly shared limits are kept.

The policy: `decide` and `conclude`, as the pump asks them, for each strategy. The limits: four processes draw tokens of
one bucket as the worker does (`delivery.worker.tokens`), from PostgreSQL and from Redis, at 500/s and at 5,000/s; what
they used in ten seconds is compared with the rate, and every window with what the limit allows. Beside them the
physical limit: how many draws a second one bucket's row bears. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime

import django
from cryptography.fernet import Fernet

from tests.benchmarks.report import closing_line, table
from tests.postgres import PostgresServer
from tests.redis_server import RedisServer

PROCESSES = 4
SECONDS = 10
SETTLING = 1.5  # seconds before they count: a full bucket gives its burst first
BLOCK = 64  # tokens wanted at once, as the lane wants them
RATES = (500, 5_000)


# ---- the policy ----


def policy_costs() -> list[dict[str, object]]:
    """Microseconds for one decision and one conclusion, for each strategy; the best of five rounds."""
    from delivery.core.breaker import Breaker
    from delivery.core.dispatch import Candidate, UncertainPolicy, conclude, decide
    from delivery.core.envelope import Kind, Outcome
    from delivery.core.failover import EngineView, Roster, Strategy
    from delivery.core.retry import RetryPolicy

    now, rng, retry = datetime.now(UTC), random.Random(1), RetryPolicy()
    engines = tuple(EngineView(n, Breaker(), domains=frozenset({"shop.example"})) for n in range(1, 4))
    candidate = Candidate("news.shop.example")
    outcomes = (Outcome(Kind.ACCEPTED), Outcome(Kind.TRANSIENT))
    rows = []
    for strategy in Strategy:
        roster = Roster(engines, strategy, 2)
        deciding = _best(lambda roster=roster: decide(candidate, roster, retry, now, rng))
        concluding = max(
            _best(lambda outcome=o: conclude(candidate, outcome, retry, UncertainPolicy.HOLD, now, rng))
            for o in outcomes
        )
        rows.append({"strategy": strategy.value, "decide us": deciding, "conclude us": concluding})
    return rows


def _best(call, times: int = 20_000) -> float:
    found = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(times):
            call()
        found.append((time.perf_counter() - begun) / times * 1e6)
    return min(found)


# ---- one process that draws ----


def draw_for_a_while(key: str, rate: int, begin_at: float) -> None:
    """Uses tokens as fast as it gets them; prints when (monotonic, in nanoseconds) and how many."""
    from delivery.catalogue import EngineSetup
    from delivery.clock import SYSTEM
    from delivery.core.throttle import Period, Rate
    from delivery.engine_desk import EngineDesk
    from delivery.shared import shared
    from delivery.worker.bell import Bell
    from delivery.worker.database import Database
    from delivery.worker.tokens import Tokens

    class OneEngine:
        def engine(self, engine_id: int) -> EngineSetup:
            return EngineSetup(engine_id, "bench")

    async def work() -> list[tuple[int, int]]:
        database, used, stop = Database(), [], Bell()
        tokens = Tokens(database, EngineDesk(OneEngine(), shared()), SYSTEM, {key: Rate.of(rate, Period.SECOND)})
        await asyncio.sleep(max(0.0, begin_at - time.time()))
        end = time.monotonic() + SETTLING + SECONDS
        while time.monotonic() < end:
            count, _ = await tokens.take(BLOCK, stop)
            used.append((time.monotonic_ns(), count))
        await database.close()
        return used

    print(json.dumps(asyncio.run(work())))


def draws_per_second() -> float:
    """How many draws one bucket bears, asked one after the other by this process."""
    from delivery.core.throttle import Rate
    from delivery.shared import shared

    rates, store, count = {"bare": Rate(1, 10**9)}, shared(), 0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        store.draw(rates, BLOCK)
        count += 1
    return count / 2


def _environment(database_url: str, redis_url: str) -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECRET_KEY": "benchmark",
        "OUTREACH_SECRET_KEYS": Fernet.generate_key().decode(),
        "OUTREACH_LOG_LEVEL": "WARNING",
    }


def measure(rate: int, environment: dict[str, str]) -> dict[str, object]:
    """What four processes used of one bucket."""
    begin_at = time.time() + 3
    command = [sys.executable, "-m", "tests.benchmarks.limits", "--draw", f"bench-{rate}", str(rate), str(begin_at)]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    used = sorted(tuple(pair) for process in processes for pair in json.loads(process.communicate()[0]))
    first = used[0][0] + int(SETTLING * 1e9)
    counted = sum(count for at, count in used if first <= at < first + SECONDS * 10**9)
    return {"used": counted, "ratio": counted / (rate * SECONDS), "worst window": _worst_window(used, rate)}


def _worst_window(used: list[tuple[int, int]], rate: int) -> float:
    """The most that any window held, as a share of what burst + rate * t allows it; above 1 is a broken limit."""
    from delivery.core.throttle import Period, Rate

    limit, worst = Rate.of(rate, Period.SECOND), 0.0
    for begin in range(len(used)):
        total = 0
        for at, count in used[begin:]:
            total += count
            worst = max(worst, total / (limit.burst + (at - used[begin][0]) / limit.interval))
    return worst


# ---- the report ----


def _ask(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "tests.benchmarks.limits", *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", nargs=3, metavar=("KEY", "RATE", "AT"), help="used by the benchmark itself")
    parser.add_argument("--bare", action="store_true", help="used by the benchmark itself")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "outreach.settings")
    django.setup()
    if options.draw:
        key, rate, at = options.draw
        draw_for_a_while(key, int(rate), float(at))
    elif options.bare:
        print(draws_per_second())
    else:
        _report()


def _report() -> None:
    policy = policy_costs()
    print(table(policy), end="\n\n")
    rows, figures = [], {}
    with PostgresServer(fsync=True) as server, RedisServer() as redis:
        database_url = server.create_database("limits")
        stores = {"postgres": _environment(database_url, ""), "redis": _environment(database_url, redis.url)}
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, env=stores["postgres"], check=True)
        for name, environment in stores.items():
            bare = float(_ask(environment, "--bare"))
            for rate in RATES:
                found = measure(rate, environment)
                rows.append({"kept in": name, "limit/s": rate, **found, "bare draws/s": bare})
                figures[f"{name}_{rate}_ratio"] = round(found["ratio"], 4)
                figures[f"{name}_{rate}_worst_window"] = round(found["worst window"], 4)
            figures[f"{name}_draws_per_s"] = round(bare)
    print(table([{k: round(v, 4) if k in ("ratio", "worst window") else v for k, v in row.items()} for row in rows]))
    slowest = max(max(row["decide us"], row["conclude us"]) for row in policy)
    print(closing_line({"policy_us": round(slowest, 2), **figures}))


if __name__ == "__main__":
    main()
