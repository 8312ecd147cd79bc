"""Who holds a lease: a process on a host, named so that another process can tell whether it still lives.

The name holds the boot of the machine, the process id and its start time: a recycled process id or a rebooted host is
never mistaken for the owner. Of another host nothing is known; its leases end by time alone.
"""

import os
import socket
from functools import cache
from pathlib import Path


@cache
def _host() -> str:
    """This boot of this host; containers with a process namespace of their own count as hosts."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process started, as the kernel counts; None: there is none, or it is only waiting to be buried; "": it is
    there, and the system does not say more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, PermissionError):
        return "" if _alive(pid) else None  # /proc may hide the processes of other users
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def name() -> str:
    """The name of this process."""
    return f"{_host()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(owner: str) -> bool:
    """True when the owner was a process of this host and is no more; False when it lives or nothing is known."""
    host, pid, started = owner.rsplit(":", 2)
    return host == _host() and _started(int(pid)) not in (started, "")
