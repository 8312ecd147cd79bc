"""Credentials at rest: a model field that holds a sealed JSON object and never shows it by accident.

The value on a model is a `Sealed`: printing, comparing, logging or serialising it reveals nothing, and decrypting is
an explicit call. Keys come from OUTREACH_SECRET_KEYS: the first encrypts, all decrypt, so that keys can be rotated.
"""

import json

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.db import models

from delivery.conf import conf
from delivery.exceptions import SecretUnreadable


class Sealed:
    """An encrypted JSON object."""

    __slots__ = ("token",)

    def __init__(self, token: str = "") -> None:
        self.token = token

    @classmethod
    def seal(cls, plain: dict[str, str]) -> "Sealed":
        """Encrypts `plain`; an empty object needs no secrecy and no key."""
        if not plain:
            return cls()
        return cls(_fernet().encrypt(json.dumps(plain).encode()).decode())

    def open(self) -> dict[str, str]:
        """The plain object. Raises SecretUnreadable when no key fits."""
        if not self.token:
            return {}
        try:
            return json.loads(_fernet().decrypt(self.token.encode()))
        except InvalidToken:
            raise SecretUnreadable(
                "The stored credentials cannot be decrypted: none of the keys in OUTREACH_SECRET_KEYS fits. "
                "Add the key they were saved with, or enter the credentials again."
            ) from None

    def rotated(self) -> "Sealed":
        """The same object, encrypted with the first key."""
        return Sealed.seal(self.open())

    def __bool__(self) -> bool:
        return bool(self.token)

    def __repr__(self) -> str:
        return "Sealed(…)" if self.token else "Sealed()"


def _fernet() -> MultiFernet:
    keys = conf().secret_keys
    if not keys:
        raise SecretUnreadable(
            "OUTREACH_SECRET_KEYS is not set. Run `make env`: it writes a .env file with a fresh key."
        )
    return MultiFernet([Fernet(key) for key in keys])


class SealedField(models.TextField):
    """A column for one `Sealed`. Holds the empty string when there is nothing to hide."""

    def from_db_value(self, value: str | None, expression: object, connection: object) -> Sealed:
        return Sealed(value or "")

    def to_python(self, value: object) -> Sealed:
        return value if isinstance(value, Sealed) else Sealed(str(value or ""))

    def get_prep_value(self, value: object) -> str:
        return value.token if isinstance(value, Sealed) else Sealed(str(value or "")).token

    def value_to_string(self, obj: models.Model) -> str:
        # `dumpdata` writes the encrypted form: it restores with the same key and tells nobody anything.
        return self.value_from_object(obj).token
