"""A slot makes one run: whoever looks, how often, how late, with whatever clock, and killed at whichever moment."""

import contextlib
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.signals import post_save
from django.db.utils import IntegrityError
from django_q.models import OrmQ

from campaigns import housekeeping, scheduling, tasks, wake
from campaigns.exceptions import IllegalMove
from campaigns.firing import fire_due, latest_due
from campaigns.initialize import initialize
from campaigns.models import Run, RunEvent, Schedule, ScheduleEvent, Slot, Step, Trigger, Workflow
from campaigns.models.schedule import LATE_CHOICES
from campaigns.slots import between
from campaigns.work import pump
from delivery.queue import database_now
from tests.campaigns import cast

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)  # a Tuesday


@pytest.fixture
def letters() -> Workflow:
    return cast.workflow()


def hourly(workflow: Workflow, name: str = "every hour", now: datetime = NOON, **fields: object) -> Schedule:
    """A schedule that runs on the hour, set up at `now`."""
    values = {"cron": "0 * * * *", "time_zone": "Europe/Zurich"} | fields
    schedule = Schedule(workflow=workflow, name=name, **values)
    scheduling.save(schedule, by="ada", now=now)
    return schedule


def fresh(schedule: Schedule) -> Schedule:
    return Schedule.objects.get(pk=schedule.pk)


def fate(schedule: Schedule) -> list[tuple[str, str, bool]]:
    """What became of its slots: when, and whether there is a run."""
    slots = schedule.slots.order_by("at")
    return [(f"{slot.at:%d %H:%M}", slot.outcome, slot.run_id is not None) for slot in slots]


# ---- in time ----


def test_a_slot_makes_a_run_when_its_time_has_come_and_not_before(letters):
    schedule = hourly(letters)

    early = fire_due(NOON + HOUR - timedelta(microseconds=1))
    fired = fire_due(NOON + HOUR)
    again = fire_due(NOON + HOUR + MINUTE)

    (run,) = Run.objects.all()
    assert (early, fired, again) == (0, 1, 0)
    assert (run.workflow, run.trigger, run.triggered_by) == (letters, Trigger.SCHEDULE, "every hour")
    assert run.key == f"slot:{schedule.pk}:2027-06-01T13:00:00+00:00"
    assert (run.slot.schedule, run.slot.at) == (schedule, NOON + HOUR)
    assert fresh(schedule).next_at == NOON + 2 * HOUR


def test_the_run_of_a_slot_is_worked_on_like_any_other(letters, output_dir):
    hourly(letters)
    fire_due(NOON + HOUR)

    (run,) = Run.objects.all()
    assert initialize(run.pk)
    pump(cast.fresh(run).batch_id)

    assert cast.fresh(run).state == "completed"
    assert cast.nonzero(cast.fresh(run).counts) == {"accepted": 3}


def test_the_cluster_is_told_of_the_run_once_it_is_committed(letters):
    hourly(letters)

    fire_due(NOON + HOUR)

    run = Run.objects.get()
    assert [(task.task["func"], task.task["args"]) for task in OrmQ.objects.all()] == [
        ("campaigns.tasks.initialize_run", (run.pk,))
    ]


def test_a_slot_that_is_due_is_seen_by_one_look(letters, django_assert_num_queries):
    hourly(letters)

    with django_assert_num_queries(1):
        before = latest_due(NOON + HOUR - MINUTE)
    assert (before, latest_due(NOON + HOUR)) == (None, NOON + HOUR)
    fire_due(NOON + HOUR)
    assert latest_due(NOON + HOUR) is None


@pytest.mark.parametrize("look", [tasks.fire_slots, tasks.tick, housekeeping.tick])
def test_a_clusters_task_and_the_tick_both_start_what_is_due(letters, look):
    now = database_now()
    hourly(letters, cron="* * * * *", now=now - MINUTE)

    look()

    assert Run.objects.count() == 1


def test_the_heads_wish_is_a_task(letters):
    wake.ask_for_fire()

    assert [task.task["func"] for task in OrmQ.objects.all()] == ["campaigns.tasks.fire_slots"]


def test_a_schedule_that_is_over_is_never_looked_at_again(letters):
    once = Schedule(workflow=letters, name="once", kind="once", at=NOON + HOUR, time_zone="UTC")
    scheduling.save(once, by="ada", now=NOON)

    fire_due(NOON + HOUR)

    assert fresh(once).next_at is None
    assert latest_due(NOON + 365 * DAY) is None


# ---- once, whatever happens ----


