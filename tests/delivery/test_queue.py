"""The durable queue on real rows: nothing lost, nothing doubled, nothing past the gate, and tallies that agree."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.utils import timezone

from delivery import owner, queue
from delivery.core.envelope import MAX_WORDS, Kind, Outcome
from delivery.exceptions import IllegalTransition
from delivery.models import Attempt, Batch, Delivery, Engine, Lease, Message, Pool, Suppression
from delivery.models.batch import BatchState
from delivery.queue import Filler, NewDelivery, leasing
from delivery.queue.outcomes import ENDED, Failure, Mark, Settlement, mark, refused, settle
from delivery.signals import batch_done

ROOT = Path(__file__).resolve().parent.parent.parent
TERM = timedelta(minutes=5)
NOWHERE = "another-host/boot/1:1:1"  # an owner of which this host knows nothing
SCOPE = "spring"

serials = itertools.count(1)

pytestmark = pytest.mark.django_db


def new(position, address=None, **changes):
    address = address or f"person-{position}@example.test"
    return NewDelivery(position, address, address.lower(), "", {"n": position}, **changes)


def filling_batch(policy="hold", scope=SCOPE):
    """An empty batch with one message, and the filler that writes its deliveries."""
    serial = next(serials)
    pool, _ = Pool.objects.get_or_create(slug="pool", defaults={"name": "pool"})
    batch = Batch.objects.create(
        label=f"batch {serial}", reference=f"reference {serial}", scope=scope, pool=pool, uncertain_policy=policy
    )
    message = Message.objects.create(
        batch=batch, token=f"token{serial}", subject="Hi", text="Hi", from_address="a@shop.example", return_path="a@b.c"
    )
    return batch, Filler(batch.pk, message.pk, batch.priority)


def open_batch(size, **options):
    batch, filler = filling_batch(**options)
    filler.write([new(n) for n in range(size)])
    queue.open_for_sending(batch.pk)
    return batch


def engine():
    return Engine.objects.get_or_create(slug="engine", defaults={"name": "engine", "kind": "sandbox"})[0].pk


def leased(batch, count=1, term=TERM, holder=NOWHERE):
    """A lease and so many of the batch's deliveries under it."""
    lease_id = leasing.acquire(holder, term)
    return lease_id, leasing.lease(lease_id, batch.pk, count)


def marked(batch, count=1, **options):
    lease_id, rows = leased(batch, count, **options)
    assert mark(lease_id, marks(rows), timezone.now()) == {row.id for row in rows}
    return lease_id, rows


def marks(rows):
    return [Mark(row.id, engine(), row.attempts + 1) for row in rows]


def settlement(row, state="accepted", **changes):
    return Settlement(
        **{
            "id": row.id,
            "batch": row.batch,
            "state": state,
            "at": timezone.now(),
            "turn": row.turn,
            "attempts": row.attempts + 1,
        }
        | changes
    )


def failed(row, state="rejected", words="no", **changes):
    return settlement(row, state, failure=Failure(engine(), Outcome(Kind.TRANSIENT, "451", words), 0.1), **changes)


def expire(lease_id):
    Lease.objects.filter(pk=lease_id).update(expires_at=datetime(2020, 1, 1, tzinfo=UTC))


def suppress(row, scope=""):
    Suppression.objects.create(address=row.address, identity=row.address.lower(), scope=scope, reason="manual")


def states(batch):
    return queue.counts_by_state(batch.pk)


def state_of(row):
    return Delivery.objects.get(pk=row.id).state


def assert_tally_agrees(batch):
    counted = {state: n for state, n in states(batch).items() if state in ENDED}
    assert queue.progress(batch.pk) == counted


# ---- filling ----


def test_a_recipient_is_written_once_within_a_chunk_and_over_all_chunks():
    _, filler = filling_batch()

    first = filler.write([new(1, "a@x.test"), new(2, "B@x.test"), new(3, "A@x.test"), new(4, "a@x.test")])
    second = filler.write([new(5, "b@x.test"), new(6, "c@x.test"), new(7, "C@x.test")])

    assert [d.position for d in first] == [3, 4]
    assert [d.position for d in second] == [5, 7]
    assert list(Delivery.objects.order_by("pk").values_list("address", "data", "state")) == [
        ("a@x.test", {"n": 1}, "ready"),
        ("B@x.test", {"n": 2}, "ready"),
        ("c@x.test", {"n": 6}, "ready"),
    ]


