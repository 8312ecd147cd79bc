"""Runs asked for by a program: at once or waited for, with what this one has in place of the workflow's."""

import time
from collections.abc import Mapping
from functools import cache

from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from campaigns import soon, waits
from campaigns.api.idempotency import HEADER, REPLAYED, Key
from campaigns.api.runs import TO_CONTROL, RunSerializer
from campaigns.api.setting_up import IdOrSlugField, named
from campaigns.audiences.exceptions import AudienceError
from campaigns.callbacks import refuse_bad_url
from campaigns.exceptions import CampaignError
from campaigns.launch import Asked, launch
from campaigns.models import IdempotencyKey, Mode, Outcome, Run, Trigger, Workflow
from campaigns.overrides import MOST_RECIPIENTS, Overrides, refuse_bad_recipients
from delivery.api.problems import in_words
from delivery.api.requests import Body, allowed, refusing, who
from delivery.models import Pool

MOST_TESTED = 10_000


class TriggerBody(Body):
    """What one run has beside or in place of its workflow's."""

    wait = serializers.FloatField(
        required=False, default=0, min_value=0, max_value=waits.LONGEST, help_text="Seconds to wait for its end."
    )
    test = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=MOST_TESTED,
        help_text="A test: only so many recipients, into the sandbox.",
    )
    recipients = serializers.ListField(
        child=serializers.DictField(),
        required=False,
        allow_null=True,
        min_length=1,
        max_length=MOST_RECIPIENTS,
        help_text="In place of the audience: objects with the fields of the template, one of them the address.",
    )
    context = serializers.DictField(required=False, help_text="Fields that every recipient has who does not have them.")
    priority = serializers.IntegerField(required=False, allow_null=True, min_value=-32_768, max_value=32_767)
    deadline = serializers.DateTimeField(
        required=False, allow_null=True, help_text="Until when each mail has to be gone."
    )
    pool = IdOrSlugField(queryset=Pool.objects.all(), required=False, allow_null=True)
    callback_url = serializers.CharField(
        required=False, allow_blank=True, max_length=2000, help_text="Who is told of its pauses and its end."
    )

    def validate_recipients(self, rows: list[dict[str, object]] | None) -> list[dict[str, object]] | None:
        if rows is not None:
            try:
                refuse_bad_recipients(rows)
            except AudienceError as refusal:
                raise serializers.ValidationError(str(refusal)) from refusal
        return rows

    def validate_deadline(self, deadline: object) -> object:
        if deadline is not None and deadline <= timezone.now():
            raise serializers.ValidationError("This is over. A good one: 2030-12-24T09:00:00+01:00.")
        return deadline

    def validate_callback_url(self, url: str) -> str:
        if url:
            try:
                refuse_bad_url(url)
            except ValueError as refusal:
                raise serializers.ValidationError(str(refusal)) from refusal
        return url


class NamedTriggerBody(TriggerBody):
    """With the workflow, by its id or slug."""

    workflow_id = IdOrSlugField(queryset=Workflow.objects.all())


EXAMPLES = [
    OpenApiExample(
        "One recipient, and wait",
        {"wait": 10, "recipients": [{"email": "ada@example.test", "name": "Ada", "city": "London"}]},
        request_only=True,
    ),
    OpenApiExample("A test of five", {"test": 5}, request_only=True),
    OpenApiExample(
        "The whole audience, by another pool, and tell us",
        {"pool": "fast", "priority": -5, "callback_url": "https://shop.example/hooks/outreach"},
        request_only=True,
    ),
]
KEY = OpenApiParameter(
    HEADER, str, OpenApiParameter.HEADER, description="The same key and body within 24 hours give the same answer."
)
ANSWERS = {201: RunSerializer, 202: RunSerializer}


