"""What every server that the tests start has in common: it dies with its parent, is not root, has a port of its own.

Knows no particular server.
"""

import contextlib
import ctypes
import os
import pwd
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
IPC_RMID = 0
# Below Linux's range of ephemeral ports (32768 and up): while a server is down for a restart, no outgoing connection
# can be given its port.
PORTS = range(20_000, 32_000)

_libc = ctypes.CDLL(None, use_errno=True)


class ServerDidNotStart(RuntimeError):
    """A server that the tests need ended, or stayed silent, instead of accepting connections."""


def dying_with_parent(death: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn` by which the child gets `death` when the thread that starts it ends, by `kill -9` too.

    A change of user clears the setting, so the user is set before it: `Popen(user=...)` does that, a program that drops
    root by itself does not.
    """
    parent = os.getpid()

    def before_exec() -> None:
        if _libc.prctl(PR_SET_PDEATHSIG, death) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        # The parent may have died before the line above.
        if os.getppid() != parent:
            os._exit(1)

    return before_exec


def remove_shared_memory(segment: int) -> None:
    """Removes a System V segment, which outlives the processes that used it."""
    if _libc.shmctl(segment, IPC_RMID, None) != 0:
        raise OSError(ctypes.get_errno(), f"shmctl({segment}, IPC_RMID)")


def unprivileged_account(*names: str) -> pwd.struct_passwd | None:
    """The first of the accounts that this machine has, when running as root; otherwise the account itself.

    None: running as root, and the machine has none of them.
    """
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid())
    for name in names:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def identity(account: pwd.struct_passwd) -> dict:
    """The arguments by which `Popen` runs a child as this account; none when that changes nothing."""
    if os.getuid() != 0:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def free_port() -> int:
    """A loopback TCP port that nothing listens on."""
    # The system's generator: a seeded test run must not make two runs on one machine choose the same ports.
    for port in random.SystemRandom().sample(PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerDidNotStart(f"None of 200 ports tried in {PORTS} is free.")


def await_port(port: int, process: subprocess.Popen, timeout: float = 10.0) -> None:
    """Returns once `process` accepts TCP connections on the port."""
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout).close()
            return
        if process.poll() is not None:
            raise ServerDidNotStart(f"{process.args[0]} ended with {process.returncode} before it listened.")
        if time.monotonic() > deadline:
            raise ServerDidNotStart(f"{process.args[0]} does not listen on port {port} after {timeout:g} s.")
        time.sleep(0.01)


def end(process: subprocess.Popen, ask: signal.Signals, grace: float = 10.0) -> None:
    """Ends the process: asked first, killed after `grace` seconds. One that has already ended is left alone."""
    if process.poll() is None:
        process.send_signal(ask)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
