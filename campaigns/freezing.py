"""What a run will send and how, as it is when the run begins: later changes of workflow, template or pool are for later
runs."""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from django.utils import timezone
from django.utils.text import slugify

from campaigns.audiences.inline import LABEL
from campaigns.exceptions import BadWindow, NotReady
from campaigns.models import OnFailed, OnLate, Run, Start, Step, TemplateVersion, Workflow
from campaigns.overrides import is_inline, pool_of
from campaigns.sequence import Delay, depths, parse_after, parse_delay, problems_between, problems_of
from delivery.core.sequence import Edge, Rules
from delivery.core.window import ZONE_FIELD, Window
from delivery.models import Batch, Engine, Message, Pool, PoolMember

SANDBOX = "sandbox"  # the slug of the pool and engine that tests go to


class _Planned(NamedTuple):
    """A step with the version of its template that the run sends."""

    step: Step
    version: TemplateVersion


def freeze(run: Run) -> tuple[Batch, dict[str, object]]:
    """Writes the batch and the messages of a run; the second is what the run is to remember of its settings. Part of
    the caller's transaction. Raises NotReady."""
    workflow = run.workflow
    if workflow.start == Start.AT_ONCE and workflow.audience.depends_field:  # named there after this was saved
        raise NotReady(
            f"Workflow {workflow.slug} starts at once, but those in {workflow.audience.name} depend on each other, "
            "which is checked before the first mail goes out: let it start when every recipient has been checked."
        )
    steps = _steps(workflow)
    pool = _sandbox() if run.test_limit else pool_of(run)
    refuse_pool(pool, workflow.from_address.rpartition("@")[2].lower())
    # What goes to the sandbox disturbs nobody, and whoever tests at night wants to see it at night.
    window = None if run.test_limit else _window(workflow)
    batch = Batch.objects.create(
        label=f"{workflow.name}, run {run.pk}",
        reference=run.correlation_id,
        scope=workflow.slug,
        pool=pool,
        priority=run.priority,
        deadline=run.times_out_at,
        uncertain_policy=workflow.on_uncertain,
        sequenced=any(planned.step.after for planned in steps),
        ordered=bool(workflow.audience.depends_field),
        stops_on=workflow.stops_on,
    )
    _write_messages(run, batch, steps, window)
    return batch, _remembered(run, steps, pool, window)


def _steps(workflow: Workflow) -> list[_Planned]:
    """The steps, in order. Raises NotReady for none, and for those that cannot be carried out."""
    steps = workflow.steps.select_related("template", "composer").order_by("position")
    planned = [_Planned(step, step.template.latest) for step in steps]
    if not planned or any(each.version is None for each in planned):
        raise NotReady(f"Workflow {workflow.slug} has no step with a saved template: add one.")
    lines = [each.step.lines for each in planned]
    problems = [problem for each in lines for problem in problems_of(each)]
    for problem in problems or problems_between(lines, workflow.stops_on):
        raise NotReady(f"Step {problem.position} of workflow {workflow.slug} makes no sense. {problem.words}")
    return planned


def _write_messages(run: Run, batch: Batch, steps: Sequence[_Planned], window: Window | None) -> None:
    workflow = run.workflow
    messages = {planned.step.position: _message(run, batch, planned, window) for planned in steps}
    before = depths([step.lines for step, _ in steps])
    for step, _ in steps:
        message = messages[step.position]
        edges = (Edge(messages[after.position].pk, after.on) for after in parse_after(step.after))
        # Follow-ups before new people: of equal deadlines the later step goes first.
        rules = rules_of(step, workflow, tuple(edges), rank=-before[step.position], is_test=bool(run.test_limit))
        message.rules = rules.as_json()
        message.save(update_fields=["rules"])


def _message(run: Run, batch: Batch, planned: _Planned, window: Window | None) -> Message:
    workflow, (step, version) = run.workflow, planned
    return Message.objects.create(
        batch=batch,
        position=step.position,
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
        composing=step.composer
        and {"engine": step.composer.pk, "prompt": step.prompt, "review": step.review and not run.test_limit},
    )


def rules_of(
    step: Step, workflow: Workflow, after: tuple[Edge, ...] = (), *, rank: int = 0, is_test: bool = False
) -> Rules:
    """What a step's mails wait for. A test waits for nothing: it is to be seen now."""
    delay = Delay() if is_test else parse_delay(step.delay)
    zone = workflow.window_zone or timezone.get_default_timezone_name()
    field = workflow.window_zone_field or ZONE_FIELD
    return Rules(
        after=after,
        delay=delay.wait,
        clock=delay.minutes and Window(delay.minutes, zone, frozenset(), delay.theirs, field),
        condition=step.condition.strip(),
        within=None if step.deadline_minutes is None else timedelta(minutes=step.deadline_minutes),
        late=step.on_late == OnLate.SEND,
        lead=None if step.lead_seconds is None or is_test else timedelta(seconds=step.lead_seconds),
        gap=timedelta(microseconds=workflow.gap_microseconds),
        release=workflow.on_failed == OnFailed.RELEASE,
        thread=step.thread,
        rank=rank,
    )


def _window(workflow: Workflow) -> Window | None:
    try:
        return workflow.window(timezone.now())
    except BadWindow as refusal:
        raise NotReady(f"The sending window of workflow {workflow.slug} makes no sense. {refusal}") from None


def _remembered(run: Run, steps: Sequence[_Planned], pool: Pool, window: Window | None) -> dict[str, object]:
    workflow = run.workflow
    return {
        "workflow": {"id": workflow.pk, "slug": workflow.slug, "name": workflow.name},
        "audience": LABEL if is_inline(run) else workflow.audience.name,
        "template": _template(steps[0]),
        "step": steps[0].step.position,
        "steps": [_step(planned) for planned in steps],
        "pool": pool.slug,
        "priority": run.priority,
        "start": workflow.start,
        "time_limit_minutes": workflow.time_limit_minutes,
        "window": window and window.as_json(),
        "stops_on": workflow.stops_on,
        "on_failed": workflow.on_failed,
        "gap_microseconds": workflow.gap_microseconds,
        "on_uncertain": workflow.on_uncertain,
        "on_render_error": workflow.on_render_error,
    }


def _template(planned: _Planned) -> dict[str, object]:
    version = planned.version
    return {"slug": version.template.slug, "name": version.template.name, "version": version.number}


def _step(planned: _Planned) -> dict[str, object]:
    step = planned.step
    return {
        "position": step.position,
        "template": _template(planned),
        "after": step.after,
        "delay": step.delay,
        "condition": step.condition,
        "deadline_minutes": step.deadline_minutes,
        "on_late": step.on_late,
        "lead_seconds": step.lead_seconds,
        "composer": step.composer and step.composer.slug,
        "review": step.review,
    }


def _headers(workflow: Workflow, run: Run) -> dict[str, str]:
    """Header fields that all mails of a run have. List-Id (RFC 2919) is stable per workflow, not per run."""
    domain = workflow.from_address.rpartition("@")[2]
    headers = {"List-Id": f"<{slugify(workflow.slug)}.{domain}>"} if workflow.unsubscribe else {}
    if run.test_limit:
        headers["X-Outreach-Test"] = f"run {run.pk}"
    return headers


def refuse_pool(pool: Pool, domain: str) -> None:
    """Raises NotReady for a pool through which nothing from this domain could go: mails would wait in it for a person
    who has not been told."""
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
