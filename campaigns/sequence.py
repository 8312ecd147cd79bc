"""The steps of a workflow as an operator writes them: what a step waits for ("1 opened, 2 accepted"), and for how long
("3 days", "next tuesday 9:00 their time").

From such lines to what they mean, and what is wrong with the steps of a workflow together. Pure.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from itertools import count
from typing import NamedTuple, Protocol

from campaigns import hours
from campaigns.exceptions import BadStep, BadWindow
from delivery.core.sequence import On
from delivery.core.window import Week
from delivery.templating import CompiledCondition, TemplateProblem

EXAMPLE_AFTER = "1, 2 opened"
EXAMPLE_DELAY = "3 days"
EXAMPLE_CLOCK = "next tuesday 9:00 their time"
LONGEST_DELAY = timedelta(days=366)

POSITIONS = range(1, 30_000)
NO_STEP = "A workflow needs a step: choose its template."
NO_DEADLINE = (
    "So long before which deadline? Enter one above, such as 120 minutes, or name the field with the recipients' "
    "deadlines on the page of the audience."
)
NO_DEADLINE_AFTER_ANOTHER = (
    "So long before which deadline? A step that waits for others needs its own: enter one above, such as 120 minutes."
)

_AFTER = re.compile(r"(?:step\s+)?(?P<position>[0-9]{1,5})(?:\s+(?:is\s+|was\s+)?(?P<on>[a-z ]+))?")
_UNITS = {
    **dict.fromkeys(("second", "seconds", "sec", "s"), timedelta(seconds=1)),
    **dict.fromkeys(("minute", "minutes", "min", "m"), timedelta(minutes=1)),
    **dict.fromkeys(("hour", "hours", "h"), timedelta(hours=1)),
    **dict.fromkeys(("day", "days", "d"), timedelta(days=1)),
    **dict.fromkeys(("week", "weeks", "w"), timedelta(weeks=1)),
}
_PIECE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[a-z]+)\s*(?:and\s+|,\s*)?")
_CLOCK = re.compile(
    r"(?:then\s+|next\s+)*(?P<days>(?!at\s)[a-z][a-z ,-]*?)?\s*(?:at\s+)?(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})"
    r"(?P<theirs>\s+(?:in\s+)?their\s+time)?"
)


class After(NamedTuple):
    """An earlier step, and what has to become of its mail."""

    position: int
    on: On


class Delay(NamedTuple):
    """How long to wait; then until the next of these minutes of a week, if there are any: by the recipient's own clock
    (`theirs`), or by the workflow's."""

    wait: timedelta = timedelta()
    minutes: Week | None = None
    theirs: bool = False


def parse_after(text: str) -> tuple[After, ...]:
    """The earlier steps that a line names. Raises BadStep."""
    found = []
    for part in filter(None, (part.strip().lower() for part in re.split(r"[,;\n]", text))):
        read = _AFTER.fullmatch(part)
        if read is None:
            raise BadStep("after", f'"{part}" is not the number of a step. A good one: "{EXAMPLE_AFTER}".')
        wanted = " ".join((read["on"] or On.ACCEPTED.value).split())
        if wanted not in {on.value for on in On}:
            raise BadStep(
                "after",
                f'"{wanted}" is nothing that can become of a step: write one of {", ".join(on.value for on in On)}. '
                f'A good one: "{EXAMPLE_AFTER}".',
            )
        found.append(After(int(read["position"]), On(wanted)))
    positions = [each.position for each in found]
    if doubled := sorted({position for position in positions if positions.count(position) > 1}):
        raise BadStep("after", f'Step {doubled[0]} is named twice. A good one: "{EXAMPLE_AFTER}".')
    return tuple(found)


def parse_delay(text: str) -> Delay:
    """The delay that a line says. Raises BadStep."""
    rest, wait = text.strip().lower(), timedelta()
    while piece := _PIECE.match(rest):
        unit = _UNITS.get(piece["unit"])
        if unit is None:
            raise _bad_delay(f'"{piece["unit"]}" is no unit of time: there are minutes, hours, days and weeks')
        # Compared before it is multiplied: there are numbers that no timedelta holds.
        if float(piece["number"]) > (LONGEST_DELAY - wait) / unit:
            raise _bad_delay(f"a step waits for {LONGEST_DELAY.days} days at most")
        wait += unit * float(piece["number"])
        rest = rest[piece.end() :]
    if not rest:
        return Delay(wait)
    read = _CLOCK.fullmatch(rest)
    if read is None:
        raise _bad_delay(f'"{text.strip()}" is no delay')
    return Delay(wait, _minutes(read["days"], int(read["hour"]), int(read["minute"])), bool(read["theirs"]))


def _minutes(days: str | None, hour: int, minute: int) -> Week:
    if hour > 23 or minute > 59:
        raise _bad_delay(f"{hour}:{minute:02} is not on a clock")
    start = hour * 60 + minute
    end = start + 1
    line = f"{(days or hours.EVERY_DAY).strip()} {hour:02}:{minute:02}-{end // 60:02}:{end % 60:02}"
    try:
        return hours.week(line)
    except BadWindow:
        raise _bad_delay(f'"{days}" are no days of the week') from None


