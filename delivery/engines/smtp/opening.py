"""From settings to a connection that takes mail, or the Refusal that says why there is none.

Decides what a failure to connect means for the envelopes: network and TLS trouble passes, a certificate that does not
fit waits for a person. Tries once; how often to try is the pool's business.
"""

import asyncio
import socket
import ssl
from dataclasses import replace

from delivery.core.envelope import Kind, Outcome
from delivery.engines.smtp.connection import Connection, Owner
from delivery.engines.smtp.handshake import Refusal, StartTls
from delivery.engines.smtp.settings import SmtpSettings


async def open_connection(settings: SmtpSettings, owner: Owner, context: ssl.SSLContext | None) -> Connection | Refusal:
    """A connection on which the handshake is over. `context` is None when the settings want no TLS."""
    connection = Connection(settings, owner)
    try:
        refusal = await _open(settings, connection, context)
    except OSError as error:  # among them ssl.SSLError, TimeoutError and socket.gaierror
        refusal = Refusal(failure(settings, error))
    except BaseException:
        connection.abort()
        raise
    if refusal is None:
        return connection
    connection.abort()
    return refusal


async def _open(settings: SmtpSettings, connection: Connection, context: ssl.SSLContext | None) -> Refusal | None:
    """None once the connection takes mail."""
    loop = asyncio.get_running_loop()
    timeouts = settings.timeouts
    tls = {"server_hostname": settings.host, "ssl_handshake_timeout": timeouts.tls}
    at_once = {"ssl": context, **tls} if settings.security == "tls" else {}
    async with asyncio.timeout(timeouts.connect + (timeouts.tls if at_once else 0)):
        await loop.create_connection(lambda: connection, settings.host, settings.port, **at_once)

    milestone = await connection.milestone
    if isinstance(milestone, StartTls):
        transport = await loop.start_tls(connection.transport, connection, context, **tls)
        if transport is None:  # asyncio's way to tell that the connection was lost meanwhile
            raise ConnectionResetError("the connection was lost during the TLS handshake")
        connection.secured(transport)
        milestone = await connection.milestone
    return milestone if isinstance(milestone, Refusal) else None


def tls_context(settings: SmtpSettings) -> ssl.SSLContext | Refusal | None:
    """What TLS with this server is judged by; None when there is to be no TLS."""
    if settings.security == "none":
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
    except OSError as error:
        sentence = f"The file of certificate authorities {settings.ca_file} cannot be used: {error}."
        return Refusal(Outcome(Kind.ENGINE, text=sentence))
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def failure(settings: SmtpSettings, error: OSError) -> Outcome:
    """What a failed attempt to connect means, with a sentence for the operator."""
    server = f"{settings.host}:{settings.port}"
    match error:
        case ssl.SSLCertVerificationError():
            what = error.verify_message.rstrip(".")
            return Outcome(Kind.ENGINE, text=f"The certificate of {server} is not accepted: {what}.")
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            sentence = f"{server} does not begin with TLS; the setting starttls may be the one it wants."
        case ssl.SSLError():
            sentence = f"TLS with {server} failed: {error.reason or error}."
        case socket.gaierror():
            sentence = f"The host name {settings.host} was not found: {error.strerror}."
        case TimeoutError():
            sentence = f"{server} did not answer within {settings.timeouts.connect:g} s."
        case ConnectionRefusedError():
            sentence = f"{server} refused the connection."
        case _:
            sentence = f"No connection to {server}: {error}."
    return Outcome(Kind.TRANSIENT, text=sentence)


async def farewell(connection: Connection) -> None:
    """Ends a connection in order, within the quit timeout."""
    connection.quit()
    await asyncio.wait([connection.gone], timeout=connection.timeouts.quit)
    connection.abort()


async def certificate_names(settings: SmtpSettings, owner: Owner) -> list[str]:
    """The names in the server's certificate, when all but its name is right; [] when it cannot be had.

    Nobody logs in on the connection this takes.
    """
    context = tls_context(settings)
    if not isinstance(context, ssl.SSLContext):
        return []
    context.check_hostname = False
    connection = await open_connection(replace(settings, username="", password=""), owner, context)
    if isinstance(connection, Refusal):
        return []
    certificate = connection.transport.get_extra_info("peercert") or {}
    await farewell(connection)
    return [name for kind, name in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
