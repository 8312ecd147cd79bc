"""What a worker asks of the queue, in one place: it is handed to the pump, which then knows no table.

The simulator hands it a queue in memory instead (`delivery.simulation.queue`); `Queue` is what both are.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from delivery.composition import CompiledMessage
from delivery.conf import conf
from delivery.core.envelope import Envelope, Mailbox
from delivery.core.window import Openings
from delivery.models import Message
from delivery.queue.batches import BatchView, finish_cancelled, finish_if_done, open_batches
from delivery.queue.composing import texts
from delivery.queue.events import unmet
from delivery.queue.leasing import Leased, acquire, due, end, extend, give_back, lease, next_due, promote, reap
from delivery.queue.outcomes import Mark, Settlement, mark, refused, settle


class Composer(Protocol):
    """A message, ready to be made out to its recipients. `domain` is that of its From address; `openings` are those of
    its sending window, None when it may go at any time. `late`: it goes after its deadline, too. `conditional`: not
    everybody gets it; `asks_events`: who does depends on what was heard of earlier mails. `is_composed`: its words are
    composed for each recipient."""

    domain: str
    openings: Openings | None
    late: bool
    conditional: bool
    asks_events: bool
    is_composed: bool

    def wants(self, data: dict[str, object]) -> bool:
        """Whether a recipient with this data is to get it. Raises TemplateProblem."""
        ...

    def envelope(
        self,
        delivery_id: int,
        recipient: Mailbox,
        data: dict[str, object],
        now: datetime,
        thread: str = "",
        words: str | None = None,
    ) -> Envelope:
        """The mail for one recipient. `thread`: the keys of the mails that it follows; `words`: what was composed for
        it. Raises TemplateProblem."""
        ...


class Queue(Protocol):
    """The functions of this module; each says at its definition what it does."""

    def open_batches(self, only: int | None = None) -> list[BatchView]: ...
    def acquire(self, owner: str, term: timedelta) -> int: ...
    def extend(self, lease_id: int, term: timedelta) -> bool: ...
    def lease(self, lease_id: int, batch_id: int, limit: int) -> list[Leased]: ...
    def give_back(self, lease_id: int) -> int: ...
    def end(self, lease_id: int) -> None: ...
    def promote(self) -> int: ...
    def next_due(self) -> datetime | None: ...
    def unmet(self, delivery_ids: Collection[int], message_id: int) -> dict[int, str]: ...
    def texts(self, delivery_ids: Sequence[int]) -> dict[int, str]: ...
    def due(self, batch_id: int) -> datetime | None: ...
    def reap(self) -> Counter[str]: ...
    def mark(self, lease_id: int, marks: Sequence[Mark], now: datetime) -> set[int]: ...
    def refused(self, lease_id: int, refused_ids: Sequence[int]) -> list[tuple[int, str, str]]: ...
    def settle(self, lease_id: int, settlements: Sequence[Settlement]) -> int: ...
    def finish_cancelled(self) -> None: ...
    def finish_if_done(self, batch_id: int) -> bool: ...
    def compiled(self, message_id: int) -> Composer: ...


def compiled(message_id: int) -> CompiledMessage:
    """The message with this id. Raises TemplateProblem."""
    return CompiledMessage(Message.objects.get(pk=message_id), conf().public_url)


__all__ = [
    "Composer",
    "Queue",
    "acquire",
    "compiled",
    "due",
    "end",
    "extend",
    "finish_cancelled",
    "finish_if_done",
    "give_back",
    "lease",
    "mark",
    "next_due",
    "open_batches",
    "promote",
    "reap",
    "refused",
    "settle",
    "texts",
    "unmet",
]
