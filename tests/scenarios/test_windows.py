"""Sending windows in virtual time: the worker's own code over openings, closings, crashes and changes of the clock."""

import json
import logging
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from delivery.core.breaker import BreakerPolicy
from delivery.core.dispatch import UncertainPolicy
from delivery.core.retry import Backoff, RetryPolicy, RetryRule
from delivery.core.script import VendorScript
from delivery.core.throttle import SECOND, Rate
from delivery.core.window import DAYS, MIDNIGHT, Openings, Window, clock
from delivery.simulation.loop import EPOCH
from delivery.simulation.queue import Composition
from delivery.simulation.vendors import Policies
from tests.scenarios.promises import broken
from tests.scenarios.virtual_world import Script, World

pytestmark = pytest.mark.once

MINUTE = timedelta(minutes=1)
# Ten minutes of each half hour; EPOCH is midnight in UTC, on a Thursday.
OFTEN = [f"{hour:02}:{begin:02}-{hour:02}:{begin + 10:02}" for hour in range(24) for begin in (0, 30)]
QUICK = VendorScript("quick", latency=timedelta(milliseconds=50), concurrency=10)
CALM = Script(
    seed="calm",
    deliveries=600,
    vendors=(QUICK,),
    policies=Policies(),
    uncertain=UncertainPolicy.HOLD,
    workers=1,
    deadlines={},
    outages=(),
    cuts=(),
    kills=(),
    lost_answers=0,
    latency=0,
    suppressions=(),
    deeds=(),
)


@pytest.fixture(autouse=True)
def _quiet():
    """Workers complain of leases that scripts take from them."""
    logger = logging.getLogger("delivery")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


def window(spans, zone="UTC", days=DAYS, closed=(), **more):
    return Window.of({"week": dict.fromkeys(days, spans), "zone": zone, "closed": list(closed), **more})


def every_other(minutes):
    """Open for so many minutes, and closed for as many, all day."""
    return [f"{clock(begin)}-{clock(begin + minutes)}" for begin in range(0, MIDNIGHT, 2 * minutes)]


