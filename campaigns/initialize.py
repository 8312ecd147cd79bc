"""Makes a queued run ready to send: freezes what it needs, checks the recipients, writes every delivery.

A run that starts when all is checked sends nothing before; a process that is killed half-way leaves it initializing,
and whoever takes it over throws away what was written and begins again. A run that starts at once is sending from its
first chunk on; whoever takes that over reads the audience again and adds who is missing. Nobody is doubled either way:
each recipient has one delivery of a message, by a constraint of the database.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db import DatabaseError, connection, transaction
from django.db.models import Q

from campaigns.audiences.bookmarks import source_read_to_the_end
from campaigns.audiences.exceptions import AudienceError
from campaigns.exceptions import NotReady
from campaigns.filling import fill, fill_up
from campaigns.freezing import freeze
from campaigns.models import Run, RunProblem, RunState, Start
from campaigns.overrides import forget_recipients
from campaigns.transitions import claim_initializing, still_initializing, try_move
from campaigns.wake import wake_pumps
from delivery import owner, queue
from delivery.logs import bound
from delivery.models import Batch, Delivery
from delivery.templating import TemplateProblem

# How long a silent initialiser keeps its right. It is renewed by the clock, not by progress: an audience may be slow
# with its first row.
CLAIM = timedelta(seconds=30)
DISCARDED_AT_ONCE = 10_000

logger = logging.getLogger(__name__)


class Stopping(Exception):
    """This process ends: what it initialises is left to another one."""


class _Lost(Exception):
    """The run was cancelled, or another process initialises it now."""


def initialize(
    run_id: int, progress: Callable[[int], None] = lambda rows: None, between: Callable[[], None] = lambda: None
) -> bool:
    """Takes a run from queued to sending (or failed), with every delivery written. `progress` is told the rows read so
    far; `between` is called after each chunk, and may raise Stopping: then the run is at once anybody's again.

    False when it was not this process's to do: somebody else does it, or it is done.
    """
    holder = Run.objects.values_list("initializer", flat=True).get(pk=run_id)
    gone = holder if holder and owner.is_gone(holder) else ""
    now = queue.database_now()
    if not claim_initializing(run_id, owner.name(), now + CLAIM, now, gone=gone):
        return False
    run = Run.objects.select_related("workflow__audience", "workflow__pool", "batch").get(pk=run_id)
    with bound(run=run.pk, correlation_id=run.correlation_id), _kept(run.pk):
        try:
            _Initialization(run, progress, between).carry_out()
        except (NotReady, AudienceError, TemplateProblem) as error:
            return _give_up(run, str(error))
        except _Lost:
            discard(run)
            return False
        except Stopping:
            Run.objects.filter(_mine(), pk=run.pk).update(initializer="", initializer_until=queue.database_now())
            raise
    return True


@contextmanager
def _kept(run_id: int) -> Iterator[None]:
    """Renews the right to initialise in a thread beside, until it is lost or not needed any more. A process that dies,
    or stands still altogether, renews nothing."""
    over = threading.Event()

    def keep() -> None:
        try:
            while not over.wait(CLAIM.total_seconds() / 4):
                try:
                    if not still_initializing(run_id, owner.name(), queue.database_now() + CLAIM):
                        return
                except DatabaseError as error:
                    logger.warning("The right to initialise could not be renewed: %s", str(error).strip())
                    connection.close()
        finally:
            connection.close()

    thread = threading.Thread(target=keep, name="claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Initialization:
    """One process's attempt."""

    def __init__(self, run: Run, progress: Callable[[int], None], between: Callable[[], None]) -> None:
        self._run = run
        self._progress = progress
        self._between = between

    def carry_out(self) -> None:
        run = self._run
        if run.sending_at is not None:
            fill_up(run, self._renew, self._chunk_done)
            self._end()
            return
        discard(run)
        with transaction.atomic():
            run.batch, run.frozen = freeze(run)
            self._renew(batch=run.batch, frozen=run.frozen)
        fill(run, self._renew, self._start if run.workflow.start == Start.AT_ONCE else None, self._chunk_done)
        self._end()

    def _renew(self, **fields: object) -> None:
        """Renews the right to initialise, writes `fields`, and locks the run: until the end of the transaction nobody
        takes it over or cancels it. Raises _Lost."""
        if not still_initializing(self._run.pk, owner.name(), queue.database_now() + CLAIM, **fields):
            raise _Lost

    def _chunk_done(self, rows_read: int) -> None:
        self._progress(rows_read)
        self._between()

    def _start(self) -> None:
        """The first mails may go. Part of the transaction that wrote them."""
        self._open(growing=True)
        transaction.on_commit(wake_pumps)

    def _end(self) -> None:
        """Every delivery is there."""
        batch_id = self._run.batch_id
        with transaction.atomic():
            source_read_to_the_end(self._run)  # first: it may refuse, and then nothing may have begun
            if self._run.batch.ordered:
                self._resolve()
            if self._run.sending_at is None:
                self._open(growing=False)
            else:
                queue.filled(batch_id)
            self._renew(filled_at=queue.database_now())
            forget_recipients(self._run)
            queue.finish_if_done(batch_id)

    def _resolve(self) -> None:
        """Who depends on whom. Of a test only a part is there. Raises NotReady."""
        try:
            queue.resolve(self._run.batch_id, drop_unknown=bool(self._run.test_limit))
        except queue.Unknown as unknown:
            first = "; ".join(f"{key} depends on {on_key}" for key, on_key in unknown.names)
            more = f", and {unknown.count - len(unknown.names):,} more" if unknown.count > len(unknown.names) else ""
            raise NotReady(
                f"{unknown.count:,} dependencies name an id that nobody in the audience has, so nothing was sent: "
                f"{first}{more}. Mend the data, or take them out."
            ) from None
        except queue.Circle as circle:
            raise NotReady(
                f"Recipients depend on each other in a circle, so nothing was sent: {circle}. Each waits for the next; "
                "take one of these dependencies out."
            ) from None

    def _open(self, *, growing: bool) -> None:
        now = queue.database_now()
        queue.open_for_sending(self._run.batch_id, growing=growing)
        sources = (RunState.INITIALIZING,)
        if not try_move(self._run.pk, RunState.SENDING, sources=sources, only=_mine(), sending_at=now):
            raise _Lost
        self._run.sending_at = now


