"""Webhooks: who is told what, set up and tested. Callbacks: what was told, with every attempt, and sent again."""

from copy import copy

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ModelViewSet, ReadOnlyModelViewSet

from campaigns.api.narrowing import YesNoFilter
from campaigns.api.setting_up import StrictSerializer, writing
from campaigns.audiences.http_url import without_query
from campaigns.callbacks import names, webhooks
from campaigns.callbacks.outbox import replay
from campaigns.callbacks.sending import ping, shown
from campaigns.exceptions import CampaignError
from campaigns.models import Callback, CallbackAttempt, CallbackState, Webhook
from delivery.api.requests import allowed, refusing, who
from delivery.api.setting_up import LARGEST_ID
from delivery.exceptions import DeliveryError

TO_SEE = "campaigns.view_webhook"
TO_CHANGE = "campaigns.change_webhook"
ABOUT_EVENTS = f"Names, or a kind with a star for all of it: {', '.join(names.ALL)}."
BODY = {"name": "shop", "url": "https://shop.example/hooks/outreach", "events": ["run.*", "delivery.rejected"]}


class WebhookSerializer(StrictSerializer):
    """A webhook. `failing_since`: when its attempts began to fail, and none got through since; `switched_off_why`: why
    it was switched off, if nobody did that by hand."""

    events = serializers.ListField(
        child=serializers.CharField(max_length=60), max_length=names.MOST, help_text=ABOUT_EVENTS
    )

    class Meta:
        model = Webhook
        fields = (
            "id",
            "name",
            "url",
            "events",
            "enabled",
            "failing_since",
            "failures",
            "switched_off_why",
            "created_at",
            "changed_at",
        )
        read_only_fields = ("failing_since", "failures", "switched_off_why", "created_at", "changed_at")
        validators = []

    def validate(self, given: dict[str, object]) -> dict[str, Webhook]:
        webhook = copy(self.instance) if self.instance else Webhook()
        for field, value in given.items():
            setattr(webhook, field, value)
        try:
            webhooks.check(webhook)
        except ValidationError as refusal:
            raise serializers.ValidationError(refusal.message_dict) from refusal
        return {"webhook": webhook}

    def create(self, made: dict[str, Webhook]) -> Webhook:
        webhook = made["webhook"]
        with writing(webhook), refusing(DeliveryError):
            webhook.secret = webhooks.add(webhook, who(self.context["request"]))
        return webhook

    def update(self, instance: Webhook, made: dict[str, Webhook]) -> Webhook:
        with writing(made["webhook"]):
            webhooks.change(made["webhook"], who(self.context["request"]))
        return Webhook.objects.get(pk=instance.pk)


class WebhookWithSecretSerializer(WebhookSerializer):
    """With the secret that signs what it is told (Standard Webhooks). It is not shown again."""

    secret = serializers.CharField(read_only=True)

    class Meta(WebhookSerializer.Meta):
        fields = (*WebhookSerializer.Meta.fields, "secret")


class PingSerializer(serializers.Serializer):
    """What came of a ping. `status`: null when there was no answer. `callback`: where it is recorded."""

    delivered = serializers.BooleanField()
    status = serializers.IntegerField(allow_null=True)
    seconds = serializers.FloatField()
    words = serializers.CharField(allow_blank=True)
    callback = serializers.IntegerField()


class WebhookFilter(django_filters.FilterSet):
    enabled = YesNoFilter(help_text="Those that are on, or off.")

    class Meta:
        model = Webhook
        fields = ()


