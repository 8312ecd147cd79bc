"""The pump and sending windows, on a real database: what is outside its window waits in the queue for the next opening.

Days of it, in virtual time: tests/scenarios/test_windows.py.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from delivery.clock import SystemClock
from delivery.core.window import DAYS, clock
from delivery.models import Counted, Delivery, EngineLimit, Message
from delivery.worker import Until
from tests.delivery.pumping import ACCEPTED, FakeEngine, assert_settled, batch_in, pool_of, pump_on, pumped, states

pytestmark = pytest.mark.django_db(transaction=True)

OUTSIDE = "outside its sending window"
HOUR = timedelta(hours=1)


class ShiftedClock(SystemClock):
    """This machine's clock, set to another time."""

    def __init__(self, now):
        self._shift = now - datetime.now(UTC)

    def now(self):
        return datetime.now(UTC) + self._shift


def idle_pump(database, engines, **options):
    """A pump that ends by itself when nothing can be done soon."""
    pump = pump_on(database, engines, **options)
    pump._until = Until.IDLE
    return pump


def window(begin, end, zone="UTC", **more):
    """Open every day from when to when a clock shows the hours of these two."""
    span = f"{clock(begin.hour * 60 + begin.minute)}-{clock(end.hour * 60 + end.minute)}"
    return {"week": {day: [span] for day in DAYS}, "zone": zone, **more}


def with_window(batch, found):
    Message.objects.filter(batch=batch).update(window=found)
    return batch


def this_hour():
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def this_minute():
    """It has begun by the database's clock: what waits for it may go."""
    return datetime.now(UTC).replace(second=0, microsecond=0)


def nearest_minute():
    """No clock is shifted by more than half a minute to it: a pump and the database would not agree on what is soon."""
    return (datetime.now(UTC) + timedelta(seconds=30)).replace(second=0, microsecond=0)


def waiting():
    """What waits, until when, and what it says."""
    rows = Delivery.objects.filter(state="waiting")
    return {address: (at, words) for address, at, words in rows.values_list("address", "not_before", "words")}


def test_outside_its_window_a_delivery_waits_for_the_opening_and_nobody_stays_up_for_it():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    opens = this_hour() + 3 * HOUR
    batch = with_window(batch_in(pool, 3), window(opens, opens + HOUR))

    pumped(engines, make=idle_pump)

    assert fake.addresses == []
    assert states(batch) == {"waiting": 3}
    assert set(waiting().values()) == {(opens, OUTSIDE)}
    assert set(Delivery.objects.values_list("attempts", "tried_at")) == {(0, None)}


def test_a_message_without_a_window_goes_at_once_beside_one_that_waits():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    opens = this_hour() + 3 * HOUR
    closed = with_window(batch_in(pool, 3, addresses=["later@example.test"]), window(opens, opens + HOUR))
    free = batch_in(pool, 3)

    pumped(engines, make=idle_pump)

    assert (states(closed), states(free)) == ({"waiting": 1}, {"accepted": 3})


@pytest.mark.parametrize("pumps", [1, 2])
def test_when_it_opens_they_all_go_and_none_before(pumps):
    opens = this_minute()
    shifted = ShiftedClock(opens - timedelta(seconds=1.5))
    instants = []
    fake = FakeEngine(lambda address, n: instants.append(shifted.now()) or ACCEPTED)
    pool, engines = pool_of(fake)
    batch = with_window(batch_in(pool, 50), window(opens, opens + HOUR))

    pumped(engines, pumps=pumps, clock=shifted)

    assert_settled(batch, accepted=50)
    assert Counter(fake.addresses).most_common(1)[0][1] == 1
    assert min(instants) >= opens
    assert min(Delivery.objects.values_list("turn", flat=True)) > 1