def test_the_same_chunk_again_writes_nothing_and_counts_nothing():
    batch, filler = filling_batch()
    chunk = [new(1), new(2, skipped="cannot be rendered")]
    filler.write(chunk)

    again = filler.write(chunk)

    assert again == chunk
    assert queue.progress(batch.pk) == {"skipped": 1}
    queue.open_for_sending(batch.pk)
    assert Batch.objects.get(pk=batch.pk).total == 2


def test_a_skipped_recipient_has_its_end_and_its_reason_and_is_never_leased():
    batch, filler = filling_batch()
    filler.write([new(1), new(2, skipped="w" * 2 * MAX_WORDS)])
    queue.open_for_sending(batch.pk)

    _, rows = leased(batch, 10)

    skipped = Delivery.objects.get(state="skipped")
    assert [row.address for row in rows] == ["person-1@example.test"]
    assert skipped.words == "w" * MAX_WORDS
    assert skipped.settled_at is not None
    assert Delivery.objects.get(state="leased").settled_at is None
    assert_tally_agrees(batch)


def test_two_messages_may_go_to_the_same_person():
    for _ in range(2):
        _, filler = filling_batch()
        assert filler.write([new(1)]) == []

    assert Delivery.objects.count() == 2


def test_text_of_every_kind_arrives_whole():
    _, filler = filling_batch()
    odd = 'tab\there, line\nthere, "quotes", back\\slash, \\N, 花 🌱, {"a": 1}'
    filler.write(
        [NewDelivery(1, "jürgen@x.test", "jürgen@x.test", odd, {"words": odd, "none": None, "list": [1, [2]]})]
    )

    row = Delivery.objects.get()

    assert (row.address, row.name) == ("jürgen@x.test", odd)
    assert row.data == {"words": odd, "none": None, "list": [1, [2]]}


def test_an_empty_chunk_is_no_trouble():
    batch, filler = filling_batch()

    assert filler.write([]) == []
    queue.open_for_sending(batch.pk)
    assert Batch.objects.get(pk=batch.pk).total == 0


# ---- leasing ----


def test_the_earliest_deadline_is_leased_first_and_without_deadline_in_order_of_writing():
    batch = open_batch(6)
    ids = list(Delivery.objects.order_by("pk").values_list("pk", flat=True))
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    Delivery.objects.filter(pk=ids[4]).update(deadline=noon)
    Delivery.objects.filter(pk=ids[2]).update(deadline=noon + timedelta(microseconds=1))

    lease_id = leasing.acquire(NOWHERE, TERM)
    order = [[row.id for row in leasing.lease(lease_id, batch.pk, 2)] for _ in range(4)]

    assert order == [[ids[4], ids[2]], [ids[0], ids[1]], [ids[3], ids[5]], []]


def test_a_lease_takes_only_what_is_ready_of_its_own_batch():
    batch, other = open_batch(3), open_batch(3)
    Delivery.objects.filter(batch=batch).order_by("pk").first().delete()

    _, rows = leased(batch, 10)

    assert {row.batch for row in rows} == {batch.pk}
    assert states(batch) == {"leased": 2}
    assert states(other) == {"ready": 3}


@pytest.mark.django_db(transaction=True)
def test_leasers_side_by_side_never_get_the_same_delivery():
    batch = open_batch(300)
    start = threading.Barrier(4)

    def take_all():
        try:
            lease_id, got = leasing.acquire(NOWHERE, TERM), []
            start.wait()
            while rows := leasing.lease(lease_id, batch.pk, 7):
                got += [row.id for row in rows]
            return got
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        takers = [threads.submit(take_all) for _ in range(4)]
        got = [i for taker in takers for i in taker.result(60)]

    assert len(got) == len(set(got)) == 300
    assert states(batch) == {"leased": 300}


