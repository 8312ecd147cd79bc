"""The loop of virtual time: what asyncio promises holds on it too, but time jumps and chance has no part in it."""

import asyncio
import contextvars
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.simulation.loop import EPOCH, SECOND, NobodyWakes, VirtualClock, VirtualLoop

pytestmark = pytest.mark.once

WORKER = contextvars.ContextVar("worker", default="")
DAY = 86_400


class ListeningLoop(VirtualLoop):
    """Notes what it is told of tasks that nobody waits for, in place of raising it."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def call_exception_handler(self, context):
        self.heard.append(context["message"])


@pytest.fixture
def loop():
    made = ListeningLoop()
    yield made
    made.close()


class Journal:
    """Who did something, and when, in nanoseconds."""

    def __init__(self, loop):
        self._loop = loop
        self.entries = []

    def note(self, name):
        self.entries.append((name, self._loop.now_ns))

    async def sleep(self, name, *naps):
        for nap in naps:
            await asyncio.sleep(nap)
            self.note(name)


@pytest.fixture
def journal(loop):
    return Journal(loop)


async def for_ever():
    await asyncio.get_running_loop().create_future()


# ---- time ----


def test_when_all_wait_time_jumps_to_the_instant_at_which_somebody_wakes(loop, journal):
    async def story():
        await asyncio.gather(journal.sleep("a", 1, 2.5), journal.sleep("b", 2, DAY))

    loop.run_until_complete(story())

    assert journal.entries == [
        ("a", SECOND), ("b", 2 * SECOND), ("a", 3_500_000_000), ("b", (DAY + 2) * SECOND),
    ]  # fmt: skip
    assert loop.time() == DAY + 2


def test_timers_of_one_instant_keep_the_order_in_which_they_were_set(loop, journal):
    async def story():
        for name in "cab":
            loop.call_later(1, journal.note, name)
        loop.call_at(1.0, journal.note, "d")
        loop.call_later(0.5, lambda: loop.call_later(0.5, journal.note, "e"))
        await asyncio.sleep(2)

    loop.run_until_complete(story())

    assert journal.entries == [(name, SECOND) for name in "cabde"]


def test_what_is_ready_runs_before_time_goes_on_in_the_order_in_which_it_became_so(loop, journal):
    async def story():
        loop.call_later(0.001, journal.note, "later")
        for name in "bca":
            loop.call_soon(journal.note, name)
        loop.call_soon(lambda: loop.call_soon(journal.note, "called by the last"))
        loop.call_soon_threadsafe(journal.note, "d")
        await asyncio.sleep(1)

    loop.run_until_complete(story())

    assert journal.entries == [("b", 0), ("c", 0), ("a", 0), ("d", 0), ("called by the last", 0), ("later", 1_000_000)]


def test_what_was_due_in_the_past_is_due_now_and_time_never_goes_back(loop, journal):
    async def story():
        await asyncio.sleep(5)
        loop.call_at(1.0, journal.note, "past")
        loop.call_later(-1, journal.note, "negative")
        loop.call_later(0, journal.note, "zero")
        await asyncio.sleep(1)
        journal.note("end")

    loop.run_until_complete(story())

    at = 5 * SECOND
    assert journal.entries == [("past", at), ("negative", at), ("zero", at), ("end", 6 * SECOND)]


def test_however_short_a_wait_is_time_goes_on(loop, journal):
    async def story():
        await asyncio.sleep(DAY)
        await journal.sleep("a", 1e-12, 1e-9, 5e-10)

    loop.run_until_complete(story())

    assert journal.entries == [("a", DAY * SECOND + n) for n in (1, 2, 3)]


def test_a_second_run_goes_on_where_the_first_one_ended(loop, journal):
    loop.run_until_complete(journal.sleep("a", 1))
    loop.run_until_complete(journal.sleep("b", 1))

    assert journal.entries == [("a", SECOND), ("b", 2 * SECOND)]


@given(st.lists(st.integers(0, 10_000 * SECOND), max_size=30))
def test_sleepers_wake_in_order_and_to_the_nanosecond(naps):
    loop = VirtualLoop()
    journal = Journal(loop)

    async def story():
        await asyncio.gather(*(journal.sleep(number, nap / SECOND) for number, nap in enumerate(naps)))

    loop.run_until_complete(story())

    assert journal.entries == sorted(enumerate(naps), key=lambda entry: entry[1])
    assert loop.now_ns == max(naps, default=0)


@given(st.lists(st.lists(st.integers(0, 3 * SECOND), max_size=6), max_size=6))
def test_whoever_sleeps_again_and_again_loses_no_nanosecond(sleepers):
    loop = VirtualLoop()
    journal = Journal(loop)

    async def story():
        tasks = [journal.sleep(number, *(nap / SECOND for nap in naps)) for number, naps in enumerate(sleepers)]
        await asyncio.gather(*tasks)

    loop.run_until_complete(story())

    instants = [at for _, at in journal.entries]
    assert instants == sorted(instants)
    for number, naps in enumerate(sleepers):
        mine = [at for name, at in journal.entries if name == number]
        assert mine == [sum(naps[: count + 1]) for count in range(len(naps))]


@given(st.floats(0, 1e9))
def test_nobody_wakes_a_nanosecond_early_and_at_most_one_late(seconds):
    loop = VirtualLoop()
    loop.run_until_complete(asyncio.sleep(seconds))

    exact = Fraction(seconds) * SECOND
    # Beyond 2 ** 53 ns, some hundred days, a float's own steps are coarser than a nanosecond.
    blur = Fraction(1, 50) + exact / 2**52
    assert exact - blur <= loop.now_ns <= exact + 1 + blur


# ---- cancelling ----


def test_what_was_cancelled_is_not_called_and_its_instant_does_not_come(loop, journal):
    async def story():
        handles = [
            loop.call_soon(journal.note, "soon"),
            loop.call_later(1, journal.note, "later"),
            loop.call_at(2.0, journal.note, "at"),
        ]
        loop.call_later(0.5, journal.note, "kept")
        for handle in handles:
            handle.cancel()
        await asyncio.sleep(0.5)
        return [handle.cancelled() for handle in handles]

    assert loop.run_until_complete(story()) == [True] * 3
    assert journal.entries == [("kept", SECOND // 2)]
    with pytest.raises(NobodyWakes):
        loop.run_until_complete(for_ever())
    assert loop.now_ns == SECOND // 2


def test_a_timer_says_when_it_is_due_and_may_be_cancelled_by_another_of_the_same_instant(loop, journal):
    async def story():
        second = None

        def first():
            second.cancel()

        loop.call_later(1, first)
        second = loop.call_later(1, journal.note, "second")
        await asyncio.sleep(2)
        return second.when()

    assert loop.run_until_complete(story()) == 1.0
    assert journal.entries == []


def test_a_cancelled_task_ends_where_it_waits_and_at_that_instant(loop, journal):
    async def sleeper():
        try:
            await asyncio.sleep(DAY)
        finally:
            journal.note("over")

    async def story():
        task = asyncio.create_task(sleeper())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(story())

    assert journal.entries == [("over", SECOND)]


# ---- what asyncio is made of ----


def test_a_timeout_ends_what_takes_longer_and_nothing_else(loop, journal):
    async def story():
        async with asyncio.timeout(3):
            await journal.sleep("in time", 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await journal.sleep("too long", 1, 5)
        journal.note("timeout")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(5), 1)
        journal.note("wait_for")

    loop.run_until_complete(story())

    assert journal.entries == [
        ("in time", 2 * SECOND), ("too long", 3 * SECOND), ("timeout", 5 * SECOND), ("wait_for", 6 * SECOND),
    ]  # fmt: skip


def test_a_queue_hands_on_in_order_and_holds_back_who_is_too_fast(loop, journal):
    async def produce(queue):
        for number in range(4):
            await queue.put(number)
            journal.note(f"put {number}")

    async def consume(queue):
        for _ in range(4):
            await asyncio.sleep(1)
            journal.note(f"got {await queue.get()}")

    async def story():
        queue = asyncio.Queue(2)
        await asyncio.gather(produce(queue), consume(queue))

    loop.run_until_complete(story())

    assert journal.entries == [
        ("put 0", 0), ("put 1", 0), ("got 0", SECOND), ("put 2", SECOND), ("got 1", 2 * SECOND), ("put 3", 2 * SECOND),
        ("got 2", 3 * SECOND), ("got 3", 4 * SECOND),
    ]  # fmt: skip


def test_a_lock_lets_one_in_at_a_time_in_the_order_in_which_they_came(loop, journal):
    async def enter(lock, name):
        async with lock:
            await journal.sleep(name, 1)

    async def story():
        lock = asyncio.Lock()
        await asyncio.gather(*(enter(lock, name) for name in "cab"))

    loop.run_until_complete(story())

    assert journal.entries == [("c", SECOND), ("a", 2 * SECOND), ("b", 3 * SECOND)]


def test_gather_gives_results_in_order_whoever_ends_first(loop):
    async def after(seconds):
        await asyncio.sleep(seconds)
        return seconds

    async def story():
        return await asyncio.gather(after(3), after(1), after(2))

    assert loop.run_until_complete(story()) == [3, 1, 2]
    assert loop.now_ns == 3 * SECOND


def test_a_task_group_ends_the_others_when_one_fails(loop, journal):
    async def fail():
        await asyncio.sleep(1)
        raise ValueError("broken")

    async def story():
        async with asyncio.TaskGroup() as group:
            group.create_task(journal.sleep("other", 0.5, 9))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        loop.run_until_complete(story())

    assert [str(error) for error in caught.value.exceptions] == ["broken"]
    assert journal.entries == [("other", SECOND // 2)]
    assert loop.now_ns == SECOND


def test_waiting_for_the_first_of_several_leaves_the_others_alone(loop, journal):
    async def story():
        tasks = [asyncio.create_task(journal.sleep(name, seconds)) for name, seconds in (("slow", 2), ("fast", 1))]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        journal.note("first")
        await asyncio.wait(pending)
        return done == {tasks[1]}

    assert loop.run_until_complete(story())
    assert journal.entries == [("fast", SECOND), ("first", SECOND), ("slow", 2 * SECOND)]


STEPS = st.sampled_from(["turn", "note", "put", "take", "lock", "spawn", "cancel", "ring", "soon"])
PROGRAMS = st.lists(st.lists(STEPS, max_size=8), min_size=1, max_size=5)


def told_by(loop, programs):
    """What tasks do side by side that yield, take, put, lock and cancel each other: each deed in its order."""
    log, tasks = [], []

    async def play(name, steps, queue, lock, event):
        for number, step in enumerate(steps):
            match step:
                case "turn":
                    await asyncio.sleep(0)
                case "put":
                    queue.put_nowait(name)
                case "take" if not queue.empty():
                    log.append((name, "took", await queue.get()))
                case "lock":
                    async with lock:
                        await asyncio.sleep(0)
                        log.append((name, "in"))
                case "spawn":
                    tasks.append(asyncio.create_task(play(f"{name}.{number}", steps[:number], queue, lock, event)))
                case "cancel":
                    tasks[number % len(tasks)].cancel()
                case "ring":
                    event.set()
                case "soon":
                    asyncio.get_running_loop().call_soon(log.append, (name, "soon"))
            log.append((name, step))

    async def wait(event):
        await event.wait()
        log.append("rung")

    async def story():
        queue, lock, event = asyncio.Queue(), asyncio.Lock(), asyncio.Event()
        tasks.append(asyncio.create_task(wait(event)))
        tasks.extend(asyncio.create_task(play(str(n), steps, queue, lock, event)) for n, steps in enumerate(programs))
        for _ in range(200):
            await asyncio.sleep(0)
        event.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop.run_until_complete(story())
    return log


@given(PROGRAMS)
def test_tasks_that_wait_for_nothing_but_each_other_run_as_on_asyncios_own_loop(programs):
    real = asyncio.new_event_loop()
    try:
        expected = told_by(real, programs)
    finally:
        real.close()

    assert told_by(VirtualLoop(), programs) == expected


def test_there_are_no_threads_and_no_sockets_in_it(loop):
    async def story():
        await asyncio.to_thread(print)

    with pytest.raises(NotImplementedError):
        loop.run_until_complete(story())


# ---- what goes wrong ----


def test_when_everything_waits_for_ever_it_says_so(loop, journal):
    async def story():
        queue = asyncio.Queue()
        await journal.sleep("a", 3)
        await queue.get()

    with pytest.raises(NobodyWakes, match="everything waits"):
        loop.run_until_complete(story())

    assert journal.entries == [("a", 3 * SECOND)]
    assert not loop.is_running()


def test_two_that_wait_for_each_other_are_a_deadlock_too(loop):
    async def story():
        locks = asyncio.Lock(), asyncio.Lock()

        async def enter(first, second):
            async with first:
                await asyncio.sleep(1)
                async with second:
                    pass

        await asyncio.gather(enter(*locks), enter(*reversed(locks)))

    with pytest.raises(NobodyWakes):
        loop.run_until_complete(story())


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)])
def test_what_the_story_raises_comes_out_and_the_loop_is_left_as_it_was(loop, error):
    async def story():
        await asyncio.sleep(1)
        raise error

    with pytest.raises(type(error)) as caught:
        loop.run_until_complete(story())

    assert caught.value is error
    assert not loop.is_running()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_an_error_in_a_task_reaches_who_waits_for_it(loop):
    async def fail():
        await asyncio.sleep(1)
        raise ValueError("broken")

    async def story():
        task = asyncio.create_task(fail())
        await asyncio.sleep(5)
        with pytest.raises(ValueError, match="broken"):
            await task
        return loop.time()

    assert loop.run_until_complete(story()) == 5
    assert loop.heard == []


def test_an_error_in_a_mere_callback_ends_the_run(loop):
    async def story():
        loop.call_later(1, lambda: 1 / 0)
        await asyncio.sleep(5)

    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(story())
    assert loop.now_ns == SECOND


def test_a_task_that_fails_and_that_nobody_asks_is_heard_of(loop):
    async def fail():
        raise ValueError("broken")

    async def story():
        loop.create_task(fail())
        await asyncio.sleep(1)

    loop.run_until_complete(story())

    assert loop.heard == ["Task exception was never retrieved"]


def test_what_is_heard_of_is_raised_with_its_cause():
    cause = ValueError("broken")

    with pytest.raises(RuntimeError, match="Task exception was never retrieved the task") as caught:
        VirtualLoop().call_exception_handler(
            {"message": "Task exception was never retrieved", "task": "the task", "exception": cause}
        )

    assert caught.value.__cause__ is cause


# ---- stopping a worker between awaits ----


def test_a_worker_may_be_stopped_between_two_awaits_and_nothing_of_it_ever_runs_again(loop, journal):
    dead = set()
    loop.before_each = lambda handle: handle.context is None or handle.context.get(WORKER) not in dead

    async def work(name):
        WORKER.set(name)
        try:
            await asyncio.gather(journal.sleep(name, 1, 1, 1), journal.sleep(name, 1.5, 1))
        finally:
            journal.note(f"{name} winds up")

    async def story():
        tasks = [loop.create_task(work(name)) for name in ("one", "two")]
        await asyncio.sleep(1.2)
        dead.add("one")
        await asyncio.sleep(9)
        return [task.done() for task in tasks]

    assert loop.run_until_complete(story()) == [False, True]
    assert [(name, at / SECOND) for name, at in journal.entries] == [
        ("one", 1), ("two", 1), ("two", 1.5), ("two", 2), ("two", 2.5), ("two", 3), ("two winds up", 3),
    ]  # fmt: skip


def test_each_call_is_asked_about_once_in_its_order_and_with_its_context(loop, journal):
    asked = []

    def watch(handle):
        if handle.context is not None and handle.context.get(WORKER):
            asked.append((handle.context[WORKER], loop.now_ns))
        return True

    async def story(name):
        await journal.sleep(name, 1, 2)

    context = contextvars.copy_context()
    context.run(WORKER.set, "one")
    loop.before_each = watch
    task = loop.create_task(story("a"), context=context)

    async def until_done():
        await task

    loop.run_until_complete(until_done())

    # Its first step, and one for each of the two instants at which it woke.
    assert asked == [("one", 0), ("one", SECOND), ("one", 3 * SECOND)]


def test_a_task_has_a_context_of_its_own(loop):
    async def name_itself(name):
        WORKER.set(name)
        await asyncio.sleep(1)
        return WORKER.get()

    async def story():
        return [*await asyncio.gather(name_itself("one"), name_itself("two")), WORKER.get()]

    assert loop.run_until_complete(story()) == ["one", "two", ""]


def test_a_closed_loop_has_nothing_left_to_do(loop, journal):
    loop.call_soon(journal.note, "soon")
    loop.call_later(1, journal.note, "later")

    loop.close()

    assert loop.is_closed()
    with pytest.raises(NobodyWakes):
        loop.run_until_complete(for_ever())
    assert journal.entries == []


# ---- the clock ----


def test_the_clock_says_what_time_it_is_in_the_loop(loop):
    clock = VirtualClock(loop)
    told = []

    async def story():
        for nap in (0, 1.5, 1e-6, DAY):
            await asyncio.sleep(nap)
            told.append((clock.now() - EPOCH, clock.monotonic(), clock.monotonic_ns()))

    loop.run_until_complete(story())

    instants = (0, 1_500_000_000, 1_500_001_000, DAY * SECOND + 1_500_001_000)
    assert told == [(timedelta(microseconds=ns // 1000), ns / SECOND, ns) for ns in instants]


def test_its_days_are_real_ones_and_the_first_never_changes(loop):
    assert VirtualClock(loop).now() == EPOCH == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_reading_is_cut_to_microseconds_and_never_ahead_of_the_loop(loop):
    clock = VirtualClock(loop)

    loop.run_until_complete(asyncio.sleep(1999e-9))

    assert clock.now() == EPOCH + timedelta(microseconds=1)
    assert clock.monotonic_ns() == 1999
