"""Ends that come at the same time: two connections, of which one waits for the other's locks, or must not.

Each test holds a transaction open, lets another connection begin, sees it wait (or end), and goes on.
"""

import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from delivery import queue
from delivery.core.sequence import Edge, On, Rules
from delivery.models import Batch, Delivery, Engine, Lease, Message, Pool
from delivery.queue import Filler, NewDelivery, leasing
from delivery.queue.outcomes import Mark, Settlement, mark, settle

pytestmark = pytest.mark.django_db(transaction=True)

NOWHERE = "another-host/boot/1:1:1"
TERM = timedelta(minutes=5)
PAST = datetime(2020, 1, 1, tzinfo=UTC)
PATIENCE = 20.0
JOINED = {1: (), 2: (), 3: ((1, "accepted"), (2, "accepted"))}
FOLLOWED = {1: (), 2: ((1, "accepted"),)}

serials = itertools.count(1)


@pytest.fixture(autouse=True)
def _postgres():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")


class Scene:
    """A batch whose first mails are all marked under one lease."""

    def __init__(self, after, people, depends=None, policy="hold"):
        serial = next(serials)
        pool, _ = Pool.objects.get_or_create(slug="pool", defaults={"name": "pool"})
        self.batch = Batch.objects.create(
            label="race",
            reference=f"race {serial}",
            pool=pool,
            sequenced=any(after.values()),
            ordered=bool(depends),
            uncertain_policy=policy,
        )
        self.messages = {}
        for position, edges in after.items():
            rules = Rules(after=tuple(Edge(self.messages[each].pk, On(on)) for each, on in edges))
            self.messages[position] = Message.objects.create(
                batch=self.batch,
                position=position,
                token=f"race{serial}x{position}",
                subject="Hi",
                text="Hi",
                from_address="a@shop.example",
                return_path="a@b.c",
                rules=rules.as_json(),
            )
        new = [
            NewDelivery(n, address, address, "", {}, key=name, after=tuple((depends or {}).get(name, ())))
            for n, (name, address) in enumerate((name, f"{name}@x.test") for name in people)
        ]
        for position, edges in after.items():
            if not edges:
                Filler(self.batch.pk, self.messages[position].pk, 0).write(new)
        if depends:
            queue.resolve(self.batch.pk)
        queue.open_for_sending(self.batch.pk)
        self.lease = leasing.acquire(NOWHERE, TERM)
        engine = Engine.objects.get_or_create(slug="engine", defaults={"name": "engine", "kind": "sandbox"})[0].pk
        rows = leasing.lease(self.lease, self.batch.pk, 100)
        assert len(mark(self.lease, [Mark(row.id, engine, 1) for row in rows], timezone.now())) == len(rows)
        self._rows = {row.id: row for row in rows}

    def row(self, name, position=1):
        return Delivery.objects.filter(batch=self.batch, key=name, message=self.messages[position]).first()

    def state(self, name, position=1):
        return self.row(name, position).state

    def settlement(self, name, position=1, state="accepted"):
        row = self._rows[self.row(name, position).pk]
        return Settlement(row.id, row.batch, state, timezone.now(), row.turn, 1, message=row.message)

    def settle(self, *wanted):
        """In one transaction: (name, message, state) each."""
        with transaction.atomic():
            return settle(self.lease, [self.settlement(*each) for each in wanted])

    def values(self):
        return list(Delivery.objects.filter(batch=self.batch).order_by("pk").values())

    def assert_reconciled(self):
        states = queue.counts_by_state(self.batch.pk)
        ended = {state: n for state, n in states.items() if state not in ("waiting", "ready", "leased", "sending")}
        assert queue.progress(self.batch.pk) == ended
        assert Batch.objects.get(pk=self.batch.pk).size == sum(states.values())
        names = Counter(Delivery.objects.filter(batch=self.batch).values_list("message", "identity", "key"))
        assert set(names.values()) <= {1}


class Beside:
    """A deed on a connection of its own."""

    def __init__(self, deed):
        self._thread = ThreadPoolExecutor(1)
        self._pid = self._thread.submit(self._connect).result(PATIENCE)
        self._deed = self._thread.submit(self._do, deed)

    @staticmethod
    def _connect():
        connection.ensure_connection()
        return connection.connection.info.backend_pid

    @staticmethod
    def _do(deed):
        try:
            return deed()
        finally:
            connection.close()

    def waits(self):
        """Whether it comes to wait for a lock. False: it ended without."""
        deadline = time.monotonic() + PATIENCE
        with connection.cursor() as cursor:
            while not self._deed.done():
                cursor.execute("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", [self._pid])
                if cursor.fetchone() == ("Lock",):
                    return True
                assert time.monotonic() < deadline
        return False

    def result(self):
        try:
            return self._deed.result(PATIENCE)
        finally:
            self._thread.shutdown()


