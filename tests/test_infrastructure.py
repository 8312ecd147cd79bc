"""The servers, options and fixtures that the other tests rely on, tried on purpose."""

import os
import re
import select
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path
from random import Random

import psycopg
import pytest

from tests import postgres
from tests.benchmarks.mix import mix
from tests.benchmarks.report import TreeMeter, table
from tests.postgres import PostgresServer
from tests.recording_sink import Behaviour, Connection, Sink
from tests.servers import ServerDidNotStart
from tests.sinks import ROOT, RecordingSink

SENDER = "sender@example.test"
RECIPIENT = "recipient@example.test"


def message(message_id: str) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = SENDER, RECIPIENT, "Größe"
    made["Message-ID"] = f"<{message_id}>"
    made.set_content("Message-ID: <not-a-header@example.test>\n.\n..\nend\n")
    return made


def client_of(sink: RecordingSink) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", sink.port, timeout=10)


def waiting_for_its_last_reply(sink: RecordingSink, message_id: str) -> socket.socket:
    """A client that has sent a whole message in one go and has read nothing yet."""
    connection = socket.create_connection(("127.0.0.1", sink.port), 10)
    commands = f"EHLO c\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n"
    connection.sendall(f"{commands}Message-ID: <{message_id}>\r\n\r\nbody\r\n.\r\n".encode())
    return connection


def test_the_sink_notes_down_every_message_with_its_envelope_and_connection():
    with RecordingSink() as sink:
        with client_of(sink) as first:
            first.send_message(message("1@example.test"))
            first.send_message(message("2@example.test"), to_addrs=["a@example.test", "b@example.test"])
        with client_of(sink) as second:
            second.send_message(message("1@example.test"))

        received = sink.received()

    assert [(m.message_id, m.sender, m.recipients, m.connection) for m in received] == [
        ("1@example.test", SENDER, (RECIPIENT,), 1),
        ("2@example.test", SENDER, ("a@example.test", "b@example.test"), 1),
        ("1@example.test", SENDER, (RECIPIENT,), 2),
    ]
    assert sorted(received, key=lambda m: m.at_ns) == received


def test_the_sink_counts_a_message_that_came_twice():
    with RecordingSink() as sink, client_of(sink) as client:
        for message_id in ("1@example.test", "2@example.test", "1@example.test"):
            client.send_message(message(message_id))

        assert sink.counts_by_message_id() == {"1@example.test": 2, "2@example.test": 1}


