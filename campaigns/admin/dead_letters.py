"""Deliveries that did not get through, and what a person can do for them. The list is delivery's; what follows for a
run is not, so the actions are added to it here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminTextInputWidget, UnfoldBooleanSwitchWidget

from campaigns.admin.dialogs import MaySend
from campaigns.exceptions import CampaignError
from campaigns.models import Run
from campaigns.replay import FAILED, by_run, consider_accepted, replay_run
from delivery.admin.deliveries import DeliveryAdmin
from delivery.exceptions import DeliveryError
from delivery.models import Delivery, DeliveryState
from delivery.queue import REPLAYED

CONFIRMED = "confirmed"
MOST = 500  # deliveries at a time by hand, five pages; all of a run are retried on its page


Deed = Callable[[Run, list[int], dict[str, object]], int]


class ReplayForm(forms.Form):
    """Why, and whether those too that may have arrived."""

    why = forms.CharField(label="Why", max_length=400, required=False, widget=UnfoldAdminTextInputWidget)
    uncertain = forms.BooleanField(
        label="Also the uncertain ones",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="They may have arrived: somebody may get the mail twice.",
    )


class ArrivedForm(forms.Form):
    """How it is known."""

    why = forms.CharField(
        label="How is that known?",
        max_length=400,
        widget=UnfoldAdminTextInputWidget,
        help_text="Such as: seen in the provider's log. Kept with each delivery.",
    )


@dataclass(frozen=True)
class Question:
    """What is asked before an action, on a page of its own; `states` are those in which a delivery has to be."""

    action: str
    title: str
    yes: str
    states: tuple[str, ...]
    form: type[forms.Form]


REPLAY = Question("replay_selected", "Send these again?", "Send again", REPLAYED, ReplayForm)
ARRIVED = Question("arrived", "Have these arrived?", "They have", (DeliveryState.UNCERTAIN,), ArrivedForm)

admin.site.unregister(Delivery)


@admin.register(Delivery)
class ReplayableDeliveryAdmin(MaySend, DeliveryAdmin):
    actions = ("replay_selected", "arrived")

    def has_record_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        """Who may send may also say what came of it."""
        return self.has_send_permission(request) or super().has_record_permission(request, object_id)

    @admin.action(description="Replay selected", permissions=["send"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        def replay(run: Run, ids: list[int], answers: dict[str, object]) -> int:
            states = REPLAYED if answers.get("uncertain") else FAILED
            return replay_run(run, request.user.get_username(), answers["why"], states=states, ids=ids)

        return self._asked(request, queryset, REPLAY, replay)

    @admin.action(description="Take uncertain ones as accepted", permissions=["send"])
    def arrived(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        def accept(run: Run, ids: list[int], answers: dict[str, object]) -> int:
            return consider_accepted(run, request.user.get_username(), ids, answers["why"])

        return self._asked(request, queryset, ARRIVED, accept)

    def _asked(
        self, request: HttpRequest, chosen: QuerySet[Delivery], question: Question, deed: Deed
    ) -> HttpResponse | None:
        """Asks first, and does it for each run when the answer comes."""
        ids = list(chosen.values_list("pk", flat=True)[: MOST + 1])
        if len(ids) > MOST:
            messages.error(request, f"That are more than {MOST:,}. All of a run are retried on the run's page.")
            return None
        rows = Delivery.objects.filter(pk__in=ids, state__in=question.states).order_by()
        counts = dict(rows.values_list("state").annotate(Count("pk")))
        if not counts:
            messages.error(request, f"None of these is {' or '.join(question.states)}.")
            return None
        form = question.form(request.POST if CONFIRMED in request.POST else None)
        if "uncertain" in form.fields and DeliveryState.UNCERTAIN not in counts:
            del form.fields["uncertain"]
        if form.is_valid():
            self._do(request, ids, lambda run, of_run: deed(run, of_run, form.cleaned_data))
            return None
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": question.title,
            "question": question,
            "counts": [(f"{n:,}", DeliveryState(state).label) for state, n in sorted(counts.items())],
            "form": form,
            "ids": ids,
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
            "confirmed": CONFIRMED,
        }
        return TemplateResponse(request, "admin/campaigns/delivery/confirm.html", context)

    def _do(self, request: HttpRequest, ids: list[int], deed: Callable[[Run, list[int]], int]) -> None:
        runs = by_run(ids)
        for run, of_run in runs.items():
            try:
                count = deed(run, of_run)
            except (CampaignError, DeliveryError) as refusal:
                messages.error(request, str(refusal))
            else:
                messages.success(request, f"{run}: {count:,} done.")
        if not runs:
            messages.error(request, "These deliveries belong to no run.")