def test_any_number_of_processes_that_look_at_once_make_one_run_of_each_slot(letters):
    schedules = [hourly(letters, f"schedule {n}", late_policy="run_all") for n in range(3)]

    fired = cast.side_by_side(6, lambda _: fire_due(NOON + 2 * HOUR))

    assert sum(fired) == 6
    assert Run.objects.count() == 6
    for schedule in schedules:
        assert fate(schedule) == [("01 13:00", "fired", True), ("01 14:00", "fired", True)]


class Killed(BaseException):
    """As if the process had been killed: nobody catches it."""


@contextlib.contextmanager
def dying_when_written(model: type[models.Model], count: int = 1) -> Iterator[None]:
    """Whoever writes the so-manieth row of this kind is killed just then."""
    seen = []

    def die(**kwargs: object) -> None:
        seen.append(1)
        if len(seen) == count:
            raise Killed

    post_save.connect(die, sender=model)
    try:
        with pytest.raises(Killed):
            yield
    finally:
        post_save.disconnect(die, sender=model)


@pytest.mark.parametrize(("model", "count"), [(Slot, 1), (Run, 1), (RunEvent, 1), (Slot, 2), (Run, 2), (Slot, 4)])
def test_who_is_killed_between_any_two_steps_leaves_nothing_and_the_next_look_does_it_all(letters, model, count):
    schedule = hourly(letters, late_policy="run_all")
    now = NOON + 2 * HOUR

    with dying_when_written(model, count):
        fire_due(now)
    left = (Run.objects.count(), Slot.objects.count(), fresh(schedule).checked_until, OrmQ.objects.count())
    fired = fire_due(now)

    assert left == (0, 0, NOON, 0)
    assert fired == 2
    assert fate(schedule) == [("01 13:00", "fired", True), ("01 14:00", "fired", True)]


def test_a_clock_that_is_set_back_runs_nothing_twice_and_loses_nothing(letters):
    schedule = hourly(letters)
    fire_due(NOON + HOUR)

    fired = [fire_due(NOON + off) for off in (-DAY, 30 * MINUTE, HOUR, HOUR + MINUTE, 2 * HOUR)]

    assert fired == [0, 0, 0, 0, 1]
    assert fate(schedule) == [("01 13:00", "fired", True), ("01 14:00", "fired", True)]


def test_even_a_schedule_whose_memory_is_set_back_makes_no_second_run_of_a_slot(letters):
    schedule = hourly(letters, late_policy="run_all")
    fire_due(NOON + 2 * HOUR)
    Schedule.objects.update(checked_until=NOON, next_at=NOON + HOUR)

    again = fire_due(NOON + 3 * HOUR)

    assert again == 1
    assert Run.objects.count() == 3
    assert fate(schedule) == [(f"01 {hour}:00", "fired", True) for hour in (13, 14, 15)]


def test_the_database_has_no_place_for_a_slot_twice_nor_for_two_runs_of_one(letters):
    schedule = hourly(letters)
    fire_due(NOON + HOUR)
    run = Run.objects.get()

    with pytest.raises(IntegrityError):
        Slot.objects.create(schedule=schedule, at=NOON + HOUR)
    with pytest.raises(IntegrityError):
        Slot.objects.create(schedule=schedule, at=NOON, run=run)


@pytest.mark.parametrize("policy", [value for value, _ in LATE_CHOICES])
def test_over_any_story_of_looks_each_slot_is_accounted_for_once(letters, policy, rng: random.Random):
    schedule = hourly(letters, cron="*/20 * * * *", late_policy=policy, late_grace_seconds=60)
    now = latest = NOON

    for _ in range(30):
        now += rng.choice((timedelta(seconds=5), 10 * MINUTE, 7 * HOUR)) * rng.random()
        wrong = now + rng.choice((-1, 0, 0, 1)) * rng.random() * 5 * MINUTE  # another host's clock
        latest = max(latest, wrong, now)
        fire_due(wrong)
        fire_due(now)

    due = list(between(schedule.plan(), NOON, latest))
    slots = list(Slot.objects.order_by("at"))
    assert [slot.at for slot in slots] == due
    fired = [slot for slot in slots if slot.outcome == "fired"]
    assert all(slot.run_id for slot in fired)
    assert len({slot.run_id for slot in fired}) == len(fired) == Run.objects.count()
    assert all(slot.reason and not slot.run_id for slot in slots if slot.outcome == "skipped")
    assert policy != "run_all" or fired == slots


# ---- missed ----


@pytest.mark.parametrize(
    ("policy", "runs"),
    [
        ("skip", ["01 15:00"]),
        ("run_once", ["01 15:00"]),
        ("run_all", ["01 13:00", "01 14:00", "01 15:00"]),
    ],
)
def test_what_was_missed_follows_the_policy_and_none_is_forgotten(letters, policy, runs):
    schedule = hourly(letters, late_policy=policy)

    fire_due(NOON + 3 * HOUR + MINUTE)

    assert [at for at, outcome, _ in fate(schedule) if outcome == "fired"] == runs
    assert [at for at, _, _ in fate(schedule)] == ["01 13:00", "01 14:00", "01 15:00"]


