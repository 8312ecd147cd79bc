"""The instants of a schedule, and what becomes of those that were missed. Pure: time comes in as an argument.

A slot is an instant in UTC. Once, minutes and hours are about the time that passes; days, weeks and cron lines are
about the clock on the wall of a time zone. Where that is set, a wall time that is skipped has its slot at the change,
one that comes twice has it the first time; slots that fall together are one. Only a line of the kind "every hour" goes
on as if the clock had not been set: its rhythm is not of the wall.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import count, islice, takewhile
from zoneinfo import ZoneInfo

from campaigns.cron import CronLine
from campaigns.exceptions import BadSchedule
from campaigns.wall_clock import YEARS, shown, wall_time

EARLIEST = datetime(YEARS[0], 1, 1, tzinfo=UTC)
LATEST = datetime(YEARS[-1] + 1, 1, 1, tzinfo=UTC)
LONGEST_INTERVAL = timedelta(days=3660)
TICK = timedelta(microseconds=1)


class Unit(StrEnum):
    """What an interval is counted in."""

    MINUTES = "minutes"
    HOURS = "hours"
    DAYS = "days"
    WEEKS = "weeks"

    @property
    def length(self) -> timedelta:
        return timedelta(**{self.value: 1})


class Late(StrEnum):
    """What becomes of slots that were missed."""

    SKIP = "skip"
    RUN_ONCE = "run_once"  # the latest stands for all
    RUN_ALL = "run_all"


@dataclass(frozen=True, slots=True)
class Once:
    """At one instant."""

    at: datetime

    def __post_init__(self) -> None:
        _in_range("at", self.at)


@dataclass(frozen=True, slots=True)
class Every:
    """Every so many units, counted from `anchor`, which is the first slot. An hour is sixty minutes, whatever the
    clocks do; a day ends when the clock shows the same time again, because that is what people mean by it."""

    number: int
    unit: Unit
    anchor: datetime

    def __post_init__(self) -> None:
        _in_range("anchor", self.anchor)
        longest = LONGEST_INTERVAL // self.unit.length
        if not 1 <= self.number <= longest:
            raise BadSchedule(
                "every", f"An interval is 1 to {longest:,} {self.unit}, not {self.number:,}. A good one: 15 minutes."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When a schedule has its slots: a rhythm in a time zone, not before `starts_at`, not after `ends_at`."""

    rhythm: Once | Every | CronLine
    zone: ZoneInfo
    starts_at: datetime | None = None
    ends_at: datetime | None = None

    def __post_init__(self) -> None:
        for field in ("starts_at", "ends_at"):
            if (at := getattr(self, field)) is not None:
                _in_range(field, at)
        if self.starts_at and self.ends_at and self.ends_at < self.starts_at:
            raise BadSchedule(
                "ends_at",
                f"It would end before it starts, at {wall_time(self.starts_at, self.zone):%Y-%m-%d %H:%M}: choose a "
                "later end, or none.",
            )


def _in_range(field: str, at: datetime) -> None:
    if not EARLIEST <= at < LATEST:
        raise BadSchedule(field, f"A year from {YEARS[0]} to {YEARS[-1]}, not {at.year}: for example 2027-03-01 09:00.")


def following(plan: Plan, after: datetime) -> Iterator[datetime]:
    """The slots after `after`, strictly increasing, for ever or to the schedule's end."""
    last = after if plan.starts_at is None else max(after, plan.starts_at - TICK)
    end = LATEST if plan.ends_at is None else plan.ends_at
    for at in takewhile(lambda at: at <= end, _of(plan, last)):
        if at > last:
            yield at
            last = at


def between(plan: Plan, after: datetime, until: datetime) -> Iterator[datetime]:
    """The slots in (after, until], strictly increasing."""
    return takewhile(lambda at: at <= until, following(plan, after))


def upcoming(plan: Plan, after: datetime, number: int = 10) -> list[datetime]:
    """The next so many slots after `after`, or as many as there are."""
    return list(islice(following(plan, after), number))


def _of(plan: Plan, after: datetime) -> Iterator[datetime]:
    """Those after `after` at least, in order; some may be there twice, and some earlier ones."""
    after = max(after, EARLIEST)
    match plan.rhythm:
        case Once(at):
            return iter((at.astimezone(UTC),))
        case Every(number, unit, anchor) if unit in (Unit.MINUTES, Unit.HOURS):
            return _passing(number * unit.length, anchor.astimezone(UTC), after)
        case Every(number, unit, anchor):
            return _by_days(number * unit.length, anchor, after, plan.zone)
        case CronLine() as line:
            return _by_cron(line, after, plan.zone)


