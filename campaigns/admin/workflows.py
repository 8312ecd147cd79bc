"""Workflows: set up here, and started here."""

from django import forms
from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.admin import ModelAdmin, StackedInline
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from campaigns.admin.dialogs import MaySend, TestRunForm, done
from campaigns.admin.runs import STATE_COLOURS
from campaigns.admin.window_words import window_in_words
from campaigns.launch import launch
from campaigns.models import Run, RunState, Step, Trigger, Workflow

WINDOW_FIELDS = (
    "window_hours",
    "window_zone",
    "window_per_recipient",
    "window_zone_field",
    "holiday_country",
    "holiday_subdivision",
    "closed_dates",
)


class WorkflowForm(forms.ModelForm):
    """Says in an operator's words what the fields decide."""

    class Meta:
        labels = {
            "reply_to": "Reply-To",
            "return_path": "Return path",
            "unsubscribe": "Unsubscribe link",
            "on_uncertain": "When an answer got lost",
            "on_render_error": "When a mail cannot be made",
            "window_hours": "Hours",
            "window_zone": "Time zone",
            "window_per_recipient": "In the recipient's time zone",
            "window_zone_field": "Its field",
            "holiday_country": "Holidays of",
            "holiday_subdivision": "Part of the country",
            "closed_dates": "Closed dates",
        }


class StepInline(StackedInline):
    """The one message that a workflow has for now."""

    model = Step
    verbose_name = "message"
    verbose_name_plural = "message"
    fields = ("template",)
    autocomplete_fields = ("template",)
    min_num = max_num = 1
    extra = 0
    can_delete = False
    hide_title = True

    def get_formset(self, request: HttpRequest, obj: Workflow | None = None, **kwargs: object) -> type:
        return super().get_formset(request, obj, **{"validate_min": True, **kwargs})


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
    readonly_fields = ("window_now",)
    fieldsets = (
        (None, {"fields": ("name", "slug")}),
        ("Who gets it, and through what", {"fields": ("audience", "pool")}),
        ("From whom", {"fields": ("from_name", "from_address", "reply_to", "return_path")}),
        ("Unsubscribing", {"fields": ("unsubscribe",)}),
        ("Order and time", {"fields": ("priority", "start", "time_limit_minutes")}),
        ("When mails may go out", {"fields": WINDOW_FIELDS}),
        ("When something goes wrong", {"fields": ("on_uncertain", "on_render_error")}),
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
        """What a window comes to is said once there is one that was saved."""
        shown = super().get_fieldsets(request, obj)
        if obj is None:
            return shown
        fields = {"fields": (*WINDOW_FIELDS, "window_now")}
        return [(title, fields if options["fields"] == WINDOW_FIELDS else options) for title, options in shown]

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
