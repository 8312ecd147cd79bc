"""Hosts of a network of their own, on this machine: network namespaces, joined by a bridge that this machine is on too.

Servers that all hosts reach listen on the network's own address, from outside of any namespace. A host has a name and
processes of its own: what runs on one sees no process of another, as on two machines. Needs root and iproute2.
Knows nothing of what runs on them.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from ipaddress import ip_network
from types import TracebackType
from typing import Self

import pytest

PROGRAMS = ("ip", "unshare", "hostname")
# Of RFC 2544, for benchmarks: no real network has these addresses.
SPACE = ip_network("198.18.0.0/15")


def missing() -> str | None:
    """Why this machine can have no such networks; None when it can."""
    if os.getuid() != 0:
        return "network namespaces need root"
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(absent)} is not installed (apt-get install iproute2 util-linux hostname)"
    probe = _name()
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", probe], capture_output=True)
    return None if made.returncode == 0 else f"no network namespace can be made here: {made.stderr.strip()}"


def needed() -> None:
    """Skips the test where there can be no namespaces; with CI=true, and as root, that fails."""
    if reason := missing():
        if os.environ.get("CI") == "true" and os.getuid() == 0:
            pytest.fail(f"{reason}. With CI=true that is an error.", pytrace=False)
        pytest.skip(reason)


def _name() -> str:
    return f"outreach{secrets.token_hex(3)}"  # with one letter more it is as long as an interface's name may be


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@dataclass(frozen=True, slots=True)
class Host:
    """A host of a `Network`: its name, its address, and what stands for its cable."""

    name: str
    address: str
    namespace: str
    cable: str

    def command(self, *words: str) -> list[str]:
        """The command that runs another one on this host. It ends when that one does, with the same exit code; when it
        is killed, every process of the host that came of it is killed, too. Signals are for its only child, which is
        the process 1 of what it sees."""
        alone = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
        named = ("sh", "-c", 'hostname "$0" && exec "$@"', self.name)
        return ["ip", "netns", "exec", self.namespace, *alone, *named, *words]

    def cut(self) -> None:
        """Pulls the cable: whatever is sent is lost, and nobody is told."""
        _ip("link", "set", self.cable, "down")

    def mend(self) -> None:
        """Puts it back in: connections that have not been given up go on."""
        _ip("link", "set", self.cable, "up")


class Network:
    """A network for as long as the `with` block lasts, with this machine on it. What it is made of is gone afterwards;
    processes on its hosts should have ended before."""

    def __init__(self) -> None:
        self._name = _name()
        self._subnet = ip_network((int(SPACE[0]) + 256 * secrets.randbelow(SPACE.num_addresses // 256), 24))
        self._cleaning = contextlib.ExitStack()
        self._hosts: list[Host] = []

    @property
    def address(self) -> str:
        """This machine's, by which the hosts reach it."""
        return str(self._subnet[1])

    @property
    def network(self) -> str:
        """The address with the network's size, such as 198.18.7.1/24."""
        return f"{self.address}/{self._subnet.prefixlen}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as failing:
            failing.push(self.__exit__)
            _ip("link", "add", self._name, "type", "bridge")
            self._cleaning.callback(_ip, "link", "delete", self._name)
            _ip("address", "add", self.network, "dev", self._name)
            _ip("link", "set", self._name, "up")
            failing.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._cleaning.close()

    def host(self, name: str) -> Host:
        """Adds a host."""
        letter = "abcdefghijklmnopqrstuvwxyz"[len(self._hosts)]
        made = Host(name, str(self._subnet[2 + len(self._hosts)]), f"{self._name}{letter}", f"{self._name}{letter}")
        inside = ("-n", made.namespace)
        _ip("netns", "add", made.namespace)
        self._cleaning.callback(_ip, "netns", "delete", made.namespace)
        _ip("link", "add", made.cable, "type", "veth", "peer", "name", "eth0", "netns", made.namespace)
        self._cleaning.callback(_remove_cable, made.cable)
        _ip("link", "set", made.cable, "master", self._name, "up")
        _ip(*inside, "address", "add", f"{made.address}/{self._subnet.prefixlen}", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")
        self._hosts.append(made)
        return made


def _remove_cable(cable: str) -> None:
    # Before its namespace: a namespace lives on as long as one process in it does, and the cable with it.
    subprocess.run(["ip", "link", "delete", cable], capture_output=True)
