"""What every object action with a dialog does around its deed: who did it, what was refused, where to go then."""

from collections.abc import Callable

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget, UnfoldBooleanSwitchWidget

from campaigns.exceptions import CampaignError
from campaigns.models import Run
from campaigns.replay import replayable
from delivery.admin.redirects import go_to
from delivery.exceptions import DeliveryError
from delivery.models import DeliveryState

MOST_TEST_RECIPIENTS = 1000


class TestRunForm(BaseDialogForm):
    """How many recipients a test takes."""

    recipients = forms.IntegerField(
        label="Recipients",
        min_value=1,
        max_value=MOST_TEST_RECIPIENTS,
        initial=10,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Taken from the beginning of the audience.",
    )


class ReasonForm(BaseDialogForm):
    """Why something is done; kept in the run's history."""

    why = forms.CharField(label="Why", max_length=500, required=False, widget=UnfoldAdminTextInputWidget)


class RetryForm(ReasonForm):
    """What of a run's failures is sent again. Says how many there are."""

    form_before_template = "admin/campaigns/run/failed.html"

    uncertain = forms.BooleanField(
        label="Also the uncertain ones",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="They may have arrived: somebody may get the mail twice.",
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        run = Run.objects.filter(pk=self.object_id).first()
        self._failed = replayable(run) if run else {}
        if DeliveryState.UNCERTAIN not in self._failed:
            del self.fields["uncertain"]

    def get_before_template_context(self, request: HttpRequest, object_id: object = None) -> dict[str, object]:
        return {"failed": [(f"{n:,}", DeliveryState(state).label) for state, n in self._failed.items()]}


class MaySend:
    """Mixed into a ModelAdmin with actions that ask for the permission "send"."""

    def has_send_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        # Not written as "campaigns.send_workflow" at the action: unfold would then look that up in the database in a
        # system check, and `migrate` checks before there are tables.
        return request.user.has_perm("campaigns.send_workflow")


def done(request: HttpRequest, deed: Callable[[], str | None], success: str, url: str) -> HttpResponse:
    """Does it, says so, and leads to the page that `deed` returns, else to `url`. A refusal is shown there, too."""
    try:
        url = deed() or url
    except (CampaignError, DeliveryError) as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, success)
    return go_to(request, url)
