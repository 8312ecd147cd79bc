"""Whom this process calls outside of its machine, as Python itself notes it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

_watches: list[list[str]] = []


@contextmanager
def calls_outside() -> Iterator[list[str]]:
    """The hosts that are looked up or connected to in the block: all but this one."""
    called: list[str] = []
    _watches.append(called)
    yield called
    _watches.remove(called)


def _note(event: str, arguments: tuple) -> None:
    if not _watches or event not in ("socket.connect", "socket.getaddrinfo"):
        return
    host = arguments[1] if event == "socket.connect" else arguments[0]
    if isinstance(host, tuple):
        host = host[0]
    elif event == "socket.connect":
        return  # a socket that is a file
    if not _is_here(host):
        for called in _watches:
            called.append(str(host))


def _is_here(host: object) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in (None, "", "localhost")


sys.addaudithook(_note)  # nothing takes it away again
