"""What a worker has in hand, and how much more it should take.

Enough that no engine runs dry, and no more: what one worker holds, no other can send, and what is more urgent has to
overtake it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from delivery.models import NO_DEADLINE
from delivery.queue import BatchView

AT_ONCE = 300  # the most to lease in one statement
LEAST = 100  # of one pool, however slow it is
MOST = 1000  # of one pool, however fast it is; what is marked ahead, and twice that to feed it from
FEED = 1.5  # seconds of work to hold
FORGETTING = 0.5  # of the pace, with each beat
OVERTAKEN = 4  # times its bound is held of a pool at most, however much of it is overtaken
GRAIN = 0.1  # seconds of work that are worth a statement, when so much is overtaken that there is room for no more
FEW = 8  # urgencies that are compared with each mail that leaves the hand

Urgency = tuple[int, datetime]  # the batch's priority, and the deadline: the lowest goes first


@dataclass(slots=True)
class _PoolHand:
    """What is held for one pool, by urgency."""

    held: int = 0
    by_urgency: dict[Urgency, int] = field(default_factory=dict)
    pace: float = 0.0  # deliveries a second, lately
    let_go: int = 0  # since the last beat
    wakes_at: int = 0  # with so many left there is room for more

    def ahead_of(self, urgency: Urgency) -> int:
        """How many are held that go before more of this urgency."""
        return sum(held for theirs, held in self.by_urgency.items() if theirs <= urgency)

    def count(self, urgency: Urgency, change: int) -> None:
        """So many more of this urgency are held."""
        self.held += change
        held = self.by_urgency.get(urgency, 0) + change
        if held or urgency[1] == NO_DEADLINE:
            self.by_urgency[urgency] = held
        else:
            del self.by_urgency[urgency]


@dataclass(slots=True)
class _BatchHand:
    """What is held of one batch."""

    pool: _PoolHand
    priority: int
    held: int = 0
    turn: int = 0  # when it was last given anything
    next_deadline: datetime | None = None  # what is ready has none that is earlier; None: see its view


class Hand:
    """Counts, and decides how many deliveries of which batch to lease next."""

    def __init__(self) -> None:
        self._pools: dict[int, _PoolHand] = {}
        self._batches: dict[int, _BatchHand] = {}
        self._turns = 0
        self.total = 0

    def of(self, batch_id: int) -> int:
        """How many of a batch are in hand."""
        batch = self._batches.get(batch_id)
        return batch.held if batch else 0

    def batches(self) -> set[int]:
        """Every batch of which anything was taken and that was not forgotten since."""
        return set(self._batches)

    def forget(self, batch_id: int) -> None:
        """A batch of which nothing is in hand."""
        if not self.of(batch_id):
            self._batches.pop(batch_id, None)

    def in_turn(self, batches: list[BatchView]) -> list[BatchView]:
        """The most urgent first, and of those the one that has waited longest for its turn."""
        return sorted(batches, key=lambda view: (*self._urgency(view), self._turn(view.id), view.id))

    def looked(self) -> None:
        """The views of batches are fresh: their deadlines hold."""
        for batch in self._batches.values():
            batch.next_deadline = None

    def _urgency(self, view: BatchView) -> Urgency:
        batch = self._batches.get(view.id)
        if batch is None or batch.next_deadline is None:
            return view.priority, view.deadline
        return view.priority, batch.next_deadline

    def _turn(self, batch_id: int) -> int:
        batch = self._batches.get(batch_id)
        return batch.turn if batch else 0

    def room(self, view: BatchView, least: int = LEAST, most: int = MOST) -> int:
        """How many more of a batch to lease; 0 while so few are not worth a statement. What is less urgent does not
        count: it will be overtaken. `least` and `most` bound what is held for one pool."""
        pool = self._pools.setdefault(view.pool, _PoolHand())
        bound = max(least, min(most, int(pool.pace * FEED)))
        worthwhile = min(AT_ONCE, bound // 3)
        pool.wakes_at = bound - worthwhile
        room = bound - pool.ahead_of(self._urgency(view))
        if room < worthwhile:
            return 0
        # What is more urgent than all that it overtakes must not wait until much of that has gone.
        left = OVERTAKEN * bound - pool.held
        return min(AT_ONCE, room, left) if left >= min(worthwhile, 1 + int(pool.pace * GRAIN)) else 0

    def took(self, view: BatchView, count: int, deadlines: Sequence[datetime] = ()) -> None:
        """So many of a batch were leased, the most urgent first. `deadlines`: those that have one."""
        pool = self._pools.setdefault(view.pool, _PoolHand())
        batch = self._batches.get(view.id)
        if batch is None:
            batch = self._batches[view.id] = _BatchHand(pool, view.priority)
        self._turns += 1
        batch.turn = self._turns
        batch.held += count
        for deadline in deadlines:
            pool.count((batch.priority, deadline), 1)
        if count > len(deadlines):
            pool.count((batch.priority, NO_DEADLINE), count - len(deadlines))
        batch.next_deadline = deadlines[-1] if 0 < count == len(deadlines) else NO_DEADLINE
        self.total += count

    def let_go(self, batch_id: int, deadline: datetime = NO_DEADLINE) -> bool:
        """One is out of hand. True when there is room for more now, or none of its batch is left."""
        batch = self._batches[batch_id]
        pool = batch.pool
        urgency = batch.priority, deadline
        batch.held -= 1
        pool.count(urgency, -1)
        pool.let_go += 1
        self.total -= 1
        if not batch.held or pool.held == pool.wakes_at:
            return True
        return 1 < len(pool.by_urgency) <= FEW and pool.ahead_of(urgency) == pool.wakes_at

    def beat(self, seconds: float) -> None:
        """Learns the pace of each pool from what was let go in the last `seconds`."""
        for pool in self._pools.values():
            pool.pace = max(pool.let_go / seconds, pool.pace * FORGETTING)
            pool.let_go = 0
