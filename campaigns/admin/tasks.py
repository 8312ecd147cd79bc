"""django-q2's tables, to look at: what waits, what failed, what is scheduled.

Its own pages can run any function of the installation by name, again and on a schedule, and load pickles to show them.
They are taken away. These here change nothing, and never let a pickle be loaded: the columns that hold one are deferred
and read as the text they are.
"""

import logging

import django_q.admin  # noqa: F401  (registers the pages that are taken away below)
from django.apps import apps
from django.contrib import admin
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast, Substr
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django_q.brokers import Broker, get_broker
from django_q.conf import Conf
from django_q.models import Failure, OrmQ, Schedule
from unfold.admin import ModelAdmin
from unfold.decorators import display

from campaigns.pickled import LONGEST, CannotBeShown, QueuedTask, queued_task, stored_text
from delivery.admin.instants import shown_instant
from delivery.admin.readonly import ReadOnly

logger = logging.getLogger(__name__)

NOT_SHOWN = "cannot be shown"
FIRST_LINE = 200

for _model in apps.get_app_config("django_q").get_models():
    if admin.site.is_registered(_model):
        admin.site.unregister(_model)


def _raw(column: str) -> Substr:
    """A column's text as it is stored, and no more of it than is looked into. Without the cast a pickled column would
    be loaded on its way out of the database."""
    return Substr(Cast(column, TextField()), 1, LONGEST + 1)


@admin.register(OrmQ)
class WaitingTaskAdmin(ReadOnly, ModelAdmin):
    list_display = ("task_name", "task_func", "since", "shown_lock")
    list_before_template = "admin/django_q/ormq/broker.html"
    ordering = ("pk",)
    sortable_by = ()
    empty_hint = "A task wakes a worker for some work; what there is to do stands in the database."
    fields = ("task_name", "task_func", "since", "shown_lock", "key")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).defer("payload").annotate(stored=_raw("payload"))

    def changelist_view(self, request: HttpRequest, extra_context: dict | None = None) -> HttpResponse:
        there = {} if Conf.ORM else {"redis": True, "in_redis": waiting_at(get_broker())}
        return super().changelist_view(request, {**(extra_context or {}), **there})

    @display(description="Task")
    def task_name(self, row: OrmQ) -> str:
        task = _task_of(row)
        return task.name if task else NOT_SHOWN

    @display(description="Function")
    def task_func(self, row: OrmQ) -> str:
        task = _task_of(row)
        return task.func if task else NOT_SHOWN

    @display(description="Since")
    def since(self, row: OrmQ) -> str:
        task = _task_of(row)
        return shown_instant(task.since) if task else "-"

    @display(description="Not before")
    def shown_lock(self, row: OrmQ) -> str:
        """A task that a worker has taken stands in the table until it is done; only then would it be taken again."""
        return shown_instant(row.lock)


def _task_of(row: OrmQ) -> QueuedTask | None:
    try:
        return queued_task(row.stored)
    except CannotBeShown:
        return None


def waiting_at(broker: Broker) -> int | None:
    """How many tasks wait at a broker; None when it does not answer."""
    from redis import RedisError  # an eighth of a second, which no process without Redis should wait

    try:
        return broker.queue_size()
    except RedisError as error:
        logger.warning("The broker does not say how many tasks wait: %s", error)
        return None


@admin.register(Failure)
class FailedTaskAdmin(ReadOnly, ModelAdmin):
    list_display = ("name", "func", "stopped", "first_line")
    search_fields = ("name", "func")
    search_help_text = "A task's name or function"
    show_full_result_count = False
    empty_hint = "No task has failed. Failures of single recipients stand in the list of deliveries."
    fields = ("name", "func", "enqueued_at", "stopped", "attempt_count", "error")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).defer("args", "kwargs", "result").annotate(stored=_raw("result"))

    @display(description="Error")
    def first_line(self, failure: Failure) -> str:
        line = _error_of(failure).partition("\n")[0]
        return line if len(line) <= FIRST_LINE else line[: FIRST_LINE - 1] + "…"

    @display(description="Error")
    def error(self, failure: Failure) -> SafeString:
        return format_html('<pre class="outreach-source">{}</pre>', _error_of(failure))

    @display(description="Enqueued at")
    def enqueued_at(self, failure: Failure) -> str:
        """What django-q2 calls `started`."""
        return shown_instant(failure.started)


def _error_of(failure: Failure) -> str:
    try:
        return stored_text(failure.stored)
    except CannotBeShown:
        return NOT_SHOWN


@admin.register(Schedule)
class ScheduleAdmin(ReadOnly, ModelAdmin):
    list_display = ("schedule_name", "func", "kind", "next_run")
    empty_hint = "The cluster enters here what it does every minute, when it starts: manage.py runworkers"
    fields = ("name", "func", "schedule_type", "minutes", "next_run", "repeats")

    @display(description="Schedule", ordering="name")
    def schedule_name(self, schedule: Schedule) -> str:
        return schedule.name or schedule.func

    @display(description="How often")
    def kind(self, schedule: Schedule) -> str:
        if schedule.schedule_type == Schedule.MINUTES:
            return f"every {schedule.minutes or 1} min"
        return schedule.get_schedule_type_display()
