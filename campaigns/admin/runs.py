"""Runs: followed here, and paused, resumed or cancelled. Nothing else about them is changed by hand."""

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, QuerySet, Subquery, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from campaigns import control
from campaigns.admin.accounting import accounting_of
from campaigns.admin.dialogs import MaySend, ReasonForm, RetryForm, done
from campaigns.admin.exports import ExportsRuns
from campaigns.admin.step_accounting import asides_of, has_steps, is_small, steps_of
from campaigns.callbacks.status import counts_of
from campaigns.models import CallbackState, Run, RunProblem, RunState
from campaigns.replay import FAILED, may_replay, replay_run
from campaigns.transitions import legal_moves
from delivery.admin.keyset import KeysetList
from delivery.admin.readonly import ReadOnly
from delivery.models import DeliveryState, Tally

STATE_COLOURS = {
    "queued": "info",
    "initializing": "info",
    "sending": "primary",
    "paused": "warning",
    "completed": "success",
    "failed": "danger",
}
LISTED_PROBLEMS = 50


@admin.register(Run)
class RunAdmin(ExportsRuns, MaySend, ReadOnly, ModelAdmin):
    list_display = ("run_name", "state_badge", "workflow_name", "trigger_words", "created_at", "progress_bar")
    list_display_links = ("run_name",)
    list_filter = ("state", "workflow", "trigger")
    list_select_related = ("workflow", "batch")
    list_per_page = 50
    empty_hint = "A run is one execution of a workflow. Open a workflow and choose “Test run” or “Run now”."
    change_form_template = "admin/campaigns/run/change_form.html"
    fields = ("workflow",)
    actions_detail = ("resume", "pause", "retry_failed", "cancel", "export_deliveries")
    actions_list = ("export_runs",)
    moves = {"pause": RunState.PAUSED, "resume": RunState.SENDING, "cancel": RunState.CANCELLED}

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        ended = Tally.objects.filter(batch=OuterRef("batch"), state__in=DeliveryState.values).order_by().values("batch")
        return super().get_queryset(request).annotate(ended=Subquery(ended.annotate(n=Sum("count")).values("n")))

    @display(description="Run", ordering="pk")
    def run_name(self, run: Run) -> str:
        return f"Run {run.pk}" + (" (test)" if run.test_limit else "")

    @display(description="State", ordering="state", label=STATE_COLOURS)
    def state_badge(self, run: Run) -> str:
        return run.get_state_display()

    @display(description="Workflow", ordering="workflow__name")
    def workflow_name(self, run: Run) -> str:
        return run.workflow.name

    @display(description="Started by")
    def trigger_words(self, run: Run) -> str:
        return f"{run.get_trigger_display()}: {run.triggered_by}" if run.triggered_by else run.get_trigger_display()

    @display(description="Progress")
    def progress_bar(self, run: Run) -> SafeString | str:
        total = run.batch.size if run.batch else 0
        if not total:
            return "-"
        ended = run.ended or 0
        return format_html(
            '<span class="outreach-bar outreach-bar-small"><span class="outreach-bar-success" style="width:{}%">'
            "</span></span> {} of {}",
            f"{100 * ended / total:.1f}",
            f"{ended:,}",
            f"{total:,}",
        )

    # ---- the page of one run ----

    def get_urls(self) -> list[URLPattern]:
        live = path("<int:pk>/progress/", self.admin_site.admin_view(self.progress_view), name="campaigns_run_progress")
        steps = path("<int:pk>/steps/", self.admin_site.admin_view(self.steps_view), name="campaigns_run_steps")
        return [live, steps, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict | None = None
    ) -> HttpResponse:
        run = self.get_object(request, object_id)
        shown = _page_of(run) if run and self.has_view_permission(request, run) else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})

    def progress_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The part of the page that moves. In another state than the page was made in, the whole page is made anew:
        the actions and the history have changed with it."""
        run = get_object_or_404(Run.objects.select_related("batch"), pk=pk)
        if not self.has_view_permission(request, run):
            raise PermissionDenied
        response = render(request, "admin/campaigns/run/progress.html", _progress_of(run))
        if request.GET.get("state") not in (None, run.state):
            response["HX-Refresh"] = "true"
        return response

    def steps_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The steps of a large run, whose mails take a moment to count: the page does not wait for it."""
        run = get_object_or_404(Run.objects.select_related("batch"), pk=pk)
        if not self.has_view_permission(request, run):
            raise PermissionDenied
        if not has_steps(run) or is_small(run):
            return HttpResponse()
        return render(request, "admin/campaigns/run/steps.html", {"steps": steps_of(run), "steps_kept": True})

    # ---- what a person may do ----

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[UnfoldAction]:
        """Those that are legal in the run's state."""
        run = Run.objects.filter(pk=object_id).first()
        state = run.state if run else None
        legal = legal_moves(state)
        allowed = {f"campaigns_run_{name}" for name, target in self.moves.items() if target in legal}
        if state != RunState.PAUSED:
            allowed.discard("campaigns_run_resume")  # initializing leads to sending, too, but not by hand
        if run and may_replay(run):
            allowed.add("campaigns_run_retry_failed")
        if run and run.batch_id:
            allowed.add("campaigns_run_export_deliveries")
        return [shown for shown in super().get_actions_detail(request, object_id) if shown.action_name in allowed]

    @action(
        description="Pause",
        icon="pause",
        permissions=["send"],
        dialog={
            "title": "Pause this run?",
            "description": "What is being handed over at this moment still goes out; nothing after it does.",
            "form_class": ReasonForm,
            "form_submit_text": "Pause",
        },
    )
    def pause(self, request: HttpRequest, form: ReasonForm, object_id: str) -> HttpResponse:
        return self._control(request, object_id, control.pause, "The run is paused.", form.cleaned_data["why"])

    @action(
        description="Resume",
        icon="play_arrow",
        variant=ActionVariant.PRIMARY,
        permissions=["send"],
        dialog={
            "title": "Resume this run?",
            "description": "It goes on where it stopped.",
            "form_class": ReasonForm,
            "form_submit_text": "Resume",
        },
    )
    def resume(self, request: HttpRequest, form: ReasonForm, object_id: str) -> HttpResponse:
        return self._control(request, object_id, control.resume, "The run goes on.", form.cleaned_data["why"])

    @action(
        description="Cancel",
        icon="stop",
        variant=ActionVariant.DANGER,
        permissions=["send"],
        dialog={
            "title": "Cancel this run?",
            "description": "Who has not got the mail yet will not get it. A cancelled run cannot be resumed.",
            "form_class": ReasonForm,
            "form_submit_text": "Cancel the run",
        },
    )
    def cancel(self, request: HttpRequest, form: ReasonForm, object_id: str) -> HttpResponse:
        return self._control(request, object_id, control.cancel, "The run is cancelled.", form.cleaned_data["why"])

    @action(
        description="Retry failed",
        icon="replay",
        permissions=["send"],
        dialog={
            "title": "Send what failed again?",
            "description": "Each goes out again in its place, as if it had never been tried; nobody who has the mail "
            "gets it again. Suppressed addresses stay suppressed.",
            "form_class": RetryForm,
            "form_submit_text": "Retry",
        },
    )
    def retry_failed(self, request: HttpRequest, form: RetryForm, object_id: str) -> HttpResponse:
        states = (*FAILED, DeliveryState.UNCERTAIN) if form.cleaned_data.get("uncertain") else FAILED

        def retry(run: Run, by: str, why: str) -> None:
            replay_run(run, by, why, states=states)

        return self._control(request, object_id, retry, "What failed goes out again.", form.cleaned_data["why"])

    def _control(self, request: HttpRequest, object_id: str, deed: object, success: str, why: str) -> HttpResponse:
        run = get_object_or_404(Run, pk=object_id)
        url = reverse("admin:campaigns_run_change", args=[run.pk])
        return done(request, lambda: deed(run, request.user.get_username(), why), success, url)