@pytest.mark.django_db(transaction=True)
def test_a_leaser_does_not_wait_for_one_that_has_not_committed_yet():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time: the second waits by design")
    batch = open_batch(20)

    def take():
        try:
            return [row.id for row in leased(batch, 10)[1]]
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread, transaction.atomic():
        _, first = leased(batch, 10)
        second = thread.submit(take).result(10)

    assert len({row.id for row in first} | set(second)) == 20


def test_what_was_leased_and_never_marked_is_given_back():
    batch = open_batch(4)
    lease_id, rows = leased(batch, 4)
    mark(lease_id, marks(rows[:1]), timezone.now())

    leasing.end(lease_id)

    assert states(batch) == {"ready": 3, "sending": 1}
    assert Lease.objects.filter(pk=lease_id).exists()


def test_a_lease_ends_when_nothing_hangs_on_it():
    lease_id, _ = leased(open_batch(2), 2)

    leasing.end(lease_id)

    assert not Lease.objects.exists()


def test_a_lease_that_has_ended_cannot_be_extended():
    lease_id = leasing.acquire(NOWHERE, TERM)
    assert leasing.extend(lease_id, TERM)

    expire(lease_id)

    assert not leasing.extend(lease_id, TERM)


def test_nothing_is_leased_under_a_lease_that_was_taken_away():
    batch = open_batch(2)
    lease_id = leasing.acquire(NOWHERE, TERM)
    expire(lease_id)
    leasing.reap()

    rows = leasing.lease(lease_id, batch.pk, 10)

    # Nobody would ever take them back: they would hang on a lease that is not there.
    assert rows == []
    assert states(batch) == {"ready": 2}


def test_what_waits_becomes_ready_when_its_time_has_come():
    batch = open_batch(3)
    lease_id, rows = marked(batch, 3)
    now = timezone.now()
    for row, wait in zip(rows, (-1, 3600, 7200), strict=True):
        settle(lease_id, [settlement(row, "waiting", not_before=now + timedelta(seconds=wait))])

    promoted = leasing.promote()

    assert promoted == 1
    assert states(batch) == {"ready": 1, "waiting": 2}
    assert Delivery.objects.get(state="ready").not_before is None
    waiting = Delivery.objects.filter(state="waiting").order_by("not_before").values_list("not_before", flat=True)
    assert list(waiting) == [now + timedelta(hours=1), now + timedelta(hours=2)]


# ---- the mark ----


def test_a_mark_records_engine_count_and_the_first_hand_over():
    batch = open_batch(1)
    lease_id, [row] = leased(batch)
    first, second = datetime(2026, 8, 1, tzinfo=UTC), datetime(2026, 8, 2, tzinfo=UTC)

    mark(lease_id, [Mark(row.id, engine(), 3)], first)
    mark(lease_id, [Mark(row.id, engine(), 3)], second)

    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.engine_id, delivery.attempts) == ("sending", engine(), 3)
    assert delivery.tried_at == first


@pytest.mark.parametrize("scope", ["", SCOPE])
def test_a_suppressed_address_is_refused_though_it_was_entered_after_the_lease(scope):
    batch = open_batch(2)
    lease_id, [first, second] = leased(batch, 2)
    suppress(first, scope)

    allowed = mark(lease_id, marks([first, second]), timezone.now())

    assert allowed == {second.id}
    assert refused(lease_id, [first.id]) == [(first.id, "suppressed", "suppressed: entered by hand")]


def test_a_suppression_of_another_list_refuses_nothing():
    lease_id, [row] = leased(open_batch(1))
    suppress(row, "winter")

    assert mark(lease_id, marks([row]), timezone.now()) == {row.id}


def test_a_suppression_counts_in_every_spelling_of_the_address():
    batch, filler = filling_batch()
    filler.write([new(1, "Mixed.Case@Example.Test")])
    queue.open_for_sending(batch.pk)
    Suppression.objects.create(address="mixed.case@example.test", identity="mixed.case@example.test")
    lease_id, [row] = leased(batch)

    assert mark(lease_id, marks([row]), timezone.now()) == set()


def test_a_mark_that_is_made_again_is_refused_when_it_was_suppressed_meanwhile():
    lease_id, [row] = marked(open_batch(1))
    suppress(row)

    assert mark(lease_id, marks([row]), timezone.now()) == set()


