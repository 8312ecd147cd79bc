"""`python -m tests.benchmarks.contacts`: how fast contacts are imported and undone, and deliveries exported.

On PostgreSQL, durable: every chunk is on the disk. Of an export also how soon its first octets come, and the most
memory. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

from cryptography.fernet import Fernet

from tests.benchmarks.report import closing_line, peak_rss_mb
from tests.postgres import PostgresServer

CITIES = ("London", "Oslo", "Zürich", "New York", "Łódź")


def file_of(rows: int) -> Iterable[bytes]:
    """A file of contacts, in pieces."""
    yield b"email,name,city,plan,joined\n"
    for first in range(0, rows, 1000):
        lines = (
            f"person-{n}@example{n % 50}.test,Person {n},{CITIES[n % 5]},gold,2026-01-{n % 28 + 1:02}\n"
            for n in range(first, min(first + 1000, rows))
        )
        yield "".join(lines).encode()


def timed(deed: Callable[[], object]) -> float:
    begun = time.perf_counter()
    deed()
    return time.perf_counter() - begun


def contend(rows: int, deliveries: int) -> dict[str, float]:
    """The work, in a process that has Django set up."""
    from django.db import connection

    from campaigns.contacts import states
    from campaigns.contacts.mapping import Mapping
    from campaigns.contacts.uploads import store
    from campaigns.contacts.work import work_on
    from campaigns.exports import tables
    from campaigns.exports.formats import CSV, JSON_LINES
    from campaigns.exports.stream import answer
    from campaigns.models import ContactList
    from delivery.models import Batch, Message, Pool

    found: dict[str, float] = {}
    to = ContactList.objects.create(name="People", slug="people")
    of = store(to, "people.csv", file_of(rows), by="benchmark")
    for name, policy in (("new", "fill"), ("again, unchanged", "overwrite")):
        if name != "new":
            of = store(to, "people.csv", file_of(rows), by="benchmark")
        states.check(of, "benchmark", Mapping.of(of.mapping), policy)
        found[f"checked per s, {name}"] = rows / timed(lambda of=of: work_on(of.pk))
        of.refresh_from_db()
        states.start(of, "benchmark")
        found[f"imported per s, {name}"] = rows / timed(lambda of=of: work_on(of.pk))
        if name == "new":
            first = of
    first.refresh_from_db()
    assert first.counts["new"] == rows, first.counts
    found["peak MB of imports"] = peak_rss_mb()
    found.update(exported("contacts", lambda: answer(tables.contacts(to), CSV, by="benchmark"), rows))
    states.undo(first, "benchmark")
    found["undone per s"] = rows / timed(lambda: work_on(first.pk))

    batch = Batch.objects.create(
        label="b", reference="b", pool=Pool.objects.create(name="p", slug="p"), first_id=1, last_id=deliveries
    )
    message = Message.objects.create(batch=batch, token="t", subject="s", from_address="a@b.test", return_path="")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO delivery_delivery "
            "(batch_id, message_id, address, identity, name, data, state, attempts, code, tried_at, settled_at) "
            "SELECT %s, %s, 'p' || n || '@example.test', 'p' || n || '@example.test', "
            "'Person ' || n, '{}', 'accepted', 1, '250', now(), now() FROM generate_series(1, %s) AS n",
            [batch.pk, message.pk, deliveries],
        )
        cursor.execute("ANALYZE")
    for form in (CSV, JSON_LINES):
        found.update(
            exported(f"deliveries, {form}", lambda form=form: answer(tables.deliveries(), form, by="b"), deliveries)
        )
    found["peak MB"] = peak_rss_mb()
    return found


def exported(name: str, export: Callable[[], object], rows: int) -> dict[str, float]:
    begun = time.perf_counter()
    pieces = iter(export())
    octets = len(next(pieces))
    first = time.perf_counter() - begun
    octets += sum(map(len, pieces))
    return {
        f"first octet of {name}, ms": first * 1000,
        f"exported per s, {name}": rows / (time.perf_counter() - begun),
        f"MB of {name}": octets / 1024**2,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--deliveries", type=int, default=1_000_000)
    parser.add_argument("--contend", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        import django

        django.setup()
        print(json.dumps(contend(options.rows, options.deliveries)))
        return
    with PostgresServer(fsync=True) as server:
        environment = os.environ | {
            "DATABASE_URL": server.create_database("bench"),
            "DJANGO_SETTINGS_MODULE": "outreach.settings",
            "SECRET_KEY": "benchmark",
            "OUTREACH_SECRET_KEYS": Fernet.generate_key().decode(),
            "OUTREACH_LOG_LEVEL": "WARNING",
        }
        subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], env=environment, check=True)
        sizes = ["--rows", str(options.rows), "--deliveries", str(options.deliveries)]
        command = [sys.executable, "-m", "tests.benchmarks.contacts", "--contend", *sizes]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    for name, figure in found.items():
        print(f"{name:<40} {figure:>12,.1f}")
    print(closing_line({name: round(figure, 1) for name, figure in found.items()}))


if __name__ == "__main__":
    main()
