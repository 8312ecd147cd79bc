"""Delivery's own settings, read once from Django's. Nothing else in delivery reads settings."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from django.conf import settings
from django.core.signals import setting_changed


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """`secret_keys`: Fernet keys, the first encrypts, all decrypt. `lease`: how long a silent worker keeps its
    deliveries. `public_url`: where people reach this installation, "" when nowhere."""

    secret_keys: tuple[str, ...]
    lease: timedelta
    public_url: str


@cache
def conf() -> DeliverySettings:
    given = settings.OUTREACH
    return DeliverySettings(
        secret_keys=tuple(given["SECRET_KEYS"]),
        lease=timedelta(seconds=given["LEASE_SECONDS"]),
        public_url=given["PUBLIC_URL"],
    )


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == "OUTREACH":
        conf.cache_clear()


setting_changed.connect(_forget)