def test_a_held_batch_refuses_every_mark_until_it_is_released():
    batch = open_batch(1)
    lease_id, [row] = leased(batch)
    queue.hold(batch.pk, "the offer was wrong")

    assert mark(lease_id, marks([row]), timezone.now()) == set()
    assert refused(lease_id, [row.id]) == [(row.id, "ready", "")]

    queue.release(batch.pk)

    assert mark(lease_id, marks([row]), timezone.now()) == {row.id}


def test_a_cancelled_batch_refuses_what_a_worker_has_and_ends_the_rest():
    batch = open_batch(3)
    lease_id, [row] = leased(batch)

    ended = queue.cancel(batch.pk)

    assert ended == 2
    assert states(batch) == {"cancelled": 2, "leased": 1}
    assert mark(lease_id, marks([row]), timezone.now()) == set()
    assert refused(lease_id, [row.id]) == [(row.id, "cancelled", "the run was cancelled")]
    assert_tally_agrees(batch)


def test_a_worker_whose_lease_was_lost_may_mark_nothing():
    batch = open_batch(2)
    lost, [first, second] = leased(batch, 2)
    expire(lost)
    leasing.reap()
    current, again = leased(batch, 1)

    assert mark(lost, marks([first, second]), timezone.now()) == set()
    assert refused(lost, [first.id, second.id]) == []
    assert mark(current, marks(again), timezone.now()) == {again[0].id}


def test_a_mark_of_nothing_allows_nothing():
    assert mark(leasing.acquire(NOWHERE, TERM), [], timezone.now()) == set()


def test_what_was_never_leased_or_has_ended_cannot_be_marked():
    batch = open_batch(2)
    lease_id, [done] = marked(batch)
    settle(lease_id, [settlement(done)])
    untouched = Delivery.objects.get(state="ready")

    wanted = [Mark(done.id, engine(), 1), Mark(untouched.pk, engine(), 1), Mark(999_999_999, engine(), 1)]

    assert mark(lease_id, wanted, timezone.now()) == set()
    assert states(batch) == {"accepted": 1, "ready": 1}


# ---- outcomes ----


def test_an_outcome_that_is_written_twice_counts_once_in_row_tally_and_record():
    batch = open_batch(3)
    lease_id, [good, bad, again] = marked(batch, 3)
    outcomes = [
        settlement(good, code="250", words="taken", provider_id="abc"),
        failed(bad, "rejected", "no such user", suppress=(bad.address, bad.address)),
        failed(again, "waiting", not_before=timezone.now() + timedelta(hours=1)),
    ]

    for _ in range(2):
        settle(lease_id, outcomes)

    assert states(batch) == {"accepted": 1, "rejected": 1, "waiting": 1}
    assert queue.progress(batch.pk) == {"accepted": 1, "rejected": 1}
    assert Attempt.objects.count() == 2
    assert list(Suppression.objects.values_list("identity", "reason")) == [(bad.address, "hard_bounce")]
    accepted = Delivery.objects.get(pk=good.id)
    assert (accepted.code, accepted.words, accepted.provider_id) == ("250", "taken", "abc")
    assert (accepted.attempts, accepted.settled_at is not None, accepted.lease_id) == (1, True, None)


def test_an_uncertain_end_that_is_written_twice_counts_once():
    batch = open_batch(1)
    lease_id, [row] = marked(batch)

    for _ in range(2):
        settle(lease_id, [settlement(row, "uncertain")])

    assert queue.progress(batch.pk) == states(batch) == {"uncertain": 1}


def test_every_failure_of_a_delivery_is_kept_with_the_providers_words():
    batch = open_batch(1)
    for tries in range(3):
        lease_id, [row] = marked(batch)
        settle(lease_id, [failed(row, "ready", f"try {tries}")])

    assert list(Attempt.objects.values_list("kind", "code", "words")) == [
        ("transient", "451", f"try {tries}") for tries in range(3)
    ]
    assert Delivery.objects.get().attempts == 3


