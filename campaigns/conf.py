"""Campaigns' own settings, read once from Django's. Nothing else in campaigns reads settings."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf import settings
from django.core.signals import setting_changed


@dataclass(frozen=True, slots=True)
class CampaignSettings:
    """`audience_databases`: URLs by name. `output_dir`: where execution logs go. `listed_problems`: how many problems
    of each kind a run lists; all are counted. `public_url`: where people reach this installation, "" when nowhere."""

    audience_databases: dict[str, str]
    output_dir: Path
    listed_problems: int
    public_url: str


@cache
def conf() -> CampaignSettings:
    given = settings.OUTREACH
    return CampaignSettings(
        audience_databases=dict(given["AUDIENCE_DATABASES"]),
        output_dir=Path(given["OUTPUT_DIR"]),
        listed_problems=given["LISTED_PROBLEMS"],
        public_url=given["PUBLIC_URL"],
    )


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == "OUTREACH":
        conf.cache_clear()


setting_changed.connect(_forget)
