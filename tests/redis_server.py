"""A Redis server for tests: in a directory of its own, not as root, with nothing on the disk that would survive it.

Knows nothing of what is kept in it.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from types import TracebackType
from typing import Self

import pytest

from tests.servers import await_port, dying_with_parent, end, free_port, identity, unprivileged_account


def missing() -> str | None:
    """Why there can be no Redis on this machine; None when there can."""
    if shutil.which("redis-server") is None:
        return "redis-server is not installed (apt-get install redis-server)"
    if unprivileged_account("redis", "nobody") is None:
        return "running as root, and there is no account to run Redis as"
    return None


def needed() -> None:
    """Skips the test where there can be no Redis; with CI=true that fails."""
    if reason := missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}. With CI=true that is an error.", pytrace=False)
        pytest.skip(reason)


class RedisServer:
    """A server for as long as the `with` block lasts. It may be stopped and started meanwhile: the port stays, what was
    in it does not. `address` is one to listen on beside loopback."""

    def __init__(self, address: str = "") -> None:
        self.port = free_port()
        self._address = address
        self._account = unprivileged_account("redis", "nobody")
        self._directory = tempfile.TemporaryDirectory(prefix="outreach-redis-")
        self._process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._directory.cleanup()

    def start(self) -> None:
        """Listens, after a `stop()` on the same port again, and empty."""
        options = {
            "port": self.port,
            "bind": f"127.0.0.1 {self._address}".strip(),
            "protected-mode": "no",
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        }
        self._process = subprocess.Popen(
            ["redis-server", *(text for name, value in options.items() for text in (f"--{name}", str(value)))],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=dying_with_parent(signal.SIGKILL),
            **identity(self._account),
        )
        await_port(self.port, self._process)

    def stop(self) -> None:
        """Ends the server at once, as a crash would. Harmless when done before."""
        if self._process is not None:
            end(self._process, signal.SIGKILL)

    def freeze(self) -> None:
        """Answers nothing any more, and keeps its connections."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Answers again."""
        self._process.send_signal(signal.SIGCONT)
