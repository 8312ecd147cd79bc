"""What follows from ends, for any plan and any history: compared with a model that knows one recipient at a time.

The model below says in plain Python what each delivery has to be after each deed: whether it is there, waits and for
how many things, goes, or was skipped and why. It is told the same story as the queue and asked after every step.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from delivery import queue
from delivery.core.sequence import Edge, On, Rules
from delivery.exceptions import IllegalTransition
from delivery.models import Batch, Delivery, Engine, Lease, Message, Pool, Suppression
from delivery.queue import Filler, NewDelivery, leasing
from delivery.queue.outcomes import Mark, Settlement, mark, refused, settle

pytestmark = pytest.mark.django_db

NOWHERE = "another-host/boot/1:1:1"
TERM = timedelta(minutes=5)
HOUR = timedelta(hours=1)
GAP = timedelta(microseconds=100)
PAST = datetime(2020, 1, 1, tzinfo=UTC)
OPEN = ("waiting", "ready", "leased", "sending")
REPLAYED = ("dead", "rejected", "expired", "uncertain")
SAID = {"dead": "dead letter"}  # states that are called otherwise in words
STORIES = 8

serials = itertools.count(1)


def fulfilled(on: str, end: str) -> bool:
    """Whether a mail that ended so may be followed, as far as its end tells."""
    if on == "ended":
        return True
    if on == "not accepted":
        return end not in ("accepted", "uncertain")
    return end == "accepted" or (on == "bounced" and end == "rejected")


@dataclass
class Row:
    """What a delivery has to be. `due` and `settled` are spans of time, for the clock runs while a deed is done."""

    state: str
    pending: int = 0
    due: tuple[datetime, datetime] | None = None
    settled: tuple[datetime, datetime] | None = None
    reasons: set[str] = field(default_factory=set)  # of one that was skipped for a predecessor's sake: any of these
    pinned: bool = False
    lease: int | None = None
    turn: int = 0
    met: set[int] = field(default_factory=set)

    @property
    def may_come_back(self) -> bool:
        return self.state == "skipped" and bool(self.reasons)


@dataclass(frozen=True)
class Plan:
    """Messages by number with what each follows, and recipients by number with whom each depends on."""

    after: dict[int, list[tuple[int, str]]]
    delay: dict[int, timedelta]
    depends: dict[int, set[int]]
    unsent: set[int]  # recipients that are skipped when the batch is filled
    identities: list[str]
    keyed: bool
    release: bool
    gap: timedelta
    policy: str

    @property
    def beginnings(self):
        return [message for message, edges in self.after.items() if not edges]

    @property
    def sequenced(self):
        return any(self.after.values())


def drawn_plan(rng, *, sequenced: bool, ordered: bool) -> Plan:
    messages = range(1, rng.randint(2, 6) + 1 if sequenced else 2)
    after = {1: []}
    for message in messages[1:]:
        so_many = min(rng.choice([0, 1, 1, 1, 2, 2, 3, 4]), message - 1)
        ons = ["accepted", "accepted", "ended", "not accepted", "opened", "not bounced", "bounced"]
        after[message] = [(each, rng.choice(ons)) for each in rng.sample(range(1, message), so_many)]
    people = range(rng.randint(2, 6))
    line = rng.sample(people, len(people))
    depends = {person: set() for person in people}
    if ordered:
        for place, person in enumerate(line):
            depends[person] = set(rng.sample(line[:place], min(place, rng.choice([0, 1, 1, 2, 3]))))
    identities = [f"p{person}@example.test" for person in people]
    if ordered and rng.random() < 0.3:
        identities[-1] = identities[0]  # the same address under two names
    return Plan(
        after,
        {message: rng.choice([timedelta(), timedelta(), HOUR]) for message in messages},
        depends,
        {person for person in people if rng.random() < 0.1},
        identities,
        ordered,
        rng.random() < 0.4,
        rng.choice([GAP, GAP, HOUR]),
        rng.choice(["hold", "resend"]),
    )


class Model:
    """The rows that there have to be, by message and recipient."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rows: dict[tuple[int, int], Row] = {}
        self.batch = "filling"
        self.freed = 0  # that went from waiting, skipped or nowhere to ready
        self.followers = {
            message: [(later, on) for later, edges in plan.after.items() for each, on in edges if each == message]
            for message in plan.after
        }
        self.dependents = {
            person: [other for other, wanted in plan.depends.items() if person in wanted] for person in plan.depends
        }

    # ---- what follows ----

    def fill(self, span) -> None:
        for message in self.plan.beginnings:
            for person, wanted in self.plan.depends.items():
                due = span[0] + self.plan.delay[message], span[1] + self.plan.delay[message]
                pending = len(wanted)
                row = self.rows[message, person] = Row("waiting", pending, due)
                if person in self.plan.unsent:
                    row.state, row.due, row.settled = "skipped", None, span
                elif not pending and not self.plan.delay[message]:
                    row.state, row.due = "ready", None
        self.follow([each for each, row in self.rows.items() if row.state == "skipped"], span)

    def follow(self, ended, span, *, done_too=False) -> None:
        if self.batch == "cancelled" or (self.batch == "done" and not done_too):
            return
        line = list(ended)
        while line:
            message, person = line.pop(0)
            for later, on in self.followers[message]:
                if len(self.plan.after[later]) == 1:
                    line += self._next(message, later, on, person, span)
                else:
                    line += self._join(later, person, span)
            if message in self.plan.beginnings:
                for other in self.dependents[person]:
                    line += self._release(message, person, other, span)

    def _next(self, message, later, on, person, span):
        end = self.rows[message, person].state
        row = self.rows.get((later, person))
        if row is not None and not (row.may_come_back and fulfilled(on, end)):
            return []
        row = self.rows.setdefault((later, person), Row("skipped"))
        if fulfilled(on, end):
            self._goes(row, (span[0] + self.plan.delay[later], span[1] + self.plan.delay[later]), span)
            return []
        return self._skips(row, later, person, {self._why(message, end)}, span)

    def _join(self, later, person, span):
        edges = self.plan.after[later]
        row = self.rows.setdefault((later, person), Row("waiting", len(edges)))
        if not (row.may_come_back or (row.state == "waiting" and row.pending)):
            return []
        before = [(on, each, self.rows.get((each, person))) for each, on in edges]
        over = [(on, each, found) for on, each, found in before if found is not None and found.settled]
        unwanted = {self._why(each, found.state) for on, each, found in over if not fulfilled(on, found.state)}
        if unwanted:
            if row.state == "skipped":
                return []
            row.pending = 0
            return self._skips(row, later, person, unwanted, span)
        if len(over) == len(edges):
            delay = self.plan.delay[later]
            due = tuple(max(found.settled[end] for _, _, found in over) + delay for end in (0, 1))
            self._goes(row, due, span)
        return []

    def _release(self, message, person, other, span):
        row = self.rows[message, other]
        if person in row.met:
            return []
        if self.rows[message, person].state != "accepted" and not self.plan.release:
            if row.state != "waiting":
                return []
            failed = {
                each
                for each in self.plan.depends[other] - row.met
                if self.rows[message, each].settled and self.rows[message, each].state != "accepted"
            }
            return self._skips(row, message, other, {self._failed(each) for each in failed}, span)
        row.met.add(person)
        row.pending -= 1
        if row.pending == 0 and (row.state == "waiting" or row.may_come_back):
            gap = timedelta() if self.plan.gap == GAP else self.plan.gap
            due = max(row.due[0], span[0] + gap), max(row.due[1], span[1] + gap)
            self._goes(row, due, span)
        return []

    def _goes(self, row, due, span):
        row.pending, row.reasons, row.settled = 0, set(), None
        if due[0] > span[1]:
            row.state, row.due = "waiting", due
        else:
            row.state, row.due = "ready", None
            self.freed += 1

    def _skips(self, row, message, person, reasons, span):
        row.state, row.reasons, row.settled = "skipped", reasons, span
        return [(message, person)]

    def _why(self, message, end):
        return f"message {message} to this recipient ended as {SAID.get(end, end)}"

    def _failed(self, person):
        return f"it depends on k{person}, which was not accepted"

    # ---- deeds ----

    def write(self, which, state, span, *, pinned=False, due=None) -> None:
        row = self.rows[which]
        row.state, row.pinned, row.lease, row.due = state, pinned, None, due
        row.settled, row.reasons = (None if state in OPEN else span), set()

    def settle(self, lease, settlements, span) -> None:
        """`settlements`: (which, turn, state) each."""
        ended = []
        for which, turn, state in settlements:
            row = self.rows[which]
            mine = row.lease == lease and row.state in ("leased", "sending")
            late = row.lease is None and row.state == "uncertain" and (state not in OPEN or self.batch != "done")
            again = row.lease is None and row.state in ("ready", "waiting") and row.pinned and state == "accepted"
            if turn == row.turn and (mine or late or again):
                # What is to be tried again waits for an hour, and what an engine may have stays with it.
                self.write(which, state, span, due=(span[0] + HOUR, span[1] + HOUR) if state == "waiting" else None)
                ended += [which] * (state not in OPEN)
        self.follow(ended, span)

    def take_back(self, lease, span) -> None:
        ended = []
        for which, row in self.rows.items():
            if row.lease != lease:
                continue
            if row.state == "leased":
                row.state, row.lease = "ready", None
            elif self.plan.policy == "resend":
                row.state, row.lease, row.pinned = "ready", None, True
            else:
                pinned = row.pinned
                self.write(which, "uncertain", span, pinned=pinned)
                ended.append(which)
        self.follow(ended, span)

    def replay(self, states, chosen) -> int:
        found = [which for which in chosen if self.rows[which].state in states]
        for which in found:
            row = self.rows[which]
            pinned = row.pinned or row.state == "uncertain"
            self.write(which, "ready", None, pinned=pinned)
        if found and self.batch == "done":
            self.batch = "open"
        return len(found)

    def consider_accepted(self, chosen, span) -> int:
        found = [which for which in chosen if self.rows[which].state == "uncertain"]
        for which in found:
            self.write(which, "accepted", span)
        self.follow(found, span, done_too=True)
        if self.batch == "done" and self.has_open():
            self.batch = "open"
        return len(found)

    def cancel(self, span) -> None:
        for which, row in self.rows.items():
            if row.state in ("waiting", "ready"):
                pending = row.pending
                self.write(which, "uncertain" if row.pinned else "cancelled", span, pinned=row.pinned)
                row.pending = pending

    def has_open(self) -> bool:
        return any(row.state in OPEN for row in self.rows.values())