@pytest.mark.parametrize("how", ["ready", "leased", "sending"])
def test_an_outcome_under_a_lost_lease_changes_nothing_once_somebody_else_goes_on(how):
    batch = open_batch(1, policy="resend")
    lost, [row] = marked(batch)
    expire(lost)
    leasing.reap()
    if how == "leased":
        leased(batch)
    if how == "sending":
        marked(batch)
    before = Delivery.objects.values().get()

    settle(lost, [failed(row, "rejected", "too late")])

    assert before["state"] == how
    assert Delivery.objects.values().get() == before
    assert queue.progress(batch.pk) == {}
    assert "too late" in Attempt.objects.values_list("words", flat=True)


def test_a_late_answer_to_an_uncertain_delivery_is_taken_once():
    batch = open_batch(2)
    lost, [row, _] = marked(batch, 2)
    expire(lost)
    leasing.reap()
    assert queue.progress(batch.pk) == {"uncertain": 2}

    for _ in range(2):
        settle(lost, [settlement(row)])

    assert states(batch) == queue.progress(batch.pk) == {"accepted": 1, "uncertain": 1}


def test_a_late_answer_to_another_try_than_the_uncertain_one_is_not_taken():
    batch = open_batch(1)
    lost, [row] = marked(batch)
    settle(lost, [failed(row, "ready")])
    second, _ = marked(batch)
    expire(second)
    leasing.reap()

    settle(lost, [settlement(row)])

    assert states(batch) == queue.progress(batch.pk) == {"uncertain": 1}


def pinned(batch):
    """A delivery that an engine may have taken, ready to be tried again there."""
    lease_id, [row] = marked(batch)
    settle(lease_id, [settlement(row, "ready", pinned=True)])
    return row


def test_what_an_engine_may_have_taken_is_uncertain_when_its_batch_is_cancelled_and_not_cancelled():
    batch = open_batch(1)
    pinned(batch)

    queue.cancel(batch.pk)
    queue.finish_cancelled()

    assert states(batch) == queue.progress(batch.pk) == {"uncertain": 1}


@pytest.mark.parametrize("deed", ["cancel", "suppress"])
def test_what_an_engine_may_have_taken_is_uncertain_when_its_mark_is_refused(deed):
    batch = open_batch(1)
    pinned(batch)
    lease_id, [row] = leased(batch, 1)
    if deed == "cancel":
        queue.cancel(batch.pk)
    else:
        suppress(row)

    assert mark(lease_id, marks([row]), timezone.now()) == set()

    [(_, state, words)] = refused(lease_id, [row.id])
    assert state == "uncertain"
    assert words.endswith("; an engine may have taken it before")


@pytest.mark.parametrize("again", ["leased", "sending"])
def test_a_settlement_written_twice_does_not_touch_the_next_turn_of_the_same_worker(again):
    batch = open_batch(1)
    lease_id, [row] = marked(batch)
    given_back = [settlement(row, "ready", attempts=0)]
    settle(lease_id, given_back)
    [anew] = leasing.lease(lease_id, batch.pk, 1)
    if again == "sending":
        mark(lease_id, marks([anew]), timezone.now())

    settle(lease_id, given_back)  # its answer was lost, and it was asked again

    assert states(batch) == {again: 1}
    assert (row.turn, anew.turn) == (1, 2)


def test_an_uncertain_delivery_that_was_certainly_not_handed_over_goes_on():
    batch = open_batch(1)
    lost, [row] = marked(batch)
    expire(lost)
    leasing.reap()

    settle(lost, [settlement(row, "ready", attempts=0)])

    assert states(batch) == {"ready": 1}
    assert queue.progress(batch.pk) == {}
    assert Delivery.objects.get().attempts == 0


def test_a_batch_that_is_done_gets_no_delivery_back_to_send():
    batch = open_batch(1)
    lost, [row] = marked(batch)
    expire(lost)
    leasing.reap()
    assert queue.finish_if_done(batch.pk)

    settle(lost, [failed(row, "ready", "not now")])

    # Nobody works on a batch that is done: the delivery stays for a person to see, the answer beside it.
    assert states(batch) == queue.progress(batch.pk) == {"uncertain": 1}
    assert "not now" in Attempt.objects.values_list("words", flat=True)


# ---- the end of a worker ----


