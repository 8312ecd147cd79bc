"""Outreach as a contender of the benchmark: one process sets a workflow up and runs it, measured from inside.

`python -m tests.benchmarks.contender PORT MESSAGES` with DATABASE_URL of a migrated, empty database; prints one JSON
line.
"""

import csv
import io
import json
import os
import resource
import sys
import time
from collections.abc import Iterator

from tests.benchmarks import mix
from tests.benchmarks.report import peak_rss_mb

ROWS_AT_ONCE = 5000


def csv_chunks(messages: int) -> Iterator[bytes]:
    """The audience as a CSV file, piece by piece."""
    for first in range(0, messages, ROWS_AT_ONCE):
        text = io.StringIO()
        writer = csv.writer(text)
        if not first:
            writer.writerow(("email", "name", "city", "code"))
        for i in range(first, min(messages, first + ROWS_AT_ONCE)):
            address, variables = mix.recipient(i)
            writer.writerow((address, *(variables[name] for name in ("name", "city", "code"))))
        yield text.getvalue().encode()


def set_up(port: int, messages: int):
    """A workflow that sends the mix to an SMTP sink, and a queued run of it."""
    from campaigns.audiences.stored import store_upload
    from campaigns.authoring import save_version
    from campaigns.launch import launch
    from campaigns.models import Audience, AudienceKind, Step, Template, Trigger, Workflow
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
    audience = Audience.objects.create(name="mix", slug="mix", kind=AudienceKind.CSV)
    store_upload(audience, "mix.csv", csv_chunks(messages))
    template = Template.objects.create(name="mix", slug="mix")
    save_version(template, subject=mix.SUBJECT, text=mix.TEXT, html=mix.HTML)
    workflow = Workflow.objects.create(
        name="mix",
        slug="mix",
        audience=audience,
        pool=pool,
        from_name="Käthe Größer",
        from_address="news@outreach.example",
    )
    Step.objects.create(workflow=workflow, template=template)
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

    port, messages = int(sys.argv[1]), int(sys.argv[2])
    run = set_up(port, messages)
    begun = time.monotonic()
    initialize(run.pk)
    prepared = time.monotonic() - begun
    run.refresh_from_db()
    cpu, begun = cpu_seconds(), time.monotonic()
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
