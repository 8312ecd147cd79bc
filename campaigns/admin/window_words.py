"""A workflow's sending window as one would say it, and the openings that come next."""

from datetime import datetime
from itertools import islice
from zoneinfo import ZoneInfo

from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from campaigns import hours
from campaigns.exceptions import BadWindow
from campaigns.models import Workflow
from delivery.core.window import Opening, Window

OPENINGS = 3
CLOSED_DATES = 3
AT_ANY_HOUR = "None: mails go out at any hour."


def window_in_words(workflow: Workflow, now: datetime) -> str | SafeString:
    """The hours, whose clock, the dates that are closed next, and the next openings, a line each."""
    try:
        window = workflow.window(now)
    except BadWindow as refusal:
        return str(refusal)
    if window is None:
        return AT_ANY_HOUR
    zone = ZoneInfo(window.zone)
    lines = [f"{_first_large(hours.in_words(window.week))}, {_clock(window)}."]
    if closed := _closed(window, now.astimezone(zone)):
        lines.append(closed)
    of_whom = f" in {window.zone}" if window.per_recipient else ""
    openings = ", then ".join(_opening(each, now, zone) for each in islice(window.openings(now, zone), OPENINGS))
    lines.append(f"Open{of_whom}: {openings}.")
    return format_html_join(SafeString("<br>"), "{}", ([line] for line in lines))


def _first_large(text: str) -> str:
    return text[:1].upper() + text[1:]


def _clock(window: Window) -> str:
    if window.per_recipient:
        return f"by the clock of the zone in each recipient's {window.zone_field}, else of {window.zone}"
    return f"by the clock of {window.zone}"


def _closed(window: Window, now: datetime) -> str:
    coming = sorted(day for day in window.closed if day >= now.date())
    if not coming:
        return ""
    listed = ", ".join(f"{day:%a %Y-%m-%d}" for day in coming[:CLOSED_DATES])
    more = f" and {len(coming) - CLOSED_DATES} more" if len(coming) > CLOSED_DATES else ""
    return f"Closed on {listed}{more}."


def _opening(opening: Opening, now: datetime, zone: ZoneInfo) -> str:
    begin = "now" if opening.at == now else f"{opening.at.astimezone(zone):%a %Y-%m-%d %H:%M}"
    if opening.until is None:
        return f"{begin} and ever after"
    end = opening.until.astimezone(zone)
    same_day = end.date() == opening.at.astimezone(zone).date()
    return f"{begin} to {end:%H:%M}" if same_day else f"{begin} to {end:%a %Y-%m-%d %H:%M}"