@contextmanager
def held(deed):
    """A deed that is done and not yet committed."""
    with transaction.atomic():
        deed()
        yield


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("end", ["accepted", "rejected"])
def test_of_two_ends_at_once_the_later_one_sees_both_and_their_follow_up_is_made_and_released_once(first, second, end):
    scene = Scene(JOINED, ["a"])

    with held(lambda: scene.settle(("a", first))):
        later = Beside(lambda: scene.settle(("a", second, end)))
        assert later.waits()
    released = later.result()

    assert scene.state("a", 3) == ("ready" if end == "accepted" else "skipped")
    assert released == (end == "accepted")
    scene.assert_reconciled()


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_when_the_first_of_two_ends_at_once_is_not_written_after_all_nothing_is_lost(first, second):
    scene = Scene(JOINED, ["a"])

    with held(lambda: scene.settle(("a", first))):
        later = Beside(lambda: scene.settle(("a", second)))
        assert later.waits()
        transaction.set_rollback(True)
    later.result()

    assert scene.state("a", 3) == "waiting"
    scene.settle(("a", first))
    assert scene.state("a", 3) == "ready"
    scene.assert_reconciled()


def test_a_follow_up_that_waits_already_is_released_once_by_two_ends_at_once():
    scene = Scene({1: (), 2: (), 3: (), 4: ((1, "accepted"), (2, "ended"), (3, "ended"))}, ["a"])
    scene.settle(("a", 1))

    with held(lambda: scene.settle(("a", 2))):
        later = Beside(lambda: scene.settle(("a", 3, "rejected")))
        assert later.waits()
    later.result()

    assert scene.state("a", 4) == "ready"
    scene.assert_reconciled()


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
def test_whoever_ends_predecessors_of_the_same_follow_ups_in_another_order_waits_for_no_circle(order):
    scene = Scene(JOINED, ["a", "b"])

    with held(lambda: scene.settle(("a", 1))):
        other = Beside(lambda: scene.settle(*((name, 2) for name in order)))
        assert other.waits()
        scene.settle(("b", 1))
    assert other.result() == 2

    leasing.promote()  # the later of its predecessors ended after the other transaction had begun
    assert (scene.state("a", 3), scene.state("b", 3)) == ("ready", "ready")
    scene.assert_reconciled()


@pytest.mark.parametrize("order", [[3, 4], [4, 3]])
def test_follow_ups_of_several_messages_are_made_in_one_order_too(order):
    both = {1: (), 2: (), 3: (), 4: (), 5: ((1, "ended"), (3, "ended")), 6: ((2, "ended"), (4, "ended"))}
    scene = Scene(both, ["a"])

    with held(lambda: scene.settle(("a", 1))):
        other = Beside(lambda: scene.settle(*(("a", message) for message in order)))
        assert other.waits()
        scene.settle(("a", 2))
    other.result()

    leasing.promote()
    assert (scene.state("a", 5), scene.state("a", 6)) == ("ready", "ready")
    scene.assert_reconciled()


@pytest.mark.parametrize("order", [["p", "q"], ["q", "p"]])
def test_whoever_releases_the_same_dependents_in_another_order_waits_for_no_circle(order):
    depends = {"d": ["p", "r"], "e": ["q", "s"]}
    scene = Scene({1: ()}, ["p", "q", "r", "s", "d", "e"], depends)

    with held(lambda: scene.settle(("r",))):
        other = Beside(lambda: scene.settle(*((name,) for name in order)))
        assert other.waits()
        scene.settle(("s",))
    other.result()

    assert (scene.state("d"), scene.state("e")) == ("ready", "ready")
    scene.assert_reconciled()


