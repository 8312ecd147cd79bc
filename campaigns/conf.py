"""Campaigns' own settings, read once from Django's. Nothing else in campaigns reads settings."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf import settings
from django.core.signals import setting_changed


@dataclass(frozen=True, slots=True)
class CampaignSettings:
    """`audience_databases`: URLs by name. `output_dir`: where execution logs go. `listed_problems`: how many problems
    of each kind a run lists; all are counted. `public_url`: where people reach this installation, "" when nowhere.
    `log_level_chosen`: somebody has said which log lines he wants, also between progress bars.
    `stuck_seconds`: after how long workers that take no work are started anew. `import_megabytes`: how large a file of
    contacts may be."""

    audience_databases: dict[str, str]
    output_dir: Path
    listed_problems: int
    public_url: str
    log_level_chosen: bool
    stuck_seconds: int
    import_megabytes: int


@cache
def conf() -> CampaignSettings:
    given = settings.OUTREACH
    return CampaignSettings(
        audience_databases=dict(given["AUDIENCE_DATABASES"]),
        output_dir=Path(given["OUTPUT_DIR"]),
        listed_problems=given["LISTED_PROBLEMS"],
        public_url=given["PUBLIC_URL"],
        log_level_chosen=given["LOG_LEVEL_CHOSEN"],
        stuck_seconds=given["STUCK_SECONDS"],
        import_megabytes=given["IMPORT_MEGABYTES"],
    )


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == "OUTREACH":
        conf.cache_clear()


setting_changed.connect(_forget)
