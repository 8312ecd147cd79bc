"""`make bench-sequence`: what order costs. On PostgreSQL, durable, into one SMTP sink:

* a run of 5 steps against a run of one step with as many mails (both prepared and sent);
* the preparation of a run of 1,000,000 recipients and 5 steps: its planning alone (it starts at once), and with every
  recipient's first mail made beforehand;
* recipients that depend on each other (a random graph) against the same recipients in any order.

The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys

from cryptography.fernet import Fernet

from tests.benchmarks.report import closing_line, table
from tests.benchmarks.smtp_sink import SmtpSink
from tests.postgres import PostgresServer

STEPS = 5


class Bench:
    """Runs of Outreach, each in a process and on an empty database of its own."""

    def __init__(self, sink: SmtpSink, server: PostgresServer) -> None:
        self._sink = sink
        self._server = server
        self._runs = 0

    def run(self, recipients: int, *options: str) -> dict:
        self._runs += 1
        environment = os.environ | {
            "DATABASE_URL": self._server.create_database(f"bench{self._runs}"),
            "SECRET_KEY": "benchmark",
            "OUTREACH_SECRET_KEYS": Fernet.generate_key().decode(),
            "OUTREACH_LOG_LEVEL": "WARNING",
        }
        subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], env=environment, check=True)
        command = [sys.executable, "-m", "tests.benchmarks.contender", str(self._sink.port), str(recipients), *options]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)


def each(result: dict, mails: int) -> float:
    """Microseconds for each mail, prepared and sent."""
    if result["state"] != "completed" or result["counts"] != {"accepted": mails}:
        raise SystemExit(f"The run did not do what it measures: {result}")
    return (result["prepare_s"] + result["seconds"]) / mails * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipients", type=int, default=20_000, help="of the run of several steps")
    parser.add_argument("--planned", type=int, default=1_000_000, help="recipients of the run that is only prepared")
    parser.add_argument("--graph", type=int, default=100_000, help="recipients that depend on each other")
    parser.add_argument("--rounds", type=int, default=2, help="of each pair, one after the other")
    options = parser.parse_args()
    mails = options.recipients * STEPS
    found: dict[str, list[float]] = {"one step": [], f"{STEPS} steps": [], "any order": [], "graph": []}
    with SmtpSink() as sink, PostgresServer(fsync=True) as server:
        bench = Bench(sink, server)
        for _ in range(options.rounds):
            found["one step"].append(each(bench.run(mails), mails))
            found[f"{STEPS} steps"].append(each(bench.run(options.recipients, f"--steps={STEPS}"), mails))
            found["any order"].append(each(bench.run(options.graph), options.graph))
            found["graph"].append(each(bench.run(options.graph, "--graph"), options.graph))
        plan = (options.planned, f"--steps={STEPS}", "--only-prepare")
        planned, checked = (bench.run(*plan, "--at-once"), bench.run(*plan)) if options.planned else ({}, {})
    print(table([{"run": name, "us each": min(costs)} for name, costs in found.items()]))
    print(
        closing_line(
            {
                "us_each": {name: round(min(costs)) for name, costs in found.items()},
                "steps_cost_ratio": round(min(found[f"{STEPS} steps"]) / min(found["one step"]), 3),
                "graph_speed_ratio": round(min(found["any order"]) / min(found["graph"]), 3),
                "planned_recipients": options.planned,
                "planned_s": planned.get("prepare_s"),
                "planned_and_checked_s": checked.get("prepare_s"),
                "planned_peak_mb": planned.get("peak_mb"),
            }
        )
    )


if __name__ == "__main__":
    main()
