"""`manage.py run_workflow WORKFLOW`: runs a workflow to the end in this process, or only queues it."""

import asyncio
import getpass
import json
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Self

from django.core.management.base import BaseCommand, CommandError, CommandParser, SystemCheckError
from django.db import connection
from rich.console import Console
from rich.progress import Progress, TaskID

from campaigns import console as display
from campaigns.control import time_out_overdue
from campaigns.exceptions import CampaignError
from campaigns.finish import write_missing_logs
from campaigns.initialize import Stopping, initialize
from campaigns.launch import launch
from campaigns.models import Run, RunState, Trigger, Workflow
from campaigns.wake import wake, wake_pumps
from campaigns.work import pump
from delivery import queue
from delivery.management.deeds import usable_database
from delivery.models import Batch
from delivery.worker import Database, Pump

UNFINISHED = (RunState.QUEUED, RunState.INITIALIZING, RunState.SENDING, RunState.PAUSED)
LOOK = 0.2  # seconds between two looks at the progress


class Command(BaseCommand):
    help = (
        "Runs a workflow to the end in this process. An unfinished run of the same workflow is gone on with. "
        "Ctrl-C stops cleanly; the same command goes on where it stopped. "
        "Exit code: 0 completed, 1 failed or incomplete, 2 usage or configuration error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("workflow", help="The id or the slug of a workflow.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object and nothing else.")
        parser.add_argument("--detach", action="store_true", help="Only queue the run, for the worker cluster.")
        parser.add_argument("--idempotency-key", metavar="KEY", help="The same key never makes a second run.")
        parser.add_argument(
            "--test", type=int, metavar="N", help="A test: the first N recipients, kept in the sandbox, nothing sent."
        )

    def check(self, **kwargs: object) -> None:
        """The system checks: what they find is a configuration error."""
        try:
            super().check(**kwargs)
        except SystemCheckError as error:
            error.returncode = 2
            raise

    @display.few_lines()
    def handle(self, **options: object) -> None:
        self._json = options["json"]
        self._console = Console(quiet=self._json)
        begun = time.monotonic()
        run = self._run(options)
        if options["detach"]:
            self._report(run, 0.0)
            return
        interrupted = False
        try:
            interrupted = self._work(run)
        except KeyboardInterrupt:
            interrupted = True
        write_missing_logs()
        run = Run.objects.select_related("workflow", "batch").get(pk=run.pk)
        if interrupted and not run.is_over:
            self._console.print(
                f"\nStopped. Nothing is lost: `manage.py run_workflow {run.workflow.slug}` goes on where this stopped."
            )
        self._report(run, time.monotonic() - begun)
        if run.state != RunState.COMPLETED:
            raise SystemExit(1)

    # ---- which run ----

    def _workflow(self, wanted: str) -> Workflow:
        workflow = None
        with usable_database():
            if wanted.isascii() and wanted.isdigit():
                workflow = Workflow.objects.filter(pk=wanted).first()
            workflow = workflow or Workflow.objects.filter(slug=wanted).first()
        if workflow is None:
            known = ", ".join(Workflow.objects.values_list("slug", flat=True)[:20])
            hint = f"There is: {known}." if known else "There is none yet: make one in the admin, or run `make demo`."
            raise CommandError(f"There is no workflow {wanted!r}. {hint}", returncode=2)
        return workflow

    def _run(self, options: dict[str, object]) -> Run:
        workflow = self._workflow(options["workflow"])
        key, test = options["idempotency_key"], options["test"]
        unfinished = Run.objects.filter(workflow=workflow, state__in=UNFINISHED, test_limit=test).order_by("pk").first()
        if unfinished and key in (None, unfinished.key):
            self._console.print(f"Going on with run {unfinished.pk}, which is {unfinished.state}.")
            if options["detach"]:
                wake(unfinished.pk)
            return unfinished
        try:
            return launch(
                workflow,
                trigger=Trigger.COMMAND,
                by=getpass.getuser(),
                key=key,
                test_limit=test,
                here=not options["detach"],
            )
        except CampaignError as error:
            raise CommandError(str(error), returncode=2) from error

    # ---- the work ----

    def _work(self, run: Run) -> bool:
        """Works on the run until it is over or may not go on here. True when it was interrupted."""
        with display.bars(self._console) as progress:
            preparing = progress.add_task("Preparing", total=None, note="")
            with _Preparation(run.pk, lambda rows: progress.update(preparing, completed=rows)) as preparation:
                while not run.is_over:
                    if run.state == RunState.PAUSED:
                        progress.update(preparing, note="the run is paused; resume it in the admin")
                        return False
                    if run.filled_at is None and not preparation.go_on():
                        progress.update(preparing, note="another process prepares this run")
                    if run.state == RunState.SENDING:
                        if self._send(run, progress, preparing):
                            return True
                    else:
                        preparation.wait(LOOK)
                    run.refresh_from_db()
        return False

    def _send(self, run: Run, progress: Progress, preparing: TaskID) -> bool:
        if run.filled_at:
            read = run.rows_read
            progress.update(preparing, completed=read, total=read, note="every recipient checked")
        wake_pumps()  # a cluster that is there may help
        sending = progress.add_task("Sending", total=run.batch.size, note="")
        interrupted = False

        def watch(pumping: Pump, database: Database) -> asyncio.Task[None]:
            def stop() -> None:
                nonlocal interrupted
                if interrupted:  # a second Ctrl-C: as if killed; what was in flight is settled by the next start
                    raise SystemExit(1)
                interrupted = True
                progress.update(sending, description="Stopping")
                pumping.stop.set()

            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop)
            return loop.create_task(self._show(run, progress, sending, database))

        pump(run.batch_id, watch=watch)
        _update(progress, sending, queue.progress(run.batch_id))
        return interrupted

    async def _show(self, run: Run, progress: Progress, task: TaskID, database: Database) -> None:
        while True:
            total = await database.ask(_total, run.batch_id)
            progress.update(task, total=total)
            _update(progress, task, await database.ask(queue.progress, run.batch_id))
            await database.ask(time_out_overdue)
            await asyncio.sleep(LOOK)

    # ---- the report ----

    def _report(self, run: Run, seconds: float) -> None:
        if self._json:
            counts = run.counts or (queue.progress(run.batch_id) if run.batch_id else {})
            report = {
                "run_id": run.pk,
                "state": run.state,
                "counts": counts,
                "total": run.batch.size if run.batch else 0,
                "problems": run.problem_counts,
                "error": run.error,
                "seconds": round(seconds, 3),
            }
            self.stdout.write(json.dumps(report))
        elif run.is_over or seconds:
            display.summary(self._console, run, seconds)
            if run.log_path:
                self._console.print(f"Execution log: {run.log_path}", soft_wrap=True)
        else:
            self._console.print(f"Run {run.pk} is queued; a running cluster (`manage.py runworkers`) takes it.")