class World:
    """A batch of a plan on the real queue, and the model that is told the same."""

    def __init__(self, plan: Plan, rng) -> None:
        self.plan, self.rng, self.model = plan, rng, Model(plan)
        self.leases: list[int] = []
        self.in_hand: dict[int, list] = {}  # by lease: leased, not marked
        self.sending: dict[int, list] = {}
        self.lost: list[tuple[int, object]] = []  # (lease, row): taken back while their answer was on its way
        self.written: list[tuple[int, list[Settlement]]] = []
        self.was_cancelled = False
        self.engine = Engine.objects.get_or_create(slug="engine", defaults={"name": "engine", "kind": "sandbox"})[0].pk
        self._make()

    def _make(self) -> None:
        serial = next(serials)
        pool, _ = Pool.objects.get_or_create(slug="pool", defaults={"name": "pool"})
        self.batch = Batch.objects.create(
            label=f"batch {serial}",
            reference=f"links {serial}",
            pool=pool,
            uncertain_policy=self.plan.policy,
            sequenced=self.plan.sequenced,
            ordered=self.plan.keyed,
        )
        self.messages: dict[int, Message] = {}
        for position, edges in self.plan.after.items():
            rules = Rules(
                after=tuple(Edge(self.messages[each].pk, On(on)) for each, on in edges),
                delay=self.plan.delay[position],
                gap=self.plan.gap,
                release=self.plan.release,
            )
            self.messages[position] = Message.objects.create(
                batch=self.batch,
                token=f"links{serial}x{position}",
                subject="Hi",
                text="Hi",
                from_address="a@shop.example",
                return_path="a@b.c",
                position=position,
                rules=rules.as_json(),
            )
        began = timezone.now()
        for position in self.plan.beginnings:
            message = self.messages[position]
            filler = Filler(self.batch.pk, message.pk, 0, Rules.of(message.rules))
            people = self.rng.sample(list(self.plan.depends), len(self.plan.depends))
            for chunk in (people[:2], people[2:]):
                assert filler.write([self._new(person) for person in chunk]) == []
        if self.plan.keyed:
            queue.resolve(self.batch.pk)
        queue.open_for_sending(self.batch.pk)
        self.model.fill((began, timezone.now()))
        self.model.batch = "open"

    def _new(self, person) -> NewDelivery:
        after = self.plan.depends[person]
        return NewDelivery(
            person,
            self.plan.identities[person],
            self.plan.identities[person],
            "",
            {"n": person},
            skipped="cannot be rendered" if person in self.plan.unsent else "",
            key=f"k{person}" if self.plan.keyed else "",
            after=tuple(f"k{other}" for other in self.rng.sample(sorted(after), len(after))),
        )

    # ---- which row is which ----

    def which(self, row: Delivery) -> tuple[int, int]:
        by_pk = {message.pk: position for position, message in self.messages.items()}
        return by_pk[row.message_id], self._person(row.identity, row.key)

    def _person(self, identity, key) -> int:
        return int(key.removeprefix("k")) if key else self.plan.identities.index(identity)

    def stored(self) -> dict[tuple[int, int], Delivery]:
        rows = list(Delivery.objects.filter(batch=self.batch))
        found = {self.which(row): row for row in rows}
        assert len(found) == len(rows), "a mail is there twice"
        return found

    # ---- deeds ----

    def step(self) -> None:
        deeds = [self.lease, self.mark, self.settle, self.settle_again, self.expire, self.answer_late, self.replay]
        deeds += [self.consider_accepted, self.suppress, self.let_time_pass]
        self.rng.choices(deeds, weights=[4, 5, 8, 1, 1, 2, 2, 1, 0.4, 3])[0]()

    def lease(self, limit=None) -> None:
        if self.batch_state() in ("cancelled", "done"):
            return
        lease_id = leasing.acquire(NOWHERE, TERM)
        rows = leasing.lease(lease_id, self.batch.pk, limit or self.rng.randint(1, 6))
        by_id = {row.pk: which for which, row in self.stored().items()}
        for row in rows:
            known = self.model.rows[by_id[row.id]]
            assert known.state == "ready"
            known.state, known.lease, known.turn = "leased", lease_id, known.turn + 1
        self.leases.append(lease_id)
        self.in_hand[lease_id], self.sending[lease_id] = [(by_id[row.id], row) for row in rows], []

    def batch_state(self) -> str:
        return self.model.batch

    def mark(self) -> None:
        if not self.leases:
            return
        lease_id = self.rng.choice(self.leases)
        rows, self.in_hand[lease_id] = self.in_hand[lease_id], []
        marks = [Mark(row.id, self.engine, row.attempts + 1) for _, row in rows]
        allowed = mark(lease_id, marks, timezone.now())
        suppressed = set(Suppression.objects.values_list("identity", flat=True))
        for which, row in rows:
            forbidden = self.plan.identities[which[1]] in suppressed or self.batch_state() == "cancelled"
            assert (row.id in allowed) is not forbidden
            if row.id in allowed:
                self.model.rows[which].state = "sending"
                self.sending[lease_id].append((which, row))
        turned_away = {row.id: (which, row) for which, row in rows if row.id not in allowed}
        verdicts = refused(lease_id, list(turned_away)) if turned_away else []
        assert len(verdicts) == len(turned_away)
        for delivery_id, state, _ in verdicts:
            which, _ = turned_away[delivery_id]
            unsent = "cancelled" if self.batch_state() == "cancelled" else "suppressed"
            assert state == ("uncertain" if self.model.rows[which].pinned else unsent)
        self.write(lease_id, [(*turned_away[i], state) for i, state, _ in verdicts])

    def settle(self) -> None:
        if not self.leases:
            return
        lease_id = self.rng.choice(self.leases)
        rows = self.rng.sample(self.sending[lease_id], self.rng.randint(0, len(self.sending[lease_id])))
        self.sending[lease_id] = [each for each in self.sending[lease_id] if each not in rows]
        self.write(lease_id, [(which, row, self.outcome()) for which, row in rows])

    def outcome(self) -> str:
        ends = ["accepted", "rejected", "dead", "expired", "uncertain", "skipped", "ready", "waiting"]
        return self.rng.choices(ends, weights=[10, 2, 2, 1, 2, 1, 1, 1])[0]

    def write(self, lease_id, outcomes) -> None:
        began = timezone.now()
        settlements = [self._settlement(row, state) for _, row, state in outcomes]
        self._settle(lease_id, settlements, began)
        self.written.append((lease_id, settlements))

    def _settlement(self, row, state) -> Settlement:
        at = timezone.now()
        return Settlement(
            row.id,
            row.batch,
            state,
            at,
            row.turn,
            row.attempts + 1,
            not_before=at + HOUR if state == "waiting" else None,
            message=self.rng.choice([0, row.message]),  # 0: it is looked up
        )

    def _settle(self, lease_id, settlements, began) -> None:
        by_id = {row.pk: which for which, row in self.stored().items()}
        released = settle(lease_id, settlements)
        self.model.freed = 0
        told = [(by_id[s.id], s.turn, s.state) for s in settlements]
        self.model.settle(lease_id, told, (began, timezone.now()))
        assert released >= self.model.freed, "somebody has to be told that these may go"

    def settle_again(self) -> None:
        """A commit whose answer was lost is written again. What a later deed has changed meanwhile stays changed."""
        if self.written:
            lease_id, settlements = self.written[-1]
            current = [s for s in settlements if not (s.state == "waiting" and self._is_uncertain(s.id))]
            self._settle(lease_id, current, timezone.now())

    def _is_uncertain(self, delivery_id) -> bool:
        return Delivery.objects.filter(pk=delivery_id, state="uncertain").exists()

    def expire(self) -> None:
        if not self.leases:
            return
        lease_id = self.leases.pop(self.rng.randrange(len(self.leases)))
        Lease.objects.filter(pk=lease_id).update(expires_at=PAST)
        self.lost += [(lease_id, each) for each in self.sending.pop(lease_id)]
        del self.in_hand[lease_id]
        began = timezone.now()
        leasing.reap()
        self.model.take_back(lease_id, (began, timezone.now()))

    def answer_late(self) -> None:
        if self.lost:
            lease_id, (which, row) = self.lost.pop(self.rng.randrange(len(self.lost)))
            self.write(lease_id, [(which, row, self.rng.choice(["accepted", "accepted", "rejected", "ready"]))])

    def replay(self) -> None:
        states = self.rng.sample(REPLAYED, self.rng.randint(1, 4))
        chosen, ids = self._some()
        if self.was_cancelled:
            if self.batch_state() == "cancelled":
                with pytest.raises(IllegalTransition):
                    queue.replay(self.batch.pk, states=states, ids=ids)
            return
        assert queue.replay(self.batch.pk, states=states, ids=ids) == self.model.replay(states, chosen)

    def consider_accepted(self) -> None:
        if self.was_cancelled:
            return  # nothing follows then, as a test below shows
        chosen, ids = self._some()
        began = timezone.now()
        count = queue.consider_accepted(self.batch.pk, ids, "a test")
        assert count == self.model.consider_accepted(chosen, (began, timezone.now()))

    def _some(self):
        stored = self.stored()
        chosen = self.rng.sample(sorted(stored), self.rng.randint(1, len(stored)))
        return chosen, [stored[which].pk for which in chosen]

    def suppress(self) -> None:
        identity = self.rng.choice(self.plan.identities)
        Suppression.objects.get_or_create(address=identity, identity=identity, scope="", defaults={"reason": "manual"})

    def let_time_pass(self) -> None:
        stored = self.stored()
        waiting = [w for w, row in self.model.rows.items() if row.state == "waiting" and row.pending <= 0]
        some = self.rng.sample(waiting, self.rng.randint(0, len(waiting)))
        Delivery.objects.filter(pk__in=[stored[which].pk for which in some]).update(not_before=PAST)
        assert leasing.promote() == len(some)
        for which in some:
            self.model.rows[which].state, self.model.rows[which].due = "ready", None

    def cancel(self) -> None:
        if self.batch_state() != "open":
            return
        began = timezone.now()
        queue.cancel(self.batch.pk)
        self.model.cancel((began, timezone.now()))
        self.model.batch, self.was_cancelled = "cancelled", True

    def wind_up(self) -> None:
        """Everybody who has something answers; then one worker does the rest."""
        for lease_id in self.leases:
            rows, self.sending[lease_id] = self.sending[lease_id], []
            self.write(lease_id, [(which, row, "accepted") for which, row in rows])
        while self.leases:
            self.expire()
        if self.was_cancelled:
            began = timezone.now()
            queue.finish_cancelled()
            if self.batch_state() == "cancelled":
                self.model.cancel((began, timezone.now()))
                self.model.batch = "done"
            return
        while self.model.has_open():
            self.lease(100)
            self.leases = self.leases[-1:]
            self.mark()
            rows, self.sending[self.leases[0]] = self.sending[self.leases[0]], []
            self.write(self.leases[0], [(which, row, self.rng.choice(["accepted", "dead"])) for which, row in rows])
            stored = self.stored()
            for which, row in self.model.rows.items():
                if row.state == "waiting" and row.pending <= 0:
                    Delivery.objects.filter(pk=stored[which].pk).update(not_before=PAST)
                    row.state, row.due = "ready", None
            leasing.promote()
            self.check()

    # ---- comparisons ----

    def check(self) -> None:
        stored = self.stored()
        told = {which: (row.state, row.pending, row.pinned) for which, row in self.model.rows.items()}
        assert {which: (row.state, row.pending, row.pinned) for which, row in stored.items()} == told
        for which, row in self.model.rows.items():
            found = stored[which]
            assert (found.code == "predecessor") is row.may_come_back, which
            if row.may_come_back:
                assert found.words in row.reasons, which
            assert (found.settled_at is None) is (row.state in OPEN), which
            if row.state == "waiting" and row.pending <= 0:
                assert row.due[0] <= found.not_before <= row.due[1], which
        ended = Counter(row.state for row in stored.values() if row.state not in OPEN)
        assert queue.progress(self.batch.pk) == ended
        batch = Batch.objects.get(pk=self.batch.pk)
        assert batch.size == len(stored) == batch.rows().count()

    def check_end(self) -> None:
        """The batch is done when everything has ended, and not before."""
        over = self.batch_state() in ("open", "cancelled") and not self.model.has_open()
        assert queue.finish_if_done(self.batch.pk) is over
        if over:
            self.model.batch = "done"
        assert Batch.objects.get(pk=self.batch.pk).state == self.batch_state()


