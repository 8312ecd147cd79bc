"""Whether a host can be reached: a connection, TLS included, and nothing said on it."""

import asyncio
import socket
import ssl
from collections.abc import Sequence

import httpx
from aiohttp.abc import AbstractResolver

from delivery.http.client import Unreachable
from delivery.http.networks import BlockedAddress, IPNetwork
from delivery.http.transport import GuardedResolver, system_trust


async def reach(
    url: str,
    patience: float,
    networks: Sequence[IPNetwork],
    *,
    resolver: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Returns once there was a connection to where the URL leads. Raises Unreachable, with a sentence."""
    parsed = httpx.URL(url)
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    names = GuardedResolver(networks, resolver)
    try:
        async with asyncio.timeout(patience):
            found = await names.resolve(parsed.host, port, socket.AF_UNSPEC)
            context = (tls or system_trust()) if parsed.scheme == "https" else None
            await _connect([each["host"] for each in found], port, parsed.host, context)
    except BlockedAddress as error:
        raise Unreachable(str(error), sent=False, hopeless=True) from error
    except TimeoutError as error:
        raise Unreachable(f"no connection within {patience:g} s", sent=False) from error
    except (OSError, UnicodeError) as error:
        raise Unreachable(_reason(error), sent=False) from error
    finally:
        await names.close()


async def _connect(addresses: Sequence[str], port: int, host: str, context: ssl.SSLContext | None) -> None:
    """To the first address that answers, as a call would."""
    last: OSError = OSError("the name has no address")
    for address in addresses:
        try:
            name = host if context else None
            _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
        except OSError as error:
            last = error
        else:
            writer.transport.abort()  # nothing was said, so there is nothing to end in order
            return
    raise last


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be trusted: {error.verify_message}"
    return getattr(error, "strerror", None) or str(error)
