"""What a run sends, compiled: checked against its audience before anything is sent, names first, then every recipient.

Decides nothing about rendering itself; that is `delivery.templating`, the same code that makes the mails.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from campaigns.audiences.rows import Row
from campaigns.conf import conf
from campaigns.exceptions import NotReady
from campaigns.models import Run
from delivery.composition import UNSUBSCRIBE_URL, CompiledMessage
from delivery.core.envelope import Mailbox
from delivery.core.sequence import Rules
from delivery.models import Message
from delivery.queue import Filler, NewDelivery
from delivery.templating import Budget, CompiledContent, Limits, compile_prompt
from delivery.templating.part import Part

EACH_SO_MANY = 50
MOST_KINDS = 10_000  # of data that are remembered; of further ones everything is made


class _Use(NamedTuple):
    """A name that something needs of a recipient, and where."""

    name: str
    place: str


class _Compiled:
    """One message with all that is made of a recipient's data for it."""

    def __init__(self, message: Message, public_url: str) -> None:
        self.message = message
        self.rules = Rules.of(message.rules)
        self.mail = CompiledMessage(message, public_url)
        self.has_link = bool(public_url and message.unsubscribe)
        self.prompt: Part | None = compile_prompt(message.composing["prompt"]) if message.composing else None

    def filler(self, batch_id: int) -> Filler:
        """Who writes its deliveries."""
        return Filler(batch_id, self.message.pk, self.rules.rank, self.rules, composed=self.prompt is not None)

    def make(self, row: Row, now: datetime) -> None:
        """Makes everything once. Raises TemplateProblem."""
        if self.mail.condition and not self.mail.wants(row.data):
            return
        if self.prompt:
            self.prompt.render(row.data, Budget(Limits()))
        self.mail.envelope(0, Mailbox(row.address, row.name), row.data, now)

    def uses(self) -> Iterator[_Use]:
        content: CompiledContent = self.mail.content
        for name in sorted(content.variables):
            if name == UNSUBSCRIBE_URL and self.has_link:
                continue
            part, line = content.where(name)
            yield _Use(name, f"in line {line} of the {part}")
        if self.mail.condition:
            yield from (_Use(name, "in the condition") for name in sorted(self.mail.condition.variables))
        if self.prompt:
            names = self.prompt.names
            yield from (_Use(name, f"in line {names.lines[name]} of the prompt") for name in sorted(names.needed))


class RunContent:
    """The messages of a run. Not for use by two threads at once. `beginnings`: how many of them follow no other."""

    def __init__(self, run: Run) -> None:
        """Raises TemplateProblem."""
        messages = Message.objects.filter(batch=run.batch_id).order_by("position")
        self.compiled = [_Compiled(message, conf().public_url) for message in messages]
        self._first = [each for each in self.compiled if not each.rules.after]
        self._later = [each for each in self.compiled if each.rules.after]
        self._rows = 0
        self._kinds: set[tuple[tuple[str, type, bool], ...]] = set()
        self._fillers = [each.filler(run.batch_id) for each in self._first]
        self.beginnings = len(self._fillers)

    def make(self, row: Row, now: datetime) -> None:
        """Makes the mails that a recipient may get, to see that they can be made: with which the run begins, for
        everybody; what follows, for everybody whose data differ in kind from those for which it went well, and for one
        in EACH_SO_MANY. Raises TemplateProblem."""
        for compiled in self._first:
            compiled.make(row, now)
        if not self._later:
            return
        self._rows += 1
        kinds = tuple((name, type(value), not value) for name, value in row.data.items())
        if kinds in self._kinds and self._rows % EACH_SO_MANY:
            return
        for compiled in self._later:
            compiled.make(row, now)
        if len(self._kinds) < MOST_KINDS:
            self._kinds.add(kinds)

    def write(self, deliveries: Sequence[NewDelivery]) -> list[NewDelivery]:
        """Writes the deliveries of the messages with which the run begins. Part of the caller's transaction. Returns
        those whose recipient is there already."""
        duplicates = [filler.write(deliveries) for filler in self._fillers]
        return duplicates[0]


def refuse_missing_names(content: RunContent, fields: Iterable[str], wanted: Iterable[str], audience: str) -> None:
    """Raises NotReady when a message needs a variable that the audience does not have, or the audience itself one of
    the fields `wanted`."""
    known = set(fields)
    if absent := sorted(set(wanted) - known):
        raise NotReady(
            f"The field {absent[0]!r} is to say something of each recipient of {audience}, which does not have it. "
            f"It has: {', '.join(sorted(known))}. Correct the audience."
        )
    places = []
    several = len(content.compiled) > 1
    for compiled in content.compiled:
        for name, place in compiled.uses():
            if name in known:
                continue
            hint = ""
            if name == UNSUBSCRIBE_URL:
                hint = " (it is there when the workflow adds unsubscribe links and OUTREACH_PUBLIC_URL is set)"
            step = f" of step {compiled.message.position}" if several else ""
            places.append(f"{name!r} {place}{step}{hint}")
    if not places:
        return
    if any(compiled.has_link for compiled in content.compiled):
        known.add(UNSUBSCRIBE_URL)
    raise NotReady(
        f"The template needs what {audience} does not have: {'; '.join(places)}. "
        f"The audience has: {', '.join(sorted(known))}. Correct the template, or add the field to the audience."
    )
