"""Makes a queued run ready to send: freezes what it needs, checks every recipient, writes every delivery.

Nothing is sent before all of it is there. A process that is killed half-way leaves a run that is still initializing;
whoever takes it over throws away what was written and begins again, so nothing is doubled.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.text import slugify

from campaigns.audiences.exceptions import AudienceError
from campaigns.audiences.rows import BadRow, Reason, Row
from campaigns.audiences.stored import open_source
from campaigns.composing import refuse_missing_names
from campaigns.conf import conf
from campaigns.exceptions import NotReady
from campaigns.models import ProblemKind, RenderErrorPolicy, Run, RunProblem, RunState, Workflow
from campaigns.transitions import claim_initializing, still_initializing, try_move
from delivery import owner, queue
from delivery.addresses import identity
from delivery.composition import CompiledMessage
from delivery.core.envelope import Mailbox
from delivery.models import Batch, Delivery, Engine, Message, Pool, PoolMember
from delivery.queue import Filler, NewDelivery
from delivery.templating import TemplateProblem

CHUNK = 1000  # rows of the audience for each transaction
# How long a silent initialiser keeps its right; each chunk renews it. An audience may be slow with its first row.
CLAIM = timedelta(minutes=3)
DISCARDED_AT_ONCE = 10_000
SANDBOX = "sandbox"  # the slug of the pool and engine that tests go to


class _Lost(Exception):
    """The run was cancelled, or another process initialises it now."""


def initialize(run_id: int, progress: Callable[[int], None] = lambda rows: None) -> bool:
    """Takes a run from queued to sending (or failed). `progress` is told the rows read so far.

    False when it was not this process's to do: somebody else does it, or it is done.
    """
    holder = Run.objects.values_list("initializer", flat=True).get(pk=run_id)
    gone = holder if holder and owner.is_gone(holder) else ""
    now = timezone.now()
    if not claim_initializing(run_id, owner.name(), now + CLAIM, now, gone=gone):
        return False
    run = Run.objects.select_related("workflow__audience", "workflow__pool", "batch").get(pk=run_id)
    try:
        discard(run)
        _fill(run, progress)
    except (NotReady, AudienceError, TemplateProblem) as error:
        return _fail(run, str(error))
    except _Lost:
        discard(run)
        return False
    return True


def _mine() -> Q:
    """That this process still initialises the run: a successor's work is not to be touched."""
    return Q(initializer=owner.name())


def _fail(run: Run, error: str) -> bool:
    discard(run, keep_problems=True)
    return try_move(run.pk, RunState.FAILED, why=error, only=_mine(), error=error, ended_at=timezone.now())


def discard(run: Run, *, keep_problems: bool = False) -> None:
    """Throws away what an attempt to initialise `run` has written, nothing of a successor's. None of it was sent."""
    if run.batch_id is None:
        return
    batch_id, run.batch = run.batch_id, None
    while True:
        rows = Delivery.objects.filter(batch=batch_id).order_by("pk").values_list("pk", flat=True)[:DISCARDED_AT_ONCE]
        if not Delivery.objects.filter(pk__in=list(rows)).delete()[0]:
            break
    with transaction.atomic():
        # Where the run no longer points here, batch and problems are those of a process that took it over.
        if Run.objects.filter(pk=run.pk, batch=batch_id).update(batch=None) and not keep_problems:
            RunProblem.objects.filter(run=run).delete()
        Batch.objects.filter(pk=batch_id).delete()


# ---- freezing ----


def _freeze(run: Run) -> tuple[Batch, Message]:
    """What the run will send and how, as it is now. Later changes of workflow, template or pool's name are for later
    runs."""
    workflow = run.workflow
    step = workflow.steps.select_related("template").first()
    version = step.template.latest if step else None
    if version is None:
        raise NotReady(f"Workflow {workflow.slug} has no step with a saved template: add one.")
    pool = _sandbox() if run.test_limit else workflow.pool
    _refuse_pool(pool, workflow.from_address.rpartition("@")[2].lower())
    with transaction.atomic():
        batch = Batch.objects.create(
            label=f"{workflow.name}, run {run.pk}",
            reference=f"run-{run.pk}-{secrets.token_hex(4)}",
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
        )
        run.frozen = {
            "workflow": {"id": workflow.pk, "slug": workflow.slug, "name": workflow.name},
            "audience": workflow.audience.name,
            "template": {"slug": step.template.slug, "version": version.number},
            "pool": pool.slug,
            "on_uncertain": workflow.on_uncertain,
            "on_render_error": workflow.on_render_error,
        }
        _renew(run, batch=batch, frozen=run.frozen)
    run.batch = batch
    return batch, message


