"""The processes of a worker cluster, as the system shows them. Knows django-q2's order of birth, nothing of work."""

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Family:
    """A complete set: the head, its sentinel, and what that has started."""

    head: int
    sentinel: int
    workers: tuple[int, ...]
    monitor: int
    pusher: int

    @property
    def set(self) -> frozenset[int]:
        """All but the head."""
        return frozenset((self.sentinel, *self.workers, self.monitor, self.pusher))


def family_of(head: int, workers: int) -> Family | None:
    """The set that a head has with so many workers; None while it is not complete."""
    sentinels = alive(children(head))  # a head that is process 1 of its host inherits the dead as well
    if len(sentinels) != 1:
        return None
    born = children(sentinels[0])  # the oldest first
    if len(born) != workers + 2 or not all(map(is_alive, born)):
        return None
    return Family(head, sentinels[0], tuple(born[:workers]), born[workers], born[workers + 1])


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid: int) -> list[int]:
    """All that came of a process and has not lost its parent."""
    found = children(pid)
    return found + [each for child in found for each in descendants(child)]


def is_alive(pid: int) -> bool:
    """False also for what only waits to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def alive(pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if is_alive(pid)]


def own_number(pid: int) -> str | None:
    """A process's id as it knows it itself: another one when it has a namespace of its own. None: it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next(line for line in lines if line.startswith("NSpid:")).split()[-1]


def started_at(pid: int) -> str | None:
    """When a process started, as the kernel counts. None: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
