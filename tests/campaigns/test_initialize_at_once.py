"""A run that starts at once: mails go while its audience is still read; whoever takes over adds who is missing."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from django_q.models import OrmQ

from campaigns import control, filling
from campaigns.audiences.stored import store_upload
from campaigns.initialize import Stopping, initialize
from campaigns.models import Audience, Cluster, RenderErrorPolicy, Run, RunState, Start, Workflow
from campaigns.work import pump
from delivery import owner, queue
from delivery.models import Batch, Delivery, KeptMail, Message
from delivery.models.batch import BatchState
from delivery.worker import Database, Pump
from tests.campaigns import cast
from tests.sinks import ROOT

pytestmark = [pytest.mark.usefixtures("output_dir"), pytest.mark.django_db(transaction=True)]

CHUNK = 10
COUNT = 4 * CHUNK + 5
STARTS = [Start.CHECKED, Start.AT_ONCE]
NO_CITY = ("nowhere@example.test", "Nobody Nowhere", {})


class Died(BaseException):
    """As if the process had been killed here: nothing of it runs any more."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "CHUNK", CHUNK)


def starting_at_once(people: list[cast.Person] | None = None, **settings: object) -> Workflow:
    audience = settings.pop("audience", None) or cast.list_audience(people or cast.crowd(COUNT))
    return cast.workflow(audience=audience, **{"start": Start.AT_ONCE, **settings})


def csv_of(people: list[cast.Person], more: str = "") -> str:
    return "email,name,city\n" + "".join(f"{address},{name},Leeds\n" for address, name, _ in people) + more


def send_until(run: Run, accepted: int) -> None:
    """A worker sends what is there, and is stopped when so many are accepted."""

    def watch(pumping: Pump, database: Database) -> asyncio.Task[None]:
        async def act() -> None:
            async with asyncio.timeout(20):
                # The tally is a row: there is no event to wait for.
                while (await database.ask(queue.progress, batch_id)).get("accepted", 0) < accepted:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            pumping.stop.set()

        return asyncio.get_running_loop().create_task(act())

    batch_id = cast.fresh(run).batch_id
    pump(batch_id, watch=watch)


def states(run: Run) -> dict[str, int]:
    return queue.counts_by_state(run.batch_id)


def after(rows: int, deed: Callable[[], None]) -> Callable[[int], None]:
    """A progress callback that does something once so many rows are read."""

    def progress(read: int) -> None:
        if read == rows:
            deed()

    return progress


def die() -> None:
    raise Died


def stop() -> None:
    raise Stopping


def half_filled(run: Run, rows: int = 2 * CHUNK, *, sent: bool = False) -> Run:
    """The run after its initialiser has died in the middle."""

    def between() -> None:
        if sent:
            send_until(run, rows)
        raise Died

    with pytest.raises(Died):
        initialize(run.pk, after(rows, between))
    return cast.fresh(run)


def name_of_the_dead() -> str:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    host, _, _ = owner.name().rsplit(":", 2)
    return f"{host}:{process.pid}:1"


DEATHS = {
    "its claim has run out": lambda: {
        "initializer": "another-host:4711:1",
        "initializer_until": timezone.now() - timedelta(seconds=1),
    },
    "its process is gone from this host": lambda: {"initializer": name_of_the_dead()},
}


def everybody() -> list[str]:
    return [address for address, _, _ in cast.crowd(COUNT)]


def assert_everybody_got_one_mail(run: Run) -> None:
    run = cast.fresh(run)
    assert (run.state, run.batch.state, run.batch.growing) == (RunState.COMPLETED, BatchState.DONE, False)
    assert run.batch.total == Delivery.objects.count() == COUNT
    assert cast.nonzero(run.counts) == {"accepted": COUNT}
    assert cast.kept_for("letters-pool") == everybody()


# --- Mails go while the rest is read ---------------------------------------------------------------------------------


