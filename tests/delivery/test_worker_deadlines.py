"""The pump and deadlines, on a real database: what goes first, to the instant, and what becomes of what is too late.

That the order loses no deadline which could have been met: tests/scenarios/test_deadlines.py.
"""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from delivery import queue
from delivery.core.sequence import Rules
from delivery.models import Batch, Delivery, EngineLimit, Message
from delivery.queue import Filler, NewDelivery
from tests.delivery.pumping import ACCEPTED, FakeEngine, assert_settled, batch_in, pool_of, pumped, states, until

pytestmark = pytest.mark.django_db(transaction=True)

FAR = timedelta(days=1)
PROMPTLY = timedelta(seconds=0.3)  # on a busy machine; on an idle one it is some hundredths of a second
A_LOOK = timedelta(seconds=1)  # in which a worker looks at the time by itself


def now():
    return datetime.now(UTC)


def seconds(number):
    return timedelta(seconds=number)


class TimedEngine(FakeEngine):
    """Notes when each mail was handed over."""

    def __init__(self, **options):
        self.at: dict[str, datetime] = {}
        super().__init__(self._note, **options)

    def _note(self, address, number):
        self.at.setdefault(address, now())
        return ACCEPTED


def people(name, count):
    return [f"{name}-{n}@example.test" for n in range(count)]


def change(address, **fields):
    Delivery.objects.filter(address=address).update(**fields)


def limited(engines, **limit):
    EngineLimit.objects.create(engine_id=next(iter(engines)), period="second", **limit)


def fill(batch, rules, *deliveries):
    """Adds these (address, deadline, key, keys of what it waits for) to the message of a batch, under these rules."""
    message = batch.messages.get()
    Message.objects.filter(pk=message.pk).update(rules=rules.as_json())
    new = [
        NewDelivery(n, address, address, "", {"n": n}, key=key, after=after, deadline=deadline)
        for n, (address, deadline, key, after) in enumerate(deliveries)
    ]
    assert Filler(batch.pk, message.pk, 0, rules).write(new) == []


# ---- the order ----


def test_the_earliest_deadline_goes_first_over_all_batches_although_a_worker_holds_only_some(rng):
    fake = FakeEngine(concurrency=1)
    pool, engines = pool_of(fake)
    # So slow that the hand never runs dry: what is leased of one batch would go before the next one is looked at.
    limited(engines, quantity=200, burst=60)
    fake.gate.clear()
    batches = [batch_in(pool, addresses=people(name, 120)) for name in ("a", "b", "c")]
    addresses = [address for name in ("a", "b", "c") for address in people(name, 120)]
    rng.shuffle(addresses)
    for number, address in enumerate(addresses):
        change(address, deadline=now() + FAR + seconds(number))
    marked = set()

    async def story(desk):
        marked.update(await desk.until_full(fake))
        fake.gate.set()

    pumped(engines, story)

    for batch in batches:
        assert_settled(batch, accepted=120)
    assert [a for a in fake.addresses if a not in marked] == [a for a in addresses if a not in marked]


def test_of_equal_deadlines_follow_ups_go_before_new_people():
    fake = FakeEngine(concurrency=1)
    pool, engines = pool_of(fake)
    fake.gate.clear()
    batch = batch_in(pool, addresses=[*people("first", 20), *people("new", 30), *people("follow-up", 30)])
    deadline = now() + FAR
    Delivery.objects.update(deadline=deadline)
    Delivery.objects.filter(address__startswith="first").update(deadline=deadline - seconds(1))
    Delivery.objects.filter(address__startswith="follow-up").update(priority=-1)

    async def story(desk):
        await desk.until_full(fake)
        fake.gate.set()

    pumped(engines, story)

    assert_settled(batch, accepted=80)
    assert [address.rsplit("-", 1)[0] for address in fake.addresses] == (
        ["first"] * 20 + ["follow-up"] * 30 + ["new"] * 30
    )


# ---- too late ----


@pytest.mark.parametrize("late", [False, True], ids=["expire", "send"])
def test_what_missed_its_deadline_expires_or_goes_late_and_is_counted_either_way(late):
    fake = FakeEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 40)
    Message.objects.update(rules=Rules(late=late).as_json())
    for number in range(15):
        change(f"person-{number}@example.test", deadline=now() - seconds(number))
    change("person-20@example.test", deadline=now() + FAR)

    pumped(engines)

    if late:
        assert_settled(batch, accepted=40)
        assert queue.late(batch.pk) == 15
    else:
        assert_settled(batch, accepted=25, expired=15)
        assert queue.late(batch.pk) == 0
        words = Delivery.objects.filter(state="expired").values_list("words", "attempts").distinct()
        assert list(words) == [("its deadline has passed", 0)]


