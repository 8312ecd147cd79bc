"""The demo: made-up people, a real run over SMTP, and a Maildir that holds just what was accepted."""

import csv
import io
import mailbox
import os
import subprocess
import sys
from email.header import decode_header, make_header
from pathlib import Path

import pytest
from django.core.management import call_command

from campaigns import demo
from campaigns.models import Step, TemplateVersion, Upload, Workflow
from delivery.models import Engine, EngineLimit, PoolMember, Suppression
from tests.campaigns import cast
from tests.servers import free_port
from tests.sinks import ROOT

ACCEPTED = demo.PEOPLE - len(demo.SUPPRESSED)


def test_the_demo_s_file_is_the_same_every_time_and_has_its_bad_rows():
    rows = list(csv.DictReader(io.StringIO(demo.csv_file().decode())))

    assert demo.csv_file() == demo.csv_file()
    assert demo.csv_file(seed=1) != demo.csv_file()
    assert len(rows) == demo.PEOPLE + len(demo.BAD_ROWS)
    assert len({row["email"] for row in rows}) == len(rows)
    assert {row["language"] for row in rows} == set(demo.NAMES)
    assert [tuple(row.values()) for row in rows if row["name"] == "Written twice"] == [demo.BAD_ROWS[-1]]


@pytest.mark.django_db
def test_the_demo_is_set_up_once_and_later_calls_only_set_the_port():
    first = demo.set_up(2525)
    second = demo.set_up(2526)

    assert first == second
    tables = (Workflow, Step, TemplateVersion, Upload, Engine, EngineLimit, PoolMember)
    assert {table.__name__: table.objects.count() for table in tables} == {table.__name__: 1 for table in tables}
    assert Suppression.objects.count() == len(demo.SUPPRESSED)
    assert Engine.objects.get().options["port"] == 2526


@pytest.mark.django_db
def test_every_person_of_the_demo_can_be_rendered_and_every_bad_row_has_its_reason(output_dir):
    run = cast.initialized(demo.set_up(2525))

    assert (run.state, run.error, run.batch.total) == ("sending", "", demo.PEOPLE)
    assert run.problem_counts == {"no_address": 1, "impossible_address": 3, "duplicate": 1}


@pytest.mark.django_db
def test_preparing_makes_the_data_and_a_user_and_sends_nothing(settings, tmp_path, capsys):
    settings.VAR_DIR = tmp_path

    call_command("demo", "--prepare")
    first = capsys.readouterr().out
    call_command("demo", "--prepare")

    assert capsys.readouterr().out == first
    password = tmp_path / "demo-password"
    assert f"user: demo  password: {password.read_text()}" in first
    assert password.stat().st_mode & 0o777 == 0o600
    assert not Workflow.objects.get(slug=demo.SLUG).runs.exists()


@pytest.fixture
def fresh_installation(request: pytest.FixtureRequest, settings, tmp_path: Path) -> dict[str, str]:
    """The environment of an installation with an empty database of the session's kind, migrated."""
    if request.config.getoption("database") == "postgres":
        url = request.getfixturevalue("postgres_url")
    else:
        url = f"sqlite:///{tmp_path / 'fresh.sqlite3'}"
    environment = {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": settings.SECRET_KEY,
        "OUTREACH_SECRET_KEYS": ",".join(settings.OUTREACH["SECRET_KEYS"]),
        "OUTREACH_VAR_DIR": str(tmp_path / "var"),
        "OUTREACH_OUTPUT_DIR": str(tmp_path / "output"),
        "DATABASE_URL": url,
    }
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(command, cwd=ROOT, env=environment, timeout=60, check=True)
    return environment


def test_the_demo_runs_from_nothing_and_the_maildir_holds_exactly_the_accepted_mails(fresh_installation, tmp_path):
    process = subprocess.run(
        [sys.executable, "manage.py", "demo", "--port", str(free_port())],
        cwd=ROOT,
        env=fresh_installation,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert (process.returncode, process.stderr) == (0, "")
    said = " ".join(process.stdout.split())
    assert f"{ACCEPTED:,} accepted" in said
    assert f"{len(demo.SUPPRESSED)} suppressed" in said
    assert f"{demo.PEOPLE:,} in all every recipient is accounted for" in said
    assert "What next:" in said
    mails = list(mailbox.Maildir(tmp_path / "var" / "demo-mail", create=False))
    suppressed = {demo.address(number) for number in demo.SUPPRESSED}
    everybody = {demo.address(number) for number in range(1, demo.PEOPLE + 1)}
    assert len(mails) == ACCEPTED
    assert {mail["X-RcptTo"] for mail in mails} == everybody - suppressed
    assert len({mail["Message-ID"] for mail in mails}) == ACCEPTED
    subjects = " ".join(str(make_header(decode_header(mail["Subject"]))) for mail in mails[:100])
    assert all(
        words in subjects for words in ("your garden in spring 🌱", "Ihr Garten im Frühling 🌱", "春のお庭だより")
    )