def _progress_of(run: Run) -> dict[str, object]:
    shown = has_steps(run)
    small = shown and is_small(run)
    return {
        "run": run,
        "accounting": accounting_of(run),
        "rows_read": f"{run.rows_read:,}",
        "asides": asides_of(run),
        "steps": steps_of(run) if small else None,
        # One that goes on may become large while somebody looks.
        "steps_apart": shown and not (small and run.is_over),
    }


def _page_of(run: Run) -> dict[str, object]:
    problems = reverse("admin:campaigns_runproblem_changelist") + f"?run__id__exact={run.pk}"
    reasons = sorted(run.problem_counts.items(), key=lambda item: (-item[1], item[0]))
    total = sum(run.problem_counts.values())
    return {
        **_progress_of(run),
        "state_colour": STATE_COLOURS.get(run.state, "default"),
        "workflow_url": reverse("admin:campaigns_workflow_change", args=[run.workflow_id]),
        "sandbox_url": reverse("admin:delivery_keptmail_changelist"),
        "problems": run.problems.all()[:LISTED_PROBLEMS],
        "problems_url": problems,
        "problem_counts": [(reason.replace("_", " "), f"{count:,}") for reason, count in reasons],
        "problem_total": total,
        "problem_total_text": f"{total:,}",
        "events": run.events.all(),
        "callbacks": [(f"{n:,}", CallbackState(state).label) for state, n in sorted(counts_of(run.pk).items())],
        "callbacks_url": reverse("admin:campaigns_callback_changelist") + f"?run__id__exact={run.pk}",
    }


@admin.register(RunProblem)
class RunProblemAdmin(KeysetList, ReadOnly, ModelAdmin):
    """The rows of audiences that got no mail, with their reasons."""

    list_display = ("position", "address", "reason", "detail", "kind")
    list_filter = ("kind",)
    search_fields = ("address__startswith",)
    search_help_text = "An address, or its beginning"
    empty_hint = "No row of the audience was left out."
    fields = ("run", "position", "address", "kind", "reason", "detail")
