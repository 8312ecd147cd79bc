"""What came of ends, until it is written: the values that `links` and its two kinds of link hand each other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from delivery import metrics
from delivery.models import Batch, Delivery, DeliveryState
from delivery.queue import tallies
from delivery.queue.dialect import table
from delivery.signals import deliveries_ended

BEYOND = 50_000  # ids that a batch's range is widened by at once: its row is touched as rarely
PREDECESSOR = "predecessor"  # the code of what was skipped because of another delivery
# What was skipped for the sake of its predecessor, and for nothing else, may come back.
MAY_COME_BACK = (
    f"{table(Delivery)}.state = '{DeliveryState.SKIPPED.value}' AND {table(Delivery)}.code = '{PREDECESSOR}'"
)

_SKIPPED = DeliveryState.SKIPPED.value


class Ended(NamedTuple):
    """A delivery that has just come to an end of this name. `message`: 0 where it would have to be looked up."""

    id: int
    batch: int
    state: str
    message: int = 0


@dataclass(slots=True)
class Consequences:
    """What came of ends: changes of the tallies, how many deliveries ended with them, and how many may go now or soon
    and could not before. `ended`: all that is to be told as ended."""

    changes: Counter[tuple[int, str]] = field(default_factory=Counter)
    last_ids: dict[int, int] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    skipped: int = 0
    released: int = 0

    def add_skipped(self, batch_id: int, skipped: Sequence[Ended]) -> None:
        self.changes[batch_id, _SKIPPED] += len(skipped)
        self.skipped += len(skipped)
        self.ended += skipped

    def write(self) -> None:
        """Tells what has ended; writes what is one row for a whole batch. Last of all: others wait for these rows."""
        if self.ended:
            deliveries_ended.send(Delivery, ended=self.ended)
        for batch_id, last_id in sorted(self.last_ids.items()):
            _widen(batch_id, last_id)
        tallies.add(self.changes)
        if self.skipped:
            metrics.settled({DeliveryState.SKIPPED: self.skipped})


def _widen(batch_id: int, last_id: int) -> None:
    """The range of a batch's ids takes in this one."""
    Batch.objects.filter(pk=batch_id, last_id__lt=last_id).update(last_id=last_id + BEYOND)
