"""A PostgreSQL server of the tests' own, in a temporary directory, gone when they are done.

Decides where the programs are found and how the server is set up. Knows nothing of Django or pytest. A parent that is
killed with -9 takes the server along, but leaves its directory in the temporary folder.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from ipaddress import ip_interface
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from tests.servers import (
    ServerDidNotStart,
    dying_with_parent,
    end,
    free_port,
    identity,
    remove_shared_memory,
    unprivileged_account,
)

BINDIR_VARIABLE = "OUTREACH_TEST_POSTGRES_BINDIR"
ACCOUNTS = ("postgres", "nobody")
PROGRAMS = ("initdb", "postgres")
SUPERUSER = "postgres"
START_TIMEOUT = 60.0  # seconds; the recovery after a kill replays the log first


def _candidates() -> list[Path]:
    if BINDIR_VARIABLE in os.environ:
        return [Path(os.environ[BINDIR_VARIABLE])]
    found = []
    # Without the server package pg_config may exist (libpq-dev) and name a directory that does not.
    if shutil.which("pg_config"):
        answer = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            found.append(Path(answer.stdout.strip()))
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    found += sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
    return found + [Path(directory) for directory in os.environ.get("PATH", "").split(os.pathsep) if directory]


def bindir() -> Path | None:
    """The directory with PostgreSQL's programs: of $OUTREACH_TEST_POSTGRES_BINDIR, pg_config, Debian, or the PATH."""
    return next((path for path in _candidates() if all(os.access(path / name, os.X_OK) for name in PROGRAMS)), None)


def missing() -> str | None:
    """Why this machine cannot run a PostgreSQL server; None when it can."""
    if bindir() is None:
        where = os.environ.get(BINDIR_VARIABLE) or "pg_config's directory, /usr/lib/postgresql/*/bin or the PATH"
        return f"PostgreSQL is missing: no {' and '.join(PROGRAMS)} in {where} (apt-get install postgresql)"
    if unprivileged_account(*ACCOUNTS) is None:
        return f"PostgreSQL refuses to run as root, and there is no account {' or '.join(ACCOUNTS)}"
    return None


def database_url(server_url: str, name: str) -> str:
    """The URL of another database on the server of this URL."""
    return f"{server_url.rpartition('/')[0]}/{name}"


def create_database(server_url: str, name: str) -> str:
    """Creates an empty database on the server of this URL and returns the new one's URL."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return database_url(server_url, name)


def drop_database(server_url: str, name: str) -> None:
    """Removes a database, whoever is still connected to it."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _alive(pid: int) -> bool:
    try:
        # The name in parentheses may hold anything, so the state is looked for behind it. A zombie holds nothing.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class PostgresServer:
    """A server on a Unix socket and a loopback TCP port, for as long as the `with` block lasts.

    `network` is one more to listen for, by an address of this machine in it, such as `10.1.2.1/24`.
    `fsync=False` is for tests: faster, and still safe against `kill()`, which no power cut is. `settings` are further
    lines of the configuration. The server also ends when the thread that started it does.
    """

    def __init__(self, *, fsync: bool = True, settings: Mapping[str, str] | None = None, network: str = "") -> None:
        self.port = free_port()
        self._network = network
        self._settings = {
            "fsync": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
            # Also without fsync: a commit that waits in the server's own memory would be lost by kill().
            "synchronous_commit": "on",
            # In the data directory, so that a killed server leaves nothing in /dev/shm; as a default it costs writes.
            "dynamic_shared_memory_type": "posix" if fsync else "mmap",
            "max_connections": "200",
            "timezone": "UTC",
        } | dict(settings or {})
        self._directory: Path | None = None
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        try:
            self._initialise()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The postmaster's process id; the root of the server's process tree."""
        return self._process.pid

    @property
    def socket_directory(self) -> Path:
        """Where the Unix socket is: what libpq takes as `host`."""
        return self._directory

    def url(self, name: str) -> str:
        """The URL of a database of this server, over TCP."""
        return f"postgres://{SUPERUSER}@127.0.0.1:{self.port}/{name}"

    def create_database(self, name: str) -> str:
        """Creates an empty database and returns its URL."""
        return create_database(self.url("postgres"), name)

    def restart(self) -> None:
        """Stops the server, if it runs, and starts it again: same data, same URL."""
        end(self._process, signal.SIGINT, grace=START_TIMEOUT)
        self._start()

    def kill(self) -> None:
        """Ends every process of the server at once, as a crash does. `restart()` brings it back with its data."""
        # Stopped first, so that it can neither fork another backend nor mend what is being killed.
        self._process.send_signal(signal.SIGSTOP)
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        segment = self._shared_memory_segment()
        self._process.kill()
        for child in children:
            # A child may have seen the postmaster's death first.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + 10
        while any(_alive(int(child)) for child in children):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Processes of the killed PostgreSQL server live on: {children}")
            time.sleep(0.005)
        remove_shared_memory(segment)

    def stop(self) -> None:
        """Ends the server and removes its data. Harmless when done before."""
        if self._process is not None:
            # Immediate: no checkpoint for data that nobody will read. The postmaster ends its children and itself.
            end(self._process, signal.SIGQUIT)
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory)
            self._directory = None

    def _shared_memory_segment(self) -> int:
        # Line 7 of the lock file: key and id of the System V segment that keeps two servers off one directory.
        lines = (self._directory / "data" / "postmaster.pid").read_text().splitlines()
        return int(lines[6].split()[1])

    def _program(self, name: str) -> str:
        directory = bindir()
        if directory is None:
            raise ServerDidNotStart(missing())
        return str(directory / name)

    def _surroundings(self) -> dict:
        """How a child is run: no PG* variable and no locale of the caller reaches it."""
        return {
            "cwd": self._directory,
            "env": {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            **identity(unprivileged_account(*ACCOUNTS)),
        }

    def _initialise(self) -> None:
        program = self._program("initdb")
        if reason := missing():
            raise ServerDidNotStart(reason)
        self._directory = Path(tempfile.mkdtemp(prefix="outreach-postgres-"))
        if os.getuid() == 0:
            account = unprivileged_account(*ACCOUNTS)
            os.chown(self._directory, account.pw_uid, account.pw_gid)
        command = [program, "--pgdata=data", "--auth=trust", f"--username={SUPERUSER}", "--encoding=UTF8", "--no-sync"]
        done = subprocess.run(command, **self._surroundings(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerDidNotStart(f"initdb failed: {done.stderr.strip()}")
        if self._network:
            with (self._directory / "data" / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {ip_interface(self._network).network} trust\n")

    def _start(self) -> None:
        settings = self._settings | {
            "listen_addresses": ",".join(filter(None, ["127.0.0.1", self._network.partition("/")[0]])),
            "port": str(self.port),
            "unix_socket_directories": str(self._directory),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program("postgres"), "-D", "data", *options],
                **self._surroundings(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C at the terminal must not end the server under the tests that are just cleaning up.
                start_new_session=True,
                preexec_fn=dying_with_parent(signal.SIGQUIT),
            )
        self._await_connections()

    def _await_connections(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self._directory / "log").read_text(errors="replace")
                raise ServerDidNotStart(f"postgres accepts no connections. The end of its log:\n{log[-2000:]}")
            time.sleep(0.02)
