"""Django's email backends as a kind of engine: which are configured, and the engine of one of them."""

import re
from base64 import b64encode
from collections.abc import Mapping

from django import forms
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.module_loading import import_string

from delivery.conf import conf
from delivery.engines.api_fields import out_of_range
from delivery.engines.django_backend.engine import DjangoEngine
from delivery.engines.kind import EngineKind, Options, Secrets
from delivery.engines.provider import SHORTEST_SECRET

_SECRET_NAME = re.compile("pass|secret|token|key|credential", re.IGNORECASE)
_HINT = "Name it in OUTREACH_DJANGO_BACKENDS."


def make_backend(name: str) -> BaseEmailBackend:
    """A new object of the backend that the settings have under this name."""
    path, options = conf().django_backends[name]
    return import_string(path)(**options)


def _choices() -> list[tuple[str, str]]:
    return [(name, f"{name} ({path})") for name, (path, _) in conf().django_backends.items()]


def _number(label: str, low: int, high: int, initial: int, help_text: str) -> forms.IntegerField:
    return forms.IntegerField(
        label=label, min_value=low, max_value=high, initial=initial, required=False, help_text=help_text
    )


def _fields() -> dict[str, forms.Field]:
    return {
        "backend": forms.ChoiceField(
            label="Backend", choices=_choices(), help_text=f"With its options, from the settings. {_HINT}"
        ),
        "threads": _number(
            "Connections", 1, 50, 4, "How many are kept open at most, each in a thread, for each worker process."
        ),
        "mails_per_connection": _number(
            "Mails per connection", 0, 1_000_000, 100, "A connection is closed after so many. 0: no limit."
        ),
        "patience": _number(
            "Patience (seconds)",
            5,
            600,
            60,
            "How long a mail is waited for. Too short makes mails uncertain that were accepted.",
        ),
    }


def _problems(options: Options, secrets: Secrets) -> list[str]:
    name = str(options.get("backend") or "")
    known = conf().django_backends
    if name not in known:
        what = f"There is no backend “{name}”" if name else "The backend is missing"
        return [f"{what}; there are {', '.join(known)}. {_HINT}"]
    problems = out_of_range(options, "threads", 1, 50) + out_of_range(options, "patience", 5, 600)
    problems += out_of_range(options, "mails_per_connection", 0, 1_000_000)
    try:
        make_backend(name)
    except Exception as error:  # whatever a backend raises, it cannot be used
        words = _without(_secrets_of(known[name][1]), str(error))
        problems.append(f"The backend “{name}” cannot be made: {type(error).__name__}: {words}")
    return problems


def _secrets_of(options: Mapping[str, object]) -> list[str]:
    """The options that are credentials by their name, also as a login over SMTP spells them."""
    named = [str(value) for name, value in options.items() if _SECRET_NAME.search(name) and isinstance(value, str)]
    long = [value for value in named if len(value) >= SHORTEST_SECRET]
    pairs = [f"\0{options.get('username', '')}\0{value}" for value in long]  # RFC 4616
    return [*long, *(b64encode(each.encode()).decode() for each in (*long, *pairs))]


def _without(secrets: list[str], words: str) -> str:
    for secret in secrets:
        words = words.replace(secret, "…")
    return words


def _open(engine_id: int, options: Options, secrets: Secrets) -> DjangoEngine:
    name = str(options["backend"])
    given = {key: options[key] for key in ("threads", "mails_per_connection", "patience") if key in options}
    return DjangoEngine(lambda: make_backend(name), secrets=_secrets_of(conf().django_backends[name][1]), **given)


KIND = EngineKind(
    "django",
    "Django email backend",
    _fields,
    frozenset(),
    _problems,
    _open,
    hint="A backend that the settings name, django-anymail's among them.",
)
