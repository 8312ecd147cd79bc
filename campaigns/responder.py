"""An example: inbound emails of an HTTP endpoint are answered there, each just before its deadline and in their order.

What it takes is set up once, by name, and can be looked at and changed in the admin; later calls set what they are told
and leave the rest as it is. The endpoint gives the emails at /emails and takes answers at /responses.
"""

from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import models, transaction

from campaigns.authoring import save_version
from campaigns.models import Audience, AudienceKind, Step, Template, Workflow
from delivery.models import Engine, Pool, PoolMember
from delivery.secrets import Sealed

Row = TypeVar("Row", bound=models.Model)

SLUG = "responder"
NAME = "Example: responder"
COMPOSER_SLUG = "responder-composer"
KEY_NAME = "X-Api-Key"
TEST_FLAG = "test=true"

# The emails name no address, and an answer needs none: each is a recipient of its own, by its id.
FIELDS = """\
id = id
id_as_given = id : json
subject = subject : optional
body = body : optional
deadline = deadline : optional datetime
dependencies = dependencies : optional list
address = "email-{id}@responder.invalid"
"""
PROMPT = """\
Answer this email in a few friendly sentences, in the language in which it is written.

Subject: {{ subject }}

{{ body }}
"""
ANSWER_SUBJECT = "Re: {{ subject }}"
# What goes when nothing could be composed in time.
ANSWER_TEXT = "Thank you for your email. We have read it, and somebody will come back to you.\n"
ANSWER = """\
{
  "id": "{{ data.id_as_given }}",
  "subject": "{{ subject }}",
  "body": "{{ text }}"
}
"""
# What the endpoint refuses is recorded and not tried again; that is nobody's fault but the answer's.
RULES = "4xx: message"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the emails are and the answers go. `key_name`: the header of the API key. `test`: only emails for tests are
    asked for."""

    url: str
    key: str = field(repr=False)
    key_name: str = KEY_NAME
    test: bool = False

    @property
    def emails(self) -> dict[str, object]:
        """What an audience has to know of it."""
        return {**self._at("emails"), "parameters": TEST_FLAG if self.test else ""}

    @property
    def responses(self) -> dict[str, object]:
        """What an engine has to know of it."""
        return self._at("responses")

    @property
    def secrets(self) -> Sealed:
        return Sealed.seal({"credential": self.key})

    def _at(self, place: str) -> dict[str, object]:
        return {"url": f"{self.url.rstrip('/')}/{place}", "auth": "header", "key_name": self.key_name}


@transaction.atomic
def set_up(
    endpoint: Endpoint, *, lead: float = 0.5, on_failed: str = "skip", seed: str = "1", composer: Engine | None = None
) -> Workflow:
    """The example's workflow and all it needs. `lead`: seconds before its deadline that an answer goes. `on_failed`:
    whether what depends on an email that could not be answered is skipped or released. `composer`: who writes the
    answers; without one the mock model does, by `seed`. Raises ValidationError for what cannot work."""
    _refuse_bad_address(endpoint.url)
    audience, pool = _audience(endpoint), _pool(_engine(endpoint))
    workflow = Workflow.objects.filter(slug=SLUG).first() or Workflow(
        slug=SLUG,
        name=NAME,
        audience=audience,
        pool=pool,
        from_name="Responder",
        from_address="answers@responder.invalid",
        unsubscribe=False,
        start="checked",
        gap_microseconds=100,
    )
    _save(workflow, on_failed=on_failed)
    step = Step.objects.filter(workflow=workflow, position=1).first() or Step(
        workflow=workflow, position=1, template=_template(), prompt=PROMPT, on_late="expire"
    )
    _save(step, lead_seconds=lead, composer=composer or _mock_composer(seed))
    return workflow


def _refuse_bad_address(url: str) -> None:
    """What is added to it must be a path; the rest is judged where it is used."""
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValidationError(f"“{url}” has a query or a #: give the address alone, such as https://mail.example/api.")


def _audience(endpoint: Endpoint) -> Audience:
    audience = Audience.objects.filter(slug=SLUG).first() or Audience(
        slug=SLUG,
        name=NAME,
        kind=AudienceKind.HTTP,
        options={"fields": FIELDS},
        address_field="address",
        key_field="id",
        depends_field="dependencies",
        deadline_field="deadline",
    )
    return _save(audience, options={**audience.options, **endpoint.emails}, secrets=endpoint.secrets)


def _engine(endpoint: Endpoint) -> Engine:
    engine = Engine.objects.filter(slug=SLUG).first() or Engine(
        slug=SLUG,
        name=NAME,
        kind="http",
        options={"body": ANSWER, "rules": RULES, "concurrency": 50, "timeout": 30},
        # Many answers are on their way at once: some that fail together are no reason to keep the others from going.
        fault_threshold=50,
        cool_off_seconds=1,
    )
    return _save(engine, options={**engine.options, **endpoint.responses}, secrets=endpoint.secrets)


def _pool(engine: Engine) -> Pool:
    pool, _ = Pool.objects.get_or_create(
        slug=SLUG,
        defaults={
            "name": NAME,
            "backoff": "exponential",
            "first_wait_seconds": 1,
            "factor": 2.0,
            "longest_wait_seconds": 30,
            "jitter_percent": 20,
        },
    )
    PoolMember.objects.get_or_create(pool=pool, engine=engine)
    return pool


def _template() -> Template:
    template, made = Template.objects.get_or_create(slug=SLUG, defaults={"name": NAME})
    if made:
        save_version(template, subject=ANSWER_SUBJECT, text=ANSWER_TEXT, html="")
    return template


def _mock_composer(seed: str) -> Engine:
    engine = Engine.objects.filter(slug=COMPOSER_SLUG).first() or Engine(
        slug=COMPOSER_SLUG, name=f"{NAME} (mock model)", kind="mock_composer"
    )
    return _save(engine, options={**engine.options, "seed": seed})


def _save(row: Row, **values: object) -> Row:
    """The row with these values. Raises ValidationError."""
    for name, value in values.items():
        setattr(row, name, value)
    row.full_clean()
    row.save()
    return row
