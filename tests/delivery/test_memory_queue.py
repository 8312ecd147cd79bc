"""The simulator's queue in memory and the database's: the same story, told to both, leaves the same rows.

What the random scripts of `tests/scenarios` show of the one is then true of the other.
"""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from delivery import queue as door
from delivery.core.dispatch import UncertainPolicy
from delivery.core.envelope import Kind, Outcome
from delivery.models import Attempt, Delivery, Engine, Lease, Pool, Suppression
from delivery.models.batch import Batch, BatchState, Message
from delivery.queue import Filler, NewDelivery, work
from delivery.queue.outcomes import Failure, Mark, Settlement
from delivery.simulation.queue import MemoryQueue, address_of

pytestmark = pytest.mark.django_db(transaction=True)

TERM = timedelta(hours=1)
STORIES, STEPS = 8, 60
COLUMNS = ("pinned", "attempts", "resends", "turn", "tried_at")
PAST = datetime(2020, 1, 1, tzinfo=UTC)
serials = itertools.count(1)


class Both:
    """One story told to two queues. Leases and deliveries are named by their number; what each queue calls them is kept
    here."""

    def __init__(self, rng, total, policy):
        serial = next(serials)
        self.rng, self.total, self.policy = rng, total, policy
        self.engine = Engine.objects.create(name=f"e{serial}", slug=f"e{serial}", kind="sandbox").pk
        pool = Pool.objects.create(name=f"p{serial}", slug=f"p{serial}")
        self.batch = Batch.objects.create(label="b", reference=f"b{serial}", pool=pool, uncertain_policy=policy)
        message = Message.objects.create(
            batch=self.batch, token=f"t{serial}", subject="s", text="t", from_address="a@b.example", return_path="a@b.c"
        )
        addresses = [address_of(i) for i in range(1, total + 1)]
        Filler(self.batch.pk, message.pk, 0).write([NewDelivery(n, a, a, "", {}) for n, a in enumerate(addresses)])
        door.open_for_sending(self.batch.pk)
        first = Delivery.objects.filter(batch=self.batch).order_by("pk").values_list("pk", flat=True)[0]
        self.offset = first - 1
        self.now = datetime.now(UTC)
        self.memory = MemoryQueue(
            total, lambda: self.now, uncertain=policy, detailed=True, **self.timed(rng.choice([0, 0.5]))
        )
        self.leases = []  # (in the database, in memory)
        self.held = {}  # number of the lease -> {delivery: (as the database leased it, as memory did)}
        self.marked = set()

    def timed(self, share):
        """Gives so many of the deliveries a deadline, and lets so many wait, for a time that has come."""
        numbers = range(1, self.total + 1)
        deadlines = {i: self.now + timedelta(days=self.rng.randint(1, 3)) for i in numbers if self.rng.random() < share}
        waiting = {i: PAST + timedelta(minutes=i) for i in numbers if self.rng.random() < share}
        for i, at in deadlines.items():
            Delivery.objects.filter(pk=i + self.offset).update(deadline=at)
        for i, at in waiting.items():
            Delivery.objects.filter(pk=i + self.offset).update(state="waiting", not_before=at)
        return {"deadlines": deadlines, "not_before": waiting}

    # ---- what can happen ----

    def lease(self):
        pair = (work.acquire(f"story:{len(self.leases)}:0", TERM), self.memory.acquire("story", TERM))
        self.leases.append(pair)
        self.held[len(self.leases) - 1] = {}
        self.lease_more(len(self.leases) - 1)

    def lease_more(self, number=None):
        number = self.a_lease() if number is None else number
        if number is None:
            return
        count = self.rng.randint(1, 6)
        ours = work.lease(self.leases[number][0], self.batch.pk, count)
        theirs = self.memory.lease(self.leases[number][1], 1, count)
        assert [row.id - self.offset for row in ours] == [row.id for row in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert (one.pinned, one.attempts, one.resends, one.turn) == (
                other.pinned, other.attempts, other.resends, other.turn,
            )  # fmt: skip
            self.held[number][other.id] = (one, other)

    def mark(self):
        number = self.a_lease()
        if number is None or not self.held[number]:
            return
        wanted = self.rng.sample(sorted(self.held[number]), self.rng.randint(1, len(self.held[number])))
        marks = [Mark(i, self.engine, self.held[number][i][1].attempts + 1) for i in wanted]
        ours = work.mark(self.leases[number][0], [m._replace(id=m.id + self.offset) for m in marks], self.now)
        theirs = self.memory.mark(self.leases[number][1], marks, self.now)
        assert {i - self.offset for i in ours} == theirs
        refused = [i for i in wanted if i not in theirs]
        reasons = work.refused(self.leases[number][0], [i + self.offset for i in refused])
        assert {(i - self.offset, state) for i, state, _ in reasons} == {
            (i, state) for i, state, _ in self.memory.refused(self.leases[number][1], refused)
        }

    def settle(self):
        number = self.a_lease()
        if number is None or not self.held[number]:
            return
        chosen = self.rng.sample(sorted(self.held[number]), self.rng.randint(1, min(3, len(self.held[number]))))
        settlements = [self.settlement(*self.held[number][i]) for i in chosen]
        for _ in range(self.rng.choice([1, 1, 2])):  # the answer may get lost
            work.settle(self.leases[number][0], [ours for ours, _ in settlements])
            self.memory.settle(self.leases[number][1], [theirs for _, theirs in settlements])
        for i in chosen:
            if self.rng.random() < 0.8:  # else somebody will be late with a second answer
                del self.held[number][i]

    def settlement(self, ours, theirs):
        state = self.rng.choice(["accepted", "accepted", "rejected", "ready", "waiting", "dead", "uncertain"])
        failed = state != "accepted"
        self.now += timedelta(milliseconds=1)
        fields = {
            "state": state,
            "at": self.now,
            "turn": theirs.turn,
            "attempts": theirs.attempts + 1,
            "resends": theirs.resends,
            "pinned": self.rng.random() < 0.3,
            "not_before": self.now - timedelta(seconds=1) if state == "waiting" else None,
            "failure": Failure(self.engine, Outcome(Kind.TRANSIENT, "451", "no"), 0.1) if failed else None,
        }
        suppress = state == "rejected" and self.rng.random() < 0.3
        address = address_of(theirs.id)
        return tuple(
            Settlement(id=row.id, batch=row.batch, suppress=(address, address) if suppress else None, **fields)
            for row in (ours, theirs)
        )

    def promote(self):
        assert work.next_due() == self.memory.next_due()
        assert work.promote() == self.memory.promote()

    def look(self):
        ours, theirs = work.open_batches(self.batch.pk), self.memory.open_batches()
        assert [view.deadline for view in ours] == [view.deadline for view in theirs]

    def give_back(self):
        number = self.a_lease()
        if number is not None:
            assert work.give_back(self.leases[number][0]) == self.memory.give_back(self.leases[number][1])

    def end(self):
        number = self.a_lease()
        if number is not None:
            work.end(self.leases[number][0])
            self.memory.end(self.leases[number][1])

    def die(self):
        """A lease runs out, and whoever comes next takes back what hung on it."""
        number = self.a_lease()
        if number is None:
            return
        ours, theirs = self.leases[number]
        gone = Lease.objects.filter(pk=ours).update(expires_at=PAST)
        assert bool(gone) == (theirs in self.memory._leases)
        if gone:
            self.memory._leases[theirs].expires_at = PAST
        self.now += timedelta(milliseconds=1)  # by the database's clock it is later, too
        assert work.reap() == self.memory.reap()

    def extend(self):
        number = self.a_lease()
        if number is not None:
            assert work.extend(self.leases[number][0], TERM) == self.memory.extend(self.leases[number][1], TERM)

    def suppress(self):
        address = address_of(self.rng.randint(1, self.total))
        Suppression.objects.bulk_create([Suppression(address=address, identity=address)], ignore_conflicts=True)
        self.memory.suppressed.add(address)

    def hold(self):
        if self.memory.state is BatchState.OPEN:
            door.hold(self.batch.pk, "story")
            self.memory.hold()
        elif self.memory.state is BatchState.HELD:
            door.release(self.batch.pk)
            self.memory.release()

    def cancel(self):
        if self.memory.state in (BatchState.OPEN, BatchState.HELD) and self.rng.random() < 0.1:
            door.cancel(self.batch.pk)
            self.memory.cancel()

    def finish(self):
        assert work.finish_if_done(self.batch.pk) == self.memory.finish_if_done(1)
        work.finish_cancelled()
        self.memory.finish_cancelled()

    def a_lease(self):
        return self.rng.randrange(len(self.leases)) if self.leases else None

    # ---- both the same ----

    def compare(self):
        rows = {d.pk - self.offset: d for d in Delivery.objects.filter(batch=self.batch)}
        for i in range(1, self.total + 1):
            ours, theirs = rows[i], self.memory.row(i)
            assert ours.state == self.memory.state_of(i), i
            if theirs is not None:
                assert [getattr(ours, name) for name in COLUMNS] == [getattr(theirs, name) for name in COLUMNS], i
                assert (ours.lease_id is None) == (theirs.lease is None), i
        assert door.progress(self.batch.pk) == +self.memory.ends
        failures = Attempt.objects.filter(delivery__batch=self.batch).values_list("delivery", "kind")
        assert sorted((i - self.offset, kind) for i, kind in failures) == sorted(
            (failed.delivery, failed.kind) for failed in self.memory.failures
        )
        self.batch.refresh_from_db()
        assert self.batch.state == self.memory.state


@pytest.mark.parametrize("policy", UncertainPolicy)
def test_the_same_story_told_to_both_queues_leaves_the_same_rows(policy, rng):
    for _ in range(STORIES):
        both = Both(rng, rng.choice([3, 8, 20]), policy)
        deeds = [
            both.lease, both.lease_more, both.lease_more, both.mark, both.mark, both.mark, both.settle, both.settle,
            both.settle, both.promote, both.give_back, both.end, both.die, both.extend, both.suppress, both.hold,
            both.cancel, both.finish, both.look,
        ]  # fmt: skip
        for _ in range(STEPS):
            rng.choice(deeds)()
        both.compare()
        for told in (Delivery, Lease, Suppression):
            told.objects.all().delete()