class WindowedWorld(World):
    """A world whose one message has a window, and whose recipients have the data that `data` gives for their number."""

    def __init__(self, script, found, data=lambda number: {}):
        super().__init__(script)
        self.window = found
        composition = Composition()
        composition.openings = Openings(found)
        self.queue.compiled = lambda message_id: composition
        leased = self.queue.lease
        self.queue.lease = lambda *asked: [row._replace(data=json.dumps(data(row.id))) for row in leased(*asked)]

    def lived(self):
        """Everything to its end, and no promise broken. Returns itself."""
        self.run()
        assert broken(self) == []
        return self

    def instants(self):
        return [EPOCH + timedelta(microseconds=arrival.at // 1000) for arrival in self.arrivals]

    def outside(self, zone="UTC"):
        """The instants at which something was handed over while the window was closed."""
        return [at for at in self.instants() if self.window.opens(at, ZoneInfo(zone)) != at]


@pytest.mark.parametrize(
    ("rate", "vendor"),
    [
        (Rate(SECOND, 5), QUICK),
        (Rate(SECOND, 1), QUICK),
        # Tokens are drawn after the mark, and what is marked waits for them a minute long.
        (Rate(SECOND // 3, 1), replace(QUICK, concurrency=200)),
        (Rate(SECOND // 3, 1), replace(QUICK, concurrency=2, batch=100)),
        (Rate(SECOND, 50), replace(QUICK, concurrency=2, batch=100)),
        # Nobody limits it; its own slowness keeps what is marked.
        (None, VendorScript("slow", latency=timedelta(seconds=20), concurrency=8)),
    ],
    ids=["burst", "steady", "marked", "marked-calls", "calls", "slow"],
)
def test_nothing_goes_out_while_it_is_closed_and_everything_when_it_is_open(rate, vendor):
    script = replace(CALM, deliveries=1500, vendors=(replace(vendor, rate=rate),))

    world = WindowedWorld(script, window(OFTEN)).lived()

    assert world.outside() == []
    assert +world.queue.ends == {"accepted": 1500}
    by_opening = Counter((at - EPOCH) // (30 * MINUTE) for at in world.instants())
    assert by_opening.total() == 1500
    # Every opening but the last one is used to its end: at the rate, or at what the slow one takes.
    pace = 8 / 20 if rate is None else 1e9 / rate.interval
    *full, _ = (by_opening[n] for n in sorted(by_opening))
    assert len(full) >= 1 or pace > 2
    assert all(count > 0.85 * pace * 600 for count in full)


def test_each_recipient_has_the_hours_of_his_own_zone():
    # At EPOCH clocks show 0:00 in UTC, 5:30 in India, 5:45 in Nepal and 1:00 in Zurich.
    zones = ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "Europe/Zurich", "Mars/Olympus", None]
    own = window(["05:40-05:50", "00:10-00:20", "01:25-01:30"], "UTC", per_recipient=True, zone_field="zone")

    world = WindowedWorld(CALM, own, lambda number: {"zone": zones[number % 6]}).lived()

    minutes = {"UTC": 10, "Asia/Kolkata": 10, "Asia/Kathmandu": 0, "Europe/Zurich": 25, "Mars/Olympus": 10, None: 10}
    assert +world.queue.ends == {"accepted": 600}
    assert {
        zone: {int((at - EPOCH) / MINUTE) for arrival, at in zip(world.arrivals, world.instants(), strict=True)
               if zones[arrival.delivery % 6] == zone}
        for zone in zones
    } == {zone: {minute} for zone, minute in minutes.items()}  # fmt: skip


def test_on_a_holiday_everything_waits_for_the_next_day():
    # At EPOCH it is 23:00 on New Year's Eve in Praia.
    world = WindowedWorld(CALM, window(["00:00-24:00"], "Atlantic/Cape_Verde", closed=["2025-12-31"])).lived()

    assert +world.queue.ends == {"accepted": 600}
    assert min(world.instants()) - EPOCH >= 60 * MINUTE
    assert max(world.instants()) - EPOCH < 62 * MINUTE


def test_what_cannot_make_its_deadline_expires_at_once_and_the_rest_waits_for_its_hour():
    deadlines = {number: EPOCH + timedelta(minutes=19 if number <= 40 else 21) for number in range(1, 81)}
    script = replace(CALM, deadlines=deadlines)
    world = WindowedWorld(script, window(["00:20-00:40"]))
    ended = {}
    settle = world.queue.settle

    def watched(lease_id, settlements):
        settle(lease_id, settlements)
        ended.update({each.id: (each.state, each.words, world.clock.now() - EPOCH) for each in settlements})

    world.queue.settle = watched
    world.lived()

    assert +world.queue.ends == {"expired": 40, "accepted": 560}
    expired = {number: end for number, end in ended.items() if end[0] == "expired"}
    assert expired.keys() == set(range(1, 41))
    assert {words for _, words, _ in expired.values()} == {"its deadline passes before its sending window opens"}
    assert max(when for _, _, when in expired.values()) < timedelta(seconds=5)


def test_a_deadline_that_passes_in_the_lane_of_a_slow_engine_is_kept_too():
    deadlines = {number: EPOCH + timedelta(minutes=2) for number in range(1, 101)}
    slow = replace(QUICK, rate=Rate(SECOND * 6, 1))

    script = replace(CALM, deliveries=100, vendors=(slow,), deadlines=deadlines)
    world = WindowedWorld(script, window(["00:00-24:00"])).lived()

    assert max(world.instants()) <= EPOCH + timedelta(minutes=2)
    assert world.queue.ends["accepted"] == pytest.approx(20, abs=2)
    assert world.queue.ends["accepted"] + world.queue.ends["expired"] == 100


def test_the_hours_in_which_it_is_closed_do_not_count_as_its_age():
    # Every try fails: one a minute, for half an hour of age. Every other five minutes it is closed.
    retry = RetryPolicy(RetryRule(100, Backoff(base=MINUTE, longest=MINUTE)), 30 * MINUTE)
    policies = Policies(retry=retry, breaker=BreakerPolicy(None))
    script = replace(CALM, deliveries=20, vendors=(replace(QUICK, errors=1),), policies=policies)

    world = WindowedWorld(script, window(every_other(5))).lived()

    tries = Counter(arrival.delivery for arrival in world.arrivals)
    assert +world.queue.ends == {"dead": 20}
    assert world.outside() == []
    assert min(tries.values()) >= 24
    assert 50 * MINUTE < max(world.instants()) - EPOCH < 65 * MINUTE


# ---- and everything that can go wrong ----


@pytest.mark.parametrize("group", range(4))
def test_whatever_goes_wrong_nothing_goes_out_while_it_is_closed(group, seed):
    for number in range(3):
        script = Script.by_chance(f"{seed}-windows-{group}-{number}")

        world = WindowedWorld(script, window(every_other(1))).run()

        assert (broken(world), world.outside()) == ([], []), script.seed
