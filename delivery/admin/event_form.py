"""What a person tells of a delivery: what was heard of it, when, and from where that is known."""

from datetime import datetime

from django import forms
from django.utils.timezone import now
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from delivery.models import EventKind


class InstantWidget(UnfoldAdminTextInputWidget):
    """The browser's own: a dialog is put into a page whose scripts have run already."""

    input_type = "datetime-local"


class EventForm(BaseDialogForm):
    """One event."""

    kind = forms.ChoiceField(
        label="What was heard",
        choices=EventKind.choices,
        initial=EventKind.REPLIED,
        widget=UnfoldAdminSelectWidget(choices=EventKind.choices),
    )
    at = forms.DateTimeField(
        label="When",
        required=False,
        widget=InstantWidget,
        help_text="By this installation's clock, as everywhere on these pages. Empty: now.",
    )
    source = forms.CharField(
        label="How is that known?",
        max_length=180,
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Such as: seen in the mailbox.",
    )

    def clean_at(self) -> datetime:
        at = self.cleaned_data["at"] or now()
        if at > now():
            raise forms.ValidationError("This is in the future. A good one is the time at which the reply came.")
        return at
