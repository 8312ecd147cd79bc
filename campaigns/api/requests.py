"""Requests for runs: how each was asked for, how long the answer took, what came of it."""

from collections.abc import Sequence

import django_filters
from rest_framework import serializers
from rest_framework.viewsets import ReadOnlyModelViewSet

from campaigns.callbacks import status_of
from campaigns.models import Mode, Outcome, RunRequest, Workflow
from delivery.api.requests import allowed


class OfPage(serializers.ListSerializer):
    """Asks once for what is known of the runs of a page."""

    def to_representation(self, data: Sequence[RunRequest]) -> list[dict[str, object]]:
        rows = list(data)
        self.child.callbacks = status_of([row.run_id for row in rows if row.run_id])
        return super().to_representation(rows)


class RunRequestSerializer(serializers.ModelSerializer):
    """A request for a run. `seconds`: until it was answered; `run_seconds`: how long its run took; `callback`: whether
    those were told who asked to be (null: nobody asked)."""

    workflow_slug = serializers.CharField(source="workflow.slug")
    run_state = serializers.CharField(source="run.state", default=None, allow_null=True)
    run_seconds = serializers.SerializerMethodField()
    callback = serializers.SerializerMethodField()
    callbacks: dict[int, str] | None = None

    class Meta:
        model = RunRequest
        list_serializer_class = OfPage
        fields = (
            "id",
            "at",
            "mode",
            "outcome",
            "workflow",
            "workflow_slug",
            "run",
            "run_state",
            "run_seconds",
            "callback",
            "by",
            "request_id",
            "key",
            "recipients",
            "seconds",
            "words",
        )

    def get_run_seconds(self, request: RunRequest) -> float | None:
        run = request.run
        return (run.ended_at - run.created_at).total_seconds() if run and run.ended_at else None

    def get_callback(self, request: RunRequest) -> str | None:
        known = status_of([request.run_id]) if self.callbacks is None and request.run_id else self.callbacks or {}
        return known.get(request.run_id)


class RunRequestFilter(django_filters.FilterSet):
    workflow = django_filters.ModelChoiceFilter(queryset=Workflow.objects.all())
    run = django_filters.NumberFilter(min_value=1, max_value=2**63 - 1)
    mode = django_filters.ChoiceFilter(choices=Mode.choices)
    outcome = django_filters.ChoiceFilter(choices=Outcome.choices)

    class Meta:
        model = RunRequest
        fields = ()


class RunRequestViewSet(ReadOnlyModelViewSet):
    queryset = RunRequest.objects.select_related("workflow", "run")
    serializer_class = RunRequestSerializer
    permission_classes = [allowed(to_see="campaigns.view_run", to_act="campaigns.view_run")]
    filterset_class = RunRequestFilter
    ordering = "-id"
    lookup_value_regex = r"[0-9]{1,18}"