@pytest.mark.parametrize(("policy", "runs"), [("skip", []), ("run_once", ["01 15:00"])])
def test_one_that_comes_too_late_for_all_of_them_skips_all_or_runs_the_latest(letters, policy, runs):
    schedule = hourly(letters, late_policy=policy)

    fire_due(NOON + 3 * HOUR + 30 * MINUTE)

    assert [at for at, outcome, _ in fate(schedule) if outcome == "fired"] == runs
    assert len(fate(schedule)) == 3
    assert schedule.slots.get(at=NOON + HOUR).reason.startswith("Missed by 2 h 30 min, ")


def test_who_runs_all_runs_a_hundred_at_once_and_then_the_next_in_order(letters):
    schedule = hourly(letters, cron="* * * * *", late_policy="run_all")
    now = NOON + 250 * MINUTE

    fired = [fire_due(now) for _ in range(4)]

    assert fired == [100, 100, 50, 0]
    assert list(schedule.slots.order_by("run_id").values_list("at", flat=True)) == [
        NOON + n * MINUTE for n in range(1, 251)
    ]


def test_a_week_of_missed_minutes_is_one_run_and_every_one_of_them_is_accounted_for(letters):
    schedule = hourly(letters, cron="* * * * *", late_grace_seconds=30)

    fired = fire_due(NOON + 7 * DAY)

    assert fired == Run.objects.count() == 1
    assert schedule.slots.count() == 7 * 24 * 60
    assert schedule.slots.get(outcome="fired").at == NOON + 7 * DAY


# ---- what cannot run ----


def test_a_workflow_that_cannot_run_leaves_a_slot_with_the_reason_and_is_not_asked_for_ever(letters):
    schedule = hourly(letters)
    Step.objects.all().delete()

    fired = [fire_due(NOON + HOUR), fire_due(NOON + HOUR + MINUTE)]

    (slot,) = schedule.slots.all()
    assert fired == [0, 0]
    assert (slot.outcome, slot.run) == ("skipped", None)
    assert slot.reason == "Workflow letters has no step: add one with a template."
    assert fresh(schedule).next_at == NOON + 2 * HOUR


def test_a_schedule_whose_slots_cannot_be_told_is_paused_with_the_reason_and_holds_nobody_up(letters):
    broken, sound = hourly(letters, "broken"), hourly(letters, "sound")
    Schedule.objects.filter(pk=broken.pk).update(time_zone="Europe/Atlantis", next_at=NOON)

    fired = fire_due(NOON + HOUR)

    assert fired == 1
    assert fate(sound) == [("01 13:00", "fired", True)]
    assert (fresh(broken).paused, fresh(broken).next_at) == (True, None)
    assert "There is no time zone 'Europe/Atlantis'." in broken.events.last().why


def test_an_error_in_one_schedule_holds_up_no_other_and_its_slot_is_not_lost(letters):
    unlucky, sound = hourly(letters, "unlucky"), hourly(letters, "sound")

    def fail(instance: Slot, **kwargs: object) -> None:
        if instance.schedule_id == unlucky.pk:
            raise RuntimeError("out of luck")

    post_save.connect(fail, sender=Slot)
    try:
        fired = fire_due(NOON + HOUR)
    finally:
        post_save.disconnect(fail, sender=Slot)

    assert (fired, fate(sound), fate(unlucky)) == (1, [("01 13:00", "fired", True)], [])
    assert fire_due(NOON + HOUR + MINUTE) == 1
    assert fate(unlucky) == [("01 13:00", "fired", True)]


# ---- what people do ----


def test_a_paused_schedule_makes_no_runs_and_what_came_meanwhile_is_recorded(letters):
    schedule = hourly(letters)

    scheduling.pause(schedule, "ada", "the list is wrong")
    fired = fire_due(NOON + 2 * HOUR)
    scheduling.resume(schedule, "bob", NOON + 2 * HOUR + MINUTE, "mended")
    fired_later = [fire_due(NOON + 2 * HOUR + 2 * MINUTE), fire_due(NOON + 3 * HOUR)]

    assert (fired, fired_later) == (0, [0, 1])
    assert fate(schedule) == [
        ("01 13:00", "skipped", False),
        ("01 14:00", "skipped", False),
        ("01 15:00", "fired", True),
    ]
    assert schedule.slots.get(at=NOON + HOUR).reason == "The schedule was paused."
    assert list(schedule.events.values_list("what", "by", "why")) == [
        ("set up", "ada", ""),
        ("paused", "ada", "the list is wrong"),
        ("resumed", "bob", "mended"),
    ]


