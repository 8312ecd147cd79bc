"""Reads environment variables, one typed question at a time, and remembers what was wrong with the answers.

A bad value is not raised here: it is kept as a Problem, the setting gets a harmless value, and `outreach.checks`
stops the process with every problem at once. Knows nothing of what the settings are for.
"""

import ipaddress
import json
import re
import zoneinfo
from dataclasses import dataclass
from pathlib import Path

import environ
from cryptography.fernet import Fernet

from delivery.core.throttle import Period, Rate

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


@dataclass(frozen=True)
class Problem:
    """One variable that cannot be used: its name, what was expected, and what to do."""

    variable: str
    expected: str
    hint: str = ""


class Environment:
    """The process environment, over the values of a `.env` file when there is one."""

    def __init__(self, dotenv: Path | None = None) -> None:
        self.problems: list[Problem] = []
        if dotenv and dotenv.exists():
            environ.Env.read_env(dotenv, overwrite=False)
        self._values = environ.Env.ENVIRON

    def _reject(self, name: str, expected: str, hint: str = "") -> None:
        self.problems.append(Problem(name, expected, hint))

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, default).strip()

    def secret(self, name: str, hint: str) -> str:
        """A value that must be there; no default works."""
        value = self.text(name)
        if not value:
            self._reject(name, "a secret value; it is not set", hint)
        return value

    def needed(self, name: str, reason: str) -> None:
        """Something that another variable asks for."""
        if not self.text(name):
            self._reject(name, f"set, because {reason}")

    def token(self, name: str) -> str:
        """A secret that travels in a header, or nothing."""
        value = self.text(name)
        if value and not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,}", value):
            # It may be a password, so it is not repeated.
            self._reject(name, "at least 16 characters of A-Z, a-z, 0-9 and . _ ~ + / = -, or empty")
            return ""
        return value

    def boolean(self, name: str, default: bool) -> bool:
        raw = self.text(name, str(default)).lower()
        if raw not in TRUE | FALSE:
            self._reject(name, f"true or false, not {raw!r}")
            return default
        return raw in TRUE

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        raw = self.text(name) or str(default)
        if not re.fullmatch(r"-?\d{1,12}", raw) or not low <= int(raw) <= high:
            self._reject(name, f"a whole number from {low} to {high}, not {raw!r}")
            return default
        return int(raw)

    def rate(self, name: str, default: str) -> Rate | None:
        """A rate such as 600/minute, of which all may come at once; None for `none`."""
        raw = (self.text(name) or default).lower()
        if raw == "none":
            return None
        found = re.fullmatch(rf"([1-9]\d{{0,6}})\s*/\s*({'|'.join(Period)})", raw)
        if not found:
            periods = ", ".join(Period)
            self._reject(name, f"a rate such as 600/minute (periods: {periods}) or none, not {raw!r}")
            return self.rate("", default)
        quantity, period = int(found[1]), Period(found[2])
        return Rate.of(quantity, period, quantity)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        raw = self.text(name) or default
        if raw not in choices:
            self._reject(name, f"one of {', '.join(choices)}, not {raw!r}")
            return default
        return raw

    def time_zone(self, name: str, default: str) -> str:
        """The name of a time zone that this machine knows."""
        raw = self.text(name) or default
        if raw not in zoneinfo.available_timezones():
            self._reject(name, f"the name of a time zone such as Europe/Zurich, not {raw!r}")
            return default
        return raw

    def listed(self, name: str, default: str = "") -> list[str]:
        """Values parted by commas."""
        return [part.strip() for part in self.text(name, default).split(",") if part.strip()]

    def url(self, name: str, default: str, schemes: tuple[str, ...]) -> str:
        raw = self.text(name) or default
        if raw and (not raw.partition("://")[1] or raw.partition("://")[0] not in schemes):
            # The value may hold a password, so it is not repeated.
            self._reject(name, f"a URL that starts with {' or '.join(s + '://' for s in schemes)}")
            return default
        return raw

    def directory(self, name: str, default: Path) -> Path:
        """A directory that is there afterwards."""
        path = Path(self.text(name) or default)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._reject(name, f"a directory that can be made and written; {path}: {error.strerror}")
        return path

    def database(self, name: str, default: str) -> dict:
        """A Django database configuration from a URL."""
        url = self.url(name, default, ("sqlite", "postgres", "postgresql"))
        try:
            config = environ.Env.db_url_config(url)
        except (ValueError, TypeError):
            config = {}
        # In memory each thread of the worker would have a database of its own.
        if config.get("NAME", "") in ("", ":memory:"):
            self._reject(
                name, "a database URL such as postgres://user:password@host:5432/name or sqlite:////path/to/file"
            )
            return environ.Env.db_url_config(default)
        return config

    def fernet_keys(self, name: str, hint: str) -> list[str]:
        """Fernet keys parted by commas: the first encrypts, all decrypt."""
        keys = self.listed(name)
        if not keys:
            self._reject(name, "one or more Fernet keys; it is not set", hint)
        for position, key in enumerate(keys, 1):
            try:
                Fernet(key)
            except ValueError:
                self._reject(name, f"Fernet keys (32 bytes in URL-safe base64); key {position} is not one", hint)
                return []
        return keys

    def named_urls(self, name: str, schemes: tuple[str, ...]) -> dict[str, str]:
        """A JSON object from names to URLs."""
        raw = self.text(name) or "{}"
        expected = f'a JSON object such as {{"crm": "{schemes[0]}://reader:secret@db.example/crm"}}'
        try:
            found = json.loads(raw)
        except ValueError:
            found = None
        good = isinstance(found, dict) and all(
            re.fullmatch(r"[a-z][a-z0-9_-]{0,49}", key) and isinstance(url, str) and url.partition("://")[0] in schemes
            for key, url in found.items()
        )
        if not good:
            self._reject(name, f"{expected}; names in lower case, URLs of {' or '.join(schemes)}")
            return {}
        return found

    def networks(self, name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """IP networks and single addresses, parted by commas."""
        found = []
        for part in self.listed(name):
            try:
                found.append(ipaddress.ip_network(part))
            except ValueError:
                self._reject(name, f"networks such as 10.20.0.0/16 or single addresses, parted by commas; not {part!r}")
        return found

    def email_backends(self, name: str, default: str) -> dict[str, tuple[str, dict]]:
        """A JSON object from names to Django email backends, each a dotted path or an object with `backend` and
        `options`. `default` is always among them."""
        expected = (
            'a JSON object such as {"office": "anymail.backends.postmark.EmailBackend"} or {"office": {"backend": '
            '"django.core.mail.backends.smtp.EmailBackend", "options": {"host": "mail.example"}}}'
        )
        found = {"default": (default, {})}
        try:
            given = json.loads(self.text(name) or "{}")
            for key, value in given.items():
                value = {"backend": value} if isinstance(value, str) else dict(value)
                path, options = value.pop("backend"), dict(value.pop("options", {}))
                good = re.fullmatch(r"[a-z][a-z0-9_-]{0,49}", key) and re.fullmatch(r"\w+(\.\w+)+", path)
                if value or not good:
                    raise ValueError
                found[key] = (path, options)
        except (ValueError, TypeError, KeyError, AttributeError):
            # The options may hold a password, so the value is not repeated.
            self._reject(name, f"{expected}; names in lower case")
        return found
