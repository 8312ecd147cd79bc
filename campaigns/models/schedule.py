"""Schedules, their slots, and what people did to them.

`checked_until`, `next_at` and `paused`, and what became of a slot, are written by `campaigns.scheduling` and
`campaigns.firing` alone.
"""

from datetime import datetime, timedelta

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.timezone import get_default_timezone_name

from campaigns.cron import cron_line
from campaigns.exceptions import BadSchedule
from campaigns.models.run import Run
from campaigns.models.workflow import Workflow
from campaigns.slots import Every, Late, Once, Plan, Unit, in_words, upcoming
from campaigns.wall_clock import zone_named


class ScheduleKind(models.TextChoices):
    ONCE = "once", "once"
    INTERVAL = "interval", "interval"
    CRON = "cron", "cron line"


LATE_CHOICES = [
    (Late.SKIP.value, "skip: what was missed does not run"),
    (Late.RUN_ONCE.value, "run once: the latest runs, for all that were missed"),
    (Late.RUN_ALL.value, "run all: every one runs, the oldest first"),
]
UNIT_CHOICES = [(unit.value, unit.value) for unit in Unit]

# What each kind needs, with what to say when it is missing. The others' fields stay empty.
NEEDS = {
    ScheduleKind.ONCE: {"at": "Say when it runs: for example 2027-03-01 09:00."},
    ScheduleKind.INTERVAL: {
        "every": "Say how often it runs: for example every 15 minutes.",
        "unit": f"Say what the interval is counted in: {', '.join(Unit)}. For example every 15 minutes.",
        "anchor": "Say from when the interval is counted, which is its first slot: for example 2027-03-01 09:00.",
    },
    ScheduleKind.CRON: {"cron": 'Write the cron line. A good one: "0 9 * * 1-5", every weekday at 09:00.'},
}
# What decides when a slot is. After a change of any of them the slots are those of another plan.
TIMING = ("kind", "at", "every", "unit", "anchor", "cron", "time_zone", "starts_at", "ends_at")


class ScheduleQuerySet(models.QuerySet):
    def due(self, now: datetime) -> "ScheduleQuerySet":
        """Those of which a slot's time has come."""
        return self.filter(paused=False, next_at__lte=now)