def _bad_delay(what: str) -> BadStep:
    return BadStep("delay", f'{what[0].upper()}{what[1:]}. Good ones: "{EXAMPLE_DELAY}", "{EXAMPLE_CLOCK}".')


@dataclass(frozen=True, slots=True)
class StepLines:
    """What an operator has written for one step."""

    position: int
    after: str = ""
    delay: str = ""
    condition: str = ""


class Problem(NamedTuple):
    """What is wrong with a step, at one of its fields."""

    position: int
    field: str
    words: str


def problems_of(step: StepLines) -> Iterator[Problem]:
    """What is wrong with one step by itself."""
    for field, read in (("after", parse_after), ("delay", parse_delay), ("condition", _parse_condition)):
        try:
            read(getattr(step, field))
        except BadStep as refusal:
            yield Problem(step.position, field, refusal.words)


def _parse_condition(text: str) -> None:
    if text.strip():
        try:
            CompiledCondition(text)
        except TemplateProblem as problem:
            raise BadStep("condition", str(problem)) from None


def problems_between(steps: Sequence[StepLines], stops_on: Sequence[str] = ()) -> Iterator[Problem]:
    """What is wrong with steps that have each nothing wrong by themselves, together: names of steps that are not there,
    circles, and steps that can never go out because the workflow stops (`stops_on`: at which events)."""
    known = {step.position for step in steps}
    edges: TopologicalSorter[int] = TopologicalSorter()
    for step in steps:
        for earlier in parse_after(step.after):
            edges.add(step.position, earlier.position)
            if earlier.position not in known:
                there = ", ".join(map(str, sorted(known - {step.position}))) or "no other one"
                words = f"There is no step {earlier.position} to wait for; there is {there}."
                yield Problem(step.position, "after", words)
            elif earlier.on.event and earlier.on.event[1] and earlier.on.event[0] in stops_on:
                kind = earlier.on.event[0]
                words = f"It waits for step {earlier.position} to be {kind}, and the workflow stops at that: then it "
                yield Problem(
                    step.position, "after", f"{words}never goes out. Let the workflow go on, or wait for less."
                )
    try:
        edges.prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        words = f"These steps wait for each other in a circle: {' → '.join(map(str, circle))}. One of them must begin."
        yield Problem(circle[0], "after", words)


class TimedStep(Protocol):
    """A step with its lines, and with what an operator has set of its deadline."""

    deadline_minutes: int | None
    lead_seconds: float | None

    @property
    def lines(self) -> StepLines: ...


def numbered(positions: Sequence[int | None]) -> list[int]:
    """The numbers of steps, of which those without one get the next ones."""
    following = count(max((position for position in positions if position is not None), default=0) + 1)
    return [next(following) if position is None else position for position in positions]


def problems_of_workflow(
    steps: Sequence[TimedStep], stops_on: Sequence[str] = (), *, recipients_have_deadlines: bool = False
) -> Iterator[Problem]:
    """What is wrong with the steps of a workflow together, of which each has nothing wrong by itself. A number that no
    step can have, or that several have, is said alone: by it the others are named."""
    numbers = list(_problems_with_numbers([step.lines.position for step in steps]))
    yield from numbers
    if not numbers:
        yield from _leads_without_deadline(steps, recipients_have_deadlines)
        yield from problems_between([step.lines for step in steps], stops_on)


def _problems_with_numbers(positions: Sequence[int]) -> Iterator[Problem]:
    """One for each number, however many steps have it."""
    free = next(number for number in POSITIONS if number not in positions)
    for position, steps in Counter(positions).items():
        if position not in POSITIONS:
            yield Problem(position, "position", f"Numbers go from {POSITIONS[0]} to {POSITIONS[-1]:,}.")
        elif steps > 1:
            yield Problem(position, "position", f"There are {steps} steps {position}: {free} is free, for example.")


def _leads_without_deadline(steps: Sequence[TimedStep], recipients_have_deadlines: bool) -> Iterator[Problem]:
    for step in steps:
        if step.lead_seconds is None or step.deadline_minutes is not None:
            continue
        if step.lines.after.strip():
            yield Problem(step.lines.position, "lead_seconds", NO_DEADLINE_AFTER_ANOTHER)
        elif not recipients_have_deadlines:
            yield Problem(step.lines.position, "lead_seconds", NO_DEADLINE)


def depths(steps: Sequence[StepLines]) -> dict[int, int]:
    """How many steps come before each at most. The steps have nothing wrong."""
    before = {step.position: [earlier.position for earlier in parse_after(step.after)] for step in steps}
    found: dict[int, int] = {}
    for position in TopologicalSorter(before).static_order():
        found[position] = max((found[earlier] + 1 for earlier in before[position]), default=0)
    return found