@pytest.mark.parametrize("kind", ["sequence", "order", "both"])
@pytest.mark.parametrize("story", range(STORIES))
def test_after_any_history_of_any_plan_every_delivery_is_what_its_predecessors_make_of_it(rng, seed, kind, story):
    print(f"seed {seed}")
    plan = drawn_plan(rng, sequenced=kind != "order", ordered=kind != "sequence")
    print(plan)
    world = World(plan, rng)
    world.check()
    cancelled_at = rng.randrange(10, 160)  # beyond the last step in most stories

    for number in range(60):
        if number == cancelled_at:
            world.cancel()
        world.step()
        world.check()
        if rng.random() < 0.5:
            world.check_end()
    world.wind_up()
    world.check()
    world.check_end()

    assert world.batch_state() == "done"
    if not world.was_cancelled:
        assert set(world.model.rows) == set(itertools.product(plan.after, plan.depends)), "everybody, in every message"


def cancelled_in_doubt(rng) -> World:
    """A batch that was cancelled and is done; one mail of it is in doubt, and nothing was made to follow it."""
    plan = Plan({1: [], 2: [(1, "accepted")]}, dict.fromkeys((1, 2), timedelta()), {0: set()}, set(), ["a@x.test"],
                False, False, GAP, "hold")  # fmt: skip
    world = World(plan, rng)
    world.lease()
    world.mark()
    world.cancel()
    world.expire()
    world.wind_up()
    world.check()
    assert world.model.rows[1, 0].state == "uncertain"
    return world


def test_nothing_follows_a_mail_of_a_cancelled_batch_that_is_taken_as_accepted_afterwards(rng):
    world = cancelled_in_doubt(rng)

    assert queue.consider_accepted(world.batch.pk, [world.stored()[1, 0].pk], "a test") == 1

    assert {which: row.state for which, row in world.stored().items()} == {(1, 0): "accepted"}
    assert Batch.objects.get(pk=world.batch.pk).state == "done"


def test_nothing_follows_a_late_answer_to_a_mail_of_a_cancelled_batch(rng):
    world = cancelled_in_doubt(rng)

    lease_id, (which, row) = world.lost.pop()
    world.write(lease_id, [(which, row, "accepted")])

    world.check()
    assert set(world.stored()) == {(1, 0)}
