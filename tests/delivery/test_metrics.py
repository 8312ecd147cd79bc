"""What workers count: cheap in memory, added up in one table over threads, processes and restarts."""

from collections import Counter as Counts
from datetime import timedelta
from itertools import pairwise

import pytest
from django.db import connection, transaction
from django.utils import timezone

from delivery import metrics, queue
from delivery.core.envelope import Kind, Outcome
from delivery.core.script import VendorScript
from delivery.engine_desk import EngineDesk
from delivery.metrics import BOUNDS, Meter, StoredMeter, add, settled
from delivery.models import Counter, Delivery, DeliveryState, EngineLimit, Suppression
from delivery.queue import leasing
from delivery.queue.depth import Depth, depth, with_ready
from delivery.queue.outcomes import Mark, mark
from delivery.shared import shared
from delivery.simulation.run import Scenario, Simulation, simulate
from delivery.worker import Pump, Surroundings, Until
from tests.delivery.pumping import (
    ACCEPTED,
    SILENCE,
    TROUBLE,
    FakeCatalogue,
    FakeEngine,
    RepeatingDatabase,
    batch_in,
    database_away,
    pool_of,
    pumped,
    states,
)


def stored() -> dict[tuple[str, str], float]:
    """The table, its shards added up."""
    sums = Counts()
    for row in Counter.objects.all():
        sums[row.name, row.labels] += row.value
    return dict(sums)


# --- In memory -------------------------------------------------------------------------------------------------------


def test_a_meter_adds_up_by_name_and_labels_in_whatever_order_they_come():
    meter = Meter()

    meter.count("mails", engine=1, kind="accepted")
    meter.count("mails", 2, kind="accepted", engine=1)
    meter.count("mails", kind="accepted", engine=2)
    kept = meter.counter("mails", engine=2, kind="accepted")
    kept.value += 3

    assert meter.values() == {
        ("mails", (("engine", 1), ("kind", "accepted"))): 3,
        ("mails", (("engine", 2), ("kind", "accepted"))): 4,
    }


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0.0, 0.001), (0.001, 0.001), (0.0011, 0.0025), (60.0, 60.0), (61.0, "+Inf")]
)
def test_an_observation_falls_into_the_first_bucket_that_holds_it(seconds, bound):
    meter = Meter()

    meter.observe("wait", seconds, engine=1)

    filled = {series: value for series, value in meter.values().items() if value}
    assert filled == {
        ("wait_bucket", (("engine", 1), ("le", bound))): 1,
        **({("wait_sum", (("engine", 1),)): seconds} if seconds else {}),
    }
    assert len(meter.values()) == len(BOUNDS) + 2


# --- In the table ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_flush_writes_what_came_since_the_last_one_and_a_second_one_nothing():
    meter = StoredMeter()

    meter.count("mails", 2, engine=1)
    meter.flush()
    meter.flush()
    meter.count("mails", engine=1)
    meter.count("seconds", 0.25)
    meter.flush()

    assert stored() == {("mails", '{"engine": 1}'): 3, ("seconds", "{}"): 0.25}


@pytest.mark.django_db
def test_a_meter_that_nobody_flushes_writes_nothing():
    meter = Meter()
    meter.count("mails")

    meter.flush()

    assert stored() == {}


@pytest.mark.django_db
def test_a_forked_process_leaves_to_its_parent_what_that_has_counted():
    meter = StoredMeter()
    meter.count("mails", 5)

    meter.forget()
    meter.count("mails")
    meter.flush()

    assert stored() == {("mails", "{}"): 1}


@pytest.mark.django_db(transaction=True)
def test_while_the_database_is_away_a_meter_goes_on_counting_and_loses_nothing():
    meter = StoredMeter()
    meter.count("mails", 2)
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 10")  # on the connection that the flush uses and closes

    with database_away():
        meter.flush()
        meter.count("mails")
    meter.flush()

    assert stored() == {("mails", "{}"): 3}


@pytest.mark.django_db(transaction=True)
def test_a_statement_that_can_never_work_is_no_database_that_is_away():
    with pytest.raises(Exception, match=r"too long|constraint|null value") as caught:
        add({("n" * 101 if connection.vendor == "postgresql" else None, ()): 1})

    assert not isinstance(caught.value, AssertionError)


