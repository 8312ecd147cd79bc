"""Runs: followed, paused, resumed, cancelled, and their failures retried; with their history, their problems and their
execution log."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import django_filters
from django.db.models import QuerySet
from django.http import FileResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from campaigns import control, execution_log
from campaigns.api.narrowing import InstantFilter, NamedFilter, YesNoFilter
from campaigns.api.setting_up import page_of
from campaigns.exceptions import CampaignError
from campaigns.finish import ENDS
from campaigns.models import ProblemKind, Run, RunEvent, RunProblem, RunState, Trigger, Workflow
from campaigns.replay import FAILED, replay_run
from delivery import queue
from delivery.api.requests import Body, allowed, refusing, who
from delivery.exceptions import DeliveryError
from delivery.models import DeliveryState
from delivery.models.batch import FOLLOWED

TO_CONTROL = "campaigns.send_workflow"
# Ids grow with the instants, nearly: of runs that are made at the same moment one may be so far before another.
OUT_OF_ORDER = 1000
COUNTS = {
    "type": "object",
    "description": "Deliveries by end state.",
    "properties": {end: {"type": "integer", "minimum": 0} for end in ENDS},
    "required": list(ENDS),
    "additionalProperties": False,
}


class OfPage(serializers.ListSerializer):
    """Asks once for the counts of all runs of a page."""

    def to_representation(self, data: Iterable[Run]) -> list[dict[str, object]]:
        runs = list(data)
        self.child.tallies = _tallies_of(runs)
        return super().to_representation(runs)


class RunSerializer(serializers.ModelSerializer):
    """A run and how far it is: while it is under way `counts` grow, and `open` is what they lack to `total`."""

    workflow_slug = serializers.CharField(source="workflow.slug")
    total = serializers.SerializerMethodField()
    counts = serializers.SerializerMethodField()
    open = serializers.SerializerMethodField()
    problem_counts = serializers.DictField(child=serializers.IntegerField(), help_text="Rows by what is wrong.")
    tallies: Mapping[int, Mapping[str, int]] | None = None

    class Meta:
        model = Run
        list_serializer_class = OfPage
        fields = (
            "id",
            "workflow",
            "workflow_slug",
            "state",
            "trigger",
            "triggered_by",
            "correlation_id",
            "test_limit",
            "total",
            "counts",
            "open",
            "rows_read",
            "problem_counts",
            "error",
            "created_at",
            "initializing_at",
            "sending_at",
            "ended_at",
            "times_out_at",
        )

    def to_representation(self, run: Run) -> dict[str, object]:
        tallies = _tallies_of([run]) if self.tallies is None else self.tallies
        self._tally = tallies.get(run.batch_id, {})
        return super().to_representation(run)

    def get_total(self, run: Run) -> int:
        if run.batch is None:
            return 0
        return run.batch.total + (self._tally.get(FOLLOWED, 0) if run.batch.sequenced else 0)

    @extend_schema_field(COUNTS)
    def get_counts(self, run: Run) -> dict[str, int]:
        # One who is over says what was reconciled; one under way, what there is so far.
        counts = run.counts or self._tally
        return {end: counts.get(end, 0) for end in ENDS}

    def get_open(self, run: Run) -> int:
        return max(self.get_total(run) - sum(self.get_counts(run).values()), 0)


class RetriedRunSerializer(RunSerializer):
    """The run, and how many deliveries of it go out again."""

    replayed = serializers.IntegerField()

    class Meta(RunSerializer.Meta):
        fields = (*RunSerializer.Meta.fields, "replayed")


def _tallies_of(runs: Iterable[Run]) -> dict[int, dict[str, int]]:
    """The tallies of those that do not say all by themselves: they are under way, or mails of theirs follow others."""
    return queue.tallies_of({run.batch_id for run in runs if run.batch and (run.batch.sequenced or not run.counts)})


class RunEventSerializer(serializers.ModelSerializer):
    """A change of a run's state: when, by whom, why."""

    class Meta:
        model = RunEvent
        fields = ("at", "state", "by", "why")


class RunProblemSerializer(serializers.ModelSerializer):
    """A row of the audience that gets no mail. `position`: where the audience has it."""

    class Meta:
        model = RunProblem
        fields = ("id", "kind", "reason", "position", "address", "detail")


class RunFilter(django_filters.FilterSet):
    workflow = NamedFilter(Workflow)
    state = django_filters.ChoiceFilter(choices=RunState.choices)
    trigger = django_filters.ChoiceFilter(choices=Trigger.choices)
    test = YesNoFilter(field_name="test_limit", lookup_expr="isnull", exclude=True, help_text="Tests, or real ones.")
    created_after = InstantFilter(method="since", help_text="Made at this instant or later.")
    created_before = InstantFilter(method="until", help_text="Made before this instant.")

    def since(self, runs: QuerySet[Run], name: str, at: datetime) -> QuerySet[Run]:
        later = runs.filter(created_at__gte=at)
        first = Run.objects.filter(created_at__gte=at).order_by("created_at").values_list("pk", flat=True).first()
        return runs.none() if first is None else later.filter(pk__gte=first - OUT_OF_ORDER)

    def until(self, runs: QuerySet[Run], name: str, at: datetime) -> QuerySet[Run]:
        earlier = runs.filter(created_at__lt=at)
        last = Run.objects.filter(created_at__lt=at).order_by("-created_at").values_list("pk", flat=True).first()
        return runs.none() if last is None else earlier.filter(pk__lte=last + OUT_OF_ORDER)


