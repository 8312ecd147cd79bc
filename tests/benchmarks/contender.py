"""Outreach as a contender of the benchmark: one process sets a workflow up and runs it, measured from inside.

`python -m tests.benchmarks.contender PORT RECIPIENTS` with DATABASE_URL of a migrated, empty database; prints one JSON
line.
"""

import argparse
import csv
import io
import json
import os
import random
import resource
import time
from collections.abc import Iterator

from tests.benchmarks import mix
from tests.benchmarks.report import peak_rss_mb

ROWS_AT_ONCE = 5000
MOST_PREDECESSORS = 4
SEED = 20261124


def csv_chunks(recipients: int, graph: bool = False) -> Iterator[bytes]:
    """The audience as a CSV file, piece by piece. In a graph each depends on up to MOST_PREDECESSORS earlier ones."""
    rng = random.Random(SEED)
    for first in range(0, recipients, ROWS_AT_ONCE):
        text = io.StringIO()
        writer = csv.writer(text)
        if not first:
            writer.writerow(("email", "name", "city", "code", "id", "after"))
        for i in range(first, min(recipients, first + ROWS_AT_ONCE)):
            address, variables = mix.recipient(i)
            after = {rng.randrange(i) for _ in range(rng.randint(0, MOST_PREDECESSORS))} if graph and i else set()
            links = (f"n{i}", ",".join(f"n{j}" for j in sorted(after)))
            writer.writerow((address, *(variables[name] for name in ("name", "city", "code")), *links))
        yield text.getvalue().encode()


def set_up(port: int, recipients: int, *, steps: int = 1, graph: bool = False, at_once: bool = False):
    """A workflow that sends the mix to an SMTP sink, and a queued run of it. Each of several steps follows the one
    before. `at_once`: only the first thousand are checked beforehand."""
    from campaigns.audiences.stored import store_upload
    from campaigns.authoring import save_version
    from campaigns.launch import launch
    from campaigns.models import Audience, AudienceKind, Start, Step, Template, Trigger, Workflow
    from delivery.models import Engine, Pool, PoolMember

    options = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "max_connections": 10,
        "max_messages_per_connection": 0,
    }
    engine = Engine.objects.create(name="sink", slug="sink", kind="smtp", options=options)
    pool = Pool.objects.create(name="sink", slug="sink")
    PoolMember.objects.create(pool=pool, engine=engine)
    links = {"key_field": "id", "depends_field": "after"} if graph else {}
    audience = Audience.objects.create(name="mix", slug="mix", kind=AudienceKind.CSV, **links)
    store_upload(audience, "mix.csv", csv_chunks(recipients, graph))
    template = Template.objects.create(name="mix", slug="mix")
    save_version(template, subject=mix.SUBJECT, text=mix.TEXT, html=mix.HTML)
    workflow = Workflow.objects.create(
        name="mix",
        slug="mix",
        audience=audience,
        pool=pool,
        from_name="Käthe Größer",
        from_address="news@outreach.example",
        start=Start.AT_ONCE if at_once else Start.CHECKED,
    )
    for position in range(1, steps + 1):
        after = str(position - 1) if position > 1 else ""
        Step.objects.create(workflow=workflow, template=template, position=position, after=after)
    return launch(workflow, trigger=Trigger.COMMAND, here=True)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "outreach.settings")
    import django

    django.setup()
    from campaigns.initialize import initialize
    from campaigns.work import pump

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("recipients", type=int)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--graph", action="store_true", help="recipients depend on each other")
    parser.add_argument("--at-once", action="store_true", help="only the first thousand are checked beforehand")
    parser.add_argument("--only-prepare", action="store_true")
    options = parser.parse_args()
    run = set_up(options.port, options.recipients, steps=options.steps, graph=options.graph, at_once=options.at_once)
    begun = time.monotonic()
    initialize(run.pk)
    prepared = time.monotonic() - begun
    run.refresh_from_db()
    cpu, begun = cpu_seconds(), time.monotonic()
    if not options.only_prepare:
        pump(run.batch_id)
    seconds = time.monotonic() - begun
    cpu = cpu_seconds() - cpu
    run.refresh_from_db()
    print(
        json.dumps(
            {
                "state": run.state,
                "counts": {end: n for end, n in run.counts.items() if n},
                "error": run.error,
                "prepare_s": round(prepared, 2),
                "seconds": round(seconds, 2),
                "cpu_seconds": round(cpu, 2),
                "peak_mb": round(peak_rss_mb(), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