def test_a_silent_workers_deliveries_are_taken_back_by_the_batchs_policy():
    held, resent = open_batch(3, policy="hold"), open_batch(3, policy="resend")
    silent = leasing.acquire(NOWHERE, TERM)
    for batch in (held, resent):
        rows = leasing.lease(silent, batch.pk, 2)
        mark(silent, marks(rows[:1]), timezone.now())
    expire(silent)

    taken = leasing.reap()

    assert taken == Counter(ready=3, uncertain=1)
    assert states(held) == {"ready": 2, "uncertain": 1}
    assert states(resent) == {"ready": 3}
    assert list(Delivery.objects.filter(pinned=True).values_list("batch", "attempts", "resends", "engine")) == [
        (resent.pk, 1, 1, engine())
    ]
    assert Attempt.objects.filter(kind="unknown").count() == 2
    assert not Delivery.objects.filter(lease__isnull=False).exists()
    assert_tally_agrees(held)


def test_what_is_taken_back_is_taken_back_once():
    batch = open_batch(2)
    silent, _ = marked(batch, 2)
    expire(silent)
    leasing.reap()

    assert leasing.reap() == Counter()
    assert queue.progress(batch.pk) == {"uncertain": 2}


def test_a_worker_of_another_host_keeps_its_lease_while_it_lasts():
    batch = open_batch(1)
    leased(batch, holder=NOWHERE)

    assert leasing.reap() == Counter()
    assert states(batch) == {"leased": 1}


@pytest.fixture
def worker_process():
    """A process of this host that has a worker's name, and that name."""
    program = "from delivery import owner; print(owner.name(), flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


@pytest.mark.parametrize("buried", [True, False])
def test_a_killed_process_of_this_host_loses_its_deliveries_at_once(worker_process, buried):
    process, name = worker_process
    batch = open_batch(2)
    lease_id, rows = leased(batch, 2, holder=name)
    mark(lease_id, marks(rows[:1]), timezone.now())
    assert leasing.reap() == Counter()

    process.send_signal(signal.SIGKILL)
    # Its parent may be slow to bury it: a process that only waits for that is gone all the same.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    if buried:
        process.wait()

    assert leasing.reap() == Counter(ready=1, uncertain=1)


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(worker_process):
    _, name = worker_process
    host, pid, started = name.rsplit(":", 2)

    assert not owner.is_gone(name)
    assert owner.is_gone(f"{host}:{pid}:{int(started) - 1}")
    assert not owner.is_gone(f"elsewhere:{pid}:{int(started) - 1}")
    assert not owner.is_gone(owner.name())


# ---- batches ----

