"""What a message waits for before it goes to a recipient, and until when it should be there.

A message follows others of its batch: when the mails of these to the same recipient have ended as it wants, after a
delay, at the next hour of its clock. Pure; the queue asks, and keeps the rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from delivery.core.window import Openings, Window

GAP = timedelta(microseconds=100)  # between a predecessor's acceptance and what waited for it


class On(StrEnum):
    """What has to become of an earlier mail. What is only heard of later is judged when the time has come."""

    ACCEPTED = "accepted"
    ENDED = "ended"  # in whatever way
    NOT_ACCEPTED = "not accepted"
    DELIVERED = "delivered"
    NOT_DELIVERED = "not delivered"
    BOUNCED = "bounced"
    NOT_BOUNCED = "not bounced"
    OPENED = "opened"
    NOT_OPENED = "not opened"
    CLICKED = "clicked"
    NOT_CLICKED = "not clicked"
    REPLIED = "replied"
    NOT_REPLIED = "not replied"

    @property
    def event(self) -> tuple[str, bool] | None:
        """The kind of event that decides, and whether it has to have come; None when the end itself decides."""
        if self in (On.ACCEPTED, On.ENDED, On.NOT_ACCEPTED):
            return None
        return self.removeprefix("not "), not self.startswith("not ")

    def fulfilled_by(self, end: str) -> bool | None:
        """Whether an earlier mail that ended so is what is wanted; None when that depends on what is heard of it. An
        uncertain one is neither accepted nor not accepted."""
        match self:
            case On.ENDED:
                return True
            case On.ACCEPTED:
                return end == "accepted"
            case On.NOT_ACCEPTED:
                return end not in ("accepted", "uncertain")
            case On.BOUNCED if end == "rejected":
                return True
        return None if end == "accepted" else False


class Edge(NamedTuple):
    """An earlier message of the batch, and what has to become of its mail."""

    message: int
    on: On = On.ACCEPTED


@dataclass(frozen=True, slots=True)
class Rules:
    """What one message waits for, and what holds for its mails.

    `after`: the earlier messages, all of which have to fulfil. Then it is due after `delay`, at the next opening of
    `clock` if there is one. `condition`: an expression over the recipient's data, "" for none. `within`: how long after
    it is due a mail may still go; `late`: what missed its deadline goes all the same. `lead`: how long before its
    deadline a mail goes, None: as soon as it may. `gap`, `release`: of single deliveries that wait for each other, how
    long after its predecessor one goes at the earliest, and whether one whose predecessor failed goes, too. `thread`: a
    mail answers the one it follows. `rank`: of equal deadlines the lowest goes first.
    """

    after: tuple[Edge, ...] = ()
    delay: timedelta = timedelta()
    clock: Window | None = None
    condition: str = ""
    within: timedelta | None = None
    late: bool = False
    lead: timedelta | None = None
    gap: timedelta = GAP
    release: bool = False
    thread: bool = True
    rank: int = 0
    _openings: Openings | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_openings", Openings(self.clock) if self.clock else None)

    @classmethod
    def of(cls, value: Mapping[str, object]) -> "Rules":
        """What `as_json` has written; an empty object is the plainest of rules."""
        given = dict(value)
        if "after" in given:
            given["after"] = tuple(Edge(message, On(on)) for message, on in given["after"])
        if given.get("clock") is not None:
            given["clock"] = Window.of(given["clock"])
        for name in ("delay", "within", "lead"):
            if given.get(name) is not None:
                given[name] = timedelta(seconds=given[name])
        if "gap" in given:
            given["gap"] = timedelta(microseconds=given["gap"])
        return cls(**given)

    def as_json(self) -> dict[str, object]:
        """The rules as plain JSON, without what is as usual."""
        usual = _written(PLAIN)
        return {name: value for name, value in _written(self).items() if value != usual[name]}

    @property
    def per_recipient(self) -> bool:
        """Whether the recipient's data have a say in when a mail is due."""
        return self.clock is not None and self.clock.per_recipient

    def planned(self, since: datetime, data: str = "{}") -> datetime | None:
        """When a mail is due whose predecessors ended at `since`, to a recipient with this data (JSON text). None when
        its clock never comes."""
        at = since + self.delay
        if self._openings is None:
            return at
        # The opening that it lies in may be one that was found earlier, and have begun earlier.
        opening = self._openings.opening(data, at).at
        return opening and max(at, opening)

    def deadline(self, due: datetime, own: datetime | None = None) -> datetime | None:
        """Until when a mail that is due then should be gone, if it has a deadline: its own, or that of these rules,
        whichever comes first."""
        ours = None if self.within is None else due + self.within
        return min((each for each in (ours, own) if each is not None), default=None)

    def not_before(self, due: datetime, deadline: datetime | None) -> datetime:
        """When it may go: as soon as it is due, or just before its deadline."""
        if self.lead is None or deadline is None:
            return due
        return max(due, deadline - self.lead)


PLAIN = Rules()


def _written(rules: Rules) -> dict[str, object]:
    return {
        "after": [[edge.message, edge.on.value] for edge in rules.after],
        "delay": rules.delay.total_seconds(),
        "clock": rules.clock and rules.clock.as_json(),
        "condition": rules.condition,
        "within": None if rules.within is None else rules.within.total_seconds(),
        "late": rules.late,
        "lead": None if rules.lead is None else rules.lead.total_seconds(),
        "gap": rules.gap // timedelta(microseconds=1),
        "release": rules.release,
        "thread": rules.thread,
        "rank": rules.rank,
    }
