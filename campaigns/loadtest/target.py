"""Whose server may be stormed: one's own. That is this machine, what OUTREACH_ALLOWED_NETWORKS lists, and the host of
OUTREACH_PUBLIC_URL."""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from delivery.http.networks import IPAddress, IPNetwork

LookUp = Callable[[str], Sequence[str]]


class NotOwn(ValueError):
    """It is no URL of a server of one's own; the words say which would be."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server of one's own: its URL without a slash at the end, and the addresses that it has."""

    url: str
    networks: tuple[IPNetwork, ...]

    @property
    def is_this_machine(self) -> bool:
        return all(network.is_loopback for network in self.networks)


def addresses_of(host: str) -> list[str]:
    """What the system knows of a name. Raises OSError."""
    return sorted({found[4][0].partition("%")[0] for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})


def own(url: str, networks: Iterable[IPNetwork], public_url: str = "", look_up: LookUp = addresses_of) -> Target:
    """The server that a URL leads to. Raises NotOwn."""
    host = _host(url)
    try:
        addresses = [ipaddress.ip_address(each) for each in look_up(host)]
    except (OSError, UnicodeError) as error:
        raise NotOwn(f"--url: {host} has no address here: {error}. A good one: http://127.0.0.1:8000") from error
    allowed = tuple(networks)
    if host != (urlsplit(public_url).hostname or ""):
        for address in addresses:
            if not _is_near(address, allowed):
                raise NotOwn(
                    f"--url: {host} ({address}) is not known to be yours, and a load test would attack others. "
                    "It may be this machine (http://127.0.0.1:8000), a host in OUTREACH_ALLOWED_NETWORKS, or that of "
                    "OUTREACH_PUBLIC_URL."
                )
    return Target(url.rstrip("/"), tuple(ipaddress.ip_network(address) for address in addresses))


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment or parts.username is not None:
        raise NotOwn(f"--url: {url!r} is no address of a server. A good one: http://127.0.0.1:8000")
    return host


def _is_near(address: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    return address.is_loopback or any(address in each for each in networks if each.version == address.version)
