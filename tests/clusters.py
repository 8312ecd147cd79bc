"""Worker clusters as processes: started, given a task, ended.

Knows the command line and what django-q2 calls a task; nothing of runs.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import dying_with_parent
from tests.sinks import ROOT

PATIENCE = 60.0  # seconds for a cluster to come up and do something, on a machine that is busy with other tests
RUN_WORKERS = (sys.executable, "manage.py", "runworkers")

ENQUEUE = """
import os, sys, time
os.environ["DJANGO_SETTINGS_MODULE"] = "outreach.settings"
import django
django.setup()
from django_q.brokers import get_broker
from django_q.tasks import async_task
started = time.monotonic()
try:
    async_task("os.mkdir", sys.argv[1])
    print(type(get_broker()).__name__)
except Exception as error:
    print(type(error).__name__, time.monotonic() - started)
"""


def python(environment: Mapping[str, str], *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """A Python process with this environment, once it has ended."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def enqueue(environment: Mapping[str, str], path: Path) -> list[str]:
    """Asks whatever cluster there is to make a directory. Returns the broker's name; or the error's, and how many
    seconds it took to come."""
    done = python(environment, "-c", ENQUEUE, str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


class Cluster:
    """`manage.py runworkers` for as long as the `with` block lasts; killed at its end if it was not stopped. It is
    `wrapped` when the command starts another process as its only child, and that is the cluster's head."""

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Path,
        *,
        command: Sequence[str] = RUN_WORKERS,
        cwd: Path = ROOT,
        wrapped: bool = False,
    ) -> None:
        self.log = log
        self._wrapped = wrapped
        self._command = command
        self._surroundings = {"env": environment, "cwd": cwd}
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                **self._surroundings,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=dying_with_parent(signal.SIGKILL),  # its own processes die with it
            )
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    @property
    def head(self) -> int:
        """The process id of the cluster's head."""
        pid = self._process.pid
        if not self._wrapped:
            return pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(child)

    def wait_until(self, has_come: Callable[[], object], patience: float = PATIENCE) -> None:
        """Returns once the moment has come; fails when the cluster ends before, or it takes too long."""
        deadline = time.monotonic() + patience
        while not has_come():
            self.check()
            assert time.monotonic() < deadline, f"it does not come:\n{self.end_of_log()}"
            time.sleep(0.02)

    def check(self) -> None:
        """Fails when the cluster has ended by itself."""
        assert self._process.poll() is None, f"it ended with {self._process.returncode}:\n{self.end_of_log()}"

    def stop(self) -> int:
        """Asks it to end, as a supervisor does. Returns its exit code."""
        os.kill(self.head, signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """Ends it at once, and with it all its processes."""
        self._process.kill()
        self._process.wait()

    def end_of_log(self) -> str:
        """What it said last."""
        return self.log.read_text(errors="replace")[-3000:]