def test_a_run_sends_from_its_first_chunk_on_and_completes_when_the_last_one_is_written_and_sent():
    run = cast.queued(starting_at_once())
    seen = []

    def look(rows: int) -> None:
        send_until(run, rows)
        now = cast.fresh(run)
        seen.append((rows, now.state, now.batch.state, now.batch.growing, now.batch.total, now.filled_at, states(now)))

    assert initialize(run.pk, look)

    ends = [10, 20, 30, 40, 45]
    assert seen == [(n, RunState.SENDING, BatchState.OPEN, True, n, None, {"accepted": n}) for n in ends]
    run = cast.fresh(run)
    assert cast.story(run) == ["queued", "initializing", "sending", "completed"]
    assert run.sending_at < run.filled_at <= run.ended_at
    assert_everybody_got_one_mail(run)


def test_the_cluster_is_woken_when_the_first_chunk_is_there_and_not_when_the_last_is():
    now = queue.database_now()
    Cluster.objects.create(owner="a head", host="here", workers=2, started_at=now, beat_at=now)
    run = cast.queued(starting_at_once())
    woken: list[list[str]] = []

    initialize(run.pk, after(CHUNK, lambda: woken.append([task.task["func"] for task in OrmQ.objects.all()])))

    assert woken == [["campaigns.tasks.pump_slice"]]


def test_what_was_not_sent_meanwhile_is_sent_afterwards():
    run = cast.initialized(starting_at_once())
    assert (run.state, run.batch.growing, run.filled_at is not None) == (RunState.SENDING, False, True)

    pump(run.batch_id)

    assert_everybody_got_one_mail(run)


def test_a_run_to_nobody_completes_at_once():
    empty = cast.list_audience([])

    run = cast.initialized(starting_at_once(audience=empty, version=cast.template(text="Hello")))

    assert cast.story(run) == ["queued", "initializing", "sending", "completed"]
    assert (run.batch.total, sum(run.counts.values())) == (0, 0)


def test_a_first_chunk_of_bad_rows_only_starts_the_run_and_the_others_get_their_mail():
    bad = [(f"bad {n}", "Bad", {"city": "Bath"}) for n in range(CHUNK)]

    run = cast.ended(starting_at_once([*bad, *cast.crowd(COUNT)]))

    assert run.problem_counts == {"impossible_address": CHUNK}
    assert_everybody_got_one_mail(run)


# --- What cannot be rendered -----------------------------------------------------------------------------------------


def test_a_first_chunk_that_cannot_be_rendered_fails_the_run_with_nothing_sent_or_left():
    people = cast.crowd(COUNT)
    people.insert(3, NO_CITY)

    run = cast.initialized(starting_at_once(people))

    assert (run.state, run.batch, run.sending_at) == (RunState.FAILED, None, None)
    assert run.error.startswith(f"1 of {CHUNK} recipients cannot be rendered, so nothing was sent.")
    assert list(run.problems.values_list("reason", "position", "address")) == [("rendering", 4, NO_CITY[0])]
    assert [table.objects.count() for table in (Batch, Message, Delivery, KeptMail)] == [0, 0, 0, 0]


def test_who_cannot_be_rendered_later_becomes_a_dead_letter_with_the_cause_when_his_turn_comes():
    people = [*cast.crowd(COUNT), NO_CITY]

    run = cast.ended(starting_at_once(people))

    assert (run.state, cast.nonzero(run.counts)) == (RunState.COMPLETED, {"accepted": COUNT, "dead": 1})
    dead = Delivery.objects.get(state="dead")
    assert (dead.address, dead.attempts) == (NO_CITY[0], 0)
    assert dead.words.startswith("cannot be rendered: ")
    assert "city" in dead.words
    assert cast.kept_for("letters-pool") == everybody()


def test_by_the_policy_skip_the_first_chunk_is_left_out_and_counted_and_later_ones_become_dead_letters():
    early = ("early@example.test", "Early", {})
    people = [early, *cast.crowd(COUNT), NO_CITY]

    run = cast.ended(starting_at_once(people, on_render_error=RenderErrorPolicy.SKIP))

    assert cast.nonzero(run.counts) == {"accepted": COUNT, "skipped": 1, "dead": 1}
    assert run.problem_counts == {"rendering": 1}
    assert {d.state: d.address for d in Delivery.objects.exclude(state="accepted")} == {
        "skipped": early[0],
        "dead": NO_CITY[0],
    }


