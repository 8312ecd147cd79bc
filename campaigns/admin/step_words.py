"""A workflow's steps as one would say them: when each goes, to whom, in which conversation, and until when.

Pure: it says what was written, and judges nothing.
"""

import re
from collections.abc import Sequence
from datetime import timedelta

from campaigns import hours
from campaigns.exceptions import BadStep
from campaigns.models import OnLate, Step
from campaigns.sequence import After, parse_after, parse_delay
from delivery.core.sequence import On

_UNITS = (
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
)
_TO_WHOM = {
    On.ENDED: "whatever has become of {}",
    On.NOT_ACCEPTED: "to who could not be sent {}",
    On.DELIVERED: "to whom {} was delivered",
    On.NOT_DELIVERED: "to whom {} was not delivered",
    On.BOUNCED: "to whom {} bounced",
    On.NOT_BOUNCED: "to whom {} did not bounce",
    On.OPENED: "to who has opened {}",
    On.NOT_OPENED: "to who has not opened {}",
    On.CLICKED: "to who has clicked in {}",
    On.NOT_CLICKED: "to who has not clicked in {}",
    On.REPLIED: "to who has replied to {}",
    On.NOT_REPLIED: "to who has not replied to {}",
}
_STOPS = {"replied": "who replies", "bounced": "whose mail comes back"}
_SPAN = re.compile(r"([0-9]{2}:[0-9]{2})-[0-9]{2}:[0-9]{2}")


def steps_in_words(steps: Sequence[Step], stops_on: Sequence[str] = (), deadline_field: str = "") -> list[str]:
    """A line for each step; for several, one more for whoever gets no more of them. `deadline_field` is the audience's,
    "" for none."""
    lines = [f"{step.position}. {_step(step, deadline_field)}" for step in steps]
    if len(steps) > 1 and stops_on:
        whoever = _first_large(", or ".join(_STOPS[kind] for kind in stops_on))
        lines.append(f"{whoever}, gets no more of them.")
    return lines


def title_of(step: Step) -> str:
    """What one step is called among others."""
    return f"Step {step.position}: {step.template.name}"


def spoken(time: timedelta) -> str:
    """So long, in the units that it takes: 1 day 2 hours."""
    parts, rest = [], time
    for name, unit in _UNITS:
        count, rest = divmod(rest, unit)
        if count:
            parts.append(_many(f"{count:,}", name))
    if rest or not parts:
        parts.append(_many(f"{rest.total_seconds():g}", "second"))
    return " ".join(parts)


def _many(count: str, name: str) -> str:
    return f"{count} {name}{'' if count == '1' else 's'}"


def _step(step: Step, deadline_field: str) -> str:
    try:
        after = parse_after(step.after)
        said = ", ".join(filter(None, [step.template.name, _when(step, after), _to_whom(after), _condition(step)]))
    except BadStep as refusal:
        return f"{step.template.name}: {refusal.words}"
    more = [_thread(step, after), _deadline(step, "" if after else deadline_field), _composed(step)]
    return "; ".join(filter(None, [said, *more])) + "."


def _when(step: Step, after: Sequence[After]) -> str:
    delay = parse_delay(step.delay)
    since = f"after {_named(after)}" if after else "after the beginning of the run"
    wait = spoken(delay.wait) if delay.wait else ""
    if delay.minutes is None:
        return f"{wait} {since}" if wait else f"at once {since}" if after else "at once"
    week = _SPAN.sub(r"\1", hours.in_words(delay.minutes))
    clock = "each recipient's own clock" if delay.theirs else "the workflow's clock"
    begin = f"{wait} {since}, then" if wait else since if after else ""
    return f"{begin} at the next {week} by {clock}".strip()


def _to_whom(after: Sequence[After]) -> str:
    one = len(after) == 1
    wanted = (_TO_WHOM[each.on].format("it" if one else each.position) for each in after if each.on in _TO_WHOM)
    return " and ".join(wanted)


def _condition(step: Step) -> str:
    return f"where {step.condition.strip()}" if step.condition.strip() else ""


def _thread(step: Step, after: Sequence[After]) -> str:
    if not after:
        return ""
    if not step.thread:
        return "begins a new conversation"
    return f"answers {'it' if len(after) == 1 else 'them'} in the same conversation"


def _deadline(step: Step, field: str) -> str:
    """Until when. The audience's own deadlines count for steps that begin, and for no others."""
    limits = [f"within {spoken(timedelta(minutes=step.deadline_minutes))}"] if step.deadline_minutes else []
    limits += [f"until each recipient's “{field}”"] if field else []
    if not limits:
        return ""
    late = "else it goes late" if step.on_late == OnLate.SEND else "else it expires"
    lead = f", {spoken(timedelta(seconds=step.lead_seconds))} before that at the earliest" if step.lead_seconds else ""
    return f"{' and '.join(limits)}{lead}, {late}"


def _composed(step: Step) -> str:
    if step.composer is None:
        return ""
    review = ", read by a person before it goes" if step.review else ""
    return f"its text is written by {step.composer.name}{review}"


def _named(after: Sequence[After]) -> str:
    names = [str(each.position) for each in after]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _first_large(text: str) -> str:
    return text[:1].upper() + text[1:]
