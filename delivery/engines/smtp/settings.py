"""What an operator sets for an SMTP server, and which of it cannot work.

Judges the values by themselves; whether a server agrees is found out by `SmtpEngine.check`. Opens no connection.
"""

import ipaddress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

Security = Literal["none", "starttls", "tls"]
Mechanism = Literal["auto", "plain", "login", "xoauth2"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds of silence allowed at each stage; the defaults are those of Postfix's own client.

    `block` is for a server that reads nothing. `dot` must stay long: giving up on a server that is still storing the
    mail makes a double (RFC 1047).
    """

    connect: float = 30
    tls: float = 60
    greeting: float = 300
    ehlo: float = 300
    starttls: float = 300
    auth: float = 300
    mail: float = 300
    rcpt: float = 300
    data: float = 120
    block: float = 180
    dot: float = 600
    rset: float = 20
    quit: float = 2


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """One SMTP server and how to use it.

    `security`: "starttls" never goes on in clear text, "tls" is TLS from the first byte. `ca_file` replaces the
    system's authorities, for a private one. `password` is the access token when `auth` is "xoauth2".
    `helo_name`: "" announces this host's full name, or its address where it has none.
    `max_messages_per_connection`: 0 is no limit. `max_connection_age` is in seconds.
    `quiet_period`: seconds without a 421 after which one more connection is allowed again.
    `login_pause`: seconds in which nothing is tried after a refusal that waits for a person; a login tried again and
    again locks the account.
    """

    host: str
    port: int = 587
    security: Security = "starttls"
    verify: bool = True
    ca_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    auth: Mechanism = "auto"
    allow_insecure_auth: bool = False
    helo_name: str = ""
    max_connections: int = 10
    max_messages_per_connection: int = 100
    max_connection_age: float = 300
    quiet_period: float = 60
    login_pause: float = 30
    timeouts: Timeouts = Timeouts()

    @property
    def may_login_in_clear(self) -> bool:
        """Whether the password may cross an unencrypted connection: only by consent, or without leaving the host."""
        return self.allow_insecure_auth or is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a connection to that host stays on this machine, judged by its name alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def validate(settings: SmtpSettings) -> list[str]:
    """What cannot work, as sentences for the operator; [] when nothing is wrong."""
    return [*_server(settings), *_login(settings), *_connections(settings)]


def _server(settings: SmtpSettings) -> list[str]:
    problems = []
    if not settings.host:
        problems.append("The host name is missing.")
    elif not _is_host(settings.host):
        problems.append(f"“{settings.host}” is not a host name: give it alone, like smtp.example.com.")
    if not 1 <= settings.port <= 65535:
        problems.append(f"The port must be between 1 and 65535, not {settings.port}.")
    if settings.security not in get_args(Security):
        problems.append(f"The security must be one of {', '.join(get_args(Security))}, not “{settings.security}”.")
    if settings.ca_file and not Path(settings.ca_file).is_file():
        problems.append(f"The file of certificate authorities {settings.ca_file} does not exist.")
    if settings.helo_name and not (settings.helo_name.isascii() and _is_word(settings.helo_name)):
        problems.append(f"“{settings.helo_name}” cannot be announced in EHLO: it takes a full host name in ASCII.")
    return problems


def _login(settings: SmtpSettings) -> list[str]:
    problems = []
    if settings.auth not in get_args(Mechanism):
        problems.append(f"The login mechanism must be one of {', '.join(get_args(Mechanism))}, not “{settings.auth}”.")
    if settings.username and not settings.password:
        problems.append(f"The password of the user “{settings.username}” is missing.")
    if settings.password and not settings.username:
        problems.append("There is a password but no user name.")
    if "\0" in settings.username + settings.password:
        problems.append("User name and password cannot hold a NUL character.")
    if settings.username and settings.security == "none" and not settings.may_login_in_clear:
        problems.append("The password would cross the network in clear text: choose starttls or tls.")
    return problems


def _connections(settings: SmtpSettings) -> list[str]:
    problems = []
    if settings.max_connections < 1:
        problems.append(f"At least one connection is needed, not {settings.max_connections}.")
    if settings.max_messages_per_connection < 0:
        problems.append("The number of messages per connection cannot be negative; 0 is no limit.")
    periods = {name: getattr(settings, name) for name in ("max_connection_age", "quiet_period")}
    periods |= {f"{each.name} timeout": getattr(settings.timeouts, each.name) for each in fields(Timeouts)}
    problems += [
        f"The {name.replace('_', ' ')} must be more than 0 s." for name, value in periods.items() if value <= 0
    ]
    if settings.login_pause < 0:
        problems.append("The login pause cannot be negative.")
    return problems


def _is_host(name: str) -> bool:
    try:
        name.encode("idna")  # as the resolver will
    except UnicodeError:
        return False
    return "/" not in name and _is_word(name)


def _is_word(name: str) -> bool:
    return name.isprintable() and not any(character.isspace() for character in name)