# --- Taken over ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("rows", [CHUNK, 3 * CHUNK, COUNT])
def test_whoever_takes_over_adds_who_is_missing_and_nobody_twice(rows, death, sent):
    run = half_filled(cast.queued(starting_at_once()), rows, sent=sent)
    assert (run.state, run.batch.total, run.filled_at) == (RunState.SENDING, rows, None)
    assert not initialize(run.pk)  # while its claim is good nobody else begins
    Run.objects.filter(pk=run.pk).update(**DEATHS[death]())

    assert initialize(run.pk)
    after_it = cast.fresh(run)
    pump(run.batch_id)

    assert (after_it.batch_id, after_it.rows_read, after_it.batch.total) == (run.batch_id, COUNT, COUNT)
    assert list(run.events.values_list("state", "why"))[2:4] == [
        ("sending", ""),
        ("sending", "taken over from a process that ended"),
    ]
    assert_everybody_got_one_mail(run)


KILLED = """
import os, sys, django
django.setup()
from campaigns import filling
filling.CHUNK = 10
from campaigns.initialize import initialize
initialize(int(sys.argv[1]), lambda rows: os._exit(9) if rows == 20 else None)
"""


def test_a_process_that_is_killed_in_the_middle_is_followed_by_one_that_adds_who_is_missing(process_environment):
    run = cast.queued(starting_at_once())
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(run.pk)], cwd=ROOT, env=process_environment, timeout=60, check=False
    )
    half = cast.fresh(run)
    assert (killed.returncode, half.state, half.batch.total) == (9, RunState.SENDING, 20)

    assert initialize(run.pk)
    pump(half.batch_id)

    assert_everybody_got_one_mail(run)


def test_duplicates_and_bad_rows_are_counted_exactly_however_often_the_run_is_taken_over():
    people = cast.crowd(COUNT)
    twice = [people[0], people[15], people[15], people[30], people[44]]
    rows = csv_of([*people[:20], twice[0], *people[20:], *twice[1:]], "not an address,Nobody,Bath\n")
    whole = cast.initialized(starting_at_once(audience=cast.csv_audience(rows, "whole"), slug="whole"))
    run = cast.queued(starting_at_once(audience=cast.csv_audience(rows, "torn")))

    half_filled(run, CHUNK)
    for read in (3 * CHUNK, CHUNK, 5 * CHUNK):
        Run.objects.filter(pk=run.pk).update(initializer_until=timezone.now() - timedelta(seconds=1))
        half_filled(run, read)
    Run.objects.filter(pk=run.pk).update(initializer_until=timezone.now() - timedelta(seconds=1))
    assert initialize(run.pk)

    run = cast.fresh(run)
    assert run.problem_counts == whole.problem_counts == {"duplicate": 5, "impossible_address": 1}
    assert run.rows_read == whole.rows_read == COUNT + 6
    assert run.batch.total == whole.batch.total == COUNT
    assert sorted(cast.recipients(run)) == everybody()
    assert run.problems.filter(reason="impossible_address").count() == 1


def test_an_initialiser_that_was_overtaken_writes_nothing_more():
    run = cast.queued(starting_at_once())

    def be_overtaken() -> None:
        Run.objects.filter(pk=run.pk).update(initializer="another-host:4711:1")

    assert not initialize(run.pk, after(2 * CHUNK, be_overtaken))

    run = cast.fresh(run)
    assert (run.state, run.initializer, run.filled_at) == (RunState.SENDING, "another-host:4711:1", None)
    assert run.batch.total == Delivery.objects.count() == 2 * CHUNK
    assert run.batch.growing


# --- An audience that breaks -----------------------------------------------------------------------------------------