@extend_schema_view(
    list=extend_schema(summary="All webhooks"),
    retrieve=extend_schema(summary="A webhook"),
    create=extend_schema(
        summary="Add a webhook",
        request=WebhookSerializer,
        responses={201: WebhookWithSecretSerializer},
        examples=[OpenApiExample("What a shop wants to hear", BODY, request_only=True)],
    ),
    partial_update=extend_schema(
        summary="Change a webhook, or switch it off or on",
        examples=[OpenApiExample("Switch it on", {"enabled": True}, request_only=True)],
    ),
    destroy=extend_schema(summary="Delete a webhook: what waits for it is dead"),
)
class WebhookViewSet(ModelViewSet):
    """Standing addresses that are told what happens here, in the form of Standard Webhooks."""

    queryset = Webhook.objects.all()
    serializer_class = WebhookSerializer
    http_method_names = ["get", "head", "options", "post", "patch", "delete"]
    lookup_value_regex = r"[0-9]{1,18}"
    filterset_class = WebhookFilter
    ordering = "id"
    to_act = {"create": "campaigns.add_webhook", "destroy": "campaigns.delete_webhook"}

    def get_permissions(self) -> list[BasePermission]:
        return [allowed(to_see=TO_SEE, to_act=self.to_act.get(self.action, TO_CHANGE))()]

    def get_serializer_class(self) -> type[WebhookSerializer]:
        return WebhookWithSecretSerializer if self.action in ("create", "rotate") else WebhookSerializer

    def perform_destroy(self, instance: Webhook) -> None:
        webhooks.remove(instance, who(self.request))

    @extend_schema(
        summary="Replace the secret of a webhook",
        description="The old one signs beside the new one for a day.",
        request=None,
        responses=WebhookWithSecretSerializer,
    )
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, pk: str) -> Response:
        webhook = self.get_object()
        with refusing(DeliveryError):
            secret = webhooks.rotate(webhook, who(request))
        webhook.refresh_from_db()
        webhook.secret = secret
        return Response(self.get_serializer(webhook).data)

    @extend_schema(
        summary="Tell a webhook that it is there, now",
        description="It is sent a `ping`, once. 409 when it is switched off.",
        request=None,
        responses=PingSerializer,
    )
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        with refusing(CampaignError, DeliveryError):
            callback = ping(self.get_object())
        attempt = callback.tries.get()
        return Response(
            {
                "delivered": callback.state == CallbackState.DELIVERED,
                "status": attempt.status,
                "seconds": attempt.seconds,
                "words": attempt.words,
                "callback": callback.pk,
            }
        )


class CallbackAttemptSerializer(serializers.ModelSerializer):
    """One try. `status`: null when there was no answer."""

    class Meta:
        model = CallbackAttempt
        fields = ("at", "seconds", "status", "words")


class CallbackSerializer(serializers.ModelSerializer):
    """Something that is told. `webhook`: null for a run's own callback_url; `key`: its `webhook-id` in every attempt;
    `next_at`: when it is tried next, null while its webhook is switched off; `url` without its query."""

    webhook = serializers.IntegerField(source="webhook_id", allow_null=True)
    run = serializers.IntegerField(source="run_id", allow_null=True)
    url = serializers.SerializerMethodField()

    class Meta:
        model = Callback
        fields = (
            "id",
            "key",
            "type",
            "webhook",
            "run",
            "url",
            "state",
            "attempts",
            "next_at",
            "words",
            "created_at",
            "ended_at",
        )

    def get_url(self, callback: Callback) -> str:
        return without_query(callback.url)


class CallbackDetailSerializer(CallbackSerializer):
    """With what is told, and every attempt."""

    payload = serializers.SerializerMethodField()
    tries = CallbackAttemptSerializer(many=True)

    class Meta(CallbackSerializer.Meta):
        fields = (*CallbackSerializer.Meta.fields, "payload", "tries")

    @extend_schema_field(OpenApiTypes.OBJECT)
    def get_payload(self, callback: Callback) -> object:
        return shown(callback.body)


class CallbackFilter(django_filters.FilterSet):
    state = django_filters.ChoiceFilter(choices=CallbackState.choices)
    type = django_filters.ChoiceFilter(choices=[(name, name) for name in names.TYPES])
    webhook = django_filters.NumberFilter(min_value=1, max_value=LARGEST_ID)
    run = django_filters.NumberFilter(min_value=1, max_value=LARGEST_ID)

    class Meta:
        model = Callback
        fields = ()


@extend_schema_view(
    list=extend_schema(summary="All callbacks, the newest first"),
    retrieve=extend_schema(summary="A callback, with what it says and every attempt"),
)
class CallbackViewSet(ReadOnlyModelViewSet):
    """What this installation tells others, and what became of that."""

    queryset = Callback.objects.all()
    serializer_class = CallbackSerializer
    permission_classes = [allowed(to_see="campaigns.view_callback", to_act=TO_CHANGE)]
    filterset_class = CallbackFilter
    ordering = "-id"
    lookup_value_regex = r"[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Callback]:
        rows = super().get_queryset()
        return rows.defer("body") if self.action == "list" else rows.prefetch_related("tries")

    def get_serializer_class(self) -> type[CallbackSerializer]:
        return CallbackSerializer if self.action == "list" else CallbackDetailSerializer

    @extend_schema(
        summary="Send a dead letter again",
        description="For another 24 hours, under its old `webhook-id`. 409 when it is none.",
        request=None,
        responses={202: CallbackDetailSerializer},
    )
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: str) -> Response:
        callback = self.get_object()
        with refusing(CampaignError):
            replay([callback.pk], who(request))
        return Response(self.get_serializer(self.get_object()).data, status.HTTP_202_ACCEPTED)
