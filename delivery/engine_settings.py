"""What a person enters for an engine -> the options and credentials that it has from then on, or what is wrong.

Decides how credentials pass: in, never out. A stored one is kept when none is given, goes when it is to be forgotten or
nothing uses it any more, and does not go to whom the options lead now. Knows no form and no request.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from django import forms
from django.core.exceptions import ValidationError

from delivery.engines.kind import EngineKind, Options
from delivery.exceptions import SecretUnreadable
from delivery.redaction import HIDDEN, redacted
from delivery.secrets import Sealed

ELSEWHERE = "The settings lead elsewhere now: enter it again, for where they lead."
NO_USE = "With these settings it would not be used: say in the options how it is to be, or leave it out."
NOT_SHOWN = f"{HIDDEN} stands for what is not shown: enter it whole, or send back all of this option as it was shown."

Problems = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Stored:
    """The credentials that an engine has; `unreadable` is why they cannot be told, "" when they can."""

    secrets: Mapping[str, str]
    unreadable: str = ""

    @classmethod
    def of(cls, sealed: Sealed) -> "Stored":
        try:
            return cls(sealed.open())
        except SecretUnreadable as error:
            return cls({}, str(error))


def shown(kind: EngineKind | None, options: Options) -> dict[str, object]:
    """The options as anybody may read them: somebody may have put a credential there."""
    known = {} if kind is None else kind.fields()
    hidden = redacted(options)
    # The kind says which of its own are credentials by their name; in a text there may be one all the same.
    return {name: redacted(value) if name in known else hidden[name] for name, value in options.items()}


def judged_options(kind: EngineKind, given: Options, before: Options) -> tuple[dict[str, object], Problems]:
    """The options of an engine of this kind, as its form would take them, and what is wrong with which of them. What
    comes back as it was `shown` stays as it was."""
    fields = {name: field for name, field in kind.fields().items() if name not in kind.secret_fields}
    hidden = shown(kind, before)
    options: dict[str, object] = {}
    problems: Problems = {}
    for name, value in given.items():
        if name in before and value == hidden[name]:
            options[name] = before[name]
        elif name in kind.secret_fields:
            problems[name] = ["This is a credential: give it in `credentials`, where it is kept encrypted."]
        elif name not in fields:
            problems[name] = [f"There is no such option. There is: {', '.join(fields) or 'none'}."]
        elif HIDDEN in str(value) and HIDDEN in str(hidden.get(name)):
            problems[name] = [NOT_SHOWN]
    for name, field in fields.items():
        if name not in problems and name not in options:
            try:
                options[name] = _cleaned(field, given.get(name))
            except ValidationError as refusal:
                problems[name] = refusal.messages
    return {name: value for name, value in options.items() if value not in ("", None)}, problems


def _cleaned(field: forms.Field, value: object) -> object:
    """A value of JSON as a form's field takes it. What is left out of what is needed is as usual. Raises
    ValidationError."""
    if value is None:
        value = field.initial if field.required else None
    if value is None:
        if isinstance(field, forms.BooleanField):
            return None
        if field.required:
            raise ValidationError("This option is needed." + (f" {field.help_text}" if field.help_text else ""))
        return None
    match field:
        case forms.BooleanField():
            right, wanted = isinstance(value, bool), "true or false"
        case forms.FloatField():
            right, wanted = isinstance(value, int | float) and not isinstance(value, bool), "a number"
        case forms.IntegerField():
            right, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
        case _:
            right, wanted = isinstance(value, str), "a text"
    if not right:
        raise ValidationError(f"This is {wanted}.")
    return field.clean(value)


def merged_secrets(
    kind: EngineKind,
    stored: Stored,
    before: Options,
    after: Options,
    given: Mapping[str, str],
    forgotten: Collection[str] = (),
) -> tuple[dict[str, str], Problems]:
    """The credentials of an engine whose options change from `before` to `after`, when these are `given` and those are
    to be `forgotten`; and what is wrong with which."""
    used, was = kind.uses(after), kind.uses(before)
    secrets = dict(given)
    problems: Problems = {name: [NO_USE] for name in given if name not in used}
    for name in kind.secret_fields:
        if name in given or name in forgotten or name not in used:
            continue
        if stored.unreadable:
            problems[name] = [stored.unreadable]
        elif name in stored.secrets:
            secrets[name] = stored.secrets[name]
            if used[name] != was.get(name):
                problems[name] = [ELSEWHERE]
    return secrets, problems