@pytest.mark.parametrize(
    ("limit", "engine"),
    [
        ({"quantity": 5, "period": "second", "burst": 2}, {}),
        ({"quantity": 10, "period": "second", "burst": 1}, {"concurrency": 30}),
        ({"quantity": 2, "period": "second", "burst": 1, "counts": Counted.CALLS}, {"batch_size": 5}),
    ],
    ids=["in-the-lane", "marked", "marked-for-calls"],
)
def test_what_is_in_a_workers_hands_when_it_closes_stays_for_the_next_day(limit, engine):
    closes = nearest_minute()
    shifted = ShiftedClock(closes - timedelta(seconds=2))
    instants = []
    fake = FakeEngine(lambda address, n: instants.append(shifted.now()) or ACCEPTED, **engine)
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), **limit)
    batch = with_window(batch_in(pool, 60), window(closes - HOUR, closes))

    pumped(engines, make=idle_pump, clock=shifted)

    found = states(batch)
    assert found.keys() == {"accepted", "waiting"}
    assert found["accepted"] == len(instants) > 0
    assert max(instants) < closes
    assert set(waiting().values()) == {(closes + 23 * HOUR, OUTSIDE)}
    assert set(Delivery.objects.filter(state="waiting").values_list("attempts", flat=True)) == {0}


def test_each_recipient_waits_for_the_hours_of_his_own_zone():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    hour = this_hour()
    # These are whole hours away from UTC, all year round.
    zones = {
        "tokyo": "Asia/Tokyo",
        "dubai": "Asia/Dubai",
        "phoenix": "America/Phoenix",
        "unknown": "Mars/Olympus",
        "missing": None,
    }
    open_in_tokyo = window(hour + 9 * HOUR, hour + 11 * HOUR, per_recipient=True, zone_field="tz")
    batch = with_window(batch_in(pool, addresses=[f"{name}@example.test" for name in zones]), open_in_tokyo)
    for name, zone in zones.items():
        Delivery.objects.filter(address=f"{name}@example.test").update(data={"n": 1} | ({"tz": zone} if zone else {}))

    pumped(engines, make=idle_pump)

    assert fake.addresses == ["tokyo@example.test"]
    assert states(batch) == {"accepted": 1, "waiting": 4}
    assert waiting() == {
        "dubai@example.test": (hour + 5 * HOUR, OUTSIDE),
        "phoenix@example.test": (hour + 16 * HOUR, OUTSIDE),
        "unknown@example.test": (hour + 9 * HOUR, OUTSIDE),
        "missing@example.test": (hour + 9 * HOUR, OUTSIDE),
    }


def test_on_closed_dates_it_waits_for_the_day_after():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    closed = [(today + n * 24 * HOUR).date().isoformat() for n in range(3)]
    always = {"week": {day: ["00:00-24:00"] for day in DAYS}, "zone": "UTC", "closed": closed}
    batch = with_window(batch_in(pool, 3), always)

    pumped(engines, make=idle_pump)

    assert states(batch) == {"waiting": 3}
    assert set(waiting().values()) == {(today + 72 * HOUR, OUTSIDE)}
    assert fake.addresses == []


def test_what_cannot_make_its_deadline_when_the_window_opens_is_expired_now_and_says_why():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    opens = this_hour() + 3 * HOUR
    batch = with_window(batch_in(pool, 2), window(opens, opens + HOUR))
    late, early = Delivery.objects.order_by("pk")
    Delivery.objects.filter(pk=late.pk).update(deadline=opens)
    Delivery.objects.filter(pk=early.pk).update(deadline=opens - timedelta(microseconds=1))

    pumped(engines, make=idle_pump)

    assert states(batch) == {"waiting": 1, "expired": 1}
    early.refresh_from_db()
    assert (early.state, early.words) == ("expired", "its deadline passes before its sending window opens")
    assert fake.addresses == []


def test_a_deadline_that_passes_in_the_lane_of_a_slow_engine_is_kept():
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    EngineLimit.objects.create(engine_id=next(iter(engines)), quantity=5, period="second", burst=2)
    batch = batch_in(pool, 60)
    shifted = ShiftedClock(datetime.now(UTC))
    deadline = shifted.now() + timedelta(seconds=2)
    Delivery.objects.update(deadline=deadline)

    pumped(engines, clock=shifted)

    found = states(batch)
    assert found.keys() == {"accepted", "expired"}
    assert 0 < found["accepted"] < 20
    assert set(Delivery.objects.filter(state="expired").values_list("words", flat=True)) == {"its deadline has passed"}