class RunProblemFilter(django_filters.FilterSet):
    kind = django_filters.ChoiceFilter(choices=ProblemKind.choices)


class WhyBody(Body):
    """Why, for the run's history."""

    why = serializers.CharField(max_length=400, required=False, allow_blank=True, default="")


class RetryBody(WhyBody):
    """`uncertain`: also those that may have arrived."""

    uncertain = serializers.BooleanField(required=False, default=False)

    @staticmethod
    def states(body: dict[str, object]) -> tuple[str, ...]:
        return (*FAILED, DeliveryState.UNCERTAIN) if body["uncertain"] else FAILED


WHY = OpenApiExample("With a reason", {"why": "the shop is closed for an hour"}, request_only=True)


class RunViewSet(ReadOnlyModelViewSet):
    serializer_class = RunSerializer
    permission_classes = [allowed(to_see="campaigns.view_run", to_act=TO_CONTROL)]
    filterset_class = RunFilter
    ordering = "-id"
    lookup_value_regex = r"[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Run]:
        runs = Run.objects.select_related("batch")
        # Joined, the workflows may be where the database begins to look for a page.
        return runs.prefetch_related("workflow") if self.action == "list" else runs.select_related("workflow")

    def get_object(self) -> Run:
        return get_object_or_404(self.get_queryset(), pk=self.kwargs["pk"])

    @extend_schema(summary="Pause a run", request=WhyBody, responses=RunSerializer, examples=[WHY])
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """What is in a worker's hands goes out; nothing else does until it is resumed."""
        return self._control(request, control.pause)

    @extend_schema(summary="Resume a run", request=WhyBody, responses=RunSerializer, examples=[WHY])
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """A paused run goes on."""
        return self._control(request, control.resume)

    @extend_schema(summary="Cancel a run", request=WhyBody, responses=RunSerializer, examples=[WHY])
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """For good: what has not gone out never does."""
        return self._control(request, control.cancel)

    @extend_schema(
        summary="Send again what failed of a run", request=RetryBody, responses=RetriedRunSerializer, examples=[WHY]
    )
    @action(detail=True, methods=["post"], url_path="retry-failed")
    def retry_failed(self, request: Request, pk: str) -> Response:
        """Dead, rejected and expired deliveries; the run is sending again, and ends anew."""
        run, body = self.get_object(), RetryBody.of(request)
        with refusing(CampaignError, DeliveryError):
            count = replay_run(run, who(request), body["why"], states=RetryBody.states(body))
        return Response(self._shown() | {"replayed": count})

    @extend_schema(summary="The history of a run", responses=RunEventSerializer(many=True))
    @action(detail=True, serializer_class=RunEventSerializer, filterset_class=None, ordering="id")
    def events(self, request: Request, pk: str) -> Response:
        """Its changes of state, oldest first."""
        return page_of(self, self.get_object().events.all())

    @extend_schema(summary="The problems of a run's audience", responses=RunProblemSerializer(many=True))
    @action(detail=True, serializer_class=RunProblemSerializer, filterset_class=RunProblemFilter, ordering="id")
    def problems(self, request: Request, pk: str) -> Response:
        """Rows of the audience that get no mail, with their reasons. Only the first ones of each kind are listed;
        `problem_counts` of the run counts all."""
        return page_of(self, self.get_object().problems.all())

    @extend_schema(
        summary="The execution log of a run",
        responses={200: OpenApiResponse(OpenApiTypes.OBJECT, "Everything about the run, and every recipient's end.")},
    )
    @action(detail=True)
    def log(self, request: Request, pk: str) -> FileResponse:
        """The file as it was written when the run had ended. 404 while there is none."""
        run = self.get_object()
        if not run.log_path:
            raise NotFound(f"Run {run.pk} is {run.state} and has no execution log: it is written when a run has ended.")
        try:
            file = execution_log.open_for_reading(run)
        except OSError:
            raise NotFound(
                f"The execution log of run {run.pk} is not on this host: it is in the output folder of the host whose "
                "worker wrote it. Let all hosts share one (OUTREACH_OUTPUT_DIR)."
            ) from None
        return FileResponse(file, content_type="application/json", filename=f"run-{run.pk}.json")

    def _control(self, request: Request, deed: Callable[[Run, str, str], None]) -> Response:
        run, body = self.get_object(), WhyBody.of(request)
        with refusing(CampaignError, DeliveryError):
            deed(run, who(request), body["why"])
        return Response(self._shown())

    def _shown(self) -> dict[str, object]:
        """The run as it is now."""
        return dict(self.get_serializer(self.get_object()).data)
