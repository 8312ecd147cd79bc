"""Sending windows: at which hours of which days something may go. An instant and a time zone in, an instant out.

The clock on the wall decides, and nothing else: an instant is open when the time it shows there lies in one of the
weekday's spans, and its date is not closed. So an hour that summer time skips is not there, and one that comes twice is
open twice. A closed date is closed from midnight to midnight, whatever began on the evening before.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MIDNIGHT = 24 * 60  # in minutes: where a day ends
ZONE_FIELD = "time_zone"  # of a recipient's data
EXAMPLE = '{"week": {"mon": ["09:00-12:00", "13:00-17:30"]}, "zone": "Europe/Zurich", "closed": ["2026-12-25"]}'

_KEYS = {"week", "zone", "closed", "per_recipient", "zone_field"}
_SPAN = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")
_DATE = re.compile(r"(20[0-9]{2}|21[0-9]{2})-([0-9]{2})-([0-9]{2})")
# The offset of a zone is looked at so often: no two changes that undo each other are as close together.
_STRIDE = timedelta(days=1)
# Who opens at all does so in a week, or in two when summer time skips just that hour.
_LONGEST_WEEK = timedelta(days=15)
_LONGEST_NAME = 64  # of a time zone

Span = tuple[int, int]  # of a day: the first minute since midnight, and the one after the last
Week = tuple[tuple[Span, ...], ...]  # seven days, Monday first


class Opening(NamedTuple):
    """From when until when a window is open: for now, or the next time. `at` is None when it never opens again, `until`
    when it never closes."""

    at: datetime | None
    until: datetime | None

    def admits(self, now: datetime) -> bool:
        """Whether `now` lies in it."""
        return self.at is not None and self.at <= now and (self.until is None or now < self.until)


@dataclass(frozen=True, slots=True)
class Window:
    """Spans of wall-clock time on the days of the week, and dates on which it stays closed. `zone` is the name of the
    time zone; with `per_recipient` each has his own, by that name in `zone_field` of his data."""

    week: Week
    zone: str
    closed: frozenset[date] = frozenset()
    per_recipient: bool = False
    zone_field: str = ZONE_FIELD

    @classmethod
    def of(cls, value: object) -> "Window":
        """What `as_json` has written. Raises ValueError with the place and an example of a good one."""
        fields = _mapping("a window", value)
        if unknown := sorted(map(str, fields.keys() - _KEYS)):
            raise _bad(unknown[0], f"a window has no such part, but {', '.join(sorted(_KEYS))}")
        field, per_recipient = fields.get("zone_field", ZONE_FIELD), fields.get("per_recipient", False)
        if not isinstance(per_recipient, bool):
            raise _bad("per_recipient", f"{per_recipient!r} is neither true nor false")
        if not isinstance(field, str) or not field:
            raise _bad("zone_field", f"{field!r} is not the name of a field")
        return cls(
            _week(fields.get("week")),
            _zone(fields.get("zone")),
            frozenset(_dates(fields.get("closed", []))),
            per_recipient,
            field,
        )

    def as_json(self) -> dict[str, object]:
        """The window as plain JSON; a span over midnight is written as the two days' parts of it."""
        return {
            "week": {
                name: [f"{clock(start)}-{clock(end)}" for start, end in spans]
                for name, spans in zip(DAYS, self.week, strict=True)
                if spans
            },
            "zone": self.zone,
            "closed": sorted(day.isoformat() for day in self.closed),
            "per_recipient": self.per_recipient,
            "zone_field": self.zone_field,
        }

    def opens(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        """The first open instant from `now` on: `now` itself when it is open. None when there is none."""
        return self._first(now, zone, self._first_open)

    def closes(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        """The first closed instant from `now` on: `now` itself when it is closed. None when there is none."""
        return self._first(now, zone, self._first_closed)

    def opening(self, now: datetime, zone: ZoneInfo) -> Opening:
        """The one that `now` lies in, or else the next one."""
        at = self.opens(now, zone)
        return Opening(at, None if at is None else self.closes(at, zone))

    def openings(self, now: datetime, zone: ZoneInfo) -> Iterator[Opening]:
        """That one, and those that follow it."""
        opening = self.opening(now, zone)
        while opening.at is not None:
            yield opening
            if opening.until is None:
                return
            opening = self.opening(opening.until, zone)

    def closed_for(self, since: datetime, now: datetime, zone: ZoneInfo) -> timedelta:
        """How long it was closed between these two instants."""
        closed = timedelta()
        while since < now:
            shut = self.closes(since, zone)
            if shut is None or shut >= now:
                break
            opened = self.opens(shut, zone)
            since = now if opened is None else min(opened, now)
            closed += since - shut
        return closed

    def _first(
        self, now: datetime, zone: ZoneInfo, search: Callable[[datetime, datetime], datetime | None]
    ) -> datetime | None:
        """The first instant from `now` on that `search` finds on the wall, one stretch of steady offset after the
        other."""
        at = now.astimezone(UTC)
        last = max(self.closed, default=None)
        end = _LONGEST_WEEK + (at if last is None else max(at, datetime(last.year, last.month, last.day, tzinfo=UTC)))
        while at < end:
            offset, until = _steady(at, zone)
            found = search(at.replace(tzinfo=None) + offset, until.replace(tzinfo=None) + offset)
            if found is not None:
                return (found - offset).replace(tzinfo=UTC)
            at = until
        return None

    def _first_open(self, start: datetime, end: datetime) -> datetime | None:
        midnight = _midnight(start)
        while midnight < end:
            for opens, closes in self._spans(midnight):
                at = max(opens, start)
                if at < min(closes, end):
                    return at
            midnight += timedelta(days=1)
        return None

    def _first_closed(self, start: datetime, end: datetime) -> datetime | None:
        at = start
        while at < end:
            closes = next((closes for opens, closes in self._spans(_midnight(at)) if opens <= at < closes), None)
            if closes is None:
                return at
            at = closes
        return None

    def _spans(self, midnight: datetime) -> Iterator[tuple[datetime, datetime]]:
        """From when until when it is open on this day, on the wall."""
        if midnight.date() not in self.closed:
            for start, end in self.week[midnight.weekday()]:
                yield midnight + timedelta(minutes=start), midnight + timedelta(minutes=end)


class Openings:
    """The openings of one window, as a worker asks for them with each delivery: what was found for a time zone is
    remembered as long as it holds."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._home = zone_named(window.zone) or ZoneInfo(window.zone)
        self._found: dict[ZoneInfo, tuple[datetime, Opening]] = {}

    def opening(self, data: str, now: datetime) -> Opening:
        """The present or next opening for a recipient with this data (JSON text)."""
        zone = self._zone(data)
        since, opening = self._found.get(zone, (now, None))
        if opening is None or now < since or (opening.until is not None and now >= opening.until):
            opening = self._window.opening(now, zone)
            self._found[zone] = now, opening
        return opening

    def closed_for(self, data: str, since: datetime, now: datetime) -> timedelta:
        """How long it was closed for this recipient between these two instants."""
        return self._window.closed_for(since, now, self._zone(data))

    def _zone(self, data: str) -> ZoneInfo:
        """The recipient's own, if that is asked for, there, and known; else the window's."""
        if not self._window.per_recipient:
            return self._home
        name = json.loads(data).get(self._window.zone_field)
        return (isinstance(name, str) and zone_named(name.strip())) or self._home


@lru_cache(maxsize=4096)  # also of what is not there: a recipient's data says anything, and each time it is looked for
def zone_named(name: str) -> ZoneInfo | None:
    """The time zone of this name; None when there is none."""
    if len(name) > _LONGEST_NAME:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not there; no such name can be; a folder, such as "America"
        return None


def week_of(spans: Iterable[tuple[int, int, int]]) -> Week:
    """The week of spans given as day (0 is Monday), first and last minute. A span that ends no later than it begins
    ends on the next day."""
    minutes: list[list[Span]] = [[] for _ in DAYS]
    for day, start, end in spans:
        if start < end:
            minutes[day].append((start, end))
            continue
        minutes[day].append((start, MIDNIGHT))
        if end:
            minutes[(day + 1) % len(DAYS)].append((0, end))
    return tuple(tuple(_joined(sorted(day))) for day in minutes)


def clock(minute: int) -> str:
    """The minute of a day as a clock shows it."""
    return f"{minute // 60:02}:{minute % 60:02}"


def _joined(spans: list[Span]) -> Iterator[Span]:
    """Spans in order, those that touch as one."""
    before: Span | None = None
    for start, end in spans:
        if before is not None and start <= before[1]:
            before = before[0], max(before[1], end)
            continue
        if before is not None:
            yield before
        before = start, end
    if before is not None:
        yield before


def _midnight(wall: datetime) -> datetime:
    return wall.replace(hour=0, minute=0, second=0, microsecond=0)


def _steady(at: datetime, zone: ZoneInfo) -> tuple[timedelta, datetime]:
    """The zone's offset from UTC at `at`, and until when it is sure to stay the same."""
    offset, until = _offset(at, zone), at + _STRIDE
    if _offset(until, zone) == offset:
        return offset, until
    # Offsets change at whole seconds: between which two of them?
    base = at.replace(microsecond=0)
    same, other = 0, int(_STRIDE.total_seconds()) + 1
    while other - same > 1:
        middle = (same + other) // 2
        if _offset(base + timedelta(seconds=middle), zone) == offset:
            same = middle
        else:
            other = middle
    return offset, base + timedelta(seconds=other)


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


# ---- reading ----


def _bad(place: str, what: str) -> ValueError:
    return ValueError(f"{place}: {what}. A good one: {EXAMPLE}")


def _mapping(place: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise _bad(place, f"{value!r} is not an object")
    return value


def _list(place: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise _bad(place, f"{value!r} is not a list")
    return value


def _week(value: object) -> Week:
    days = _mapping("week", value)
    if unknown := [name for name in days if name not in DAYS]:
        raise _bad(f"week.{unknown[0]}", f"the days are {', '.join(DAYS)}")
    spans = [
        (DAYS.index(name), *_span(f"week.{name}[{position}]", text))
        for name, texts in days.items()
        for position, text in enumerate(_list(f"week.{name}", texts))
    ]
    if not spans:
        raise _bad("week", "it never opens")
    return week_of(spans)


def _span(place: str, value: object) -> Span:
    read = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if read is None:
        raise _bad(place, f"{value!r} is not a span of hours")
    first, first_minute, last, last_minute = map(int, read.groups())
    start, end = first * 60 + first_minute, last * 60 + last_minute
    if max(first_minute, last_minute) > 59 or start >= MIDNIGHT or end > MIDNIGHT or start == end:
        raise _bad(place, f"{value!r} is not a span of hours of a day")
    return start, end


def _zone(value: object) -> str:
    if not isinstance(value, str) or zone_named(value) is None:
        raise _bad("zone", f"{value!r} is not a time zone that is known here")
    return value


def _dates(value: object) -> Iterator[date]:
    for position, text in enumerate(_list("closed", value)):
        read = _DATE.fullmatch(text) if isinstance(text, str) else None
        try:
            if read is None:
                raise ValueError
            yield date(*map(int, read.groups()))
        except ValueError:
            raise _bad(f"closed[{position}]", f"{text!r} is not a date") from None
