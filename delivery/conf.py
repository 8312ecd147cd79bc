"""Delivery's own settings, read once from Django's. Nothing else in delivery reads settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from ipaddress import IPv4Network, IPv6Network

from django.conf import settings
from django.core.signals import setting_changed


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """`secret_keys`: Fernet keys, the first encrypts, all decrypt. `lease`: how long a silent worker keeps its
    deliveries. `public_url`: where people reach this installation, "" when nowhere. `allowed_networks`: what outgoing
    requests may reach beside the public internet. `redis_url`: where shared limits are kept, "" for the database.
    `django_backends`: Django's email backends that engines may use, by name: dotted path and options."""

    secret_keys: tuple[str, ...]
    lease: timedelta
    public_url: str
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    redis_url: str = ""
    django_backends: Mapping[str, tuple[str, Mapping[str, object]]] = field(default_factory=dict)


@cache
def conf() -> DeliverySettings:
    given = settings.OUTREACH
    return DeliverySettings(
        secret_keys=tuple(given["SECRET_KEYS"]),
        lease=timedelta(seconds=given["LEASE_SECONDS"]),
        public_url=given["PUBLIC_URL"],
        allowed_networks=tuple(given["ALLOWED_NETWORKS"]),
        redis_url=given["REDIS_URL"],
        django_backends=given["DJANGO_BACKENDS"],
    )


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == "OUTREACH":
        conf.cache_clear()


setting_changed.connect(_forget)