TORN = '"never@example.test,ends,here\n'


def torn_audience() -> Audience:
    return cast.csv_audience(csv_of(cast.crowd(2 * CHUNK), TORN))


def test_an_audience_that_breaks_in_the_middle_pauses_the_run_with_the_reason_and_resumed_it_is_read_again():
    audience = torn_audience()
    run = cast.queued(starting_at_once(audience=audience))

    assert initialize(run.pk, after(CHUNK, lambda: send_until(run, CHUNK)))
    paused = cast.fresh(run)
    store_upload(audience, "mended.csv", [csv_of(cast.crowd(COUNT)).encode()])
    control.resume(run, "ada", "mended")
    asked = [task.func() for task in OrmQ.objects.all()]
    assert initialize(run.pk)
    pump(paused.batch_id)

    assert (paused.state, paused.batch.state, paused.filled_at) == (RunState.PAUSED, BatchState.HELD, None)
    assert (paused.initializer, paused.initializer_until) == ("", None)
    assert paused.error.startswith("The audience could not be read to its end: ")
    assert paused.error.endswith("Mend it and resume: who is missing is then added.")
    assert paused.batch.hold_reason == paused.error[:200]
    assert "campaigns.tasks.initialize_run" in asked
    assert cast.fresh(run).error == ""
    assert cast.story(run) == ["queued", "initializing", "sending", "paused", "sending", "sending", "completed"]
    assert_everybody_got_one_mail(run)


def test_an_audience_that_is_still_broken_pauses_the_run_again_and_nobody_is_doubled():
    run = cast.initialized(starting_at_once(audience=torn_audience()))
    written = run.batch.total

    control.resume(run, "ada")
    assert initialize(run.pk)

    again = cast.fresh(run)
    assert (again.state, again.batch.total, again.error) == (RunState.PAUSED, written, run.error)


def test_an_audience_that_breaks_while_the_run_is_paused_leaves_it_paused_with_the_reason():
    audience = torn_audience()
    run = cast.queued(starting_at_once(audience=audience))

    initialize(run.pk, after(CHUNK, lambda: control.pause(run, "ada", "coffee")))
    paused = cast.fresh(run)
    store_upload(audience, "mended.csv", [csv_of(cast.crowd(COUNT)).encode()])
    control.resume(run, "ada")
    assert initialize(run.pk)
    pump(paused.batch_id)

    assert (paused.state, paused.batch.hold_reason, paused.initializer) == (RunState.PAUSED, "coffee", "")
    assert paused.error.startswith("The audience could not be read to its end: ")
    assert_everybody_got_one_mail(run)


def test_an_audience_that_breaks_in_its_first_chunk_fails_the_run_with_nothing_left():
    run = cast.initialized(starting_at_once(audience=cast.csv_audience(csv_of(cast.crowd(3), TORN))))

    assert (run.state, run.batch) == (RunState.FAILED, None)
    assert [table.objects.count() for table in (Batch, Message, Delivery)] == [0, 0, 0]


# --- What a person does meanwhile ------------------------------------------------------------------------------------


def test_a_run_that_is_cancelled_in_the_middle_accounts_for_all_that_was_written():
    run = cast.queued(starting_at_once())

    def cancel() -> None:
        send_until(run, 2 * CHUNK)
        control.cancel(run, "ada", "wrong list")

    assert not initialize(run.pk, after(2 * CHUNK, cancel))
    pump(cast.fresh(run).batch_id)

    run = cast.fresh(run)
    assert cast.story(run) == ["queued", "initializing", "sending", "cancelled"]
    assert (run.batch.state, run.batch.growing, run.batch.total) == (BatchState.DONE, False, 2 * CHUNK)
    assert cast.nonzero(run.counts) == {"accepted": 2 * CHUNK}
    assert not initialize(run.pk)


