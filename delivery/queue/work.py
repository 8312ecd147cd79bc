"""What a worker asks of the queue, in one place: it is handed to the pump, which then knows no table.

The simulator hands it a queue in memory instead (`delivery.simulation.queue`); `Queue` is what both are.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from delivery.composition import CompiledMessage
from delivery.conf import conf
from delivery.core.envelope import Envelope, Mailbox
from delivery.core.window import Openings
from delivery.models import Message
from delivery.queue.batches import BatchView, finish_cancelled, finish_if_done, open_batches
from delivery.queue.leasing import Leased, acquire, due, end, extend, give_back, lease, promote, reap
from delivery.queue.outcomes import Mark, Settlement, mark, refused, settle


class Composer(Protocol):
    """A message, ready to be made out to its recipients. `domain` is that of its From address; `openings` are those of
    its sending window, None when it may go at any time."""

    domain: str
    openings: Openings | None

    def envelope(self, delivery_id: int, recipient: Mailbox, data: dict[str, object], now: datetime) -> Envelope:
        """The mail for one recipient. Raises TemplateProblem."""
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
    def due(self, batch_id: int) -> datetime | None: ...
    def reap(self) -> Counter[str]: ...
    def mark(self, lease_id: int, marks: Sequence[Mark], now: datetime) -> set[int]: ...
    def refused(self, lease_id: int, refused_ids: Sequence[int]) -> list[tuple[int, str, str]]: ...
    def settle(self, lease_id: int, settlements: Sequence[Settlement]) -> None: ...
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
    "open_batches",
    "promote",
    "reap",
    "refused",
    "settle",
]
