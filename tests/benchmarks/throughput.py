"""`make bench`: how many deliveries a second one process makes, and what others make of the same mails.

On one machine, one after the other, into the same SMTP sink: Outreach on SQLite and on PostgreSQL (both durable: every
commit is on the disk), Postfix's smtp-source (the limit: it composes nothing and records nothing), Django's SMTP
backend on one kept connection, django-post_office. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

from cryptography.fernet import Fernet

from tests.benchmarks.report import closing_line, table
from tests.benchmarks.rivals import Result, django_smtp, post_office
from tests.benchmarks.smtp_sink import SmtpSink, smtp_source
from tests.postgres import PostgresServer

SOURCE_SIZE = 8_500  # octets of the mix as a mail
SESSIONS = 10  # as many as the contender's connections


def outreach(port: int, messages: int, database_url: str) -> dict:
    """One run of Outreach in a process of its own, on an empty database."""
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "SECRET_KEY": "benchmark",
        "OUTREACH_SECRET_KEYS": Fernet.generate_key().decode(),
        "OUTREACH_LOG_LEVEL": "WARNING",
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], env=environment, check=True)
    command = [sys.executable, "-m", "tests.benchmarks.contender", str(port), str(messages)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    if result["state"] != "completed" or result["counts"] != {"accepted": messages}:
        raise SystemExit(f"The run did not do what it measures: {result}")
    return result


def _row(name: str, messages: int, result: dict) -> dict[str, object]:
    return {
        "sender": name,
        "messages": messages,
        "per second": messages / result["seconds"],
        "CPU us each": result["cpu_seconds"] / messages * 1e6,
        "peak MB": result["peak_mb"],
        "prepared per second": messages / result["prepare_s"],
    }


def _rival_row(name: str, result: Result) -> dict[str, object]:
    return {
        "sender": name,
        "messages": result.messages,
        "per second": result.per_second,
        "CPU us each": result.cpu_seconds / result.messages * 1e6,
        "peak MB": result.peak_mb,
        "prepared per second": "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000, help="for Outreach and smtp-source")
    parser.add_argument("--rival-messages", type=int, default=3_000)
    parser.add_argument("--only", choices=("sqlite", "postgres"), help="only Outreach on that database, no rivals")
    options = parser.parse_args()
    n = options.messages
    rows, figures = [], {}
    with SmtpSink() as sink, PostgresServer(fsync=True) as server, tempfile.TemporaryDirectory() as directory:
        urls = {"sqlite": f"sqlite:///{directory}/bench.sqlite3", "postgres": server.create_database("bench")}
        for name, url in urls.items():
            if options.only in (None, name):
                result = outreach(sink.port, n, url)
                rows.append(_row(f"Outreach, {name}", n, result))
                figures[name] = result
        if options.only is None:
            source = n / smtp_source(sink.port, n, sessions=SESSIONS, size=SOURCE_SIZE)
            rows.append({"sender": "smtp-source", "messages": n, "per second": source})
            rivals = {
                "Django's SMTP backend": django_smtp(sink.port, options.rival_messages),
                "django-post_office": post_office(sink.port, options.rival_messages, server.create_database("office")),
            }
            rows += [_rival_row(name, result) for name, result in rivals.items()]
    columns = list(_row("", 1, {"seconds": 1, "cpu_seconds": 0, "peak_mb": 0, "prepare_s": 1}))
    print(table([{column: row.get(column, "") for column in columns} for row in rows]))
    print(_closing(n, figures, rows))


def _closing(n: int, figures: dict[str, dict], rows: list[dict[str, object]]) -> str:
    best = figures.get("postgres") or figures["sqlite"]
    rate = n / best["seconds"]
    speed = {row["sender"]: row["per second"] for row in rows}
    ratios = {
        f"ratio_{name}": round(rate / speed[sender], 3)
        for name, sender in (
            ("smtp_source", "smtp-source"),
            ("django_smtp", "Django's SMTP backend"),
            ("post_office", "django-post_office"),
        )
        if sender in speed
    }
    return closing_line(
        {
            "messages": n,
            "deliveries_per_s": round(rate),
            **{f"deliveries_per_s_{name}": round(n / result["seconds"]) for name, result in figures.items()},
            **ratios,
            "cpu_us_per_delivery": round(best["cpu_seconds"] / n * 1e6),
            "peak_mb": best["peak_mb"],
        }
    )


if __name__ == "__main__":
    main()