class Wire:
    """The client's end of a connection: notes what is written, and how many lines the log had at that moment."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.written: list[tuple[bytes, int]] = []

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return False

    def write(self, reply: bytes) -> None:
        self.written.append((reply, len(self.log.read_text().splitlines())))


def test_a_message_is_in_the_log_before_its_answer_is_written(tmp_path):
    wire = Wire(tmp_path / "log")
    log = os.open(wire.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    connection = Connection(Sink(Behaviour(), log))
    connection.connection_made(wire)
    connection.data_received(f"HELO c\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode())

    connection.data_received(b"Message-ID: <1@example.test>\r\n\r\nbody\r\n.\r\n")
    os.close(log)

    assert [lines for _, lines in wire.written] == [0, 0, 1]
    assert wire.written[-1] == (b"250 2.0.0 noted down\r\n", 1)


def test_a_message_whose_client_was_gone_before_the_answer_survives_the_death_of_the_sink():
    never = 3600.0
    with RecordingSink(Behaviour(latency=never)) as sink:
        waiting_for_its_last_reply(sink, "orphan@example.test").close()
        sink.wait_for(1)
        os.kill(sink.pid, signal.SIGKILL)
        sink.stop()
        sink.start()

        assert sink.counts_by_message_id() == {"orphan@example.test": 1}


def test_commands_that_come_together_are_answered_in_order():
    with RecordingSink() as sink:
        connection = waiting_for_its_last_reply(sink, "pipelined@example.test")
        connection.sendall(b"NOOP\r\nWHAT\r\nQUIT\r\n")
        with connection.makefile("rb") as replies:
            codes = [line[:4].decode() for line in replies]

    extensions = ["250-"] * 5 + ["250 "]
    assert codes == ["220 ", *extensions, "250 ", "250 ", "354 ", "250 ", "250 ", "500 ", "221 "]


def test_a_content_that_arrives_byte_by_byte_ends_at_its_dot():
    with RecordingSink() as sink, socket.create_connection(("127.0.0.1", sink.port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        dialogue = f"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n.\r\nMAIL FROM:<{SENDER}>\r\n"
        dialogue += f"RCPT TO:<{RECIPIENT}>\r\nDATA\r\nMessage-ID: <2@example.test>\r\n\r\n..\r\n.x\r\n.\r\n"
        for position in range(len(dialogue)):
            connection.sendall(dialogue[position : position + 1].encode())

        received = sink.wait_for(2)

    assert [(m.sender, m.message_id) for m in received] == [("", ""), (SENDER, "2@example.test")]


def test_a_drop_after_the_dot_is_an_accepted_message_without_an_answer():
    with RecordingSink(Behaviour(drop_after_dot=1.0)) as sink, client_of(sink) as client:
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.send_message(message("1@example.test"))

        assert sink.counts_by_message_id() == {"1@example.test": 1}


def test_a_drop_before_the_dot_is_no_message():
    with RecordingSink(Behaviour(drop_before_dot=1.0)) as sink, client_of(sink) as client:
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
            client.send_message(message("1@example.test"))

        assert sink.received() == []


def test_a_refusal_for_now_is_no_message_and_the_connection_goes_on():
    with RecordingSink(Behaviour(tempfail=1.0)) as sink, client_of(sink) as client:
        for _ in range(2):
            with pytest.raises(smtplib.SMTPDataError) as refused:
                client.send_message(message("1@example.test"))
            assert refused.value.smtp_code == 451

        assert sink.received() == []


def test_a_recipient_is_refused_by_pattern():
    with RecordingSink(Behaviour(refuse_recipient="*@dead.test")) as sink, client_of(sink) as client:
        refused = client.send_message(message("1@example.test"), to_addrs=["a@dead.test", "a@alive.test"])

        assert refused == {"a@dead.test": (550, b"5.1.1 no such mailbox")}
        assert [m.recipients for m in sink.received()] == [("a@alive.test",)]


def test_by_rate_an_address_is_refused_always_or_never():
    behaviour = Behaviour(refuse_recipient="0.3", seed=1)
    addresses = [f"person{i}@example.test" for i in range(10_000)]

    refused = [address for address in addresses if behaviour.refuses(address)]

    assert refused == [address for address in addresses if behaviour.refuses(address)]
    assert 2_800 < len(refused) < 3_200


def test_an_address_beyond_ascii_arrives_whole():
    with RecordingSink() as sink, client_of(sink) as client:
        client.ehlo()
        client.mail(SENDER, ["SMTPUTF8"])
        client.rcpt("jürgen@exämple.test")
        client.data(b"Message-ID: <1@example.test>\r\n\r\n")

        assert [m.recipients for m in sink.received()] == [("jürgen@exämple.test",)]


def test_waiting_for_more_than_comes_ends_with_both_numbers():
    with RecordingSink() as sink, pytest.raises(TimeoutError, match="0 of 1 messages"):
        sink.wait_for(1, timeout=0.05)


@pytest.mark.postgres
def test_what_was_committed_survives_a_restart_and_a_kill_at_the_same_url():
    with PostgresServer(fsync=False) as server:
        url = server.create_database("survivor")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE note (words text)")
        server.restart()
        open_backend = psycopg.connect(url)
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO note VALUES ('before the crash')")

        server.kill()

        with pytest.raises(psycopg.OperationalError):
            open_backend.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        server.restart()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT words FROM note").fetchall() == [("before the crash",)]


@pytest.mark.postgres
def test_a_server_leaves_neither_process_nor_directory_after_an_exception():
    server = PostgresServer(fsync=False)

    def fail_while_it_runs() -> None:
        with server:
            left_over.extend([Path(f"/proc/{server.pid}"), server.socket_directory])
            raise ZeroDivisionError

    left_over = []
    with pytest.raises(ZeroDivisionError):
        fail_while_it_runs()

    assert [path.exists() for path in left_over] == [False, False]


@pytest.mark.postgres
def test_a_server_that_cannot_start_says_why_and_leaves_nothing():
    server = PostgresServer(fsync=False, settings={"max_connections": "none"})

    with pytest.raises(ServerDidNotStart, match="max_connections"):
        server.__enter__()

    assert server.socket_directory is None


@pytest.mark.postgres
def test_a_server_dies_with_a_parent_that_is_killed():
    program = """
