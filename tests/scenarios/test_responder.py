"""The example `manage.py responder`, as a process on a database of its own, against an endpoint that grades it.

Deadlines are real, so these tests take as long as the emails give them: half a minute each.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests import postgres
from tests.grading_server import FEW, KEY, Email, Grade, GradingServer, dependents, inbox, waits
from tests.sinks import ROOT

EMAILS = 100
REFUSED = 5
TROUBLED = 12
HOP = 0.5  # seconds from one answer to that which waited for it, on a busy machine
PATIENCE = 120.0
NOISE = 0.4  # seconds of a busy machine, beyond what a wait may be


@pytest.fixture(scope="module")
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of an installation with a migrated database of the session's kind. All tests here use it: the
    example is set up once, and every run is a run of its own."""
    folder = tmp_path_factory.mktemp("responder")
    with contextlib.ExitStack() as stack:
        if request.config.getoption("database") == "postgres":
            server, name = request.getfixturevalue("postgres_server_url"), f"responder_{uuid.uuid4().hex}"
            url = postgres.create_database(server, name)
            stack.callback(postgres.drop_database, server, name)
        else:
            url = f"sqlite:///{folder / 'responder.sqlite3'}"
        environment = os.environ | {
            "DATABASE_URL": url,
            "OUTREACH_VAR_DIR": str(folder / "var"),
            "OUTREACH_OUTPUT_DIR": str(folder / "output"),
            "OUTREACH_ALLOWED_NETWORKS": "127.0.0.1",
            "RESPONDER_API_KEY": KEY,
            "REDIS_URL": "",
        }
        command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(command, cwd=ROOT, env=environment, timeout=PATIENCE, check=True)
        yield environment


def responder(environment: dict[str, str], server: GradingServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, once it has ended."""
    return subprocess.run(
        [sys.executable, "manage.py", "responder", "--url", server.url, "--test-flag", "--json", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def responded(environment: dict[str, str], server: GradingServer, *arguments: str) -> dict[str, int]:
    """Runs the command to its end. The counts of a run that completed, but for what there is none of."""
    process = responder(environment, server, *arguments)
    assert (process.returncode, process.stderr) == (0, ""), process.stdout
    report = json.loads(process.stdout)
    assert (report["state"], report["error"], report["problems"]) == ("completed", "", {})
    assert report["total"] == sum(report["counts"].values()) == len(server.emails)
    return {end: count for end, count in report["counts"].items() if count}


def unrelated(emails: list[Email], count: int, rng: random.Random) -> list[str]:
    """So many ids of which none depends on another, and on which few depend, but some."""
    after = dependents(emails)
    chosen: list[str] = []
    for name in sorted(rng.sample(sorted(after), len(after)), key=lambda name: not 0 < len(after[name]) <= FEW):
        if not any(name in after[other] or other in after[name] for other in chosen):
            chosen.append(name)
    assert len(chosen) >= count
    return chosen[:count]


def behind(emails: list[Email], names: list[str]) -> set[str]:
    """All that depend on one of these, however many steps away."""
    after = dependents(emails)
    return set().union(*(after[name] for name in names))


def test_every_answer_lands_in_the_last_half_second_before_its_deadline_and_in_its_order(environment, rng):
    emails = inbox(EMAILS, rng)
    refused = unrelated(emails, REFUSED, rng)
    skipped = behind(emails, refused)
    statuses = {name: (rng.choice((400, 404, 409, 422)),) for name in refused}

    with GradingServer(emails, answers=statuses) as server:
        counts = responded(environment, server, "--lead", "0.5")

    accepted = EMAILS - REFUSED - len(skipped)
    assert server.grade(earliest=0.6) == Grade(
        EMAILS, accepted, rejected=tuple(sorted(refused)), skipped=tuple(sorted(skipped))
    )
    wanted = {"accepted": accepted, "rejected": REFUSED, "skipped": len(skipped)}
    assert counts == {end: count for end, count in wanted.items() if count}
    subjects = {email.id: email.subject for email in emails}
    for post in server.posts:  # each by the model, and to the point
        assert "(Composed for: Answer this email" in post.body
        assert f"Subject: {subjects[post.id]}" in post.body


def test_a_chain_with_one_deadline_is_answered_link_by_link_without_dawdling(environment):
    chains, links = 10, 8
    emails = [
        Email(f"{chain}-{link}", due=10.0, after=(f"{chain}-{link - 1}",) if link else ())
        for chain in range(chains)
        for link in range(links)
    ]
    emails = [replace(email, written=", ".join(email.after)) for email in emails]

    with GradingServer(emails) as server:
        counts = responded(environment, server, "--lead", str(links * HOP))

    assert server.grade(earliest=links * HOP + 0.1) == Grade(len(emails), len(emails))
    assert counts == {"accepted": len(emails)}


def test_trouble_is_waited_out_longer_each_time_and_a_refusal_is_final_and_everything_is_in_time(environment, rng):
    emails = inbox(EMAILS, rng, first=13.0)
    *troubled, a, b, c = unrelated(emails, TROUBLED + 3, rng)
    statuses = {name: rng.choice([(500,), (503,), (500, 503)]) for name in troubled}
    statuses |= dict.fromkeys((a, b, c), (422,))

    with GradingServer(emails, answers=statuses) as server:
        counts = responded(environment, server, "--lead", "5", "--on-failed", "release")

    assert server.grade(earliest=5.1, release=True) == Grade(EMAILS, EMAILS - 3, rejected=tuple(sorted((a, b, c))))
    assert counts == {"accepted": EMAILS - 3, "rejected": 3}
    waited = waits(server.posts)
    assert {name: len(seconds) for name, seconds in waited.items()} == {name: len(statuses[name]) for name in troubled}
    first = [seconds[0] for seconds in waited.values()]
    second = [seconds[1] for seconds in waited.values() if len(seconds) == 2]
    assert all(0.8 <= seconds <= 1.2 + NOISE for seconds in first)
    assert all(1.6 <= seconds <= 2.4 + NOISE for seconds in second)
    assert max(first) - min(first) > 0.1, "no jitter to be seen"


def test_what_cannot_be_in_time_expires_unsent_and_is_counted_and_what_depends_on_it_is_skipped(environment, rng):
    emails = inbox(30, rng, first=6.0, spread=4.0)
    hopeless = unrelated(emails, 4, rng)
    skipped = behind(emails, hopeless)
    emails = [replace(email, due=rng.choice((-3600.0, -0.1))) if email.id in hopeless else email for email in emails]

    with GradingServer(emails) as server:
        counts = responded(environment, server)

    lost = {*hopeless, *skipped}
    assert server.grade() == Grade(30, 30 - len(lost), missing=tuple(sorted(lost)))
    assert {post.id for post in server.posts}.isdisjoint(lost)
    wanted = {"accepted": 30 - len(lost), "expired": len(hopeless), "skipped": len(skipped)}
    assert counts == {end: count for end, count in wanted.items() if count}


def test_a_wrong_key_reads_nothing_and_says_so(environment, rng):
    with GradingServer(inbox(3, rng)) as server:
        process = responder(environment | {"RESPONDER_API_KEY": "another"}, server)

    report = json.loads(process.stdout)
    assert (process.returncode, report["state"], server.posts) == (1, "failed", [])
    assert "401" in report["error"]
    assert "another" not in process.stdout + process.stderr
