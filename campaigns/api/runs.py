"""Runs: followed, paused, resumed, cancelled, and their failures retried."""

from collections.abc import Callable

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from campaigns import control
from campaigns.exceptions import CampaignError
from campaigns.finish import ENDS
from campaigns.models import Run
from campaigns.replay import FAILED, replay_run
from delivery import queue
from delivery.api.requests import Body, allowed, refusing, who
from delivery.exceptions import DeliveryError
from delivery.models import DeliveryState

TO_CONTROL = "campaigns.send_workflow"


class RunSerializer(serializers.ModelSerializer):
    """A run and how far it is: while it is under way `counts` grow, and `open` is what they lack to `total`."""

    workflow_slug = serializers.CharField(source="workflow.slug")
    total = serializers.SerializerMethodField()
    counts = serializers.SerializerMethodField()
    open = serializers.SerializerMethodField()

    class Meta:
        model = Run
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

    def get_total(self, run: Run) -> int:
        return run.batch.size if run.batch else 0

    def get_counts(self, run: Run) -> dict[str, int]:
        # One who is over says what was reconciled; one under way, what there is so far.
        counts = run.counts or (queue.progress(run.batch_id) if run.batch_id else {})
        return dict.fromkeys(ENDS, 0) | counts

    def get_open(self, run: Run) -> int:
        return max(self.get_total(run) - sum(self.get_counts(run).values()), 0)


class WhyBody(Body):
    """Why, for the run's history."""

    why = serializers.CharField(max_length=400, required=False, allow_blank=True, default="")


class RetryBody(WhyBody):
    """`uncertain`: also those that may have arrived."""

    uncertain = serializers.BooleanField(required=False, default=False)

    @staticmethod
    def states(body: dict[str, object]) -> tuple[str, ...]:
        return (*FAILED, DeliveryState.UNCERTAIN) if body["uncertain"] else FAILED


class RunViewSet(ReadOnlyModelViewSet):
    serializer_class = RunSerializer
    permission_classes = [allowed(to_see="campaigns.view_run", to_act=TO_CONTROL)]
    ordering = "-id"
    lookup_value_regex = r"\d{1,18}"

    def get_queryset(self) -> QuerySet[Run]:
        return Run.objects.select_related("workflow", "batch")

    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        return self._control(request, control.pause)

    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        return self._control(request, control.resume)

    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        return self._control(request, control.cancel)

    @action(detail=True, methods=["post"], url_path="retry-failed")
    def retry_failed(self, request: Request, pk: str) -> Response:
        run, body = self.get_object(), RetryBody.of(request)
        with refusing(CampaignError, DeliveryError):
            count = replay_run(run, who(request), body["why"], states=RetryBody.states(body))
        return Response(self._shown() | {"replayed": count})

    def _control(self, request: Request, deed: Callable[[Run, str, str], None]) -> Response:
        run, body = self.get_object(), WhyBody.of(request)
        with refusing(CampaignError, DeliveryError):
            deed(run, who(request), body["why"])
        return Response(self._shown())

    def _shown(self) -> dict[str, object]:
        """The run as it is now."""
        return dict(self.get_serializer(self.get_object()).data)
