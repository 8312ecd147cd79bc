"""The hours of a sending window as an operator writes them: "mon-fri 09:00-12:00, 13:00-17:30; sat 10:00-14:00".

From such a line to a week and back, and from a list of dates to the dates. Pure; knows no time zone and no holiday.
"""

import re
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import groupby

from campaigns.exceptions import BadWindow
from delivery.core.window import DAYS, MIDNIGHT, Span, Week, clock, week_of

EXAMPLE = "mon-fri 09:00-12:00, 13:00-17:30; sat 10:00-14:00"
EXAMPLE_OF_DATES = "2026-12-24, 2026-12-27 to 2026-12-31"
NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
EVERY_DAY = "every day"
LONGEST_CLOSURE = timedelta(days=366)

_SHORT_FORMS = {
    EVERY_DAY: range(7),
    "daily": range(7),
    "weekdays": range(5),
    "weekend": (5, 6),
    "weekends": (5, 6),
}
_DAY_OF = {name: day for day, full in enumerate(NAMES) for name in (DAYS[day], full.lower())}
_CLAUSE = re.compile(r"(?P<days>[^0-9]+)(?P<hours>[0-9].*)", re.DOTALL)
_TIME = r"([0-9]{1,2})(?::([0-9]{2}))?"
_SPAN = re.compile(rf"{_TIME}\s*-\s*{_TIME}")
_DASHES = re.compile("[\N{HYPHEN}-\N{EM DASH}]")
_DATE = re.compile(r"(20[0-9]{2}|21[0-9]{2})-([0-9]{2})-([0-9]{2})")
_DATES = re.compile(r"(?P<first>\S+)(?:\s+to\s+(?P<last>\S+))?")


def week(text: str) -> Week:
    """The week that the line describes; the times of a clause hold for each of its days. Raises BadWindow."""
    clauses = [clause.strip() for clause in re.split(r"[;\n]", _DASHES.sub("-", text)) if clause.strip()]
    if not clauses:
        raise _bad(f'"{text}" names no hours')
    return week_of((day, start, end) for clause in clauses for day, start, end in _clause(clause))


def in_words(found: Week) -> str:
    """The week as one would say it; `week` reads that again."""
    spans = [_as_written(found, day) for day in range(7)]
    groups = [(text, [day for day, _ in days]) for text, days in groupby(enumerate(spans), key=lambda each: each[1])]
    if len(groups) == 1:
        return f"{EVERY_DAY} {groups[0][0]}"
    return "; ".join(f"{_days_in_words(days)} {text}" for text, days in groups if text)


def dates(text: str) -> frozenset[date]:
    """The dates of a list; "to" stands between the first and the last of several. Raises BadWindow."""
    return frozenset(day for part in re.split(r"[,;\n]", text) if part.strip() for day in _days(part.strip()))


def _bad(what: str, field: str = "window_hours", good: str = EXAMPLE) -> BadWindow:
    return BadWindow(field, f'{what}. A good one: "{good}".')


# ---- hours ----


def _clause(clause: str) -> Iterator[tuple[int, int, int]]:
    parts = _CLAUSE.fullmatch(clause)
    if parts is None:
        missing = "no days before the hours" if clause[0].isdigit() else "no hours after the days"
        raise _bad(f'"{clause}" has {missing}')
    days = sorted(_days_of(clause, parts["days"]))
    for piece in re.split(r",|\band\b", parts["hours"]):
        start, end = _span(clause, piece.strip())
        for day in days:
            yield day, start, end


def _days_of(clause: str, text: str) -> set[int]:
    words = re.sub(r"\s*-\s*", "-", " ".join(text.lower().rstrip(" :,").split()))
    if words in _SHORT_FORMS:
        return set(_SHORT_FORMS[words])
    parts = [part for part in re.split(r"[,\s]+", words) if part not in ("", "and")]
    if not parts:
        raise _bad(f'"{clause}" has no days before the hours')
    days: set[int] = set()
    for part in parts:
        first, dash, last = part.partition("-")
        for name in (first, last) if dash else (first,):
            if name not in _DAY_OF:
                raise _bad(f'In "{clause}": "{name}" is no day of the week, which are {", ".join(DAYS)}')
        begin, end = _DAY_OF[first], _DAY_OF[last or first]
        days |= {(begin + n) % 7 for n in range((end - begin) % 7 + 1)}
    return days


def _span(clause: str, piece: str) -> Span:
    read = _SPAN.fullmatch(piece)
    if read is None:
        raise _bad(f'In "{clause}": "{piece}" is not from one time to another, such as 09:00-17:30')
    start, end = _minute(clause, *read.group(1, 2)), _minute(clause, *read.group(3, 4))
    if start in (MIDNIGHT, end):
        raise _bad(f'In "{clause}": "{piece}" is no time at all; the whole day is 00:00-24:00')
    return start, end


def _minute(clause: str, hour: str, minute: str | None) -> int:
    found = int(hour) * 60 + int(minute or 0)
    if int(minute or 0) > 59 or found > MIDNIGHT:
        shown = hour if minute is None else f"{hour}:{minute}"
        raise _bad(f'In "{clause}": "{shown}" is no time of a day')
    return found


def _as_written(found: Week, day: int) -> str:
    """The spans of a day, those over midnight as one, which stands with the day of its evening."""
    spans = list(found[day])
    if _goes_on(found, (day - 1) % 7):
        del spans[0]
    if _goes_on(found, day):
        spans[-1] = spans[-1][0], found[(day + 1) % 7][0][1]
    return ", ".join(f"{clock(start)}-{clock(end)}" for start, end in spans)


def _goes_on(found: Week, day: int) -> bool:
    """Whether the last span of a day is said to go on over midnight: a night, not days on end."""
    evening, morning = found[day][-1:], found[(day + 1) % 7][:1]
    return bool(
        evening and morning and evening[0][1] == MIDNIGHT and morning[0][0] == 0 and morning[0][1] < evening[0][0]
    )


def _days_in_words(days: list[int]) -> str:
    names = [NAMES[day] for day in days]
    return names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}"


# ---- dates ----


def _days(part: str) -> Iterator[date]:
    read = _DATES.fullmatch(part)
    if read is None:
        for each in part.split():  # dates with nothing but space between them
            yield _date(each)
        return
    first = _date(read["first"])
    last = _date(read["last"]) if read["last"] else first
    if not timedelta() <= last - first < LONGEST_CLOSURE:
        raise _bad(f'"{part}" does not end in the year after it begins', "closed_dates", EXAMPLE_OF_DATES)
    for n in range((last - first).days + 1):
        yield first + timedelta(days=n)


def _date(text: str) -> date:
    read = _DATE.fullmatch(text)
    try:
        if read is None:
            raise ValueError
        return date(*map(int, read.groups()))
    except ValueError:
        raise _bad(f'"{text}" is no date', "closed_dates", EXAMPLE_OF_DATES) from None