import time
from tests.postgres import PostgresServer
server = PostgresServer(fsync=False).__enter__()
print(server.pid, server.socket_directory, flush=True)
time.sleep(3600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid, directory = parent.stdout.readline().split()
    watch = os.pidfd_open(int(pid))

    parent.kill()
    parent.wait()

    # A pidfd becomes readable when its process ends.
    ended, _, _ = select.select([watch], [], [], 20)
    os.close(watch)
    assert ended
    shutil.rmtree(directory)


@pytest.mark.postgres
def test_every_test_gets_an_empty_database_of_its_own(postgres_url, postgres_server_url):
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()

    assert tables == (0,)
    assert postgres_url != postgres_server_url


def test_no_postgresql_is_a_reason_that_names_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv(postgres.BINDIR_VARIABLE, str(tmp_path))

    assert postgres.missing() == (
        f"PostgreSQL is missing: no initdb and postgres in {tmp_path} (apt-get install postgresql)"
    )


def pytest_run(tests: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    """A pytest session of its own over one file, with this repository's conftest and without Django."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CI"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:django", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tests.parent), str(tests), *options]
    return subprocess.run(command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=False)


def outcomes(run: subprocess.CompletedProcess) -> dict[str, int]:
    """The counts of pytest's last line."""
    last = run.stdout.strip().splitlines()[-1]
    return {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)}


@pytest.fixture
def a_few_tests(tmp_path) -> Path:
    path = tmp_path / "test_few.py"
    path.write_text(
        "import os, pytest\n"
        "def test_plain(): assert os.environ['DATABASE_URL'].startswith('sqlite')\n"
        "@pytest.mark.postgres\n"
        "def test_marked(): pass\n"
        "def test_by_fixture(postgres_url): pass\n"
    )
    return path


def test_without_postgresql_what_needs_it_is_skipped_with_the_reason(a_few_tests, tmp_path):
    run = pytest_run(a_few_tests, **{postgres.BINDIR_VARIABLE: str(tmp_path)})

    assert run.returncode == 0
    assert outcomes(run) == {"passed": 1, "skipped": 2}
    assert "PostgreSQL is missing" in run.stdout


def test_without_postgresql_what_needs_it_is_an_error_in_ci(a_few_tests, tmp_path):
    run = pytest_run(a_few_tests, CI="true", **{postgres.BINDIR_VARIABLE: str(tmp_path)})

    assert run.returncode == 1
    assert outcomes(run) == {"passed": 1, "errors": 2}


def test_without_postgresql_a_session_on_it_skips_every_test_and_says_so(a_few_tests, tmp_path):
    run = pytest_run(a_few_tests, "--database=postgres", **{postgres.BINDIR_VARIABLE: str(tmp_path)})

    assert run.returncode == 0
    assert outcomes(run) == {"skipped": 3}
    assert "every test is skipped: PostgreSQL is missing" in run.stdout


def test_without_postgresql_a_session_on_it_is_an_error_in_ci(a_few_tests, tmp_path):
    run = pytest_run(a_few_tests, "--database=postgres", CI="true", **{postgres.BINDIR_VARIABLE: str(tmp_path)})

    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "PostgreSQL is missing" in run.stderr


@pytest.mark.postgres
def test_a_session_on_postgresql_gives_its_workers_one_server(tmp_path):
    tests = tmp_path / "test_few.py"
    tests.write_text(
        "import os, pytest\n"
        "@pytest.mark.parametrize('i', range(4))\n"
        "def test_url(i, postgres_server_url):\n"
        "    session = os.environ['DATABASE_URL']\n"
        "    assert session.rpartition('/')[0] == postgres_server_url.rpartition('/')[0]\n"
    )

    run = pytest_run(tests, "--database=postgres", "-n", "2")

    assert run.returncode == 0, run.stdout
    assert outcomes(run) == {"passed": 4}


def test_a_failing_random_test_prints_the_seed_that_replays_it(tmp_path):
    tests = tmp_path / "test_few.py"
    tests.write_text("def test_random(rng): assert rng.random() < 0, rng.random()\n")

    first = pytest_run(tests, "--seed=20240229")
    again = pytest_run(tests, "--seed=20240229", "-n", "1")

    assert "20240229 (to replay: --seed 20240229)" in first.stdout.partition("FAILURES")[2]
    drawn = re.findall(r"AssertionError: (0\.\d+)", first.stdout)
    assert drawn
    assert drawn == re.findall(r"AssertionError: (0\.\d+)", again.stdout)


def test_the_generator_depends_on_the_seed_and_the_test(seed, rng, request):
    assert rng.random() == Random(f"{seed} {request.node.nodeid}").random()


def test_a_table_has_text_to_the_left_and_numbers_to_the_right():
    rows = [
        {"sender": "ours", "messages": 12_000, "per second": 3_512.26},
        {"sender": "b", "messages": 7, "per second": 0.5},
    ]

    assert table(rows).splitlines() == [
        "sender  messages  per second",
        "------  --------  ----------",
        "ours      12,000     3,512.3",
        "b              7         0.5",
    ]


def test_the_meter_sees_the_time_of_children_that_have_ended_and_the_memory_of_those_that_live():
    spend = "import time\nwhile time.process_time() < 0.4: pass"
    hold = "kept = b'x' * 60_000_000; print('held', flush=True); input()"
    program = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {spend!r}])
subprocess.run([sys.executable, "-c", {hold!r}])
"""
    root = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with TreeMeter(root.pid, interval=3600) as meter:
        assert root.stdout.readline() == b"held\n"
    root.communicate(b"\n")

    assert 0.4 <= meter.cpu_seconds < 2
    assert 60 < meter.peak_pss_mb <= meter.peak_rss_mb < 200


def test_the_mails_of_the_benchmarks_are_different_and_of_the_size_that_is_claimed():
    mails = [mix(i) for i in range(1_000)]

    assert len({address for address, *_ in mails}) == 1_000
    assert all(4_500 < len(html.encode()) < 5_500 for *_, html in mails)
    assert not any("{{" in "".join(mail) for mail in mails)
