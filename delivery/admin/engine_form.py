"""The form of one kind of engine: the kind's own fields beside those that every engine has.

Decides how secrets pass through a form: in, never out. A stored one is kept when its field stays empty, and goes when
its box is ticked.
"""

import copy
from collections.abc import Mapping

from django import forms
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from delivery.engines import EngineKind
from delivery.exceptions import SecretUnreadable
from delivery.secrets import Sealed

# The kinds name their fields as they like, "name" among others.
OPTION = "option_"
CLEAR = "clear_"


class EngineForm(forms.ModelForm):
    """The part that all kinds share. `engine_kind` is set by `engine_form`."""

    engine_kind: EngineKind

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.instance.kind = self.engine_kind.slug
        self._stored, self._unreadable = _opened(self.instance.secrets)
        for name in self._options:
            if name in self.instance.options:
                self.initial[OPTION + name] = self.instance.options[name]
        for name in self._secrets:
            self._prepare_secret(name)
        if "sender_domains" in self.fields:  # who may only look has no fields
            self.fields["sender_domains"].widget.attrs["rows"] = 3

    @property
    def _options(self) -> list[str]:
        return [name for name in self.engine_kind.fields() if name not in self.engine_kind.secret_fields]

    @property
    def _secrets(self) -> list[str]:
        return [name for name in self.engine_kind.fields() if name in self.engine_kind.secret_fields]

    def _prepare_secret(self, name: str) -> None:
        field, clear = self.fields[OPTION + name], self.fields[CLEAR + name]
        if self._unreadable:
            field.help_text = "What is stored cannot be decrypted: enter it again."
        elif name in self._stored:
            field.required = False
            field.help_text = "Stored, and not shown. Empty: keep it."
        else:
            clear.widget = forms.HiddenInput()

    def clean(self) -> dict[str, object]:
        """Puts options and secrets on the instance, where `Engine.clean` judges them."""
        cleaned = super().clean()
        known = dict.fromkeys(self._options)
        given = {name: cleaned.get(OPTION + name) for name in known}
        kept = {name: value for name, value in self.instance.options.items() if name not in known}
        self.instance.options = kept | {name: value for name, value in given.items() if value not in ("", None)}
        try:
            self.instance.secrets = Sealed.seal(self._merged_secrets(cleaned))
        except SecretUnreadable as error:
            self.add_error(None, str(error))
        return cleaned

    def _merged_secrets(self, cleaned: Mapping[str, object]) -> dict[str, str]:
        secrets = dict(self._stored)
        for name in self._secrets:
            entered = cleaned.get(OPTION + name)
            if entered:
                secrets[name] = entered
            elif cleaned.get(CLEAR + name):
                secrets.pop(name, None)
            elif self._unreadable:
                self.add_error(OPTION + name, f"{self._unreadable} Or tick the box to forget it.")
        return secrets


def engine_form(kind: EngineKind) -> type[EngineForm]:
    """The form class for engines of one kind."""
    fields: dict[str, forms.Field] = {}
    for name, field in kind.fields().items():
        secret = name in kind.secret_fields
        fields[OPTION + name] = _dressed(field, secret=secret)
        if secret:
            label = f"Forget the stored {str(field.label).lower()}"
            fields[CLEAR + name] = forms.BooleanField(label=label, required=False, widget=UnfoldBooleanSwitchWidget())
    return type("EngineForm", (EngineForm,), {**fields, "engine_kind": kind, "__module__": __name__})


def option_fields(kind: EngineKind) -> list[str]:
    """The form's names of what is not secret, in the kind's order."""
    return [OPTION + name for name in kind.fields() if name not in kind.secret_fields]


def secret_fields(kind: EngineKind) -> list[str]:
    """The form's names of the secrets, each followed by its box."""
    return [prefix + name for name in kind.fields() if name in kind.secret_fields for prefix in (OPTION, CLEAR)]


def _opened(secrets: Sealed) -> tuple[dict[str, str], str]:
    """The stored secrets, and why they cannot be read."""
    try:
        return secrets.open(), ""
    except SecretUnreadable as error:
        return {}, str(error)


def _dressed(field: forms.Field, *, secret: bool) -> forms.Field:
    """The same field with the admin's widget."""
    field = copy.copy(field)
    if secret:
        field.widget = UnfoldAdminPasswordWidget({"autocomplete": "new-password"}, render_value=False)
    elif isinstance(field, forms.ChoiceField):
        field.widget = UnfoldAdminSelectWidget(choices=field.choices)
    elif isinstance(field, forms.BooleanField):
        field.widget = UnfoldBooleanSwitchWidget()
    elif isinstance(field, forms.FloatField | forms.DecimalField):
        field.widget = UnfoldAdminDecimalFieldWidget()
    elif isinstance(field, forms.IntegerField):
        field.widget = UnfoldAdminIntegerFieldWidget()
    elif isinstance(field.widget, forms.Textarea):
        field.widget = UnfoldAdminTextareaWidget()
    else:
        field.widget = UnfoldAdminTextInputWidget()
    field.widget.is_required = field.required
    return field
