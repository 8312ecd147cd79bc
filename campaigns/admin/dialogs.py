"""What every object action with a dialog does around its deed: who did it, what was refused, where to go then."""

from collections.abc import Callable

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from campaigns.exceptions import CampaignError
from delivery.admin.redirects import go_to
from delivery.exceptions import DeliveryError

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
