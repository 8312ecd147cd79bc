"""Which addresses an outgoing request may reach: the public internet, and what a setting allows beside it.

An operator types URLs; a metadata service, a database or a router's page on a private network must not answer them.
What counts is the address that is connected to, asked when it is connected to: a name may point elsewhere by then.
Knows no HTTP.
"""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# All that has been given out (RFC 4291 §2.4). Of the rest Python calls some public, such as the withdrawn fec0::/10.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
HINT = "If that is meant, add the network to OUTREACH_ALLOWED_NETWORKS."


class BlockedAddress(OSError):
    """The host is, or points to, an address that outgoing requests may not reach."""


def is_allowed(address: str, networks: Iterable[IPNetwork]) -> bool:
    """Whether a request may go to this IP address: a public one, or one in `networks`. Never to what is not written as
    addresses are."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if any(found in network for network in networks if network.version == found.version):
        return True
    inner = _embedded(found)
    if inner is not None:
        return is_allowed(str(inner), networks)
    if found.version == 6 and found not in _GLOBAL_UNICAST:
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved)


def _embedded(address: IPAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address only wraps, by which private ones would come in through a back door."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def as_address(host: str) -> str | None:
    """The host when it is an IP address by itself, without the brackets of IPv6; None for a name."""
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return host


def refuse(host: str) -> BlockedAddress:
    """The error for a host that may not be reached."""
    return BlockedAddress(f"{host} is not a public address. {HINT}")


def problem_with_url(url: str, networks: Iterable[IPNetwork]) -> str:
    """What is wrong with a URL that an operator typed, as one sentence, judged without asking the DNS; "" when nothing
    is. Plain http is for networks that a setting allows: anywhere else it would show the credentials to everybody."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"“{url}” is not a URL: write it as https://host/path."
    if parts.scheme not in ("http", "https") or not host:
        return f"“{url}” is not a URL: write it as https://host/path."
    if parts.username is not None or parts.password is not None:
        return "User name and password do not belong in a URL, where everybody sees them: use the fields for them."
    address = as_address(host)
    if address and not is_allowed(address, networks):
        return str(refuse(host))
    if parts.scheme == "http" and not _is_near(host, address, networks):
        return f"{url} is not encrypted: use https."
    return ""


def _is_near(host: str, address: str | None, networks: Iterable[IPNetwork]) -> bool:
    """Whether a host is in one of the networks that a setting allows. Of a name nobody knows before it is looked up,
    so any name passes when there are such networks; then the connection is refused if it leads elsewhere."""
    if address is None:
        return any(True for _ in networks)
    found = ipaddress.ip_address(address.partition("%")[0])
    return any(found in network for network in networks if network.version == found.version)
