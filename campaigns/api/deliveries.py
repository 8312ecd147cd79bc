"""Deliveries and composed texts, with what needs a run: found by it, and sent again."""

from collections.abc import Iterable

from django.http import Http404
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from campaigns.api.runs import TO_CONTROL, RetryBody
from campaigns.exceptions import CampaignError
from campaigns.models import Run
from campaigns.replay import by_run, replay_run
from delivery.api import compositions, deliveries, delivery_detail, delivery_lists
from delivery.api.narrowing import NumberFilter
from delivery.api.requests import allowed, refusing, who
from delivery.exceptions import DeliveryError
from delivery.models import Batch, Delivery, DeliveryState


class OfPage(serializers.ListSerializer):
    """Asks once for the runs of a page."""

    def to_representation(self, data: Iterable[object]) -> list[dict[str, object]]:
        rows = list(data)
        batches = {row.batch_id for row in rows}
        self.child.runs = dict(Run.objects.filter(batch__in=batches).values_list("batch", "pk"))
        return super().to_representation(rows)


class WithRun(serializers.Serializer):
    """Mixed into what belongs to a batch: `run` is whose batch that is, null when no run has it."""

    run = serializers.SerializerMethodField()
    runs: dict[int, int] | None = None

    def get_run(self, row: object) -> int | None:
        if self.runs is not None:
            return self.runs.get(row.batch_id)
        return Run.objects.filter(batch=row.batch_id).values_list("pk", flat=True).first()


class DeliverySerializer(WithRun, delivery_lists.DeliverySerializer):
    class Meta(delivery_lists.DeliverySerializer.Meta):
        list_serializer_class = OfPage
        fields = ("id", "run", *delivery_lists.DeliverySerializer.Meta.fields[1:])


class DeliveryDetailSerializer(WithRun, delivery_detail.DeliveryDetailSerializer):
    class Meta(delivery_detail.DeliveryDetailSerializer.Meta):
        fields = ("id", "run", *delivery_detail.DeliveryDetailSerializer.Meta.fields[1:])


class CompositionSerializer(WithRun, compositions.CompositionSerializer):
    class Meta(compositions.CompositionSerializer.Meta):
        list_serializer_class = OfPage
        fields = ("id", "run", *compositions.CompositionSerializer.Meta.fields[1:])


class CompositionDetailSerializer(WithRun, compositions.CompositionDetailSerializer):
    class Meta(compositions.CompositionDetailSerializer.Meta):
        fields = ("id", "run", *compositions.CompositionDetailSerializer.Meta.fields[1:])


def _batch_of_run(run_id: object) -> Batch | None:
    return Batch.objects.filter(run=run_id).first()


class DeliveryFilter(delivery_lists.DeliveryFilter):
    run = NumberFilter(help_text="Those of one run, by its id.")
    within = ("run", "batch")

    def batch_of(self, name: str, value: object) -> Batch | None:
        return _batch_of_run(value) if name == "run" else super().batch_of(name, value)


class CompositionFilter(compositions.CompositionFilter):
    run = NumberFilter(help_text="Those of one run, by its id.")
    within = ("run", "batch")

    def batch_of(self, name: str, value: object) -> Batch | None:
        return _batch_of_run(value) if name == "run" else super().batch_of(name, value)


class ReplayedSerializer(serializers.Serializer):
    """How the delivery stands now, and its run."""

    id = serializers.IntegerField()
    state = serializers.ChoiceField(DeliveryState.choices)
    run = serializers.IntegerField()


class DeliveryViewSet(deliveries.DeliveryViewSet):
    """Deliveries, the newest first."""

    serializer_class = DeliverySerializer
    detail_serializer_class = DeliveryDetailSerializer
    filterset_class = DeliveryFilter

    @extend_schema(
        summary="Send a delivery again",
        request=RetryBody,
        responses={200: ReplayedSerializer},
        examples=[OpenApiExample("Its mailbox is mended", {"why": "her mailbox was full"}, request_only=True)],
    )
    @action(
        detail=True,
        methods=["post"],
        permission_classes=[allowed(to_see="delivery.view_delivery", to_act=TO_CONTROL)],
    )
    def replay(self, request: Request, pk: str) -> Response:
        """Sends it again, in its place, if it did not get through."""
        body = RetryBody.of(request)
        for run, ids in by_run([int(pk)]).items():
            with refusing(CampaignError, DeliveryError):
                replay_run(run, who(request), body["why"], states=RetryBody.states(body), ids=ids)
            state = Delivery.objects.values_list("state", flat=True).get(pk=pk)
            return Response({"id": int(pk), "state": state, "run": run.pk})
        raise Http404


class CompositionViewSet(compositions.CompositionViewSet):
    """Composed texts, the newest first. `state=review` lists those that wait for a person."""

    serializer_class = CompositionSerializer
    detail_serializer_class = CompositionDetailSerializer
    filterset_class = CompositionFilter