class _Preparation:
    """Initialises the run in a thread beside: of a run that starts at once, the first mails go meanwhile."""

    def __init__(self, run_id: int, progress: Callable[[int], None]) -> None:
        self._run_id = run_id
        self._progress = progress
        self._stopping = threading.Event()
        self._executor = ThreadPoolExecutor(1, "preparation")
        self._future: Future[bool] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._executor.shutdown()

    def go_on(self) -> bool:
        """Begins, or goes on. False when the last try found that another process does it. Raises what the thread
        raised."""
        if self._future is None or self._future.done():
            was_ours = self._future is None or self._future.result()
            self._future = self._executor.submit(self._initialize)
            return was_ours
        return True

    def wait(self, seconds: float) -> None:
        """Waits for the thread, so long at most. When it has nothing to do here, for so long."""
        wait([self._future], timeout=seconds)
        if self._future.done() and not self._future.result():
            self._stopping.wait(seconds)

    def _initialize(self) -> bool:
        try:
            return initialize(self._run_id, self._progress, self._between)
        except Stopping:
            return False
        finally:
            connection.close()

    def _between(self) -> None:
        if self._stopping.is_set():
            raise Stopping


def _total(batch_id: int) -> int:
    return Batch.objects.get(pk=batch_id).size


def _update(progress: Progress, task: TaskID, ends: dict[str, int]) -> None:
    others = ", ".join(f"{n:,} {state}" for state, n in sorted(ends.items()) if state != "accepted")
    progress.update(task, completed=sum(ends.values()), note=others)
