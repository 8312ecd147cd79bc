"""Requests for runs: a table of how each was asked for, how long that took, and what came of it."""

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from campaigns.admin.runs import STATE_COLOURS
from campaigns.callbacks import status_of
from campaigns.models import Outcome, RunRequest
from delivery.admin.keyset import KeysetChangeList, KeysetList
from delivery.admin.readonly import ReadOnly

OUTCOME_COLOURS = {"started": "success", "repeated": "info", "refused": "danger"}
CALLBACK_COLOURS = {"delivered": "success", "waiting": "info", "dead": "danger"}


class RequestList(KeysetChangeList):
    """Asks once for the callbacks of a page."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        callbacks = status_of([row.run_id for row in self.result_list if row.run_id])
        for row in self.result_list:
            row.callback = callbacks.get(row.run_id)


@admin.register(RunRequest)
class RunRequestAdmin(KeysetList, ReadOnly, ModelAdmin):
    list_display = ("at", "mode_words", "outcome_badge", "workflow", "run_link", "run_state", "took", "callback", "by")
    list_display_links = ("at",)
    list_filter = ("mode", "outcome", "workflow")
    list_select_related = ("workflow", "run")
    empty_hint = "Whoever asks for a run, over the API, here, by a schedule or a command, is listed here."
    fields = (
        "at", "mode", "outcome", "words", "workflow", "run_link", "by", "recipients", "seconds", "key", "request_id"
    )  # fmt: skip

    def get_changelist(self, request: HttpRequest, **kwargs: object) -> type[RequestList]:
        return RequestList

    @display(description="Asked by")
    def mode_words(self, asked: RunRequest) -> str:
        return asked.get_mode_display()

    @display(description="Outcome", label=OUTCOME_COLOURS)
    def outcome_badge(self, asked: RunRequest) -> tuple[str, str]:
        return asked.outcome, asked.get_outcome_display()

    @display(description="Run")
    def run_link(self, asked: RunRequest) -> SafeString | str:
        if asked.run_id is None:
            return asked.words or "-"
        return format_html(
            '<a href="{}">Run {}</a>', reverse("admin:campaigns_run_change", args=[asked.run_id]), asked.run_id
        )

    @display(description="State", label=STATE_COLOURS)
    def run_state(self, asked: RunRequest) -> tuple[str, str] | None:
        return (asked.run.state, asked.run.get_state_display()) if asked.run else None

    @display(description="Took")
    def took(self, asked: RunRequest) -> str:
        """How long the run took; of one that was waited for, how long the answer did."""
        if asked.run and asked.run.ended_at and asked.outcome == Outcome.STARTED:
            return f"{(asked.run.ended_at - asked.run.created_at).total_seconds():.1f} s"
        return "-" if asked.seconds is None else f"answered in {asked.seconds:.2f} s"

    @display(description="Callback", label=CALLBACK_COLOURS)
    def callback(self, asked: RunRequest) -> str | None:
        return getattr(asked, "callback", None)
