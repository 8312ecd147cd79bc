"""`make bench-simulate`: how long a million deliveries take to simulate, at a high rate and at a low one.

Beside them the physical limit: asyncio alone, with nothing but the sleeps that a million deliveries make, on its own
loop without waiting. The last line is one JSON object.
"""

import argparse
import asyncio
import os
import time

import django

from tests.benchmarks.report import closing_line, peak_rss_mb, table

SCENARIOS = {
    "fast": ("a:rate=5000/s,burst=1000,latency=80ms",),
    "failing over": ("a:rate=1000/s,burst=200,latency=80ms,errors=1%,down=60s-180s", "b:rate=800/s,latency=120ms"),
    "slow": ("a:rate=100/s,burst=20,latency=80ms,errors=1%,down=60s-180s",),
}
SENDERS = 100


def simulated(deliveries: int, vendors: tuple[str, ...]) -> dict[str, float]:
    """Wall-clock seconds for a scenario, and its virtual ones."""
    from delivery.core.script import VendorScript
    from delivery.simulation.run import Scenario, simulate

    scenario = Scenario(deliveries, tuple(map(VendorScript.read, vendors)))
    begun = time.perf_counter()
    result = simulate(scenario)
    if not result.reconciles:
        raise SystemExit(f"The simulation did not do what it measures: {result.tally}")
    return {"seconds": time.perf_counter() - begun, "virtual seconds": result.seconds}


def bare_sleeps(deliveries: int) -> float:
    """Seconds for so many sleeps of a hundred tasks on a virtual loop: what no simulation by asyncio can be under."""
    from delivery.simulation.loop import VirtualLoop

    async def sleeper(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0.08)

    async def all_of_them() -> None:
        await asyncio.gather(*(sleeper(deliveries // SENDERS) for _ in range(SENDERS)))

    begun = time.perf_counter()
    VirtualLoop().run_until_complete(all_of_them())
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=1_000_000)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "outreach.settings")
    django.setup()
    n = options.deliveries
    rows, figures = [], {}
    for name, vendors in SCENARIOS.items():
        found = simulated(n, vendors)
        rows.append({"scenario": name, **found, "us each": found["seconds"] / n * 1e6})
        figures[f"seconds_{name.replace(' ', '_')}"] = round(found["seconds"], 1)
    bare = bare_sleeps(n)
    rows.append(
        {"scenario": "asyncio's sleeps alone", "seconds": bare, "virtual seconds": "", "us each": bare / n * 1e6}
    )
    print(table(rows))
    print(closing_line({"deliveries": n, **figures, "seconds_bare": round(bare, 1), "peak_mb": round(peak_rss_mb())}))


if __name__ == "__main__":
    main()
