"""Chaos over real processes: a seeded sequence of kills, cuts, restarts and deeds while several runs are sent by two
clusters; then everything is left alone until all runs are over, and every promise of design §4 must have been kept.

OUTREACH_CHAOS_EVENTS says how many events; a run that fails prints them with their instants, and the seed.
"""

import os
import random

import pytest

from tests import redis_server
from tests.scenarios import chaos, chaos_events
from tests.scenarios.chaos import FREE, LIMITED, RESEND, Plan, World
from tests.scenarios.chaos_events import EVENTS
from tests.scenarios.chaos_promises import broken

pytestmark = [pytest.mark.once, pytest.mark.postgres]

EVENTS_IN_CI = len(EVENTS)


def plans(events: int) -> list[Plan]:
    """Work for as long as so many events take."""
    return [
        Plan("large", LIMITED, 150 * events),
        Plan("resent", FREE, 60 * events, policy=RESEND, priority=5),
        Plan("paused", FREE, 30 * events, priority=5),
        Plan("doomed", LIMITED, 5000),
        *(Plan(f"urgent-{n}", LIMITED, 60, priority=0) for n in range(1 + events // 5)),
        *(Plan(f"checked-{n}", LIMITED, 100, repeats=80, priority=1) for n in range(1 + events // 20)),
        *(Plan(f"at-once-{n}", FREE, 200, repeats=50, priority=2, start="at_once") for n in range(1 + events // 20)),
    ]


def sequence(rng: random.Random, count: int) -> list:
    """Each event once, and then any, in any order."""
    events = [*EVENTS, *rng.choices(EVENTS, k=max(0, count - len(EVENTS)))]
    rng.shuffle(events)
    return events[:count]


def survive(world: World, events: list) -> None:
    try:
        for slug in ("large", "resent", "paused", "doomed"):
            world.start_run(slug)
        for event in events:
            world.await_progress()
            world.tell(event(world))
        world.tell(chaos_events.resume_what_is_paused(world))
        world.let_be()
    except BaseException:
        print(world.told())
        raise
    breaches = broken(world)
    print("\n".join(world.story))
    assert not breaches, f"{len(breaches)} breaches: {breaches[:10]}\n{world.told()}"


@pytest.mark.parametrize("broker", ["database", "redis"])
def test_whatever_is_killed_cut_and_restarted_every_promise_is_kept(broker, tmp_path, rng, seed):
    redis_server.needed()
    print(f"seed {seed}")
    count = int(os.environ.get("OUTREACH_CHAOS_EVENTS", EVENTS_IN_CI))
    with chaos.made(tmp_path, rng, plans(count), broker) as world:
        survive(world, sequence(rng, count))


def test_when_every_wake_up_is_lost_the_next_tick_finds_what_there_is_to_do(tmp_path, rng):
    with chaos.made(tmp_path, rng, [Plan("letters", FREE, 300)], "database") as world:
        for name in world.clusters:
            world.family(name)
        with chaos_events.every_wake_up_is_lost(world):
            run = world.start_run("letters")
            world.wait_until(lambda: _is_idle(world), "the end of what was asked for before")
        assert (world.state_of("letters"), world.mails()) == ("queued", 0)

        world.let_time_pass()
        world.wait_until(world.mails, "the first mail after a tick")
        with chaos_events.every_wake_up_is_lost(world):
            world.operator.ask("pause", run=run)
            world.wait_until(lambda: _is_idle(world), "the end of every pump")
            world.operator.ask("resume", run=run)
            taken = world.mails()
        assert (world.state_of("letters"), taken < 300) == ("sending", True)

        world.let_be()
        assert broken(world) == []


def _is_idle(world: World) -> bool:
    """Whether no worker has anything in hand, and none is to get anything."""
    questions = ("SELECT 1 FROM django_q_ormq", "SELECT 1 FROM delivery_lease")
    return not any(world.rows.read(question) for question in questions)
