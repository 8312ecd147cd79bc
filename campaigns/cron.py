"""Cron lines: what is one, and which wall times it names. Knows nothing of time zones; pure.

The names, ranges and steps are those of Debian's cron, read by cronsim. Seconds are not: a line has five fields.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError

from campaigns.exceptions import BadSchedule

SHORT_FORMS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
EXAMPLE = 'A good line: "0 9 * * 1-5", every weekday at 09:00.'
LONGEST = 200  # characters
SOME_DAY = datetime(2024, 1, 1)  # from where cronsim looks fifty years ahead for the first wall time of a line


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    values: int  # how many there are
    hint: str


FIELDS = (
    _Field("minute", 60, "0 to 59, such as 30, */15 or 0,30"),
    _Field("hour", 24, "0 to 23, such as 9, 9-17 or */2"),
    _Field("day of the month", 31, "1 to 31, such as 1, 1,15 or L for the last"),
    _Field("month", 12, "1 to 12 or JAN to DEC"),
    _Field("day of the week", 8, "0 to 7 or SUN to SAT, such as 1-5 or MON; 0 and 7 are Sunday"),
)
DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class CronLine:
    """A line that makes sense, its short form spelt out."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]

    def walls(self, after: datetime) -> Iterator[datetime]:
        """The naive wall times it names after `after`, in order."""
        return CronSim(self.text, after)

    def keeps_pace(self, shift: timedelta) -> bool:
        """Whether it does not notice that clocks are set by `shift`: it names every hour, and the same minutes
        afterwards. Such a line is a rhythm; any other one names times of the day."""
        minutes, rest = divmod(shift, timedelta(minutes=1))
        moved = {(minute + minutes) % 60 for minute in self.minutes}
        return not rest and len(self.hours) == 24 and moved == self.minutes

    def in_words(self) -> str:
        """What it says, in English."""
        minute, hour, *days, weekday = self.text.upper().split()
        if days == ["*", "*"] and minute.isdigit() and hour.isdigit():
            if weekday == "*":
                return f"every day at {int(hour):02}:{int(minute):02}"
            if weekday in ("1-5", "MON-FRI"):
                return f"every weekday at {int(hour):02}:{int(minute):02}"
            if weekday.isdigit():
                return f"every {DAYS[int(weekday)]} at {int(hour):02}:{int(minute):02}"
        step = minute.removeprefix("*/")
        if [hour, *days, weekday] == ["*"] * 4 and step.isdigit() and minute != step and 60 % int(step) == 0:
            return f"every {step} minutes" if int(step) > 1 else "every minute"
        explained = CronSim(self.text, SOME_DAY).explain()
        return explained[:1].lower() + explained[1:]


def cron_line(text: str) -> CronLine:
    """Reads a line or one of the short forms. Raises BadSchedule, which names the place and gives a good one."""
    spelt = _spelt_out(text)
    for field, given in zip(FIELDS, spelt.split(), strict=True):
        _check(field, given)
    try:
        read = CronSim(spelt, SOME_DAY)
        next(read)
    except (CronSimError, StopIteration):
        raise BadSchedule(
            "cron", f"The day that {spelt!r} names never comes: look at day, month and day of the week. {EXAMPLE}"
        ) from None
    return CronLine(spelt, frozenset(read.minutes), frozenset(read.hours))


def _spelt_out(text: str) -> str:
    line = " ".join(text.split())
    if not line:
        raise BadSchedule("cron", f"Write the cron line. {EXAMPLE}")
    if len(line) > LONGEST:
        raise BadSchedule("cron", f"A cron line has at most {LONGEST} characters, not {len(line)}. {EXAMPLE}")
    if line.startswith("@"):
        if line.lower() not in SHORT_FORMS:
            raise BadSchedule("cron", f"There is no {line!r}. The short forms are {', '.join(SHORT_FORMS)}. {EXAMPLE}")
        return SHORT_FORMS[line.lower()]
    if (count := len(line.split())) != len(FIELDS):
        seconds = " Seconds cannot be said." if count == len(FIELDS) + 1 else ""
        names = ", ".join(field.name for field in FIELDS)
        raise BadSchedule("cron", f"A cron line has five fields ({names}), not {count}.{seconds} {EXAMPLE}")
    return line


def _check(field: _Field, given: str) -> None:
    position = FIELDS.index(field)
    alone = ["*"] * len(FIELDS)
    alone[position] = given
    try:
        CronSim(" ".join(alone), SOME_DAY)
    except CronSimError:
        raise BadSchedule("cron", f"The {field.name} {given!r} makes no sense: {field.hint}. {EXAMPLE}") from None
    for step in re.findall(r"/(\d+)", given):
        if int(step) >= field.values:
            raise BadSchedule(
                "cron", f"The {field.name} {given!r} has a step that is never taken: {field.hint}. {EXAMPLE}"
            )
