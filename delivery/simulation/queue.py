"""The durable queue, in memory and in virtual time: the functions of `delivery.queue.work`, with the same promises.

`tests/delivery/test_memory_queue.py` runs random stories on this one and on the database's and compares every row. One
batch, whose deliveries are numbered from 1. A delivery that nobody has touched yet costs four octets, so that a million
fit.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush

from delivery.core.dispatch import UncertainPolicy
from delivery.core.envelope import Envelope, Frame, Kind, Mailbox
from delivery.models import NO_DEADLINE, DeliveryState
from delivery.models.batch import BatchState
from delivery.queue.batches import BatchView
from delivery.queue.leasing import FORESIGHT, Leased
from delivery.queue.outcomes import ENDED, Mark, Settlement

BATCH = 1
MESSAGE = 1
POOL = 1
DOMAIN = "simulation.example"
FRAME = Frame(Mailbox(f"news@{DOMAIN}"), f"bounce@{DOMAIN}")

# Members of an enum are dear to look up and compare in an inner loop; their values are plain text.
_READY, _WAITING = DeliveryState.READY.value, DeliveryState.WAITING.value
_LEASED, _SENDING = DeliveryState.LEASED.value, DeliveryState.SENDING.value
_ACCEPTED, _UNCERTAIN = DeliveryState.ACCEPTED.value, DeliveryState.UNCERTAIN.value
_CANCELLED, _SUPPRESSED = DeliveryState.CANCELLED.value, DeliveryState.SUPPRESSED.value
_ENDED = frozenset(state.value for state in ENDED)


@dataclass(slots=True)
class Row:
    """A delivery that was touched and has no end yet, or is uncertain. The columns are those of the table."""

    state: str = _LEASED
    lease: int | None = None
    engine: int | None = None
    pinned: bool = False
    turn: int = 0
    attempts: int = 0
    resends: int = 0
    tried_at: datetime | None = None
    not_before: datetime | None = None


@dataclass(slots=True)
class Held:
    """A lease: until when, whose, and what hangs on it."""

    owner: str
    expires_at: datetime
    rows: dict[int, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """A try that did not succeed, as the log keeps it."""

    delivery: int
    engine: int
    kind: Kind
    at: datetime


class Composition:
    """The one message of a simulation. Its mails have an address and a key, and nothing to read."""

    domain = DOMAIN
    openings = None
    late = conditional = asks_events = is_composed = False

    def wants(self, data: dict[str, object]) -> bool:
        """Everybody gets it."""
        return True

    def envelope(
        self,
        delivery_id: int,
        recipient: Mailbox,
        data: dict[str, object],
        now: datetime,
        thread: str = "",
        words: str | None = None,
    ) -> Envelope:
        """The mail for one recipient."""
        key = f"{delivery_id:x}"
        return Envelope(key, key, FRAME, recipient, "", "", "", now)


COMPOSITION = Composition()


class MemoryQueue:
    """See the module, and `delivery.queue.work.Queue` for the methods.

    `deadlines` gives some deliveries a deadline; those of `not_before` wait for their time at first; `detailed` keeps
    every row and every failed try to the end.
    """

    def __init__(
        self,
        total: int,
        now: Callable[[], datetime],
        *,
        uncertain: UncertainPolicy = UncertainPolicy.HOLD,
        deadlines: dict[int, datetime] | None = None,
        not_before: Mapping[int, datetime] | None = None,
        detailed: bool = False,
    ) -> None:
        self.total = total
        self.state = BatchState.OPEN
        self.suppressed: set[str] = set()
        self.ends: Counter[str] = Counter()
        self.failures: list[Failed] = []
        self.failed: Counter[Kind] = Counter()
        self.done_at: datetime | None = None
        self._now = now
        self._uncertain = uncertain
        self._deadlines = deadlines or {}
        self._detailed = detailed
        self._seen_failures: set[tuple[int, datetime]] = set()
        # The order in which untouched deliveries are due: those with a deadline first.
        waiting = not_before or {}
        ids = [i for i in range(1, total + 1) if i not in waiting] if waiting else range(1, total + 1)
        self._untouched = array("I", sorted(ids, key=lambda i: (self._deadline(i), i)) if deadlines else ids)
        self._next = 0  # of the untouched ones
        self._ready: list[tuple[datetime, int]] = []  # touched and ready again, a heap
        self._waiting = [(at, i) for i, at in waiting.items()]  # a heap
        heapify(self._waiting)
        self._rows = {i: Row(_WAITING, not_before=at) for i, at in waiting.items()}
        self._accepted = bytearray(total + 1)  # 1 for each
        self._leases: dict[int, Held] = {}
        self._last_lease = 0

    def _deadline(self, delivery_id: int) -> datetime:
        return self._deadlines.get(delivery_id, NO_DEADLINE)

    # ---- batches ----

    def open_batches(self, only: int | None = None) -> list[BatchView]:
        if self.state is not BatchState.OPEN:
            return []
        first = self._first_ready()
        deadline = NO_DEADLINE if first is None else self._deadline(first)
        return [BatchView(BATCH, POOL, 0, "", self._uncertain, deadline=deadline)]

    def hold(self) -> None:
        """From now on every mark is refused."""
        self.state = BatchState.HELD

    def release(self) -> None:
        """Ends a hold."""
        self.state = BatchState.OPEN

    def cancel(self) -> None:
        """Nothing more goes out: what no worker has ends here and now."""
        self.state = BatchState.CANCELLED
        self._cancel_free_ones()

    def _cancel_free_ones(self) -> None:
        for delivery_id in self._untouched[self._next :]:
            self._end(delivery_id, _CANCELLED)
        self._next = len(self._untouched)
        for delivery_id, row in list(self._rows.items()):
            if row.state in (_READY, _WAITING):
                self._end(delivery_id, _UNCERTAIN if row.pinned else _CANCELLED)

    def finish_cancelled(self) -> None:
        if self.state is BatchState.CANCELLED:
            self._cancel_free_ones()
            self.finish_if_done(BATCH)

    def finish_if_done(self, batch_id: int) -> bool:
        if self.state not in (BatchState.OPEN, BatchState.CANCELLED) or self.ends.total() < self.total:
            return False
        self.state = BatchState.DONE
        self.done_at = self._now()
        return True

    def compiled(self, message_id: int) -> Composition:
        return COMPOSITION

    # ---- leases ----

    def acquire(self, owner: str, term: timedelta) -> int:
        self._last_lease += 1
        self._leases[self._last_lease] = Held(owner, self._now() + term)
        return self._last_lease

    def extend(self, lease_id: int, term: timedelta) -> bool:
        held, now = self._leases.get(lease_id), self._now()
        if held is None or held.expires_at <= now:
            return False
        held.expires_at = now + term
        return True

    def lease(self, lease_id: int, batch_id: int, limit: int) -> list[Leased]:
        held = self._leases.get(lease_id)
        if held is None:
            return []
        found = []
        while len(found) < limit:
            delivery_id = self._next_ready()
            if delivery_id is None:
                break
            row = self._rows.get(delivery_id)
            if row is None:
                row = self._rows[delivery_id] = Row()
            row.state, row.lease = _LEASED, lease_id
            row.turn += 1
            held.rows[delivery_id] = None
            found.append(
                Leased(
                    delivery_id,
                    BATCH,
                    MESSAGE,
                    address_of(delivery_id),
                    "",
                    "{}",
                    self._deadline(delivery_id) if self._deadlines else NO_DEADLINE,
                    row.engine,
                    row.pinned,
                    row.attempts,
                    row.resends,
                    row.tried_at,
                    row.turn,
                )
            )
        return found

    def _first_ready(self) -> int | None:
        """The ready delivery that goes first."""
        while self._ready and self.state_of(self._ready[0][1]) != _READY:
            heappop(self._ready)
        fresh = self._untouched[self._next] if self._next < len(self._untouched) else None
        if self._ready and (fresh is None or self._ready[0] <= (self._deadline(fresh), fresh)):
            return self._ready[0][1]
        return fresh

    def _next_ready(self) -> int | None:
        """The ready delivery that goes first: it is ready no more."""
        first = self._first_ready()
        if first is not None and self._ready and self._ready[0][1] == first:
            heappop(self._ready)
        elif first is not None:
            self._next += 1
        return first

    def _make_ready(self, delivery_id: int, row: Row) -> None:
        row.state, row.lease, row.not_before = _READY, None, None
        heappush(self._ready, (self._deadline(delivery_id), delivery_id))

    def promote(self) -> int:
        now, promoted = self._now(), 0
        while self._waiting and self._waiting[0][0] <= now:
            at, delivery_id = heappop(self._waiting)
            if self._waits_until(delivery_id, at):
                self._make_ready(delivery_id, self._rows[delivery_id])
                promoted += 1
        return promoted

    def due(self, batch_id: int) -> datetime | None:
        if self._next < len(self._untouched) or any(self.state_of(i) == _READY for _, i in self._ready):
            return self._now()
        soon = self._now() + FORESIGHT
        return min((at for at, i in self._waiting if at <= soon and self._waits_until(i, at)), default=None)

    def next_due(self) -> datetime | None:
        while self._waiting and not self._waits_until(self._waiting[0][1], self._waiting[0][0]):
            heappop(self._waiting)
        return self._waiting[0][0] if self._waiting else None

    def unmet(self, delivery_ids: Collection[int], message_id: int) -> dict[int, str]:
        return {}

    def texts(self, delivery_ids: Sequence[int]) -> dict[int, str]:
        return {}

    def _waits_until(self, delivery_id: int, at: datetime) -> bool:
        row = self._rows.get(delivery_id)
        return row is not None and row.state == _WAITING and row.not_before == at

    def give_back(self, lease_id: int) -> int:
        held = self._leases.get(lease_id)
        unmarked = [i for i in held.rows if self._rows[i].state == _LEASED] if held else []
        for delivery_id in unmarked:
            del held.rows[delivery_id]
            self._make_ready(delivery_id, self._rows[delivery_id])
        return len(unmarked)

    def end(self, lease_id: int) -> None:
        self.give_back(lease_id)
        held = self._leases.get(lease_id)
        if held is not None and not held.rows:
            del self._leases[lease_id]

    def reap(self) -> Counter[str]:
        taken: Counter[str] = Counter()
        now = self._now()
        for lease_id in [i for i, held in self._leases.items() if held.expires_at <= now]:
            taken["ready"] += self.give_back(lease_id)
            for delivery_id in self._leases.pop(lease_id).rows:
                taken[self._lose(delivery_id, now)] += 1
        return +taken

    def _lose(self, delivery_id: int, now: datetime) -> str:
        """What was marked by a worker that is gone follows the policy."""
        row = self._rows[delivery_id]
        self._fail(delivery_id, row.engine, Kind.UNKNOWN, now)
        if self._uncertain is UncertainPolicy.RESEND:
            row.pinned, row.resends = True, row.resends + 1
            self._make_ready(delivery_id, row)
            return _READY
        row.lease = None
        self._end(delivery_id, _UNCERTAIN)
        return _UNCERTAIN

    # ---- intent and outcome ----

    def mark(self, lease_id: int, marks: Sequence[Mark], now: datetime) -> set[int]:
        if self.state is not BatchState.OPEN:
            return set()
        allowed = set()
        rows, suppressed = self._rows, self.suppressed
        for delivery_id, engine, attempts in marks:
            row = rows.get(delivery_id)
            if row is None or row.lease != lease_id or (row.state != _LEASED and row.state != _SENDING):
                continue
            if suppressed and address_of(delivery_id) in suppressed:
                continue
            row.state, row.engine, row.attempts = _SENDING, engine, attempts
            if row.tried_at is None:
                row.tried_at = now
            allowed.add(delivery_id)
        return allowed

    def refused(self, lease_id: int, refused_ids: Sequence[int]) -> list[tuple[int, str, str]]:
        verdicts = []
        for delivery_id in refused_ids:
            row = self._rows.get(delivery_id)
            if row is None or row.lease != lease_id:
                continue
            state = _READY
            if self.state is BatchState.CANCELLED:
                state = _CANCELLED
            elif address_of(delivery_id) in self.suppressed:
                state = _SUPPRESSED
            verdicts.append((delivery_id, _UNCERTAIN if row.pinned and state != _READY else state, ""))
        return verdicts

    def settle(self, lease_id: int, settlements: Sequence[Settlement]) -> int:
        held = self._leases.get(lease_id)
        for settlement in settlements:
            row = self._rows.get(settlement.id)
            if row is not None and self._is_for(settlement, row, lease_id):
                if held is not None:
                    held.rows.pop(settlement.id, None)
                self._settle(settlement, row)
            if settlement.failure:
                failure = settlement.failure
                self._fail(settlement.id, failure.engine, failure.outcome.kind, settlement.at)
            if settlement.suppress:
                self.suppressed.add(settlement.suppress[0])
        return 0

    def _is_for(self, settlement: Settlement, row: Row, lease_id: int) -> bool:
        if row.turn != settlement.turn:
            return False
        if row.lease == lease_id:
            return row.state in (_LEASED, _SENDING)
        # Too late, unless the delivery waits for just this answer, or is to be sent again for want of it.
        if row.lease is None and row.pinned and row.state in (_READY, _WAITING) and settlement.state == _ACCEPTED:
            return True
        if row.lease is not None or row.state != _UNCERTAIN:
            return False
        if settlement.state not in _ENDED and self.state is BatchState.DONE:
            return False
        self.ends[_UNCERTAIN] -= 1
        return True

    def _settle(self, settlement: Settlement, row: Row) -> None:
        row.lease, row.attempts, row.resends = None, settlement.attempts, settlement.resends
        row.pinned, row.not_before = settlement.pinned, settlement.not_before
        state = settlement.state
        if state == _READY:
            self._make_ready(settlement.id, row)
        elif state == _WAITING:
            row.state = _WAITING
            heappush(self._waiting, (settlement.not_before, settlement.id))
        else:
            self._end(settlement.id, state)

    def _end(self, delivery_id: int, state: str) -> None:
        self.ends[state] += 1
        if state == _ACCEPTED and not self._detailed:
            self._rows.pop(delivery_id, None)  # nothing is asked about these any more, and they are many
            self._accepted[delivery_id] = 1
        else:
            self._rows.setdefault(delivery_id, Row()).state = state

    def _fail(self, delivery_id: int, engine: int, kind: Kind, at: datetime) -> None:
        if self._detailed:
            if (delivery_id, at) in self._seen_failures:
                return
            self._seen_failures.add((delivery_id, at))
            self.failures.append(Failed(delivery_id, engine, kind, at))
        self.failed[kind] += 1

    # ---- looking on ----

    def state_of(self, delivery_id: int) -> str:
        """The state of one delivery."""
        if self._accepted[delivery_id]:
            return _ACCEPTED
        row = self._rows.get(delivery_id)
        return row.state if row is not None else _READY

    def row(self, delivery_id: int) -> Row | None:
        """What is kept of a delivery that is under way, or did not end as accepted."""
        return self._rows.get(delivery_id)

    def counts(self) -> Counter[str]:
        """Deliveries by state, counted one by one."""
        return Counter(self.state_of(i) for i in range(1, self.total + 1))


def address_of(delivery_id: int) -> str:
    """The recipient of a delivery."""
    return f"{delivery_id}@recipients.example"
