"""What a run will send and how, as it is when the run begins: later changes of workflow, template or pool are for later
runs."""

import secrets

from django.utils import timezone
from django.utils.text import slugify

from campaigns.exceptions import BadWindow, NotReady
from campaigns.models import Run, TemplateVersion, Workflow
from delivery.core.window import Window
from delivery.models import Batch, Engine, Message, Pool, PoolMember

SANDBOX = "sandbox"  # the slug of the pool and engine that tests go to


def freeze(run: Run) -> tuple[Batch, Message, dict[str, object]]:
    """Writes the batch and the message of a run; the third is what the run is to remember of its settings. Part of the
    caller's transaction. Raises NotReady."""
    workflow = run.workflow
    version = _version(workflow)
    pool = _sandbox() if run.test_limit else workflow.pool
    _refuse_pool(pool, workflow.from_address.rpartition("@")[2].lower())
    # What goes to the sandbox disturbs nobody, and whoever tests at night wants to see it at night.
    window = None if run.test_limit else _window(workflow)
    batch = Batch.objects.create(
        label=f"{workflow.name}, run {run.pk}",
        reference=run.correlation_id,
        scope=workflow.slug,
        pool=pool,
        priority=workflow.priority,
        uncertain_policy=workflow.on_uncertain,
    )
    message = Message.objects.create(
        batch=batch,
        token=secrets.token_hex(8),
        subject=version.subject,
        text=version.text,
        html=version.html,
        headers=_headers(workflow, run),
        from_name=workflow.from_name,
        from_address=workflow.from_address,
        reply_to=workflow.reply_to,
        return_path=workflow.return_path or workflow.from_address,
        unsubscribe=workflow.unsubscribe,
        window=window and window.as_json(),
    )
    return batch, message, _remembered(workflow, version, pool, window)


def _version(workflow: Workflow) -> TemplateVersion:
    step = workflow.steps.select_related("template").first()
    version = step.template.latest if step else None
    if version is None:
        raise NotReady(f"Workflow {workflow.slug} has no step with a saved template: add one.")
    return version


def _window(workflow: Workflow) -> Window | None:
    try:
        return workflow.window(timezone.now())
    except BadWindow as refusal:
        raise NotReady(f"The sending window of workflow {workflow.slug} makes no sense. {refusal}") from None


def _remembered(workflow: Workflow, version: TemplateVersion, pool: Pool, window: Window | None) -> dict[str, object]:
    return {
        "workflow": {"id": workflow.pk, "slug": workflow.slug, "name": workflow.name},
        "audience": workflow.audience.name,
        "template": {"slug": version.template.slug, "name": version.template.name, "version": version.number},
        "step": workflow.steps.values_list("position", flat=True).first(),
        "pool": pool.slug,
        "priority": workflow.priority,
        "start": workflow.start,
        "time_limit_minutes": workflow.time_limit_minutes,
        "window": window and window.as_json(),
        "on_uncertain": workflow.on_uncertain,
        "on_render_error": workflow.on_render_error,
    }


def _headers(workflow: Workflow, run: Run) -> dict[str, str]:
    """Header fields that all mails of a run have. List-Id (RFC 2919) is stable per workflow, not per run."""
    domain = workflow.from_address.rpartition("@")[2]
    headers = {"List-Id": f"<{slugify(workflow.slug)}.{domain}>"} if workflow.unsubscribe else {}
    if run.test_limit:
        headers["X-Outreach-Test"] = f"run {run.pk}"
    return headers


def _refuse_pool(pool: Pool, domain: str) -> None:
    """A pool through which nothing could go: mails would wait in it for a person who has not been told."""
    engines = list(pool.engines.filter(enabled=True))
    if not engines:
        raise NotReady(f"Pool {pool.slug} has no enabled engine: add one to it, or enable one.")
    if not any(engine.sends_for(domain) for engine in engines):
        names = ", ".join(engine.name for engine in engines)
        raise NotReady(
            f"No engine of pool {pool.slug} may send for {domain}: add the domain to one of them ({names}), or change "
            "the workflow's From address."
        )


def _sandbox() -> Pool:
    """The pool that tests go to; it is made when it is first needed."""
    engine, _ = Engine.objects.get_or_create(slug=SANDBOX, defaults={"name": "Sandbox", "kind": "sandbox"})
    pool, _ = Pool.objects.get_or_create(slug=SANDBOX, defaults={"name": "Sandbox"})
    PoolMember.objects.get_or_create(pool=pool, engine=engine)
    return pool
