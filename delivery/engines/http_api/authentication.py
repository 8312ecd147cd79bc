"""Who calls: the ways in which an API wants to be told, as far as nothing has to be asked for it.

basic     user name and password (RFC 7617)          header    a key in a header
bearer    a token (RFC 6750)                         query     a key in the URL
oauth2    client credentials, see `oauth`            none
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from delivery.engines.api_fields import missing, not_among
from delivery.engines.http_api.headers import is_header_name
from delivery.engines.kind import Options, Secrets

WAYS = {
    "none": "none",
    "basic": "user name and password (Basic)",
    "bearer": "bearer token",
    "header": "API key in a header",
    "query": "API key in the URL",
    "oauth2": "OAuth 2, client credentials",
}
_NEEDED = {
    "basic": {"username": "user name", "credential": "password"},
    "bearer": {"credential": "token"},
    "header": {"key_name": "name of the key's header", "credential": "API key"},
    "query": {"key_name": "name of the key's parameter", "credential": "API key"},
    "oauth2": {"token_url": "token URL", "username": "client id", "credential": "client secret"},
}


@dataclass(frozen=True, slots=True)
class Proof:
    """What every call carries. `hidden` are further spellings of the credential, not to be written down either."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: str = field(default="", repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)

    def on(self, url: str) -> str:
        """The URL with the key in it."""
        return f"{url}{'&' if '?' in url else '?'}{self.query}" if self.query else url


def proof_of(options: Options, secrets: Secrets) -> Proof:
    """What these settings say; nothing for OAuth, whose token comes later."""
    credential, name = secrets.get("credential", ""), str(options.get("key_name") or "")
    match options.get("auth"):
        case "basic":
            pair = b64encode(f"{options['username']}:{credential}".encode()).decode()
            return Proof({"Authorization": f"Basic {pair}"}, hidden=(pair,))
        case "bearer":
            return Proof({"Authorization": f"Bearer {credential}"})
        case "header":
            return Proof({name: credential})
        case "query":
            query = urlencode({name: credential})
            return Proof(query=query, hidden=(query.partition("=")[2],))
        case _:
            return Proof()


def auth_problems(options: Options, secrets: Secrets) -> list[str]:
    """What is missing or wrong, a sentence each."""
    way = str(options.get("auth") or "none")
    problems = not_among(options, "auth", WAYS) or missing({**options, **secrets}, _NEEDED.get(way, {}))
    name = str(options.get("key_name") or "")
    if way == "header" and name and not is_header_name(name):
        problems.append(f"“{name}” is no name of a header: give it alone, such as X-Api-Key.")
    if way == "basic" and ":" in str(options.get("username") or ""):
        problems.append("A user name with a colon cannot be sent (RFC 7617).")
    return problems
