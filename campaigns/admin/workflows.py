"""Workflows: set up here, and started here."""

from django import forms
from django.contrib import admin, messages
from django.db.models import ForeignKey, OuterRef, QuerySet, Subquery
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, StackedInline
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from campaigns.admin.dialogs import MaySend, TestRunForm, done
from campaigns.admin.runs import STATE_COLOURS
from campaigns.admin.step_form import StepForm, StepFormSet
from campaigns.admin.step_words import steps_in_words
from campaigns.admin.window_words import window_in_words
from campaigns.admin.zone_warning import zone_warning
from campaigns.launch import launch
from campaigns.models import Run, RunState, Step, Trigger, Workflow
from delivery.engines import KINDS
from delivery.models import Engine

NAMES = ("name", "slug")
WINDOW_FIELDS = (
    "window_hours",
    "window_zone",
    "window_per_recipient",
    "window_zone_field",
    "holiday_country",
    "holiday_subdivision",
    "closed_dates",
)


# What a form that leaves them out means by that: they came later than many a script that fills it in.
USUAL = ("on_failed", "gap_microseconds")


class WorkflowForm(forms.ModelForm):
    """Says in an operator's words what the fields decide."""

    class Meta:
        labels = {
            "reply_to": "Reply-To",
            "return_path": "Return path",
            "unsubscribe": "Unsubscribe link",
            "on_uncertain": "When an answer got lost",
            "on_render_error": "When a mail cannot be made",
            "stop_on_reply": "Stop at a reply",
            "stop_on_bounce": "Stop at a bounce",
            "on_failed": "When one failed that others depend on",
            "gap_microseconds": "Gap (microseconds)",
            "window_hours": "Hours",
            "window_zone": "Time zone",
            "window_per_recipient": "In the recipient's time zone",
            "window_zone_field": "Its field",
            "holiday_country": "Holidays of",
            "holiday_subdivision": "Part of the country",
            "closed_dates": "Closed dates",
        }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        for name in USUAL:
            if name in self.fields:  # who may only look has no fields
                self.fields[name].required = False

    def clean(self) -> dict[str, object]:
        cleaned = super().clean()
        for name in USUAL:
            if cleaned.get(name) in ("", None) and name not in self.errors:
                cleaned[name] = Workflow._meta.get_field(name).default
        return cleaned


class StepInline(StackedInline):
    """What is sent, in order. A workflow of one step shows its template, and the rest on demand."""

    model = Step
    form = StepForm
    formset = StepFormSet
    verbose_name = "step"
    verbose_name_plural = "steps: what is sent, and when"
    autocomplete_fields = ("template",)
    min_num = 1
    extra = 0
    # The script opens what a step makes use of.
    fieldsets = (
        (None, {"fields": ("position", "template")}),
        ("When it goes, and to whom", {"fields": ("after", "delay", "condition", "thread"), "classes": ["collapse"]}),
        ("Deadline", {"fields": ("deadline_minutes", "on_late", "lead_seconds"), "classes": ["collapse"]}),
        ("Composed text", {"fields": ("composer", "prompt", "review"), "classes": ["collapse"]}),
    )

    class Media:
        js = ("outreach/steps.js",)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).select_related("template", "composer")

    def formfield_for_foreignkey(
        self, db_field: ForeignKey, request: HttpRequest, **kwargs: object
    ) -> forms.ModelChoiceField:
        if db_field.name == "composer":
            kwargs["queryset"] = Engine.objects.filter(kind__in=[k.slug for k in KINDS.values() if k.composes])
            kwargs["empty_label"] = "nobody: the template's text"
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


