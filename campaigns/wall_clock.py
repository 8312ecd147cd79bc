"""What a clock on the wall shows, and which instant that is: time zones, hours that are skipped or come twice.

Pure: reads the time zone database and no clock.
"""

import difflib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from campaigns.exceptions import BadSchedule

SECOND = timedelta(seconds=1)
NO_SHIFT = timedelta(0)
YEARS = range(2000, 2100)  # beyond them no slot is looked for


@dataclass(frozen=True, slots=True)
class Shown:
    """A wall time as instants in UTC. `first`: when the clock shows it, or, when it skips it, the change itself, as
    Debian's cron has it. `second`: when it shows it again. `shift`: by how much the clock is set there, forward (it
    skips the wall time) or backward (it shows it twice); zero for nearly every wall time there is."""

    first: datetime
    second: datetime | None
    shift: timedelta

    @property
    def is_skipped(self) -> bool:
        return self.shift > NO_SHIFT


def zone_named(name: str) -> ZoneInfo:
    """The time zone of this name. Raises BadSchedule."""
    if name in _names():
        return ZoneInfo(name)
    by_folded = {known.casefold(): known for known in sorted(_names())}
    close = difflib.get_close_matches(name.casefold().replace(" ", "_"), by_folded, n=1)
    guess = f" Did you mean {by_folded[close[0]]}?" if close else " A good one: Europe/Zurich."
    raise BadSchedule("time_zone", f"There is no time zone {name!r}.{guess}")


@cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones())


def zone_names() -> list[str]:
    """Every time zone that this machine knows, sorted."""
    return sorted(_names())


def wall_time(at: datetime, zone: ZoneInfo) -> datetime:
    """What the clock shows at an instant: naive, `fold` 1 when it shows that for the second time."""
    return at.astimezone(zone).replace(tzinfo=None)


def shown(wall: datetime, zone: ZoneInfo) -> Shown:
    """The instants at which the clock shows the naive `wall`."""
    # PEP 495: in a gap `fold` 0 has the offset from before the change, and 1 the one from after it.
    first, second = (wall.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    shift = second.utcoffset() - first.utcoffset()
    if shift == NO_SHIFT:
        return Shown(first.astimezone(UTC), None, shift)
    if shift < NO_SHIFT:
        return Shown(first.astimezone(UTC), second.astimezone(UTC), shift)
    return Shown(_change(second.astimezone(UTC), first.astimezone(UTC), zone), None, shift)


def instant_of(wall: datetime, zone: ZoneInfo, field: str) -> datetime:
    """The instant that a person means by a wall time, which comes from `field`: the first one, when there are two.
    Raises BadSchedule when the clock skips it, or the year cannot be meant."""
    if wall.year not in YEARS:
        raise BadSchedule(
            field, f"A year from {YEARS[0]} to {YEARS[-1]}, not {wall.year}: for example 2027-03-01 09:00."
        )
    times = shown(wall, zone)
    if times.is_skipped:
        there = wall_time(times.first, zone)
        raise BadSchedule(
            field,
            f"There is no {wall:%Y-%m-%d %H:%M} in {zone.key}: the clocks are set forward, to {there:%H:%M}. Choose "
            f"another time, such as {there:%Y-%m-%d %H:%M}.",
        )
    return times.first


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The instant of the one change of offset between the two: it comes at a whole second."""
    before = before.replace(microsecond=0)
    offset = before.astimezone(zone).utcoffset()
    low, high = 0, (after - before) // SECOND
    while high - low > 1:
        middle = (low + high) // 2
        if (before + middle * SECOND).astimezone(zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return before + high * SECOND