def _passing(step: timedelta, anchor: datetime, after: datetime) -> Iterator[datetime]:
    first = max(0, (after - anchor) // step)
    return (anchor + n * step for n in count(first))


def _by_days(step: timedelta, anchor: datetime, after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    begin = wall_time(anchor, zone).replace(fold=0)
    # Two steps earlier: a change may set a slot off by as much as a day.
    first = (wall_time(after, zone).replace(fold=0) - begin) // step - 2
    if first <= 0:
        yield anchor.astimezone(UTC)  # not by its wall time, which may be of the doubled hour
        first = 1
    yield from (shown(begin + n * step, zone).first for n in count(first))


def _by_cron(line: CronLine, after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    again: deque[datetime] = deque()  # of a doubled stretch of the wall clock: what comes when it is gone through anew
    for wall in line.walls(_begin(after, zone)):
        times = shown(wall, zone)
        while again and again[0] < times.first:
            yield again.popleft()
        keeps_pace = line.keeps_pace(times.shift)
        if times.is_skipped and keeps_pace:
            continue
        yield times.first
        if times.second is not None and keeps_pace:
            again.append(times.second)
    yield from again


def _begin(after: datetime, zone: ZoneInfo) -> datetime:
    """The wall time from which to look for what comes after an instant."""
    wall = wall_time(after, zone)
    shift = shown(wall, zone).shift
    if shift < timedelta(0) and wall.fold == 0:
        return wall + shift  # what was shown a while ago in this stretch is still to be shown again
    return wall.replace(fold=0)


# ---- slots that were missed ----


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a slot whose time has come makes a run; if not, why."""

    at: datetime
    runs: bool
    reason: str = ""


def judge(
    due: Sequence[datetime], now: datetime, policy: Late, grace: timedelta, *, more: bool = False
) -> list[Verdict]:
    """What becomes of the slots that are due, in order. One that is later than `grace` was missed. `more`: there are
    later ones that are due as well.

    With `Late.RUN_ONCE` the latest of all that are due stands for those that were missed, whether it is late itself
    or not: nobody gets two mails in a moment because a cluster came back just at a slot.
    """
    if policy == Late.RUN_ALL:
        return [Verdict(at, True) for at in due]
    if policy == Late.SKIP:
        return [_unless_missed(at, now, grace, "and missed slots are skipped.") for at in due]
    latest = due[-1] if due and not more else None
    stands = f"the slot at {latest:%Y-%m-%d %H:%M} UTC stands for it." if latest else "a later one stands for it."
    return [Verdict(at, True) if at == latest else _unless_missed(at, now, grace, stands) for at in due]


def _unless_missed(at: datetime, now: datetime, grace: timedelta, otherwise: str) -> Verdict:
    late = now - at
    return Verdict(at, True) if late <= grace else Verdict(at, False, f"Missed by {_length(late)}, {otherwise}")


def _length(span: timedelta) -> str:
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"


# ---- in words ----


def in_words(plan: Plan) -> str:
    """The schedule as a person says it: `every weekday at 09:00, Europe/Zurich`."""
    words = [_rhythm_in_words(plan), plan.zone.key]
    if plan.starts_at is not None:
        words.append(f"not before {_written(plan.starts_at, plan.zone)}")
    if plan.ends_at is not None:
        words.append(f"not after {_written(plan.ends_at, plan.zone)}")
    return ", ".join(words)


def _rhythm_in_words(plan: Plan) -> str:
    match plan.rhythm:
        case Once(at):
            return f"once, {_written(at, plan.zone)}"
        case Every(number, unit, anchor):
            often = unit.removesuffix("s") if number == 1 else f"{number:,} {unit}"
            return f"every {often}, counted from {_written(anchor, plan.zone)}"
        case CronLine() as line:
            return line.in_words()


def _written(at: datetime, zone: ZoneInfo) -> str:
    wall = wall_time(at, zone)
    return f"{wall:%Y-%m-%d %H:%M:%S}" if wall.second else f"{wall:%Y-%m-%d %H:%M}"
