"""Deliveries: listed, read, and told what is heard of them after they were sent, by whoever hears it.

What needs a run is said by those who know runs: they use this view, with more.
"""

from dataclasses import asdict
from datetime import timedelta

from django.db.models import QuerySet
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.utils.timezone import now
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from delivery import queue
from delivery.api.delivery_detail import DeliveryDetailSerializer
from delivery.api.delivery_lists import ROWS, DeliveryFilter, DeliverySerializer, is_there
from delivery.api.requests import Body, allowed, refusing, who
from delivery.models import Delivery, EventKind
from delivery.rendered_mail import rendered_mail
from delivery.templating import TemplateProblem

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


class HeardSerializer(serializers.Serializer):
    """What was written down."""

    delivery = serializers.IntegerField()
    kind = serializers.ChoiceField(EventKind.choices)
    at = serializers.DateTimeField()
    source = serializers.CharField()


class MailSerializer(serializers.Serializer):
    """A mail as it goes out. `html` is "" when there is none; `composed`: a model has written its text. The link by
    which its recipient unsubscribes is hidden in it."""

    sender = serializers.CharField()
    recipient = serializers.CharField()
    reply_to = serializers.CharField(allow_blank=True)
    subject = serializers.CharField()
    text = serializers.CharField(allow_blank=True)
    html = serializers.CharField(allow_blank=True)
    headers = serializers.DictField(child=serializers.CharField(allow_blank=True))
    composed = serializers.BooleanField()


class DeliveryViewSet(ReadOnlyModelViewSet):
    """Deliveries, the newest first."""

    queryset = ROWS
    serializer_class = DeliverySerializer
    detail_serializer_class = DeliveryDetailSerializer
    filterset_class = DeliveryFilter
    permission_classes = [allowed(to_see="delivery.view_delivery", to_act="delivery.change_delivery")]
    ordering = "-id"
    lookup_value_regex = r"[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Delivery]:
        rows = super().get_queryset()
        return rows.defer("data", "thread") if self.action == "list" else rows.prefetch_related("batch")

    def get_serializer_class(self) -> type[DeliverySerializer]:
        return self.detail_serializer_class if self.action == "retrieve" else self.serializer_class

    @extend_schema(
        summary="Tell what was heard of a delivery",
        request=EventBody,
        responses={201: HeardSerializer},
        examples=[
            OpenApiExample(
                "An answer",
                {"kind": "replied", "at": "2026-01-24T09:00:00+01:00", "source": "the mailbox hello@shop.example"},
                request_only=True,
            )
        ],
    )
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

    @extend_schema(summary="Show the mail of a delivery", responses={200: MailSerializer})
    @action(detail=True, methods=["get"])
    def mail(self, request: Request, pk: str) -> Response:
        """The mail, rendered for its recipient from what was frozen when its run began."""
        delivery = get_object_or_404(Delivery.objects.prefetch_related("message__batch"), pk=pk)
        if not is_there(delivery, "message"):
            raise Http404
        with refusing(TemplateProblem):
            return Response(asdict(rendered_mail(delivery)))