@pytest.mark.parametrize(("good", "failed"), [("p", "q"), ("q", "p")])
def test_whoever_releases_some_and_skips_others_waits_for_no_circle_with_one_who_has_both(good, failed):
    depends = {"d": ["p", "r"], "e": ["q", "s"]}
    scene = Scene({1: ()}, ["p", "q", "r", "s", "d", "e"], depends)

    with held(lambda: scene.settle(("r",))):
        other = Beside(lambda: scene.settle((good, 1, "accepted"), (failed, 1, "rejected")))
        assert other.waits()
        scene.settle(("s",))
    other.result()

    assert {scene.state("d"), scene.state("e")} == {"ready", "skipped"}
    scene.assert_reconciled()


def test_a_dependent_of_two_that_end_at_once_goes_once():
    scene = Scene({1: ()}, ["p", "q", "d"], {"d": ["p", "q"]})

    with held(lambda: scene.settle(("p",))):
        later = Beside(lambda: scene.settle(("q",)))
        assert later.waits()
    later.result()

    assert (scene.state("d"), scene.row("d").pending) == ("ready", 0)


@pytest.mark.parametrize("after", [FOLLOWED, JOINED])
def test_what_is_made_while_its_batch_is_cancelled_is_cancelled_with_it(after):
    scene = Scene(after, ["a", "b"])

    with held(lambda: scene.settle(("a", 1), *((("a", 2),) if after is JOINED else ()))):
        cancelling = Beside(lambda: queue.cancel(scene.batch.pk))
        cancelling.waits()
    cancelling.result()
    for name, position in itertools.product("ab", [n for n, edges in after.items() if not edges]):
        scene.settle((name, position))
    queue.finish_cancelled()

    assert Batch.objects.get(pk=scene.batch.pk).state == "done"
    assert scene.state("a", max(after)) == "cancelled"
    assert scene.row("b", max(after)) is None
    scene.assert_reconciled()


@pytest.mark.parametrize("depends", [None, {"b": ["a"]}])
def test_an_end_that_comes_while_its_batch_is_being_cancelled_adds_nothing_that_goes_out(depends):
    scene = Scene(FOLLOWED, ["a", "b"], depends)

    with held(lambda: queue.cancel(scene.batch.pk)):
        ending = Beside(lambda: scene.settle(("a",)))
        ending.waits()
    ending.result()
    if not depends:
        scene.settle(("b",))
    queue.finish_cancelled()

    assert Batch.objects.get(pk=scene.batch.pk).state == "done"
    assert set(queue.counts_by_state(scene.batch.pk)) <= {"accepted", "cancelled"}
    assert leasing.lease(leasing.acquire(NOWHERE, TERM), scene.batch.pk, 10) == []
    scene.assert_reconciled()


def to_be_sent_again(scene):
    """Its answer is on the way, its lease lost, and it waits for another try."""
    Lease.objects.filter(pk=scene.lease).update(expires_at=PAST)
    leasing.reap()
    Delivery.objects.filter(batch=scene.batch).update(state="waiting", not_before=PAST)
    assert scene.row("a").pinned


def test_an_answer_that_comes_while_its_delivery_is_made_ready_is_taken_and_followed():
    scene = Scene(FOLLOWED, ["a"], policy="resend")
    to_be_sent_again(scene)

    with held(leasing.promote):
        answering = Beside(lambda: scene.settle(("a",)))
        assert answering.waits()
    answering.result()

    assert (scene.state("a"), scene.state("a", 2)) == ("accepted", "ready")
    scene.assert_reconciled()


def test_a_delivery_whose_answer_is_being_written_is_not_made_ready():
    scene = Scene(FOLLOWED, ["a"], policy="resend")
    to_be_sent_again(scene)

    with held(lambda: scene.settle(("a",))):
        promoting = Beside(leasing.promote)
        assert not promoting.waits()
    assert promoting.result() == 0

    assert (scene.state("a"), scene.state("a", 2)) == ("accepted", "ready")


@pytest.mark.parametrize("committed", [True, False])
def test_ends_that_are_written_twice_change_nothing(committed):
    scene = Scene(JOINED, ["p", "d"], {"d": ["p"]})
    ends = [scene.settlement("p", 1), scene.settlement("p", 2, "uncertain")]

    def write():
        with transaction.atomic():
            return settle(scene.lease, ends)

    with held(write):
        if not committed:  # whoever lost the answer is back before the first one is through
            again = Beside(write)
            assert again.waits()
    before = scene.values() if committed else None
    if committed:
        again = Beside(write)
    again.result()

    if committed:
        assert scene.values() == before
    assert (scene.state("p", 3), scene.state("d", 1), scene.state("d", 2)) == ("skipped", "ready", "skipped")
    scene.assert_reconciled()
