"""What a person does to a schedule: sets it up, changes it, pauses and resumes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice

from django.core.exceptions import ValidationError
from django.db import transaction

from campaigns.exceptions import BadSchedule, IllegalMove
from campaigns.models import Schedule, ScheduleEvent, ScheduleKind, Slot, SlotOutcome
from campaigns.models.schedule import NEEDS, TIMING
from campaigns.slots import between, following
from campaigns.wall_clock import wall_time

# Who may not start runs must not do so by way of a schedule; what else there is to one starts nothing.
STARTING = (*TIMING, "workflow_id", "late_policy", "late_grace_seconds")
EDITABLE = ("workflow_id", "name", *TIMING, "late_policy", "late_grace_seconds")
MOST_PASSED = 1000  # slots that are recorded as passed over in one go; a pause of minutes' slots may have more


def check(schedule: Schedule, now: datetime) -> None:
    """Raises ValidationError, by field, when the schedule makes no sense, or when its times are new and all over."""
    schedule.full_clean()
    before = Schedule.objects.filter(pk=schedule.pk).first() if schedule.pk else None
    if before is not None and not _changed(before, schedule, TIMING):
        return
    plan = schedule.plan()
    if next(following(plan, now), None) is None:
        field = (
            "ends_at" if schedule.ends_at and schedule.kind != ScheduleKind.ONCE else next(iter(NEEDS[schedule.kind]))
        )
        clock, later = (f"{wall_time(at, plan.zone):%Y-%m-%d %H:%M}" for at in (now, now + timedelta(days=1)))
        raise ValidationError(
            {field: f"No slot is to come: in {plan.zone.key} it is {clock}. Choose a later time, such as {later}."}
        )


def save(schedule: Schedule, *, by: str, now: datetime, may_start: bool = True) -> None:
    """Writes a new or changed schedule, whose slots count from now on. Raises ValidationError, by field.

    With other times than before, slots of the old ones that nobody looked at yet are recorded as skipped. `paused` is
    heeded in a new one; later it is left as it is. Somebody who may not start runs (`may_start`) leaves a schedule
    paused.
    """
    with transaction.atomic():
        before = Schedule.objects.select_for_update().filter(pk=schedule.pk).first() if schedule.pk else None
        check(schedule, now)
        changed = _changed(before, schedule, EDITABLE)
        schedule.checked_until = before.checked_until if before else now
        schedule.paused = before.paused if before else schedule.paused
        if before is not None and _changed(before, schedule, TIMING):
            _pass_over(before, now, "The schedule was changed before anybody looked at this slot.")
            schedule.checked_until = now
        held_back = not may_start and not schedule.paused and bool(_changed(before, schedule, STARTING))
        schedule.paused = schedule.paused or held_back
        schedule.next_at = _next_at(schedule)
        schedule.save()
        _tell(schedule, "set up" if before is None else f"changed: {_named(changed)}" if changed else "saved", by, "")
        if held_back:
            _tell(schedule, "paused", by, f"{by} may not start runs: somebody who may has to resume it.")


def pause(schedule: Schedule, by: str, why: str = "") -> None:
    """No slot makes a run until `resume`. Raises IllegalMove."""
    with _locked(schedule) as row:
        if row.paused:
            raise IllegalMove(f"The schedule {row.name!r} is paused already.")
        row.paused, row.next_at = True, None
        row.save(update_fields=["paused", "next_at"])
        _tell(row, "paused", by, why)


def resume(schedule: Schedule, by: str, now: datetime, why: str = "") -> None:
    """Ends a pause. Slots that came meanwhile are recorded as skipped. Raises IllegalMove, BadSchedule."""
    with _locked(schedule) as row:
        if not row.paused:
            raise IllegalMove(f"The schedule {row.name!r} is not paused.")
        _pass_over(row, now, "The schedule was paused.")
        # Not the later of the two: a clock that was wrong by a year must not keep it silent for one.
        row.paused, row.checked_until = False, now
        row.next_at = _next_at(row)
        row.save(update_fields=["paused", "checked_until", "next_at"])
        _tell(row, "resumed", by, why)


def stop_for_good_reason(schedule_id: int, error: BadSchedule) -> None:
    """Pauses a schedule whose slots cannot be told: its time zone, for instance, is none any more."""
    with transaction.atomic():
        if Schedule.objects.filter(pk=schedule_id, paused=False).update(paused=True, next_at=None):
            ScheduleEvent.objects.create(schedule_id=schedule_id, what="paused", why=str(error)[:500])


@contextmanager
def _locked(schedule: Schedule) -> Iterator[Schedule]:
    """The row as it is, which nobody else changes or fires meanwhile; the caller's object follows it."""
    with transaction.atomic():
        yield Schedule.objects.select_for_update().get(pk=schedule.pk)
    schedule.refresh_from_db()


def _next_at(schedule: Schedule) -> datetime | None:
    return None if schedule.paused else next(following(schedule.plan(), schedule.checked_until), None)


def _pass_over(schedule: Schedule, until: datetime, reason: str) -> None:
    """Records what came until now and made no run."""
    try:
        passed = islice(between(schedule.plan(), schedule.checked_until, until), MOST_PASSED)
    except BadSchedule:
        return  # it was stopped because of that, and is being mended
    Slot.objects.bulk_create(
        [Slot(schedule=schedule, at=at, outcome=SlotOutcome.SKIPPED, reason=reason) for at in passed],
        ignore_conflicts=True,
    )


def _changed(before: Schedule | None, after: Schedule, fields: tuple[str, ...]) -> list[str]:
    return [field for field in fields if before is None or getattr(before, field) != getattr(after, field)]


def _named(fields: list[str]) -> str:
    return ", ".join(field.removesuffix("_id").replace("_", " ") for field in fields)


def _tell(schedule: Schedule, what: str, by: str, why: str) -> None:
    ScheduleEvent.objects.create(schedule=schedule, what=what[:300], by=by[:150], why=why[:500])
