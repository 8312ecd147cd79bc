"""How an instant is written where Django does not do it by itself."""

from datetime import datetime

from django.utils.formats import date_format
from django.utils.timezone import localtime


def shown_instant(at: datetime | None) -> str:
    """The instant in the installation's time zone and format."""
    return date_format(localtime(at), "DATETIME_FORMAT") if at else "-"