@admin.register(Workflow)
class WorkflowAdmin(MaySend, ModelAdmin):
    form = WorkflowForm
    list_display = ("name", "audience_name", "pool_name", "last_run", "last_state")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    autocomplete_fields = ("audience", "pool")
    empty_hint = (
        "A workflow joins an audience, a template and a pool of engines. Add those first; then add the workflow and "
        "start a test run from its page."
    )
    inlines = (StepInline,)
    actions_detail = ("test_run", "run_now")
    change_form_outer_after_template = "admin/campaigns/workflow/schedules.html"
    readonly_fields = ("window_now", "steps_now")
    fieldsets = (
        (None, {"fields": NAMES}),
        ("Who gets it, and through what", {"fields": ("audience", "pool")}),
        ("From whom", {"fields": ("from_name", "from_address", "reply_to", "return_path")}),
        ("Unsubscribing", {"fields": ("unsubscribe",)}),
        ("Order and time", {"fields": ("priority", "start", "time_limit_minutes", "gap_microseconds")}),
        ("When mails may go out", {"fields": WINDOW_FIELDS}),
        ("Who gets no more of a run", {"fields": ("stop_on_reply", "stop_on_bounce")}),
        ("When something goes wrong", {"fields": ("on_uncertain", "on_render_error", "on_failed")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        latest = Run.objects.filter(workflow=OuterRef("pk")).order_by("-pk")
        return (
            super()
            .get_queryset(request)
            .select_related("audience", "pool")
            .annotate(
                last_run_id=Subquery(latest.values("pk")[:1]),
                last_run_state=Subquery(latest.values("state")[:1]),
                last_run_at=Subquery(latest.values("created_at")[:1]),
            )
        )

    def get_fieldsets(self, request: HttpRequest, obj: Workflow | None = None) -> list:
        """What steps and window come to is said once there are some that were saved."""
        shown = super().get_fieldsets(request, obj)
        if obj is None:
            return shown
        more = {NAMES: "steps_now", WINDOW_FIELDS: "window_now"}
        return [
            (title, options | {"fields": (*options["fields"], *filter(None, [more.get(options["fields"])]))})
            for title, options in shown
        ]

    def save_related(self, request: HttpRequest, form: ModelForm, formsets: list, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if warning := zone_warning(form.instance):
            messages.warning(request, warning)

    @display(description="In words")
    def steps_now(self, workflow: Workflow) -> SafeString:
        steps = list(workflow.steps.select_related("template", "composer"))
        lines = steps_in_words(steps, workflow.stops_on, workflow.audience.deadline_field)
        return format_html_join(SafeString("<br>"), "{}", ([line] for line in lines))

    @display(description="As it is saved")
    def window_now(self, workflow: Workflow) -> str:
        return window_in_words(workflow, timezone.now())

    @display(description="Audience", ordering="audience__name")
    def audience_name(self, workflow: Workflow) -> str:
        return workflow.audience.name

    @display(description="Pool", ordering="pool__name")
    def pool_name(self, workflow: Workflow) -> str:
        return workflow.pool.name

    @display(description="Last run", ordering="last_run_id")
    def last_run(self, workflow: Workflow) -> str:
        if workflow.last_run_id is None:
            return "never"
        url = reverse("admin:campaigns_run_change", args=[workflow.last_run_id])
        return format_html('<a class="text-link" href="{}">Run {}</a>', url, workflow.last_run_id)

    @display(description="State of the last run", label=STATE_COLOURS)
    def last_state(self, workflow: Workflow) -> str | None:
        return RunState(workflow.last_run_state).label if workflow.last_run_state else None

    @action(
        description="Run now",
        icon="send",
        variant=ActionVariant.PRIMARY,
        permissions=["send"],
        url_path="run-now",
        dialog={
            "title": "Run this workflow now?",
            "description": "Everybody in its audience gets the mail, except who is suppressed.",
            "form_class": None,
            "form_submit_text": "Run now",
        },
    )
    def run_now(self, request: HttpRequest, form: object, object_id: str) -> HttpResponse:
        return self._launch(request, object_id, None)

    @action(
        description="Test run",
        icon="science",
        permissions=["send"],
        url_path="test-run",
        dialog={
            "title": "Test this workflow?",
            "description": "The mails are made as in a real run and kept in the sandbox. Nobody gets any.",
            "form_class": TestRunForm,
            "form_submit_text": "Start the test",
        },
    )
    def test_run(self, request: HttpRequest, form: TestRunForm, object_id: str) -> HttpResponse:
        return self._launch(request, object_id, form.cleaned_data["recipients"])

    def _launch(self, request: HttpRequest, object_id: str, test_limit: int | None) -> HttpResponse:
        workflow = get_object_or_404(Workflow, pk=object_id)

        def deed() -> str:
            by = request.user.get_username()
            run = launch(workflow, trigger=Trigger.ADMIN, by=by, test_limit=test_limit)
            return reverse("admin:campaigns_run_change", args=[run.pk])

        return done(
            request,
            deed,
            "The run has been started." if test_limit is None else "The test has been started.",
            reverse("admin:campaigns_workflow_change", args=[workflow.pk]),
        )
