"""The project's own settings, read once from Django's: of what is watched, and by whom; of the API's limits."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from django.conf import settings
from django.core.signals import setting_changed

from delivery.core.throttle import Rate


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """`metrics_token`: what opens /metrics, "" when only this host may read it. `ready_needs_worker`: whether a web
    server without any worker is not ready."""

    metrics_token: str
    ready_needs_worker: bool


@cache
def conf() -> WatchSettings:
    given = settings.OUTREACH
    return WatchSettings(metrics_token=given["METRICS_TOKEN"], ready_needs_worker=given["READY_NEEDS_WORKER"])


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """`api_rate`: of the requests of one token, None for no limit. `audit_kept`: how long the audit trail is."""

    api_rate: Rate | None
    audit_kept: timedelta


@cache
def access() -> AccessSettings:
    given = settings.OUTREACH
    return AccessSettings(given["API_RATE"], timedelta(days=given["AUDIT_DAYS"]))


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == "OUTREACH":
        conf.cache_clear()
        access.cache_clear()


setting_changed.connect(_forget)