@pytest.mark.parametrize("burst", [1, 4], ids=["marked", "in-the-lane"])
def test_what_waits_for_its_token_when_its_deadline_passes_expires_and_costs_none(burst):
    fake = TimedEngine(concurrency=20)
    pool, engines = pool_of(fake)
    limited(engines, quantity=10, burst=burst)
    batch = batch_in(pool, addresses=[*people("timed", 30), *people("free", 10)])
    deadline = now() + seconds(1.2)
    Delivery.objects.filter(address__startswith="timed").update(deadline=deadline)

    pumped(engines)

    found = states(batch)
    expired = found["expired"]
    assert 10 < expired < 30
    assert_settled(batch, accepted=40 - expired, expired=expired)
    timed = [at for address, at in fake.at.items() if address.startswith("timed")]
    assert len(timed) == 30 - expired
    assert max(timed) <= deadline
    # The others go at the engine's pace, as if there had been nobody else.
    assert max(fake.at.values()) - deadline < seconds(2.5)


# ---- to the instant ----


def test_what_is_held_for_the_time_before_its_deadline_goes_just_then_although_nobody_looks_so_often():
    fake = TimedEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, addresses=["first@example.test"])
    rules = Rules(lead=seconds(0.4))
    deadlines = {f"timed-{n}@example.test": now() + seconds(1.1 + 0.37 * n) for n in range(5)}
    fill(batch, rules, *((address, deadline, "", ()) for address, deadline in deadlines.items()))

    pumped(engines)

    assert_settled(batch, accepted=6)
    for address, deadline in deadlines.items():
        assert deadline - rules.lead <= fake.at[address] <= deadline - rules.lead + PROMPTLY
    assert queue.late(batch.pk) == 0


def test_what_waits_for_a_time_that_has_passed_goes_at_once():
    fake = TimedEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, 3)
    Delivery.objects.update(state="waiting", not_before=now() - FAR)
    begun = now()

    pumped(engines)

    assert_settled(batch, accepted=3)
    assert max(fake.at.values()) - begun < A_LOOK


def test_what_is_due_while_the_worker_is_busy_overtakes_all_that_it_holds():
    fake = TimedEngine(concurrency=2)
    pool, engines = pool_of(fake)
    limited(engines, quantity=50, burst=10)
    mass = batch_in(pool, addresses=people("mass", 140))
    timed = batch_in(pool, addresses=people("timed", 5))
    due = now() + seconds(1)
    Delivery.objects.filter(batch=timed).update(state="waiting", not_before=due, deadline=due + seconds(2))

    pumped(engines)

    assert_settled(mass, accepted=140)
    assert_settled(timed, accepted=5)
    handed = [fake.at[address] for address in people("timed", 5)]
    assert due <= min(handed)
    # Five tokens take a tenth of a second, and as long they may gather before.
    assert max(handed) <= due + seconds(0.5)
    assert max(fake.at.values()) > due + seconds(0.7)


def test_what_is_written_with_a_nearer_time_while_the_worker_sleeps_is_seen_at_its_next_look():
    fake = TimedEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, addresses=people("timed", 2))
    Delivery.objects.update(state="waiting", not_before=now() + seconds(4))
    due = {}

    async def story(desk):
        await until(lambda: time.monotonic() > begun + 0.5)
        due["timed-0@example.test"] = now() + seconds(0.2)
        await desk.ask(lambda: change("timed-0@example.test", not_before=due["timed-0@example.test"]))

    begun = time.monotonic()
    pumped(engines, story)

    assert_settled(batch, accepted=2)
    (address, at), *_ = due.items()
    assert at <= fake.at[address] <= at + A_LOOK + PROMPTLY


def test_what_follows_a_moment_after_another_is_not_kept_until_the_next_look():
    fake = TimedEngine()
    pool, engines = pool_of(fake)
    batch = batch_in(pool, addresses=["somebody@example.test"])
    Batch.objects.update(ordered=True)
    gap = seconds(0.3)
    chain = people("link", 4)
    fill(
        batch,
        Rules(gap=gap),
        *((address, None, f"k{n}", (f"k{n - 1}",) if n else ()) for n, address in enumerate(chain)),
    )
    queue.resolve(batch.pk)

    pumped(engines)

    assert_settled(batch, accepted=5)
    for before, after in pairwise(chain):
        assert gap <= fake.at[after] - fake.at[before] <= gap + PROMPTLY
