"""The form of one kind of engine: the kind's own fields beside those that every engine has.

Decides how secrets pass through a form: in, never out. A stored one is kept when its field stays empty, and goes when
its box is ticked. Decides too what a provider's objection does: it refuses the form, unless a box says otherwise. Who
asks the provider is not its business.
"""

import copy
from collections.abc import Mapping, Sequence

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

from delivery.engine_settings import Stored, merged_secrets
from delivery.engines import EngineKind
from delivery.engines.base import Finding
from delivery.exceptions import SecretUnreadable
from delivery.secrets import Sealed

# The kinds name their fields as they like, "name" among others.
OPTION = "option_"
CLEAR = "clear_"
SAVE_ANYWAY = "save_anyway"
ENTER_AGAIN = "Enter it again: it is never sent back to a page."


class EngineForm(forms.ModelForm):
    """The part that all kinds share. `engine_kind` and `findings`, what the provider said of just these settings, are
    set by `engine_form`."""

    engine_kind: EngineKind
    findings: Sequence[Finding] = ()

    save_anyway = forms.BooleanField(
        label="Save although the provider objects",
        required=False,
        widget=UnfoldBooleanSwitchWidget(),
        help_text="For settings that are right in your eyes. Mails will fail as long as the provider objects.",
    )

    class Meta:
        labels = {
            "sender_domains": "From domains",
            "fault_threshold": "Faults that open the circuit",
            "cool_off_seconds": "Cool-off (seconds)",
            "warmup_from": "First day",
            "warmup_caps": "Mails on the first days",
            "warmup_growth": "Growth after them",
            "warmup_target": "Over at (mails a day)",
        }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.instance.kind = self.engine_kind.slug
        self._stored = Stored.of(self.instance.secrets)
        self._options_before = dict(self.instance.options)
        self._before = None if self.instance.pk is None else self._asked_about(self._stored.secrets)
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

    @property
    def is_new_to_the_provider(self) -> bool:
        """Whether a valid form holds anything that its provider has a say in and was not stored before."""
        return bool(self._stored.unreadable) or self._before != self._asked_about(self._secrets_now)

    def _asked_about(self, secrets: Mapping[str, str]) -> tuple:
        return dict(self.instance.options), dict(secrets), self.instance.domains

    def _prepare_secret(self, name: str) -> None:
        field, clear = self.fields[OPTION + name], self.fields[CLEAR + name]
        if self._stored.unreadable:
            field.help_text = "What is stored cannot be decrypted: enter it again."
        elif name in self._stored.secrets:
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
        self._secrets_now = self._merged_secrets(cleaned)
        try:
            self.instance.secrets = Sealed.seal(self._secrets_now)
        except SecretUnreadable as error:
            self.add_error(None, str(error))
        return cleaned

    def _post_clean(self) -> None:
        """The provider speaks last, when nothing else is wrong."""
        super()._post_clean()
        if self.errors or self.cleaned_data.get(SAVE_ANYWAY):
            return
        for finding in self.findings:
            if finding.certain:
                self.add_error(None, finding.words)

    def want_secrets_again(self) -> None:
        """For a form that is shown again: what was entered as a secret is not, and would be lost without a word."""
        for name in self._secrets:
            if self.data.get(self.add_prefix(OPTION + name)):
                self.add_error(OPTION + name, ENTER_AGAIN)

    def _merged_secrets(self, cleaned: Mapping[str, object]) -> dict[str, str]:
        entered = {name: cleaned[OPTION + name] for name in self._secrets if cleaned.get(OPTION + name)}
        forgotten = [name for name in self._secrets if cleaned.get(CLEAR + name)]
        secrets, problems = merged_secrets(
            self.engine_kind, self._stored, self._options_before, self.instance.options, entered, forgotten
        )
        for name, sentences in problems.items():
            hint = "" if name in entered else " Or tick the box to forget it."
            self.add_error(OPTION + name, " ".join(sentences) + hint)
        return secrets


def engine_form(kind: EngineKind, findings: Sequence[Finding] = ()) -> type[EngineForm]:
    """The form class for engines of one kind, with what the provider said of what is being entered."""
    fields: dict[str, forms.Field] = {}
    for name, field in kind.fields().items():
        secret = name in kind.secret_fields
        fields[OPTION + name] = _dressed(field, secret=secret)
        if secret:
            label = f"Forget the stored {str(field.label).lower()}"
            fields[CLEAR + name] = forms.BooleanField(label=label, required=False, widget=UnfoldBooleanSwitchWidget())
    own = {"engine_kind": kind, "findings": tuple(findings), "__module__": __name__}
    return type("EngineForm", (EngineForm,), {**fields, **own})


def option_fields(kind: EngineKind) -> list[str]:
    """The form's names of what is not secret, in the kind's order."""
    return [OPTION + name for name in kind.fields() if name not in kind.secret_fields]


def secret_fields(kind: EngineKind) -> list[str]:
    """The form's names of the secrets, each followed by its box."""
    return [prefix + name for name in kind.fields() if name in kind.secret_fields for prefix in (OPTION, CLEAR)]


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
        field.widget = UnfoldAdminTextareaWidget({"rows": 9, "class": "outreach-source", "spellcheck": "false"})
    else:
        field.widget = UnfoldAdminTextInputWidget()
    field.widget.is_required = field.required
    return field
