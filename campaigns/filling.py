"""Reads an audience and writes its deliveries, chunk by chunk, each chunk in one transaction."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

from django.db import transaction
from django.utils import timezone

from campaigns.audiences.links import LinkFields
from campaigns.audiences.rows import BadRow, Reason, Row
from campaigns.composing import RunContent, refuse_missing_names
from campaigns.conf import conf
from campaigns.exceptions import NotReady
from campaigns.models import ProblemKind, RenderErrorPolicy, Run, RunProblem
from campaigns.overrides import deadline_of, is_inline, source_of
from delivery.addresses import identity
from delivery.models import Batch
from delivery.queue import NewDelivery
from delivery.templating import TemplateProblem

CHUNK = 1000  # rows of the audience for each transaction

Renew = Callable[..., None]  # confirms the right to write, and writes columns of the run with it


def fill(run: Run, renew: Renew, start: Callable[[], None] | None, chunk_done: Callable[[int], None]) -> None:
    """Writes every delivery with which a run begins, all that a recipient may get made once before. With `start`, that
    is called as soon as the first chunk is there, and from then on nothing is made any more. Raises NotReady when
    something was wrong and the run is not to skip it, TemplateProblem, AudienceError."""
    problems = _Problems(run)
    content = RunContent(run)
    source = _Source(run, content)
    skip = run.workflow.on_render_error == RenderErrorPolicy.SKIP
    rows_read, started = 0, False
    for chunk in source.chunks():
        deliveries = list(_checked(chunk, source, None if started else content, problems))
        rows_read += len(chunk)
        if start and problems.first_rendering and not skip:
            break
        with transaction.atomic():
            # Once the run cannot start, nothing more is written; the rest is only checked, to report all of it at once.
            if skip or not problems.first_rendering:
                for duplicate in content.write(deliveries):
                    problems.duplicate(duplicate)
            # After the batch has grown: whoever stops the run locks them in this order, too.
            renew(rows_read=rows_read)
            problems.save()
            if start and not started:
                start()
        started = start is not None
        chunk_done(rows_read)
    if problems.first_rendering and not skip:
        with transaction.atomic():
            renew(rows_read=rows_read)
            problems.save()
        raise NotReady(
            f"{problems.counts[ProblemKind.RENDERING]} of {rows_read} recipients cannot be rendered, so nothing was "
            f"sent. The first: {problems.first_rendering} Mend the template or the data, or let the workflow skip "
            "such recipients."
        )


def fill_up(run: Run, renew: Renew, chunk_done: Callable[[int], None]) -> None:
    """Reads the audience again for a run that is sending already, and writes who is missing. Raises AudienceError.

    Whom an earlier reader has written cannot be told from who stands in the audience twice, one by one; so duplicates
    are counted as what is left over, and those listed stay listed."""
    # Who could not be rendered was found when the run began; nobody is rendered again here.
    kept = (Reason.DUPLICATE, ProblemKind.RENDERING)
    RunProblem.objects.filter(run=run).exclude(reason__in=kept).delete()
    problems = _Problems(run)
    problems.counts[ProblemKind.RENDERING] = run.problem_counts.get(ProblemKind.RENDERING, 0)
    content = RunContent(run)
    source = _Source(run, content)
    rows_read = good = 0
    for chunk in source.chunks():
        deliveries = list(_checked(chunk, source, None, problems))
        rows_read += len(chunk)
        good += len(deliveries)
        with transaction.atomic():
            content.write(deliveries)
            renew(rows_read=rows_read)
            problems.save()
        chunk_done(rows_read)
    with transaction.atomic():
        renew(rows_read=rows_read)
        total = Batch.objects.values_list("total", flat=True).get(pk=run.batch_id)
        recipients = total // content.beginnings
        if good > recipients:
            problems.counts[Reason.DUPLICATE] = good - recipients
        problems.save()


class _Source:
    """The audience of a run, in chunks."""

    def __init__(self, run: Run, content: RunContent) -> None:
        source = source_of(run)
        fields = source.fields()
        links = LinkFields.of(run.workflow.audience)
        self.links = links.among(fields) if is_inline(run) else links
        self.deadline = deadline_of(run)
        refuse_missing_names(content, fields, self.links.names, source.label())
        self._rows = _limited(source.rows(), run.test_limit)

    def chunks(self) -> Iterator[list[Row | BadRow]]:
        """CHUNK rows each, the last one shorter. (`itertools.batched` needs Python 3.12.)"""
        while chunk := list(islice(self._rows, CHUNK)):
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


def _checked(
    chunk: list[Row | BadRow], source: _Source, content: RunContent | None, problems: "_Problems"
) -> Iterator[NewDelivery]:
    """The good rows of a chunk as deliveries; all mails of each are made once, to see that they can be, if `content` is
    given."""
    now = timezone.now()
    for row in chunk:
        if isinstance(row, BadRow):
            problems.bad_row(row)
            continue
        linked = source.links.read(row)
        if isinstance(linked, BadRow):
            problems.bad_row(linked)
            continue
        skipped = ""
        if content:
            try:
                content.make(row, now)
            except TemplateProblem as problem:
                problems.rendering(row, problem)
                skipped = f"cannot be rendered: {problem}"
        yield NewDelivery(
            row.position,
            row.address,
            identity(row.address),
            row.name,
            row.data,
            skipped,
            linked.key,
            linked.after,
            min(filter(None, (linked.deadline, source.deadline)), default=None),
        )


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
        detail = f"{f'the id {delivery.key}' if delivery.key else delivery.address} was there before"
        self.add(ProblemKind.BAD_ROW, Reason.DUPLICATE, delivery.position, delivery.address, detail)

    def save(self) -> None:
        """Writes what was found since the last time. Part of the caller's transaction."""
        RunProblem.objects.bulk_create(self._pending)
        Run.objects.filter(pk=self._run.pk).update(problem_counts=dict(+self.counts))
        self._pending = []
