"""Schedules: when workflows run by themselves. Set up here, paused and resumed, with what became of each slot."""

from datetime import datetime

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, QuerySet, Subquery
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST
from unfold.admin import ModelAdmin
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from campaigns import scheduling
from campaigns.admin.dialogs import MaySend, ReasonForm, done
from campaigns.admin.runs import STATE_COLOURS
from campaigns.admin.schedule_form import ScheduleForm
from campaigns.exceptions import BadSchedule
from campaigns.models import Schedule, Slot, SlotOutcome
from campaigns.models.schedule import TIMING
from campaigns.wall_clock import wall_time, zone_named, zone_names
from delivery.queue import database_now

SHOWN_SLOTS = 50
SHOWN_EVENTS = 20


@admin.register(Schedule)
class ScheduleAdmin(MaySend, ModelAdmin):
    form = ScheduleForm
    list_display = ("name", "workflow_name", "words", "state_badge", "next_slot", "last_run")
    list_filter = ("paused", "workflow")
    list_select_related = ("workflow",)
    list_per_page = 50
    search_fields = ("name", "workflow__name")
    autocomplete_fields = ("workflow",)
    empty_hint = (
        "A schedule runs a workflow by itself: once, at an interval, or by a cron line. A slot makes at most one run."
    )
    change_form_outer_before_template = "admin/campaigns/schedule/summary.html"
    change_form_after_template = "admin/campaigns/schedule/preview_frame.html"
    change_form_outer_after_template = "admin/campaigns/schedule/history.html"
    actions_detail = ("resume", "pause")
    fieldsets = (
        (None, {"fields": ("workflow", "name")}),
        ("When", {"fields": ("kind", "at", ("every", "unit"), "anchor", "cron", "time_zone", "starts_at", "ends_at")}),
        ("When it is late", {"fields": ("late_policy", "late_grace_seconds")}),
    )
    conditional_fields = {
        "at": "kind == 'once'",
        "every": "kind == 'interval'",
        "unit": "kind == 'interval'",
        "anchor": "kind == 'interval'",
        "cron": "kind == 'cron'",
    }
    looked_at = ("workflow_name", "words", "late_policy", "late_grace_seconds")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        fired = Slot.objects.filter(schedule=OuterRef("pk"), run__isnull=False).order_by("-at")
        return (
            super()
            .get_queryset(request)
            .annotate(
                last_run_id=Subquery(fired.values("run")[:1]),
                last_run_state=Subquery(fired.values("run__state")[:1]),
            )
        )

    # ---- the list ----

    @display(description="Workflow", ordering="workflow__name")
    def workflow_name(self, schedule: Schedule) -> SafeString:
        url = reverse("admin:campaigns_workflow_change", args=[schedule.workflow_id])
        return format_html('<a class="text-link" href="{}">{}</a>', url, schedule.workflow)

    @display(description="When")
    def words(self, schedule: Schedule) -> str:
        return schedule.in_words()

    @display(description="State", ordering="paused", label={"paused": "warning", "on": "success"})
    def state_badge(self, schedule: Schedule) -> str:
        return _state_of(schedule)

    @display(description="Next slot", ordering="next_at")
    def next_slot(self, schedule: Schedule) -> str:
        return _by_its_clock(schedule, schedule.next_at) if schedule.next_at else "none"

    @display(description="Last run", ordering="last_run_id")
    def last_run(self, schedule: Schedule) -> SafeString | str:
        if schedule.last_run_id is None:
            return "never"
        url = reverse("admin:campaigns_run_change", args=[schedule.last_run_id])
        return format_html(
            '<a class="text-link" href="{}">Run {}</a>, {}', url, schedule.last_run_id, schedule.last_run_state
        )

    # ---- the page of one schedule ----

    def get_fieldsets(self, request: HttpRequest, obj: Schedule | None = None) -> list:
        if obj is None or self.has_change_permission(request, obj):
            return super().get_fieldsets(request, obj)
        # Other names than the form's: unfold would ask the form, which who may only look has not, what to hide.
        return [(None, {"fields": self.looked_at})]

    def get_readonly_fields(self, request: HttpRequest, obj: Schedule | None = None) -> tuple[str, ...]:
        return () if obj is None or self.has_change_permission(request, obj) else self.looked_at

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, object]:
        return {"time_zone": Schedule._meta.get_field("time_zone").get_default()} | super().get_changeform_initial_data(
            request
        )

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict | None = None,
    ) -> HttpResponse:
        schedule = self.get_object(request, object_id) if object_id else None
        shown = _page_of(schedule) if schedule and self.has_view_permission(request, schedule) else {}
        may_edit = self.has_change_permission(request, schedule) if schedule else self.has_add_permission(request)
        shown |= {"zone_names": zone_names()} if may_edit else {}
        return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **shown})

    def save_model(self, request: HttpRequest, obj: Schedule, form: ModelForm, change: bool) -> None:
        was_paused = obj.paused
        may_start = self.has_send_permission(request)
        scheduling.save(obj, by=request.user.get_username(), now=database_now(), may_start=may_start)
        if obj.paused and not was_paused:
            messages.warning(request, "It is paused: who may start runs has to resume it.")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.preview_view))
        return [path("preview/", view, name="campaigns_schedule_preview"), *super().get_urls()]

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """What the form says, as it stands, before it is saved: in words, its next slots, and what makes no sense."""
        number = request.GET.get("schedule", "")
        schedule = get_object_or_404(Schedule, pk=number) if number.isascii() and number.isdigit() else None
        allowed = self.has_change_permission(request, schedule) if schedule else self.has_add_permission(request)
        if not allowed:
            raise PermissionDenied
        form = self.get_form(request, schedule, change=schedule is not None)(request.POST, instance=schedule)
        form.is_valid()
        wrong = [(form.fields[name].label, form.errors[name][0]) for name in TIMING if name in form.errors]
        shown = {"wrong": wrong} if wrong else _coming(form.instance, database_now())
        return render(request, "admin/campaigns/schedule/preview.html", shown)

    # ---- what a person may do ----

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[UnfoldAction]:
        """Those that are possible as it stands."""
        schedule = Schedule.objects.filter(pk=object_id).first()
        possible = "campaigns_schedule_resume" if schedule and schedule.paused else "campaigns_schedule_pause"
        return [shown for shown in super().get_actions_detail(request, object_id) if shown.action_name == possible]

    @action(
        description="Pause",
        icon="pause",
        permissions=["send"],
        dialog={
            "title": "Pause this schedule?",
            "description": "Its slots make no runs until it is resumed. Runs that have begun go on.",
            "form_class": ReasonForm,
            "form_submit_text": "Pause",
        },
    )
    def pause(self, request: HttpRequest, form: ReasonForm, object_id: str) -> HttpResponse:
        schedule, who = get_object_or_404(Schedule, pk=object_id), request.user.get_username()
        why = form.cleaned_data["why"]
        return done(request, lambda: scheduling.pause(schedule, who, why), "The schedule is paused.", _url(schedule))

    @action(
        description="Resume",
        icon="play_arrow",
        variant=ActionVariant.PRIMARY,
        permissions=["send"],
        dialog={
            "title": "Resume this schedule?",
            "description": "It goes on with its next slot. Slots that came meanwhile do not run.",
            "form_class": ReasonForm,
            "form_submit_text": "Resume",
        },
    )
    def resume(self, request: HttpRequest, form: ReasonForm, object_id: str) -> HttpResponse:
        schedule, who = get_object_or_404(Schedule, pk=object_id), request.user.get_username()
        why = form.cleaned_data["why"]
        return done(
            request,
            lambda: scheduling.resume(schedule, who, database_now(), why),
            "The schedule goes on.",
            _url(schedule),
        )


