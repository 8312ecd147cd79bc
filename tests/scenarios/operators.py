"""The operator's desk (`tests.scenarios.operator_desk`) as tests see it: deeds in, answers out."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import dying_with_parent, end
from tests.sinks import ROOT

PATIENCE = 10.0  # seconds for somebody to leave the desk


class Operator:
    """Somebody at the desk for as long as the `with` block lasts."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.scenarios.operator_desk"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=dying_with_parent(signal.SIGKILL),
            )
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.stdin.close()  # by which it ends
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            end(self._process, signal.SIGKILL)
        self._process.stdout.close()

    def ask(self, deed: str, **arguments: object) -> object:
        """Has a deed done. Returns what came of it."""
        self._process.stdin.write(json.dumps({"deed": deed, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the operator could not {deed}: {self._log.read_text()[-3000:]}"
        return json.loads(answer)


def csv_of(domain: str, people: int, repeats: int = 1) -> str:
    """A file of so many people of a domain, the whole list several times over: what is doubled costs time to read."""
    lines = [f"person-{n:05}@{domain},Person {n}" for n in range(people)]
    return "\n".join(["email,name", *(lines * repeats)])
