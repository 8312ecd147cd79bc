"""The kinds of engines there are, by name. A new kind is a module beside these and one line in `KINDS`."""

from delivery.engines import (
    base,
    brevo,
    django_backend,
    http_api,
    mailgun,
    postmark,
    resend,
    sandbox,
    scripted,
    sendgrid,
    ses,
    smtp_kind,
)
from delivery.engines.composers import Composer, openai
from delivery.engines.composers import mock as mock_composer
from delivery.engines.kind import EngineKind
from delivery.exceptions import EngineMisconfigured
from delivery.models import Engine

# In the order in which they are offered.
KINDS: dict[str, EngineKind] = {
    kind.slug: kind
    for kind in (
        smtp_kind.KIND,
        ses.KIND,
        sendgrid.KIND,
        mailgun.KIND,
        postmark.KIND,
        resend.KIND,
        brevo.KIND,
        http_api.KIND,
        django_backend.KIND,
        sandbox.KIND,
        scripted.KIND,
        openai.KIND,
        mock_composer.KIND,
    )
}


def kind_of(engine: Engine) -> EngineKind:
    """The kind of a stored engine. Raises EngineMisconfigured when there is no such kind."""
    try:
        return KINDS[engine.kind]
    except KeyError:
        raise EngineMisconfigured(
            f"Engine {engine.name} is of the unknown kind {engine.kind!r}; known are {', '.join(KINDS)}."
        ) from None


def composes(engine: Engine) -> bool:
    """Whether a stored engine writes mails instead of sending them."""
    return engine.kind in KINDS and KINDS[engine.kind].composes


def problems_of(engine: Engine) -> list[str]:
    """What is wrong with an engine's settings, without asking the provider; [] when nothing is."""
    if engine.kind not in KINDS:
        return [f"There is no engine kind {engine.kind!r}; known are {', '.join(KINDS)}."]
    return KINDS[engine.kind].problems(engine.options, engine.secrets.open())


def open_engine(engine: Engine) -> base.Engine | Composer:
    """The working engine behind a stored one; a Composer if that `composes`. Raises EngineMisconfigured,
    SecretUnreadable."""
    kind = kind_of(engine)
    problems = kind.problems(engine.options, engine.secrets.open())
    if problems:
        raise EngineMisconfigured(f"Engine {engine.name}: {' '.join(problems)}")
    return kind.open(engine.pk, engine.options, engine.secrets.open())
