"""What chaos does to a world (`tests.scenarios.chaos`): each event is a function that does one thing, and says what."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import psycopg
import redis

from tests.scenarios.chaos import LEASE, PATIENCE, WORKERS, Standstill, World
from tests.scenarios.families import is_alive, kill

QUEUE = "django_q:outreach:q"


# ---- processes ----


def a_worker_is_killed(world: World) -> str:
    name = world.some_cluster()
    busy = world.busy_workers(name)
    pid = world.rng.choice(sorted(busy) or world.family(name).workers)
    return _killed(world, name, pid, "a busy worker" if busy else "an idle worker")


def a_sentinel_is_killed(world: World) -> str:
    name = world.some_cluster()
    return _killed(world, name, world.family(name).sentinel, "the sentinel")


def a_pusher_is_killed(world: World) -> str:
    name = world.some_cluster()
    return _killed(world, name, world.family(name).pusher, "the pusher")


def a_monitor_is_killed(world: World) -> str:
    name = world.some_cluster()
    return _killed(world, name, world.family(name).monitor, "the monitor")


def _killed(world: World, name: str, pid: int, who: str) -> str:
    with contextlib.suppress(ProcessLookupError):  # its set has just ended for another reason
        kill(pid)
    world.lost_workers += WORKERS  # the whole set goes
    return f"{who} (on {name}, {pid}) is killed"


def a_head_is_killed(world: World) -> str:
    name = world.some_cluster()
    world.kill_head(name)
    return f"the head of {name} is killed, and started again"


def who_initialises_is_killed(world: World) -> str:
    plan = world.next_plan("checked") or world.next_plan("at-once")
    if plan is None:
        return a_worker_is_killed(world)
    run = world.start_run(plan.slug)
    least = world.rng.randrange(1000, plan.people * plan.repeats // 2, 1000)
    progress = f"SELECT initializer, rows_read, filled_at FROM campaigns_run WHERE id = {run}"

    def is_half_way() -> bool:
        ((_, rows_read, filled_at),) = world.rows.read(progress)
        return rows_read >= least or filled_at is not None

    world.wait_until(is_half_way, f"the audience of {plan.slug}, read half-way", PATIENCE * 2)
    ((initializer, rows_read, filled_at),) = world.rows.read(progress)
    if filled_at is not None or not initializer:
        return f"{plan.slug} was initialised before anybody could be killed"
    for name in world.clusters:
        if (pid := world.process_of(initializer, name)) is not None:
            return _killed(world, name, pid, f"who initialises {plan.slug} has read {rows_read} rows and")
    return f"who initialises {plan.slug} was gone already"


def a_cluster_is_deployed_anew(world: World) -> str:
    name = world.some_cluster()
    world.family(name)  # asked to stop before it can listen, it would only be killed
    begun = time.monotonic()
    code = world.clusters[name].stop()
    seconds = time.monotonic() - begun
    assert code == 0, f"{name} was asked to stop and ended with {code}"
    world.start_again(name)
    return f"{name} is asked to stop ({seconds:.1f} s) and started again"


def a_worker_is_frozen_for_longer_than_its_lease(world: World) -> str:
    name = world.some_cluster()
    deadline = time.monotonic() + PATIENCE / 4
    while not (busy := world.busy_workers(name)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if not busy:
        return f"no worker of {name} has anything to be frozen over"
    pid = world.rng.choice(sorted(busy))
    begun = time.monotonic_ns()
    os.kill(pid, signal.SIGSTOP)
    try:
        world.lost_workers += 1
        _await_taken_back(world, {busy[pid]})
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    world.stalls.append((begun, time.monotonic_ns()))
    if not is_alive(pid):
        return f"a worker of {name} ({pid}) is frozen, and its set went down meanwhile"
    return f"a worker of {name} ({pid}) is frozen until its lease is taken back, then thawed"


def _await_taken_back(world: World, owners: set[str]) -> None:
    before = _leases(world, owners)
    world.wait_until(
        lambda: not before & _leases(world, owners), f"the leases {sorted(before)} taken back", PATIENCE / 2
    )


def _leases(world: World, owners: set[str]) -> set[int]:
    return {number for number, owner in world.rows.read("SELECT id, owner FROM delivery_lease") if owner in owners}


# ---- the network ----


def a_host_is_cut_off_for_longer_than_its_leases(world: World) -> str:
    if world.host is None:
        return "there is no host that could be cut off"
    name = world.host.name
    deadline = time.monotonic() + PATIENCE / 4
    while not (owners := set(world.holders(name))) and time.monotonic() < deadline:
        time.sleep(0.05)
    begun = time.monotonic_ns()
    world.host.cut()
    try:
        world.lost_workers += WORKERS
        _await_taken_back(world, owners)
    finally:
        world.host.mend()
    world.stalls.append((begun, time.monotonic_ns()))
    return f"{name} is cut off until its {len(owners)} leases are taken back, then mended"


def a_sink_is_restarted(world: World) -> str:
    name = world.rng.choice(sorted(world.sinks))
    world.lost_workers += WORKERS * len(world.clusters)
    world.sinks[name].stop()
    world.sinks[name].start()
    return f"the {name} sink is restarted"


# ---- servers ----


def postgres_is_restarted(world: World) -> str:
    world.server.restart()
    return "PostgreSQL is restarted"


def postgres_crashes(world: World) -> str:
    world.server.kill()
    world.server.restart()
    return "PostgreSQL is killed and started again"


def postgres_is_away_for_longer_than_the_leases(world: World) -> str:
    world.server.kill()
    world.lost_workers += WORKERS * len(world.clusters)
    time.sleep(LEASE + 1)  # the length of the outage
    world.server.restart()
    return f"PostgreSQL is killed and away for {LEASE + 1} s"


def every_session_is_ended(world: World) -> str:
    with psycopg.connect(world.server.url("postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'chaos'")
    return "every session of PostgreSQL is ended"


def redis_is_killed(world: World) -> str:
    if world.redis is None:
        return postgres_is_restarted(world)
    world.redis.stop()
    world.redis.start()
    return "Redis is killed and started again, empty"


# ---- wake-ups ----


def wake_ups_are_lost(world: World) -> str:
    if world.redis:
        _rewrite_queue(world, lambda tasks: tasks[: len(tasks) // 3])
    else:
        world.rows.do("DELETE FROM django_q_ormq WHERE random() < 0.7")
    return "most wake-ups are lost"


def wake_ups_are_doubled(world: World) -> str:
    if world.redis:
        _rewrite_queue(world, lambda tasks: tasks * 2)
    else:  # also those that are being worked on
        copied = "SELECT key, payload, now() FROM django_q_ormq"
        world.rows.do(f"INSERT INTO django_q_ormq (key, payload, lock) {copied}")
    return "every wake-up is doubled"


def wake_ups_are_shuffled(world: World) -> str:
    if world.redis:
        _rewrite_queue(world, lambda tasks: world.rng.sample(tasks, len(tasks)))
    else:
        world.rows.do(
            "WITH taken AS (DELETE FROM django_q_ormq WHERE lock <= now() RETURNING key, payload, lock) "
            "INSERT INTO django_q_ormq (key, payload, lock) SELECT key, payload, lock FROM taken ORDER BY random()"
        )
    return "wake-ups come in another order"


def _rewrite_queue(world: World, change: Callable[[list[bytes]], list[bytes]]) -> None:
    with redis.Redis.from_url(world.redis.url) as client:
        tasks = client.lrange(QUEUE, 0, -1)
        client.delete(QUEUE)
        if changed := change(tasks):
            client.rpush(QUEUE, *changed)


@contextlib.contextmanager
def every_wake_up_is_lost(world: World) -> Iterator[None]:
    """The broker's table takes whatever it is given, and keeps none of it."""
    body = "BEGIN DELETE FROM django_q_ormq WHERE id = NEW.id; RETURN NULL; END"
    world.rows.do(f"CREATE OR REPLACE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
    world.rows.do("CREATE TRIGGER lose AFTER INSERT ON django_q_ormq FOR EACH ROW EXECUTE FUNCTION lose()")
    world.rows.do("DELETE FROM django_q_ormq")
    yield
    world.rows.do("DROP TRIGGER lose ON django_q_ormq")


# ---- what a person does ----


def an_urgent_run_starts(world: World) -> str:
    plan = world.next_plan("urgent")
    if plan is None:
        return "there is no urgent run left"
    world.start_run(plan.slug)
    return f"{plan.slug} is urgent"


def a_run_is_paused_or_resumed(world: World) -> str:
    if world.paused is not None:
        return resume_what_is_paused(world)
    state = world.operator.ask("pause", run=world.runs["paused"])
    if state != "paused":
        return f"the run to be paused is {state}"
    world.paused = world.stand_still("paused")
    return f"a run is paused, with {len(world.paused.under_way)} under way"


def resume_what_is_paused(world: World) -> str:
    if world.paused is None:
        return "nothing is paused"
    standing, world.paused = world.paused, None
    ended = Standstill(standing.slug, standing.since_ns, standing.under_way, time.monotonic_ns())
    world.standstills.append(ended)
    return f"the paused run is resumed: {world.operator.ask('resume', run=world.runs['paused'])}"


def a_run_is_cancelled(world: World) -> str:
    state = world.operator.ask("cancel", run=world.runs["doomed"])
    if state == "cancelled" and "doomed" not in {standing.slug for standing in world.standstills}:
        world.standstills.append(world.stand_still("doomed"))
    return f"a run is cancelled: it is {state}"


EVENTS = (
    a_worker_is_killed,
    a_sentinel_is_killed,
    a_pusher_is_killed,
    a_monitor_is_killed,
    a_head_is_killed,
    who_initialises_is_killed,
    a_cluster_is_deployed_anew,
    a_worker_is_frozen_for_longer_than_its_lease,
    a_host_is_cut_off_for_longer_than_its_leases,
    a_sink_is_restarted,
    postgres_is_restarted,
    postgres_crashes,
    postgres_is_away_for_longer_than_the_leases,
    every_session_is_ended,
    redis_is_killed,
    wake_ups_are_lost,
    wake_ups_are_doubled,
    wake_ups_are_shuffled,
    an_urgent_run_starts,
    a_run_is_paused_or_resumed,
    a_run_is_cancelled,
)