@pytest.mark.django_db(transaction=True)
def test_what_is_added_in_a_transaction_goes_with_it():
    with transaction.atomic():
        settled({"cancelled": 3})
        transaction.set_rollback(True)
    settled({"cancelled": 2, "uncertain": 0})

    assert stored() == {(metrics.SETTLED, '{"engine": null, "state": "cancelled"}'): 2}


# --- What a pump counts ----------------------------------------------------------------------------------------------


def by_labels(meter: Meter, name: str) -> dict[tuple[object, ...], float]:
    """The series of a name that have counted anything: by the values of their labels, in the order of their names."""
    return {
        tuple(value for _, value in labels): value
        for (found, labels), value in meter.values().items()
        if found == name and value
    }


@pytest.mark.django_db(transaction=True)
def test_a_pump_counts_every_attempt_and_every_end_of_its_engine():
    def answer(address, time):
        number = int(address.partition("@")[0].rpartition("-")[2])
        return {
            0: Outcome(Kind.RECIPIENT, "550", "no"),
            1: SILENCE,
            2: TROUBLE if time == 1 else ACCEPTED,
        }.get(number, ACCEPTED)

    pool, engines = pool_of(FakeEngine(answer))
    (engine,) = engines
    batch = batch_in(pool, 10)
    Suppression.objects.create(address="x", identity="person-9@example.test")
    meter = Meter()

    pumped(engines, meter=meter)

    assert states(batch) == {"accepted": 7, "rejected": 1, "uncertain": 1, "suppressed": 1}
    assert by_labels(meter, metrics.SETTLED) == {
        (engine, "accepted"): 7,
        (engine, "rejected"): 1,
        (engine, "uncertain"): 1,
        (None, "suppressed"): 1,
    }
    attempts = by_labels(meter, metrics.ATTEMPTS)
    assert attempts == {
        (engine, "accepted"): 7,
        (engine, "recipient"): 1,
        (engine, "unknown"): 1,
        (engine, "transient"): 1,
    }
    assert sum(by_labels(meter, metrics.ATTEMPT_SECONDS + metrics.BUCKET).values()) == sum(attempts.values())
    assert by_labels(meter, metrics.PUMP_SLICES) == {(): 1}


@pytest.mark.django_db(transaction=True)
def test_a_mail_that_cannot_be_rendered_any_more_ends_without_an_engine():
    pool, engines = pool_of(FakeEngine())
    batch_in(pool, 2, text="Hi {{ 1 // n }}")
    meter = Meter()

    pumped(engines, meter=meter)

    (engine,) = engines
    assert by_labels(meter, metrics.SETTLED) == {(engine, "accepted"): 1, (None, "dead"): 1}


@pytest.mark.django_db(transaction=True)
def test_seconds_waited_for_tokens_are_counted_by_engine():
    pool, engines = pool_of(FakeEngine())
    (engine,) = engines
    EngineLimit.objects.create(engine_id=engine, quantity=20, period="second", burst=1)
    batch_in(pool, 8)
    meter = Meter()

    pumped(engines, meter=meter)

    waited = by_labels(meter, metrics.TOKEN_WAIT)
    assert waited.keys() == {(engine,)}
    assert waited[engine,] > 0.2  # eight mails are 0.35 s apart from the first to the last


@pytest.mark.django_db(transaction=True)
def test_an_engine_without_limits_waits_for_no_token():
    pool, engines = pool_of(FakeEngine())
    batch_in(pool, 8)
    meter = Meter()

    pumped(engines, meter=meter)

    assert by_labels(meter, metrics.TOKEN_WAIT) == {}


@pytest.mark.django_db(transaction=True)
def test_a_pump_is_busy_while_an_engine_has_its_mail_and_idle_while_there_is_none():
    fake = FakeEngine()
    fake.gate.clear()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 1)
    meter = Meter()
    begun = []

    async def story(desk):
        await desk.until(lambda: fake.under_way == 1)
        begun.append(timezone.now())
        await desk.until(lambda: timezone.now() - begun[0] > timedelta(seconds=0.3))
        fake.gate.set()

    pumped(engines, story, meter=meter)
    after_work = by_labels(meter, metrics.PUMP_SECONDS)
    queue.hold(batch_in(pool, 1).pk, "so that there is nothing to do")
    pumped(engines, meter=meter)

    assert states(batch) == {"accepted": 1}
    assert after_work["busy",] > 0.3
    assert by_labels(meter, metrics.PUMP_SECONDS)["busy",] == after_work["busy",]
    assert by_labels(meter, metrics.PUMP_SECONDS)["idle",] > after_work["idle",]