def _url(schedule: Schedule) -> str:
    return reverse("admin:campaigns_schedule_change", args=[schedule.pk])


def _state_of(schedule: Schedule) -> str:
    if schedule.paused:
        return "paused"
    return "on" if schedule.next_at else "over"


def _by_its_clock(schedule: Schedule, at: datetime) -> str:
    try:
        zone = zone_named(schedule.time_zone)
    except BadSchedule:
        return f"{at:%Y-%m-%d %H:%M} UTC"
    return f"{wall_time(at, zone):%a %Y-%m-%d %H:%M} {zone.key}"


def _coming(schedule: Schedule, now: datetime) -> dict[str, object]:
    slots = schedule.next_slots(now)
    return {"in_words": schedule.in_words(), "slots": [f"{at:%a %Y-%m-%d %H:%M} (UTC{at:%z})" for at in slots]}


def _page_of(schedule: Schedule) -> dict[str, object]:
    """What is shown of a schedule beside its form."""
    lines = [
        {
            "at": _by_its_clock(schedule, slot.at),
            "slot": slot,
            "colour": "success" if slot.outcome == SlotOutcome.FIRED else "warning",
            "run_url": reverse("admin:campaigns_run_change", args=[slot.run_id]) if slot.run_id else "",
            "run_state": slot.run.get_state_display() if slot.run_id else "",
            "run_colour": STATE_COLOURS.get(slot.run.state, "default") if slot.run_id else "",
        }
        for slot in schedule.slots.select_related("run")[:SHOWN_SLOTS]
    ]
    return {
        "schedule": schedule,
        "schedule_state": _state_of(schedule),
        "schedule_next": _by_its_clock(schedule, schedule.next_at) if schedule.next_at else "",
        "workflow_url": reverse("admin:campaigns_workflow_change", args=[schedule.workflow_id]),
        "coming": _coming(schedule, database_now()),
        "slot_lines": lines,
        "slot_total": schedule.slots.count(),
        "events": list(schedule.events.order_by("-pk")[:SHOWN_EVENTS]),
    }
