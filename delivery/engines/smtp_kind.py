"""SMTP as a kind of engine: its form fields and their way into SmtpSettings."""

from dataclasses import fields as dataclass_fields

from django import forms

from delivery.engines.kind import EngineKind, Options, Secrets
from delivery.engines.smtp.engine import SmtpEngine, SmtpSettings, validate
from delivery.mime import Builder

SECURITY = [
    ("starttls", "STARTTLS (port 587)"),
    ("tls", "TLS from the start (port 465)"),
    ("none", "none: only for a server on this host or a trusted network"),
]


def _fields() -> dict[str, forms.Field]:
    return {
        "host": forms.CharField(label="Host", max_length=255, help_text="Such as smtp.example.com."),
        "port": forms.IntegerField(label="Port", min_value=1, max_value=65535, initial=587),
        "security": forms.ChoiceField(label="Encryption", choices=SECURITY, initial="starttls"),
        "username": forms.CharField(label="User name", max_length=255, required=False),
        "password": forms.CharField(label="Password", max_length=2000, required=False),
        "max_connections": forms.IntegerField(
            label="Connections",
            min_value=1,
            max_value=100,
            initial=10,
            help_text="How many are kept open at most, for each worker process.",
        ),
        "max_messages_per_connection": forms.IntegerField(
            label="Messages per connection",
            min_value=0,
            initial=100,
            help_text="A connection is closed after so many. 0: no limit.",
        ),
        "helo_name": forms.CharField(
            label="Name in EHLO", max_length=255, required=False, help_text="Empty: this host's name."
        ),
    }


def _settings(options: Options, secrets: Secrets) -> SmtpSettings:
    known = {field.name for field in dataclass_fields(SmtpSettings)}
    given = {**options, **secrets}
    return SmtpSettings(**{name: value for name, value in given.items() if name in known and value not in ("", None)})


def _problems(options: Options, secrets: Secrets) -> list[str]:
    if not options.get("host"):
        return ["The host is missing."]
    return validate(_settings(options, secrets))


def _open(engine_id: int, options: Options, secrets: Secrets) -> SmtpEngine:
    return SmtpEngine(_settings(options, secrets), Builder())


def _uses(options: Options) -> dict[str, object]:
    return {"password": str(options.get("host") or "").lower()} if options.get("username") else {}


KIND = EngineKind(
    "smtp",
    "SMTP",
    _fields,
    frozenset({"password"}),
    _problems,
    _open,
    hint="Any mail server, yours or a provider's: host, port and login.",
    uses=_uses,
)