def _mine() -> Q:
    """That this process still initialises the run: a successor's work is not to be touched."""
    return Q(initializer=owner.name())


def _give_up(run: Run, error: str) -> bool:
    """What cannot be initialised fails. One of which mails are out already is paused instead, for a person to mend the
    audience: resumed, it reads that again."""
    if run.sending_at is None:
        discard(run, keep_problems=True)
        return try_move(run.pk, RunState.FAILED, why=error, only=_mine(), error=error, ended_at=queue.database_now())
    why = f"The audience could not be read to its end: {error} Mend it and resume: who is missing is then added."
    free = {"error": why, "initializer": "", "initializer_until": None}
    with transaction.atomic():
        queue.lock(run.batch_id)
        if try_move(run.pk, RunState.PAUSED, why=why, only=_mine(), **free):
            queue.hold(run.batch_id, why)
            return True
    return bool(Run.objects.filter(_mine(), pk=run.pk).update(**free))  # a person has paused it meanwhile


def discard(run: Run, *, keep_problems: bool = False) -> None:
    """Throws away what an attempt to initialise `run` has written, nothing of a successor's. Nothing at all once the
    first mail may have gone."""
    if run.batch_id is None or run.sending_at is not None:
        return
    batch_id, run.batch = run.batch_id, None
    batch = Batch.objects.filter(pk=batch_id).first()
    while batch:  # else whoever took over has done it
        rows = batch.rows().order_by("pk").values_list("pk", flat=True)[:DISCARDED_AT_ONCE]
        if not Delivery.objects.filter(pk__in=list(rows)).delete()[0]:
            break
    with transaction.atomic():
        # Where the run no longer points here, batch and problems are those of a process that took it over.
        if Run.objects.filter(pk=run.pk, batch=batch_id).update(batch=None) and not keep_problems:
            RunProblem.objects.filter(run=run).delete()
        Batch.objects.filter(pk=batch_id).delete()
