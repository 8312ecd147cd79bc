"""Makes runs of the slots whose time has come.

Any number of processes may look at the same moment, be killed half-way, and disagree about the time. A schedule is
looked at in one transaction: its row is locked, `checked_until` moves on if nobody moved it, each slot is one row that
is unique in the database, and the run is written with it. All of that is committed, or nothing.
"""

import logging
from datetime import datetime
from itertools import islice

from django.db import transaction

from campaigns.exceptions import BadSchedule, CampaignError
from campaigns.launch import launch
from campaigns.models import Run, Schedule, Slot, SlotOutcome, Trigger
from campaigns.scheduling import stop_for_good_reason
from campaigns.slots import Late, Verdict, between, following, judge

logger = logging.getLogger(__name__)

RUNS_AT_ONCE = 100  # of a schedule that runs all it missed; the next look takes the next ones
LOOKED_AT = 2000  # slots in one transaction, of one that skips most of them
LOOKS = 50  # transactions for one schedule in one go


def latest_due(now: datetime) -> datetime | None:
    """The latest slot that is next in its schedule and whose time has come; None when there is none. One look into an
    index."""
    return Schedule.objects.due(now).order_by("-next_at").values_list("next_at", flat=True).first()


def fire_due(now: datetime) -> int:
    """Starts the runs of all slots up to `now`, and records the slots that start none, with the reason. Returns how
    many runs were started. What is wrong with one schedule keeps no other one back."""
    fired = 0
    for schedule_id in Schedule.objects.due(now).order_by("next_at", "pk").values_list("pk", flat=True):
        try:
            fired += _fire(schedule_id, now)
        except BadSchedule as error:
            logger.error("Schedule %d is paused: %s", schedule_id, error)
            stop_for_good_reason(schedule_id, error)
        except Exception:  # whatever it is, the others' slots are due as well
            logger.exception("The slots of schedule %d could not be looked at, the next look tries again.", schedule_id)
    return fired


def _fire(schedule_id: int, now: datetime) -> int:
    fired = 0
    for _ in range(LOOKS):
        runs, more = _look(schedule_id, now)
        fired += runs
        if runs or not more:
            break
    return fired


def _look(schedule_id: int, now: datetime) -> tuple[int, bool]:
    """How many runs were started, and whether there are more slots that are due."""
    with transaction.atomic():
        due = Schedule.objects.due(now).select_related("workflow").select_for_update(of=("self",), skip_locked=True)
        schedule = due.filter(pk=schedule_id).first()
        if schedule is None:  # somebody else is at it, or has been
            return 0, False
        plan = schedule.plan()
        limit = RUNS_AT_ONCE if schedule.late_policy == Late.RUN_ALL else LOOKED_AT
        slots = list(islice(between(plan, schedule.checked_until, now), limit + 1))
        more = len(slots) > limit
        slots = slots[:limit]
        checked = slots[-1] if more else max(now, schedule.checked_until)
        unmoved = Schedule.objects.filter(pk=schedule.pk, paused=False, checked_until=schedule.checked_until)
        if not unmoved.update(checked_until=checked, next_at=next(following(plan, checked), None)):
            return 0, False
        return _settle(schedule, judge(slots, now, Late(schedule.late_policy), schedule.grace, more=more)), more


def _settle(schedule: Schedule, verdicts: list[Verdict]) -> int:
    skipped = [
        Slot(schedule=schedule, at=verdict.at, outcome=SlotOutcome.SKIPPED, reason=verdict.reason)
        for verdict in verdicts
        if not verdict.runs
    ]
    Slot.objects.bulk_create(skipped, ignore_conflicts=True)
    return sum(_run(schedule, verdict.at) is not None for verdict in verdicts if verdict.runs)


def _run(schedule: Schedule, at: datetime) -> Run | None:
    """The run of a slot; None when it has had its turn before, or the workflow cannot run."""
    slot, is_new = Slot.objects.get_or_create(schedule=schedule, at=at)
    if not is_new:
        return None
    try:
        slot.run = launch(
            schedule.workflow, trigger=Trigger.SCHEDULE, by=schedule.name, key=f"slot:{schedule.pk}:{at.isoformat()}"
        )
    except CampaignError as refusal:
        logger.warning("The slot %s of schedule %d makes no run: %s", at.isoformat(), schedule.pk, refusal)
        slot.outcome, slot.reason = SlotOutcome.SKIPPED, str(refusal)[:500]
    slot.save(update_fields=["run", "outcome", "reason"])
    return slot.run
