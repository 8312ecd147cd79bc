"""Stops the process when the environment is wrong: one system check error for each bad variable."""

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register()
def environment_is_valid(app_configs: object, **kwargs: object) -> list[CheckMessage]:
    """outreach.E001: an environment variable that cannot be used."""
    return [
        Error(f"The environment variable {p.variable} must be {p.expected}.", hint=p.hint or None, id="outreach.E001")
        for p in settings.ENVIRONMENT_PROBLEMS
    ]


def refuse_to_serve_with_problems() -> None:
    """For the servers, which run no system checks: ends the process with the first lines an operator needs."""
    problems = environment_is_valid(None)
    if problems:
        raise SystemExit("\n".join(f"{p.msg} {p.hint or ''} ({p.id})" for p in problems))