def _renew(run: Run, **fields: object) -> None:
    """Renews the right to initialise, writes `fields`, and locks the run: until the end of the transaction nobody takes
    it over or cancels it. Raises _Lost."""
    if not still_initializing(run.pk, owner.name(), timezone.now() + CLAIM, **fields):
        raise _Lost


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


# ---- checking and writing ----


class _Problems:
    """What is wrong in the audience: all counted, so many of each kind listed."""

    def __init__(self, run: Run) -> None:
        self.counts: Counter[str] = Counter()
        self.first_rendering = ""
        self._run = run
        self._listed: Counter[str] = Counter()
        self._pending: list[RunProblem] = []

    def add(self, kind: ProblemKind, reason: str, position: int, address: str, detail: str) -> None:
        self.counts[reason] += 1
        if self._listed[kind] < conf().listed_problems:
            self._listed[kind] += 1
            self._pending.append(
                RunProblem(
                    run=self._run,
                    kind=kind,
                    reason=reason,
                    position=position,
                    address=address[:320],
                    detail=detail[:500],
                )
            )

    def bad_row(self, row: BadRow) -> None:
        self.add(
            ProblemKind.BAD_ROW, row.reason, row.position, "", f"{row.detail} ({row.raw})" if row.raw else row.detail
        )

    def rendering(self, row: Row, problem: TemplateProblem) -> None:
        self.first_rendering = self.first_rendering or f"row {row.position}, {row.address}: {problem}"
        self.add(ProblemKind.RENDERING, ProblemKind.RENDERING, row.position, row.address, str(problem))

    def duplicate(self, delivery: NewDelivery) -> None:
        detail = f"{delivery.address} was there before"
        self.add(ProblemKind.BAD_ROW, Reason.DUPLICATE, delivery.position, delivery.address, detail)

    def save(self) -> None:
        RunProblem.objects.bulk_create(self._pending)
        self._pending = []


def _fill(run: Run, progress: Callable[[int], None]) -> None:
    batch, message = _freeze(run)
    compiled = CompiledMessage(message, conf().public_url)
    source = open_source(run.workflow.audience)
    has_link = bool(conf().public_url and message.unsubscribe)
    refuse_missing_names(compiled, source.fields(), has_link, source.label())
    skip = run.workflow.on_render_error == RenderErrorPolicy.SKIP
    problems = _Problems(run)
    filler = Filler(batch.pk, message.pk, batch.priority)
    rows_read = 0
    for chunk in _batched(_limited(source.rows(), run.test_limit)):
        deliveries = list(_checked(chunk, compiled, problems))
        rows_read += len(chunk)
        with transaction.atomic():
            _renew(run, rows_read=rows_read)
            # Once the run cannot start, nothing more is written; the rest is only checked, to report all of it at once.
            if skip or not problems.first_rendering:
                for duplicate in filler.write(deliveries):
                    problems.duplicate(duplicate)
            problems.save()
            Run.objects.filter(pk=run.pk).update(problem_counts=dict(problems.counts))
        progress(rows_read)
    if problems.first_rendering and not skip:
        raise NotReady(
            f"{problems.counts[ProblemKind.RENDERING]} of {rows_read} recipients cannot be rendered, so nothing was "
            f"sent. The first: {problems.first_rendering} Mend the template or the data, or let the workflow skip "
            "such recipients."
        )
    with transaction.atomic():
        queue.open_for_sending(batch.pk)
        sources = (RunState.INITIALIZING,)
        if not try_move(run.pk, RunState.SENDING, sources=sources, only=_mine(), sending_at=timezone.now()):
            raise _Lost
        queue.finish_if_done(batch.pk)


def _batched(rows: Iterator[Row | BadRow]) -> Iterator[list[Row | BadRow]]:
    """Chunks of CHUNK rows, the last one shorter. (`itertools.batched` needs Python 3.12.)"""
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def _limited(rows: Iterator[Row | BadRow], limit: int | None) -> Iterator[Row | BadRow]:
    """All rows, or those up to the `limit`-th good one."""
    if limit is None:
        yield from rows
        return
    good = 0
    for row in rows:
        yield row
        good += isinstance(row, Row)
        if good >= limit:
            return


def _checked(chunk: list[Row | BadRow], compiled: CompiledMessage, problems: _Problems) -> Iterator[NewDelivery]:
    """The good rows of a chunk as deliveries; each is rendered once, to see that it can be."""
    now = timezone.now()
    for row in chunk:
        if isinstance(row, BadRow):
            problems.bad_row(row)
            continue
        skipped = ""
        try:
            compiled.envelope(0, Mailbox(row.address, row.name), row.data, now)
        except TemplateProblem as problem:
            problems.rendering(row, problem)
            skipped = f"cannot be rendered: {problem}"
        yield NewDelivery(row.position, row.address, identity(row.address), row.name, row.data, skipped)
