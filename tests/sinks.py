"""Starts the recording sink for a test, and reads what it has noted down.

Knows the sink's command line and its log, nothing of SMTP.
"""

import json
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.recording_sink import Behaviour
from tests.servers import ServerDidNotStart, dying_with_parent, end

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Received:
    """One message that the sink accepted. `at_ns` is time.monotonic_ns(), which all processes of a host share;
    `message_id` stands without its angle brackets; `connection` counts from 1; `peer` is the client's address."""

    at_ns: int
    message_id: str
    sender: str
    recipients: tuple[str, ...]
    connection: int
    peer: str


class RecordingSink:
    """A recording sink for as long as the `with` block lasts. It may be stopped and started meanwhile: the port and the
    log stay. Its options are the fields of `Behaviour`."""

    def __init__(self, behaviour: Behaviour | None = None, address: str = "127.0.0.1") -> None:
        self.port = 0
        self._address = address
        self._behaviour = behaviour or Behaviour()
        self._directory = tempfile.TemporaryDirectory(prefix="outreach-sink-")
        self._log = Path(self._directory.name) / "log"
        self._read = 0  # bytes of the log that are in `_received`
        self._received: list[Received] = []
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        try:
            self._log.touch()
            self.start()
        except BaseException:
            self._directory.cleanup()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._directory.cleanup()

    @property
    def pid(self) -> int:
        """The sink's process id."""
        return self._process.pid

    def start(self) -> None:
        """Listens, after a `stop()` on the same port again."""
        options = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(self._behaviour).items()]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.recording_sink"),
                *(f"--address={self._address}", f"--port={self.port}", f"--log={self._log}"),
                *options,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            preexec_fn=dying_with_parent(signal.SIGKILL),
        )
        ready, _, _ = select.select([self._process.stdout], [], [], 30)
        line = self._process.stdout.readline() if ready else b""
        if not line.strip().isdigit():
            end(self._process, signal.SIGKILL)
            raise ServerDidNotStart(f"The recording sink said {line!r} instead of its port.")
        self.port = int(line)

    def stop(self) -> None:
        """Ends the sink, and with it every connection. Harmless when done before."""
        end(self._process, signal.SIGTERM)
        self._process.stdout.close()

    def received(self) -> list[Received]:
        """Every message accepted so far, in order."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            # A line that is just being written is left for the next time.
            whole = log.read().rpartition(b"\n")[0]
        if whole:
            self._read += len(whole) + 1
            for line in whole.split(b"\n"):
                fields = json.loads(line)
                self._received.append(Received(**fields | {"recipients": tuple(fields["recipients"])}))
        return list(self._received)

    def counts_by_message_id(self) -> Counter[str]:
        """How often each Message-ID was accepted: more than 1 is a double."""
        return Counter(message.message_id for message in self.received())

    def wait_for(self, count: int, timeout: float = 10.0) -> list[Received]:
        """What was accepted, as soon as it is `count` messages or more. TimeoutError when that takes too long."""
        deadline = time.monotonic() + timeout
        while len(received := self.received()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"The sink took {len(received)} of {count} messages in {timeout:g} s.")
            time.sleep(0.01)
        return received
