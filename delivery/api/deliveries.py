"""Deliveries: what is heard of them after they were sent is told here, by whoever hears it."""

from datetime import timedelta

from django.shortcuts import get_object_or_404
from django.utils.timezone import now
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from delivery import queue
from delivery.api.requests import Body, allowed, who
from delivery.models import Delivery, EventKind

EARLY = timedelta(minutes=5)  # clocks differ


class EventBody(Body):
    """What was heard, when it happened, and from where it is known."""

    kind = serializers.ChoiceField(EventKind.choices)
    at = serializers.DateTimeField(required=False, allow_null=True)
    source = serializers.CharField(max_length=200, required=False, allow_blank=True)

    def validate_at(self, at: object) -> object:
        if at is not None and at > now() + EARLY:
            raise serializers.ValidationError("This is in the future. A good one: 2026-12-24T09:00:00+01:00.")
        return at


class DeliveryViewSet(GenericViewSet):
    queryset = Delivery.objects.all()
    permission_classes = [allowed(to_see="delivery.view_delivery", to_act="delivery.change_delivery")]
    lookup_value_regex = r"\d{1,18}"

    @action(detail=True, methods=["post"])
    def events(self, request: Request, pk: str) -> Response:
        """Writes an event down. The same one, of the same instant, is kept once however often it is told."""
        delivery = get_object_or_404(Delivery.objects.only("pk"), pk=pk)
        body = EventBody.of(request)
        heard = queue.Heard(
            delivery.pk, EventKind(body["kind"]), body.get("at") or now(), body.get("source") or f"by {who(request)}"
        )
        queue.record_events([heard])
        answer = {"delivery": heard.delivery, "kind": heard.kind.value, "at": heard.at, "source": heard.source}
        return Response(answer, status.HTTP_201_CREATED)