class _Triggering(APIView):
    """What both forms do."""

    permission_classes = [allowed(to_see=TO_CONTROL, to_act=TO_CONTROL)]
    keeps_own_record = True  # RunRequest

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        super().initial(request, *args, **kwargs)
        self._since = time.monotonic()

    def _trigger(self, request: Request, workflow: Workflow, body_of: type[TriggerBody] = TriggerBody) -> Response:
        """Starts a run, or gives the answer that was given. What is refused is written down, too."""
        said = request.data if isinstance(request.data, dict) else {}
        rows = said.get("recipients")
        asked = Asked(
            Mode.SYNC if said.get("wait") else Mode.ASYNC,
            getattr(request._request, "request_id", ""),
            request.headers.get(HEADER, ""),
            self._since,
            len(rows) if isinstance(rows, list) else None,
        )
        try:
            return self._answered(request, workflow, body_of.of(request), asked)
        except APIException as refusal:
            asked.record(workflow, None, who(request), Outcome.REFUSED, words=in_words(refusal))
            raise

    def _answered(self, request: Request, workflow: Workflow, body: Mapping[str, object], asked: Asked) -> Response:
        waited_for = body["wait"] > 0
        key = Key.of(request, {"workflow": workflow.pk})
        with transaction.atomic(), refusing(CampaignError):
            known = key and key.take()
            if not known:
                run = self._launch(request, workflow, body, asked)
                answer = _shown(run)
                if key and waited_for:
                    key.is_for_run(run.pk)
                elif key:
                    key.answered(status.HTTP_202_ACCEPTED, answer)
        if known:
            run = _run_of(known)
            asked.record(workflow, run, who(request), Outcome.REPEATED)
            if known.status is not None:
                return _answer(known.status, known.said, replayed=True)
        if not waited_for:
            return _answer(status.HTTP_202_ACCEPTED, answer)
        over = waits.is_over_within(run, body["wait"])
        answer = _shown(Run.objects.select_related("workflow", "batch").get(pk=run.pk))
        code = status.HTTP_201_CREATED if over else status.HTTP_202_ACCEPTED
        if key:
            key.answered(code, answer)
        if not known:
            run.requests.filter(outcome=Outcome.STARTED).update(seconds=asked.seconds)
        return _answer(code, answer, replayed=bool(known))

    def _launch(self, request: Request, workflow: Workflow, body: Mapping[str, object], asked: Asked) -> Run:
        overrides = Overrides(
            body.get("recipients"),
            body.get("context") or {},
            body.get("priority"),
            body.get("deadline"),
            body.get("pool"),
        )
        run = launch(
            workflow,
            trigger=Trigger.API,
            by=who(request),
            test_limit=body.get("test"),
            here=True,
            overrides=overrides,
            callback_url=body.get("callback_url", ""),
            asked=asked,
        )
        transaction.on_commit(lambda: soon.initialize(run.pk))
        return run


class WorkflowRunsView(_Triggering):
    """`POST workflows/{id}/runs/`."""

    @extend_schema(
        operation_id="workflows_runs_create",
        summary="Start a run of a workflow",
        parameters=[KEY, OpenApiParameter("id", str, OpenApiParameter.PATH, description="Its id or slug.")],
        request=TriggerBody,
        responses=ANSWERS,
        examples=EXAMPLES,
    )
    def post(self, request: Request, pk: str) -> Response:
        workflow = named(Workflow.objects.all(), pk)
        if workflow is None:
            raise NoWorkflow
        return self._trigger(request, workflow)


class TriggerView(_Triggering):
    """`POST trigger`, the short form."""

    @extend_schema(
        operation_id="trigger",
        summary="Start a run of the workflow that the body names",
        parameters=[KEY],
        request=NamedTriggerBody,
        responses=ANSWERS,
        examples=[OpenApiExample("The whole audience", {"workflow_id": 1}, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        said = request.data.get("workflow_id") if isinstance(request.data, dict) else None
        workflow = named(Workflow.objects.all(), said)
        if workflow is None:  # then this says what is wrong
            NamedTriggerBody.of(request)
        return self._trigger(request, workflow, NamedTriggerBody)


class NoWorkflow(APIException):
    status_code = status.HTTP_404_NOT_FOUND
    default_detail = "There is no such workflow: name one by its id or slug."


@cache
def _serializer() -> RunSerializer:
    """One for all: to make its fields takes longer than to use them."""
    return RunSerializer()


def _shown(run: Run) -> dict[str, object]:
    return dict(_serializer().to_representation(run))


def _run_of(known: IdempotencyKey) -> Run | None:
    """The run that the first request made."""
    run_id = known.run_id or (known.said or {}).get("id")
    return Run.objects.filter(pk=run_id).first()


def _answer(code: int, run: Mapping[str, object], *, replayed: bool = False) -> Response:
    headers = {"Location": reverse("api:run-detail", args=[run["id"]])}
    if replayed:
        headers[REPLAYED] = "true"
    return Response(run, code, headers=headers)
