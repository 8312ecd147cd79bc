"""The first page: what is running, how the engines are, and what to do first on a fresh installation."""

from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import reverse

from campaigns.admin.accounting import Accounting, accounting_of
from campaigns.admin.runs import STATE_COLOURS
from campaigns.models import Audience, Run, Template, Webhook, Workflow
from delivery.admin.conditions import NOT_KNOWN, look_at
from delivery.admin.engine_words import CIRCUIT_COLOURS, CIRCUIT_WORDS, pace
from delivery.models import Engine, Pool

LATEST_RUNS = 8


@dataclass(frozen=True, slots=True)
class FirstStep:
    """One thing to do before the first run, and whether it is done."""

    title: str
    explanation: str
    url: str
    done: bool


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run as the dashboard shows it."""

    run: Run
    url: str
    colour: str
    accounting: Accounting | None


@dataclass(frozen=True, slots=True)
class WebhookLine:
    """A webhook that was switched off because nobody answered."""

    webhook: Webhook
    url: str


@dataclass(frozen=True, slots=True)
class EngineLine:
    """An engine as the dashboard shows it."""

    engine: Engine
    url: str
    circuit: str
    colour: str
    pace: str
    error: str


def dashboard(request: HttpRequest, context: dict[str, object]) -> dict[str, object]:
    """Adds to the context of the first page what this person may see."""
    may_view = request.user.has_perm
    if may_view("campaigns.view_workflow") and not Workflow.objects.exists():
        context["first_steps"] = _first_steps()
    if may_view("campaigns.view_webhook"):
        context["webhooks_off"] = [_webhook_line(each) for each in Webhook.objects.exclude(switched_off_why="")]
    if may_view("campaigns.view_run"):
        context["runs"] = [_run_line(run) for run in Run.objects.select_related("workflow", "batch")[:LATEST_RUNS]]
    if may_view("delivery.view_engine"):
        engines = list(Engine.objects.all())
        context["engines_away"] = look_at(engines)
        context["engines"] = [_engine_line(engine) for engine in engines]
    return context


def _first_steps() -> list[FirstStep]:
    steps = [
        (Engine, "Add an engine", "One way out, such as an SMTP server. The sandbox keeps every mail and sends none."),
        (Pool, "Add a pool", "Engines in order: the first sends, the next takes over when it fails."),
        (Template, "Write a template", "Subject, text and HTML, with variables from the audience's fields."),
        (Audience, "Add an audience", "Who gets mail: a contact list, a CSV file or an SQL query."),
        (Workflow, "Add a workflow", "It joins the four. Then start a test run from its page."),
    ]
    return [
        FirstStep(
            title,
            explanation,
            reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_add"),
            model.objects.exists(),
        )
        for model, title, explanation in steps
    ]


def _webhook_line(webhook: Webhook) -> WebhookLine:
    return WebhookLine(webhook, reverse("admin:campaigns_webhook_change", args=[webhook.pk]))


def _run_line(run: Run) -> RunLine:
    url = reverse("admin:campaigns_run_change", args=[run.pk])
    return RunLine(run, url, STATE_COLOURS.get(run.state, "default"), accounting_of(run))


def _engine_line(engine: Engine) -> EngineLine:
    url = reverse("admin:delivery_engine_change", args=[engine.pk])
    condition = engine.condition
    if condition is None:
        return EngineLine(engine, url, NOT_KNOWN, "default", NOT_KNOWN, "")
    circuit = CIRCUIT_WORDS[condition.breaker.state]
    return EngineLine(engine, url, circuit, CIRCUIT_COLOURS[circuit], pace(condition), condition.last_error)