class Schedule(models.Model):
    """When a workflow runs by itself."""

    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="schedules")
    name = models.CharField(max_length=150, help_text="Runs are recorded as started by it.")
    kind = models.CharField(max_length=8, choices=ScheduleKind, default=ScheduleKind.CRON)
    at = models.DateTimeField(null=True, blank=True)
    every = models.PositiveIntegerField(null=True, blank=True)
    unit = models.CharField(max_length=7, choices=UNIT_CHOICES, blank=True)
    anchor = models.DateTimeField(null=True, blank=True, help_text="The first slot; the others are counted from it.")
    cron = models.CharField(
        max_length=200,
        blank=True,
        help_text="Minute, hour, day of the month, month, day of the week: 0 9 * * 1-5 is every weekday at 09:00. "
        "Or @hourly, @daily, @weekly, @monthly, @yearly.",
    )
    time_zone = models.CharField(
        max_length=64, default=get_default_timezone_name, help_text="By name, such as Europe/Zurich."
    )
    starts_at = models.DateTimeField(null=True, blank=True, help_text="No slot is earlier.")
    ends_at = models.DateTimeField(null=True, blank=True, help_text="No slot is later.")
    late_policy = models.CharField(
        max_length=8,
        choices=LATE_CHOICES,
        default=Late.RUN_ONCE.value,
        help_text="What becomes of slots that were missed, because no worker was running for instance.",
    )
    late_grace_seconds = models.PositiveIntegerField(
        default=120,
        # Less than some looks of a cluster would count slots as missed that were not.
        validators=[MinValueValidator(30), MaxValueValidator(7 * 86_400)],
        help_text="A slot that is later than this was missed.",
    )
    paused = models.BooleanField(default=False)
    checked_until = models.DateTimeField(editable=False, help_text="Up to which instant its slots have been looked at.")
    next_at = models.DateTimeField(
        null=True, editable=False, help_text="The first slot after that. NULL: none, or paused."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        ordering = ["name", "id"]
        constraints = [models.UniqueConstraint(fields=["workflow", "name"], name="schedule_name_once")]
        indexes = [
            # every second, each cluster: is a slot due?
            models.Index(fields=["next_at"], condition=models.Q(paused=False), name="schedule_due"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuses what makes no sense, at its field and with a good example."""
        refusals = {}
        others = Schedule.objects.filter(workflow=self.workflow_id, name=self.name).exclude(pk=self.pk)
        if others.exists():
            refusals["name"] = (
                f"This workflow has a schedule {self.name!r} already. Choose another name: {self.name} 2."
            )
        try:
            self.plan()
        except BadSchedule as refusal:
            refusals[refusal.field] = str(refusal)
        if refusals:
            raise ValidationError(refusals)

    def plan(self) -> Plan:
        """When its slots are. Raises BadSchedule."""
        zone = zone_named(self.time_zone)
        if self.kind not in ScheduleKind:
            raise BadSchedule("kind", f"A schedule's kind is one of {', '.join(ScheduleKind.values)}.")
        for kind, needs in NEEDS.items():
            for field, missing in needs.items():
                given = getattr(self, field) not in (None, "")
                if kind == self.kind and not given:
                    raise BadSchedule(field, missing)
                if kind != self.kind and given:
                    raise BadSchedule(field, f"Only a schedule of the kind {kind.value} has this: leave it empty.")
        return Plan(rhythm=self._rhythm(), zone=zone, starts_at=self.starts_at, ends_at=self.ends_at)

    def _rhythm(self) -> object:
        match self.kind:
            case ScheduleKind.ONCE:
                return Once(self.at)
            case ScheduleKind.INTERVAL:
                if self.unit not in set(Unit):
                    raise BadSchedule("unit", NEEDS[ScheduleKind.INTERVAL]["unit"])
                return Every(self.every, Unit(self.unit), self.anchor)
            case _:
                return cron_line(self.cron)

    @property
    def grace(self) -> timedelta:
        return timedelta(seconds=self.late_grace_seconds)

    def in_words(self) -> str:
        """When it runs, as a person says it; or why that cannot be said."""
        try:
            return in_words(self.plan())
        except BadSchedule as refusal:
            return str(refusal)

    def next_slots(self, now: datetime, number: int = 10) -> list[datetime]:
        """The next so many slots, in its own time zone; none while its fields make no sense."""
        try:
            plan = self.plan()
        except BadSchedule:
            return []
        return [at.astimezone(plan.zone) for at in upcoming(plan, now, number)]


class SlotOutcome(models.TextChoices):
    FIRED = "fired", "made a run"
    SKIPPED = "skipped", "skipped"


class Slot(models.Model):
    """One planned instant whose time has come. The constraint is what lets it make at most one run, however many
    clusters look, and whatever their clocks say."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="slots")
    at = models.DateTimeField()
    outcome = models.CharField(max_length=7, choices=SlotOutcome, default=SlotOutcome.FIRED)
    reason = models.CharField(max_length=500, blank=True, help_text="Why it made no run.")
    run = models.OneToOneField(Run, on_delete=models.SET_NULL, null=True, related_name="slot")
    settled_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-at"]
        constraints = [models.UniqueConstraint(fields=["schedule", "at"], name="slot_once")]

    def __str__(self) -> str:
        return f"{self.schedule_id}: {self.at:%Y-%m-%d %H:%M} UTC"


class ScheduleEvent(models.Model):
    """One thing that was done to a schedule: what, by whom, why."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="events")
    what = models.CharField(max_length=300)
    by = models.CharField(max_length=150, blank=True)
    why = models.CharField(max_length=500, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.schedule_id}: {self.what}"
