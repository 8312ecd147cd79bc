"""From where a request comes."""

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def address_of(request: HttpRequest) -> str | None:
    """The address of the caller; None when it came over a socket of this host. Behind a proxy it is what the proxy
    itself has added to X-Forwarded-For, the last word there: the words before it are the caller's own."""
    said = request.META.get("REMOTE_ADDR", "")
    if settings.SECURE_PROXY_SSL_HEADER:
        said = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip() or said
    try:
        return str(ipaddress.ip_address(said.partition("%")[0]))
    except ValueError:
        return None


def network_of(address: str | None) -> str:
    """Who is likely to be one caller: an address; in IPv6 the /64, of which a caller has all addresses."""
    if address is None:
        return "here"
    if ":" in address:
        return str(ipaddress.ip_network(f"{address}/64", strict=False))
    return address
