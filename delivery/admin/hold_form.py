"""What a person says who holds or releases an engine."""

from datetime import datetime, timedelta

from django import forms
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

LONGEST = 366 * 24 * 60  # minutes


class HoldForm(BaseDialogForm):
    """Why, and for how long."""

    why = forms.CharField(
        label="Why",
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        help_text="For those who wonder whether they may release it.",
    )
    minutes = forms.IntegerField(
        label="For so many minutes",
        min_value=1,
        max_value=LONGEST,
        required=False,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Then the hold ends by itself. Empty: until somebody releases it.",
    )

    def until(self, now: datetime) -> datetime | None:
        """When the hold ends by itself."""
        minutes = self.cleaned_data["minutes"]
        return now + timedelta(minutes=minutes) if minutes else None


class ReleaseForm(BaseDialogForm):
    """Why, if there is anything to say."""

    why = forms.CharField(label="Why", max_length=200, required=False, widget=UnfoldAdminTextInputWidget)