MOVES = {
    "open": lambda batch: queue.open_for_sending(batch.pk),
    "hold": lambda batch: queue.hold(batch.pk, "why"),
    "release": lambda batch: queue.release(batch.pk),
    "cancel": lambda batch: queue.cancel(batch.pk),
}
LEGAL = {
    ("filling", "open"): "open",
    ("open", "hold"): "held",
    ("held", "release"): "open",
    ("filling", "cancel"): "cancelled",
    ("open", "cancel"): "cancelled",
    ("held", "cancel"): "cancelled",
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("state", BatchState.values)
def test_a_batch_moves_only_as_it_may_and_an_illegal_move_changes_nothing(state, move):
    batch, filler = filling_batch()
    filler.write([new(1)])
    Batch.objects.filter(pk=batch.pk).update(state=state)
    before = Batch.objects.values().get(), list(Delivery.objects.values())

    if target := LEGAL.get((state, move)):
        MOVES[move](batch)
        assert Batch.objects.get().state == target
    else:
        with pytest.raises(IllegalTransition, match=f"Batch {batch.pk} is {state}"):
            MOVES[move](batch)
        assert (Batch.objects.values().get(), list(Delivery.objects.values())) == before


def test_only_open_batches_have_work_the_most_urgent_first():
    late, early, held, _ = open_batch(1), open_batch(1), open_batch(1), filling_batch()
    Batch.objects.filter(pk=early.pk).update(priority=-1)
    queue.hold(held.pk, "why")

    assert [view.id for view in queue.open_batches()] == [early.pk, late.pk]
    assert [view.id for view in queue.open_batches(late.pk)] == [late.pk]
    assert queue.open_batches(held.pk) == []


@pytest.fixture
def heard():
    """What `batch_done` said."""
    news = []

    def hear(sender, **said):
        said.pop("signal")
        news.append(said)

    batch_done.connect(hear)
    yield news
    batch_done.disconnect(hear)


def test_a_batch_is_done_when_every_delivery_has_an_end_and_says_so_once(heard):
    batch, filler = filling_batch()
    filler.write([new(1), new(2), new(3, skipped="why")])
    queue.open_for_sending(batch.pk)
    lease_id, rows = marked(batch, 2)

    settle(lease_id, [settlement(rows[0])])
    assert not queue.finish_if_done(batch.pk)
    settle(lease_id, [settlement(rows[1], "dead")])

    assert [queue.finish_if_done(batch.pk) for _ in range(2)] == [True, False]
    assert heard == [
        {"batch_id": batch.pk, "reference": batch.reference, "counts": {"accepted": 1, "dead": 1, "skipped": 1}}
    ]


@pytest.mark.parametrize("open_state", ["waiting", "ready", "leased", "sending"])
def test_a_tally_that_says_too_much_does_not_end_a_batch(heard, open_state):
    batch = open_batch(2)
    Delivery.objects.filter(batch=batch).update(state=open_state)
    queue.tallies.add(Counter({(batch.pk, "accepted"): 2}))

    assert not queue.finish_if_done(batch.pk)
    assert heard == []


def test_a_held_batch_is_not_done():
    batch = open_batch(1)
    lease_id, [row] = marked(batch)
    queue.hold(batch.pk, "why")
    settle(lease_id, [settlement(row)])

    assert not queue.finish_if_done(batch.pk)
    queue.release(batch.pk)
    assert queue.finish_if_done(batch.pk)


@pytest.mark.parametrize("way_back", ["given back", "taken back", "to be tried again", "to be tried later"])
def test_what_comes_back_to_a_cancelled_batch_is_cancelled_and_the_batch_is_done(heard, way_back):
    batch = open_batch(2, policy="resend")
    lease_id, [row] = marked(batch) if way_back.startswith("to be") else leased(batch)
    queue.cancel(batch.pk)
    match way_back:
        case "given back":
            leasing.end(lease_id)
        case "taken back":
            expire(lease_id)
            leasing.reap()
        case "to be tried again":
            settle(lease_id, [failed(row, "ready")])
        case "to be tried later":
            settle(lease_id, [failed(row, "waiting", not_before=timezone.now() + timedelta(hours=1))])

    queue.finish_cancelled()

    assert states(batch) == queue.progress(batch.pk) == {"cancelled": 2}
    assert [news["counts"] for news in heard] == [{"cancelled": 2}]


def test_a_cancelled_batch_is_not_done_while_a_worker_has_a_part_of_it(heard):
    batch = open_batch(2)
    lease_id, [row] = marked(batch)
    queue.cancel(batch.pk)

    queue.finish_cancelled()
    assert heard == []
    settle(lease_id, [settlement(row)])
    queue.finish_cancelled()

    assert [news["counts"] for news in heard] == [{"accepted": 1, "cancelled": 1}]


def test_an_empty_batch_is_done_as_soon_as_it_is_open(heard):
    batch = open_batch(0)

    assert queue.finish_if_done(batch.pk)
    assert heard[0]["counts"] == {}


# ---- random histories ----


class Workers:
    """Workers that do what they may, and some of what they may not, in an order that chance decides."""

    def __init__(self, batch, rng):
        self.batch, self.rng = batch, rng
        self.leases = []
        self.leased = {}  # by lease
        self.sending = {}
        self.written = []  # every group of outcomes, for the times that a commit's answer gets lost

    def step(self):
        deeds = [self.lease, self.mark, self.settle, self.settle_again, self.expire, self.end, self.promote]
        deeds += [self.suppress, self.mark_while_held]
        self.rng.choices(deeds, weights=[2, 2, 3, 1, 1, 1, 1, 1, 1])[0]()

    def lease(self):
        lease_id, rows = leased(self.batch, self.rng.randint(1, 8))
        self.leases.append(lease_id)
        self.leased[lease_id], self.sending[lease_id] = rows, []

    def mark(self):
        if self.leases:
            lease_id = self.rng.choice(self.leases)
            wanted, self.leased[lease_id] = self.leased[lease_id], []
            allowed = mark(lease_id, marks(wanted), timezone.now())
            self.sending[lease_id] += [row for row in wanted if row.id in allowed]
            turned_away = [row for row in wanted if row.id not in allowed]
            known = {row.id: row for row in turned_away}
            self.write(
                lease_id,
                [settlement(known[i], state, words=words) for i, state, words in refused(lease_id, list(known))],
            )

    def settle(self):
        if self.leases:
            lease_id = self.rng.choice(self.leases)
            rows, self.sending[lease_id] = self.sending[lease_id], []
            self.write(lease_id, [self.outcome(row) for row in rows])

    def outcome(self, row):
        state = self.rng.choice(["accepted", "accepted", "rejected", "dead", "uncertain", "ready", "waiting"])
        at = timezone.now()
        if state == "accepted":
            return settlement(row, state)
        return failed(row, state, at=at, not_before=at if state == "waiting" else None, resends=row.resends)

    def write(self, lease_id, outcomes):
        settle(lease_id, outcomes)
        self.written.append((lease_id, outcomes))

    def settle_again(self):
        if self.written:
            settle(*self.written[-1])

    def expire(self):
        if self.leases:
            expire(self.rng.choice(self.leases))
            leasing.reap()

    def end(self):
        if self.leases:
            lease_id = self.rng.choice(self.leases)
            self.leased[lease_id] = []
            leasing.end(lease_id)

    def promote(self):
        leasing.promote()

    def suppress(self):
        row = Delivery.objects.filter(batch=self.batch).order_by("pk")[self.rng.randrange(40)]
        Suppression.objects.get_or_create(
            identity=row.identity, scope=self.rng.choice(["", SCOPE]), defaults={"address": row.address}
        )

    def mark_while_held(self):
        queue.hold(self.batch.pk, "why")
        self.mark()
        queue.release(self.batch.pk)

    def wind_up(self):
        """Everybody answers, everybody ends; then one worker does the rest."""
        for lease_id in self.leases:
            rows, self.sending[lease_id] = self.sending[lease_id], []
            self.write(lease_id, [settlement(row) for row in rows])
            leasing.end(lease_id)
            expire(lease_id)
        leasing.reap()
        leasing.promote()
        last = leasing.acquire(NOWHERE, TERM)
        self.leases.append(last)
        while rows := leasing.lease(last, self.batch.pk, 100):
            self.leases, self.leased[last], self.sending[last] = [last], rows, []
            self.mark()
            rows, self.sending[last] = self.sending[last], []
            self.write(last, [settlement(row) for row in rows])


@pytest.mark.parametrize("policy", ["hold", "resend"])
@pytest.mark.parametrize("history", range(3))
def test_after_any_history_the_tally_agrees_with_the_rows_and_nobody_is_missing(rng, seed, policy, history):
    print(f"seed {seed}")
    batch = open_batch(40, policy=policy)
    workers = Workers(batch, rng)

    for _ in range(120):
        workers.step()
        assert_tally_agrees(batch)
        assert sum(states(batch).values()) == 40
    workers.wind_up()

    assert set(states(batch)) <= ENDED
    assert_tally_agrees(batch)
    assert queue.finish_if_done(batch.pk)
    assert not Delivery.objects.filter(lease__isnull=False).exists()
    suppressed = Delivery.objects.filter(state="suppressed").values_list("identity", flat=True)
    assert set(suppressed) <= set(Suppression.objects.values_list("identity", flat=True))


@pytest.mark.skipif("not config.getoption('database') == 'postgres'", reason="how PostgreSQL plans")
def test_no_plan_of_the_database_makes_a_lease_longer_than_was_asked_for():
    batch = open_batch(5)
    with connection.cursor() as cursor:
        for method in ("hashjoin", "mergejoin", "material", "hashagg", "sort"):  # what is left is the nested loop
            cursor.execute(f"SET enable_{method} = off")
        try:
            _, rows = leased(batch, 2)
        finally:
            cursor.execute("RESET ALL")

    assert len(rows) == 2