def test_of_a_run_that_is_cancelled_in_the_middle_nothing_more_is_sent():
    run = cast.queued(starting_at_once())

    assert not initialize(run.pk, after(2 * CHUNK, lambda: control.cancel(run, "ada")))
    pump(cast.fresh(run).batch_id)

    run = cast.fresh(run)
    assert cast.nonzero(run.counts) == {"cancelled": 2 * CHUNK}
    assert (run.batch.state, KeptMail.objects.count()) == (BatchState.DONE, 0)


def test_a_run_that_is_paused_in_the_middle_is_filled_to_its_end_and_sends_once_it_is_resumed():
    run = cast.queued(starting_at_once())

    assert initialize(run.pk, after(2 * CHUNK, lambda: control.pause(run, "ada", "coffee")))
    paused = cast.fresh(run)
    pump(paused.batch_id)
    sent_while_paused = KeptMail.objects.count()
    control.resume(run, "ada")
    pump(paused.batch_id)

    assert (paused.state, paused.batch.state, paused.batch.total) == (RunState.PAUSED, BatchState.HELD, COUNT)
    assert (paused.filled_at is not None, paused.batch.growing) == (True, False)
    assert sent_while_paused == 0
    assert_everybody_got_one_mail(run)


def test_a_run_whose_initialiser_died_while_it_was_paused_is_filled_once_it_is_resumed():
    run = cast.queued(starting_at_once())

    def pause_and_die() -> None:
        control.pause(run, "ada")
        raise Died

    with pytest.raises(Died):
        initialize(run.pk, after(2 * CHUNK, pause_and_die))
    Run.objects.filter(pk=run.pk).update(initializer_until=timezone.now() - timedelta(seconds=1))
    while_paused = initialize(run.pk)
    control.resume(run, "ada")
    assert initialize(run.pk)
    pump(cast.fresh(run).batch_id)

    assert not while_paused
    assert_everybody_got_one_mail(run)


# --- Who fills, and who stops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", STARTS)
def test_a_process_that_stops_leaves_the_run_to_anybody_at_once(start):
    run = cast.queued(starting_at_once(start=start))

    with pytest.raises(Stopping):
        initialize(run.pk, between=stop)
    left = cast.fresh(run)
    assert initialize(run.pk)
    pump(cast.fresh(run).batch_id)

    assert left.state == (RunState.SENDING if start == Start.AT_ONCE else RunState.INITIALIZING)
    assert (left.initializer, left.initializer_until <= timezone.now(), left.filled_at) == ("", True, None)
    assert_everybody_got_one_mail(run)
    assert Batch.objects.count() == 1


@pytest.mark.parametrize("start", STARTS)
def test_a_process_that_stops_after_it_was_overtaken_leaves_its_successors_right_alone(start):
    run = cast.queued(starting_at_once(start=start))
    until = timezone.now() + timedelta(minutes=1)

    def be_overtaken_and_stop() -> None:
        Run.objects.filter(pk=run.pk).update(initializer="another-host:4711:1", initializer_until=until)
        raise Stopping

    with pytest.raises(Stopping):
        initialize(run.pk, between=be_overtaken_and_stop)

    run = cast.fresh(run)
    assert (run.initializer, run.initializer_until) == ("another-host:4711:1", until)


@pytest.mark.parametrize("start", STARTS)
def test_of_several_that_want_to_fill_a_run_at_once_one_does(start):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    run = cast.queued(starting_at_once(start=start))

    filled = cast.side_by_side(4, lambda n: initialize(run.pk))

    assert sorted(filled) == [False, False, False, True]
    assert (cast.fresh(run).batch.total, Batch.objects.count()) == (COUNT, 1)
    assert sorted(cast.recipients(cast.fresh(run))) == everybody()


def test_of_several_that_want_to_take_a_run_over_at_once_one_does():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    run = half_filled(cast.queued(starting_at_once()))
    Run.objects.filter(pk=run.pk).update(initializer_until=timezone.now() - timedelta(seconds=1))

    filled = cast.side_by_side(4, lambda n: initialize(run.pk))

    assert sorted(filled) == [False, False, False, True]
    pump(run.batch_id)
    assert_everybody_got_one_mail(run)