def test_pausing_twice_and_resuming_twice_are_refused(letters):
    schedule = hourly(letters)

    with pytest.raises(IllegalMove, match="is not paused"):
        scheduling.resume(schedule, "ada", NOON)
    scheduling.pause(schedule, "ada")
    with pytest.raises(IllegalMove, match="is paused already"):
        scheduling.pause(schedule, "ada")


def test_after_other_times_only_their_slots_run_and_the_old_ones_are_recorded(letters):
    schedule = hourly(letters)

    schedule.cron = "30 * * * *"
    scheduling.save(schedule, by="ada", now=NOON + HOUR + 40 * MINUTE)
    fired = [fire_due(NOON + off) for off in (HOUR + 40 * MINUTE, 2 * HOUR, 2 * HOUR + 30 * MINUTE)]

    assert fired == [0, 0, 1]
    assert fate(schedule) == [("01 13:00", "skipped", False), ("01 14:30", "fired", True)]
    assert ScheduleEvent.objects.last().what == "changed: cron"


def test_another_name_changes_no_slot(letters):
    schedule = hourly(letters)

    schedule.name = "renamed"
    scheduling.save(schedule, by="ada", now=NOON + HOUR + MINUTE)

    assert fire_due(NOON + HOUR + 2 * MINUTE) == 1
    assert fate(schedule) == [("01 13:00", "fired", True)]


def test_a_stale_copy_does_not_bring_back_what_firing_has_moved_on(letters):
    schedule = hourly(letters)
    stale = fresh(schedule)
    fire_due(NOON + HOUR)

    stale.name = "renamed"
    scheduling.save(stale, by="ada", now=NOON + HOUR + MINUTE)

    assert fresh(schedule).checked_until == NOON + HOUR
    assert fresh(schedule).next_at == NOON + 2 * HOUR


@pytest.mark.parametrize(
    ("change", "paused"),
    [
        (lambda schedule: None, True),
        (lambda schedule: setattr(schedule, "cron", "30 * * * *"), True),
    ],
)
def test_who_may_not_start_runs_cannot_by_way_of_a_schedule(letters, change: Callable, paused: bool):
    schedule = Schedule(workflow=letters, name="sly", cron="0 * * * *", time_zone="UTC")
    scheduling.save(schedule, by="eve", now=NOON, may_start=False)
    set_up = fresh(schedule).paused
    scheduling.resume(schedule, "ada", NOON)
    change(schedule)
    scheduling.save(schedule, by="eve", now=NOON, may_start=False)

    changed = schedule.cron != "0 * * * *"
    assert (set_up, fresh(schedule).paused) == (True, changed)
    assert fire_due(NOON + HOUR) == (0 if changed else 1)


@pytest.mark.parametrize(
    ("fields", "place", "words"),
    [
        ({"cron": ""}, "cron", "Write the cron line."),
        ({"cron": "0 25 * * *"}, "cron", "The hour '25' makes no sense: 0 to 23"),
        ({"time_zone": "Europe/Zurch"}, "time_zone", "Did you mean Europe/Zurich?"),
        ({"kind": "monthly"}, "kind", "not a valid choice"),
        ({"kind": "once", "cron": ""}, "at", "for example 2027-03-01 09:00"),
        ({"kind": "once", "at": NOON + DAY}, "cron", "Only a schedule of the kind cron has this"),
        ({"kind": "once", "cron": "", "at": NOON - DAY}, "at", "it is 2027-06-01 14:00. Choose a later time"),
        ({"kind": "interval", "cron": ""}, "every", "for example every 15 minutes"),
        ({"kind": "interval", "cron": "", "every": 15}, "unit", "minutes, hours, days, weeks"),
        ({"kind": "interval", "cron": "", "every": 15, "unit": "minutes"}, "anchor", "for example 2027-03-01 09:00"),
        ({"ends_at": NOON - DAY}, "ends_at", "Choose a later time, such as 2027-06-02 14:00."),
        ({"starts_at": NOON + DAY, "ends_at": NOON}, "ends_at", "choose a later end, or none"),
        ({"late_grace_seconds": 1}, "late_grace_seconds", "greater than or equal to 30"),
        ({"late_policy": "never"}, "late_policy", "not a valid choice"),
        ({"name": ""}, "name", "cannot be blank"),
        ({"name": "taken"}, "name", "Choose another name: taken 2."),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place_with_a_good_example(letters, fields, place, words):
    hourly(letters, "taken")

    with pytest.raises(ValidationError) as refusal:
        hourly(letters, **{"name": "new", **fields})

    assert words in " ".join(refusal.value.message_dict[place])
    assert Schedule.objects.count() == 1
