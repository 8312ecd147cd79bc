"""Replays one random script: `python -m tests.scenarios.random_scripts SEED`."""

import os
import sys

import django


def replay(seed):
    """Runs the script of this seed and says what it was and what it broke. Whether every promise held."""
    from tests.scenarios.promises import broken
    from tests.scenarios.virtual_world import Script, World

    script = Script.by_chance(seed)
    print(script)
    world = World(script).run()
    print(f"{len(world.arrivals)} arrivals, {len(world.killed)} workers killed, {world.clock.monotonic():.1f} s")
    print(dict(world.queue.counts()))
    breaches = broken(world)
    for promise, words in breaches:
        print(f"BROKEN {promise}: {words}")
    return not breaches


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "outreach.settings")
    django.setup()
    sys.exit(not replay(sys.argv[1]))