@pytest.mark.django_db(transaction=True)
def test_a_pump_writes_what_it_counted_at_its_end_and_a_lost_answer_counts_nothing_twice(rng):
    pool, engines = pool_of(FakeEngine())
    (engine,) = engines
    batch_in(pool, 40)
    meter = StoredMeter()

    pumped(engines, meter=meter, database=lambda: RepeatingDatabase(rng))

    assert stored()[metrics.SETTLED, f'{{"engine": {engine}, "state": "accepted"}}'] == 40
    assert stored()[metrics.ATTEMPTS, f'{{"engine": {engine}, "kind": "accepted"}}'] == 40


@pytest.mark.django_db(transaction=True)
def test_deliveries_that_end_without_a_pump_are_counted_in_the_same_transaction():
    pool, _ = pool_of(FakeEngine())
    queue.cancel(batch_in(pool, 3).pk)
    lost = batch_in(pool, 2)
    lease = leasing.acquire("another-host:4711:1", timedelta(seconds=-1))
    for row in Delivery.objects.filter(batch=lost):
        Delivery.objects.filter(pk=row.pk).update(state=DeliveryState.SENDING, lease=lease)

    leasing.reap()

    assert states(lost) == {"uncertain": 2}
    assert stored() == {
        (metrics.SETTLED, '{"engine": null, "state": "cancelled"}'): 3,
        (metrics.SETTLED, '{"engine": null, "state": "uncertain"}'): 2,
    }


class WatchedMeter(Meter):
    """Notes down what had been attempted each time it was to be written."""

    def __init__(self):
        super().__init__()
        self.written = []

    def flush(self):
        self.written.append(sum(by_labels(self, metrics.ATTEMPTS).values()))


def test_a_pump_writes_what_it_counted_every_few_seconds_while_it_works():
    meter = WatchedMeter()

    slow = VendorScript("alpha", latency=timedelta(seconds=1), concurrency=1)
    Simulation(Scenario(21, (slow,)), meter=meter).run()

    # One mail a second for twenty-one seconds, and five or six of them between two writes.
    steps = [after - before for before, after in pairwise([0, *meter.written[:-1]])]
    assert meter.written[-1] == 21
    assert len(steps) >= 3
    assert set(steps) <= {4, 5, 6}


def test_a_simulation_counts_for_itself_alone():
    before = metrics.meter().values()

    result = simulate(Scenario(20, (VendorScript("alpha"),)))

    assert result.tally == {"accepted": 20}
    assert metrics.meter().values() == before


# --- The queue's depth -----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_depth_is_what_counting_every_row_would_say():
    pool, engines = pool_of(FakeEngine())
    (engine,) = engines
    open_one, held, cancelled, done = (batch_in(pool, size) for size in (12, 3, 4, 2))
    queue.hold(held.pk, "a person's word")
    pumped(engines, make=lambda database, engines, **options: _only(database, engines, done.pk, **options))
    lease = leasing.acquire("another-host:4711:1", timedelta(minutes=1))
    mark(lease, [Mark(row.id, engine, 1) for row in leasing.lease(lease, open_one.pk, 2)], timezone.now())
    leasing.lease(lease, open_one.pk, 3)
    leasing.lease(lease, cancelled.pk, 1)
    queue.cancel(cancelled.pk)
    waits = Delivery.objects.filter(batch=open_one, state="ready").values_list("pk")[:4]
    Delivery.objects.filter(pk__in=list(waits.values_list("pk", flat=True))).update(
        state="waiting", not_before=timezone.now() + timedelta(hours=1)
    )

    assert depth() == Depth(ready=6, waiting=4, leased=4, sending=2, held=3)
    assert states(open_one) == {"ready": 3, "waiting": 4, "leased": 3, "sending": 2}
    assert with_ready().keys() == {open_one.pk}


def _only(database, engines, batch_id, **options):
    around = Surroundings(database, desk=EngineDesk(FakeCatalogue(engines), shared()), **options)
    return Pump(around, only=batch_id, until=Until.DONE)


@pytest.mark.django_db
def test_an_empty_queue_has_no_depth():
    assert depth() == Depth(0, 0, 0, 0, 0)
    assert with_ready() == {}
