"""Some hundred random scripts of trouble, and after each of them every promise of the sender.

A script that breaks one is named with its seed; `python -m tests.scenarios.random_scripts SEED` replays just that one.
"""

import logging

import pytest

from tests.scenarios.promises import broken
from tests.scenarios.virtual_world import Script, World

pytestmark = pytest.mark.once

GROUPS = 12
SCRIPTS_IN_A_GROUP = 25


@pytest.fixture(autouse=True)
def _quiet():
    """Workers complain of leases that scripts take from them."""
    logger = logging.getLogger("delivery")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@pytest.mark.parametrize("group", range(GROUPS))
def test_whatever_goes_wrong_every_promise_is_kept(group, seed):
    for number in range(SCRIPTS_IN_A_GROUP):
        script_seed = f"{seed}-{group}-{number}"
        breaches = broken(World(Script.by_chance(script_seed)).run())
        assert not breaches, f"python -m tests.scenarios.random_scripts {script_seed}: {breaches[:5]}"


def test_the_same_seed_is_the_same_story_to_the_last_nanosecond(seed):
    first, second = (World(Script.by_chance(f"{seed}-twice")).run() for _ in range(2))

    assert first.arrivals == second.arrivals
    assert first.killed == second.killed
    assert first.loop.now_ns == second.loop.now_ns
    assert first.queue.failures == second.queue.failures
    for world in (first, second):
        world.bury()


def test_scripts_are_worth_running(seed):
    """Over a handful of scripts everything that they can hold comes to pass."""
    scripts = [Script.by_chance(f"{seed}-{n}") for n in range(400)]

    assert all(any(getattr(script, name) for script in scripts) for name in (
        "deadlines", "outages", "cuts", "kills", "lost_answers", "suppressions", "deeds",
    ))  # fmt: skip
    vendors = [vendor for script in scripts for vendor in script.vendors]
    assert all(any(getattr(vendor, name) for vendor in vendors) for name in (
        "rate", "errors", "rejects", "slow", "drops", "down", "locked", "keys",
    ))  # fmt: skip
