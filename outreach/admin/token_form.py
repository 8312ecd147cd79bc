"""What is asked for when a token is made."""

from django import forms
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from outreach.models import ApiToken, Scope


def may_be_given_to(request: HttpRequest) -> QuerySet:
    """Whose rights a token made by this person may have: his own; those of whom he could log in as anyway."""
    users = get_user_model().objects.filter(is_active=True)
    if request.user.is_superuser:
        return users
    if request.user.has_perm("auth.change_user"):
        return users.filter(is_superuser=False)
    return users.filter(pk=request.user.pk)


class TokenForm(forms.ModelForm):
    """Refuses what has expired already."""

    scopes = forms.MultipleChoiceField(
        choices=Scope.choices,
        initial=[Scope.READ],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="What it may be used for, of what its user may do.",
    )

    class Meta:
        model = ApiToken
        fields = ("name", "user", "scopes", "expires_at")

    def clean_expires_at(self) -> object:
        expires_at = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise forms.ValidationError("This is over. Leave it empty for a token that is valid until it is revoked.")
        return expires_at
