"""Single mails, sent by a program without a workflow: through a template, or with words of its own."""

from collections.abc import Mapping

from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema, inline_serializer
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from campaigns.api.idempotency import REPLAYED, Key
from campaigns.api.runs import TO_CONTROL
from campaigns.api.setting_up import IdOrSlugField
from campaigns.api.trigger import KEY
from campaigns.exceptions import CampaignError
from campaigns.models import Template
from campaigns.single import PARTS, Mail, Sender, prepared, send, usual_pool
from delivery.addresses import ImpossibleAddress, normalise
from delivery.api.requests import Body, allowed, refusing
from delivery.core.envelope import Mailbox
from delivery.models import DeliveryState, Pool
from delivery.templating import TemplateProblem

LONGEST_PART = 1_000_000  # characters


class AddressField(serializers.CharField):
    """An address, in the form in which it is mailed to."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(max_length=320, **kwargs)

    def to_internal_value(self, data: object) -> str:
        text = super().to_internal_value(data)
        try:
            return normalise(text)
        except ImpossibleAddress as problem:
            raise serializers.ValidationError(f"Not an address: {problem}") from None


class MessageBody(Body):
    """One mail."""

    to = AddressField()
    name = serializers.CharField(max_length=200, required=False, default="", allow_blank=True)
    from_address = AddressField(help_text="Of a domain for which the pool may send.")
    from_name = serializers.CharField(max_length=200, required=False, default="", allow_blank=True)
    reply_to = AddressField(required=False)
    template = IdOrSlugField(queryset=Template.objects.all(), required=False)
    data = serializers.DictField(required=False, help_text="What the template may use.")
    subject = serializers.CharField(max_length=990, required=False, help_text="In place of a template, as it is.")
    text = serializers.CharField(max_length=LONGEST_PART, required=False, trim_whitespace=False, allow_blank=True)
    html = serializers.CharField(max_length=LONGEST_PART, required=False, trim_whitespace=False, allow_blank=True)
    pool = IdOrSlugField(queryset=Pool.objects.all(), required=False)
    priority = serializers.IntegerField(required=False, default=0, min_value=-32_768, max_value=32_767)
    deadline = serializers.DateTimeField(required=False)

    def validate_deadline(self, deadline: object) -> object:
        if deadline <= timezone.now():
            raise serializers.ValidationError("This is over. A good one: 2030-12-24T09:00:00+01:00.")
        return deadline

    def validate(self, body: dict[str, object]) -> dict[str, object]:
        parts = [part for part in PARTS if part in body]
        if "template" in body:
            if parts:
                raise serializers.ValidationError({parts[0]: "The template says this. Leave one of both out."})
            return body
        if "data" in body:
            raise serializers.ValidationError({"data": "This is for a template, and none is named."})
        if "subject" not in body:
            raise serializers.ValidationError({"template": "Name a template, or give subject, text and html."})
        if not (body.get("text", "").strip() or body.get("html", "").strip()):
            raise serializers.ValidationError({"text": "The mail would be empty: give a text, an HTML part, or both."})
        return body


ANSWER = inline_serializer(
    "Message",
    {
        "id": serializers.IntegerField(help_text="Of its delivery: GET deliveries/{id}/ says what becomes of it."),
        "state": serializers.ChoiceField(DeliveryState.choices),
        "to": serializers.CharField(),
    },
)


class MessagesView(APIView):
    """`POST messages/`."""

    permission_classes = [allowed(to_see=TO_CONTROL, to_act=TO_CONTROL)]

    @extend_schema(
        operation_id="messages_create",
        summary="Send one mail",
        parameters=[KEY],
        request=MessageBody,
        responses={202: ANSWER},
        examples=[
            OpenApiExample(
                "Through a template",
                {
                    "to": "ada@example.test",
                    "name": "Ada",
                    "from_address": "shop@shop.example",
                    "template": "welcome",
                    "data": {"name": "Ada"},
                },
                request_only=True,
            ),
            OpenApiExample(
                "With words of its own",
                {
                    "to": "ada@example.test",
                    "from_address": "shop@shop.example",
                    "subject": "Your order",
                    "text": "It is on its way.",
                },
                request_only=True,
            ),
        ],
    )
    def post(self, request: Request) -> Response:
        body = MessageBody.of(request)
        key = Key.of(request, {"messages": True})
        with refusing(CampaignError):
            batch_id, message_id, single = _prepared(body)
        with transaction.atomic():
            known = key and key.take()
            if not known:
                delivery_id = send(batch_id, message_id, single)
                answer = {"id": delivery_id, "state": DeliveryState.READY.value, "to": single.address}
                if key:
                    key.answered(status.HTTP_202_ACCEPTED, answer)
        if known:
            return _answer(known.said, replayed=True)
        return _answer(answer)


def _prepared(body: Mapping[str, object]) -> tuple[int, int, object]:
    template = body.get("template")
    mail = Mail(
        Mailbox(body["to"], body["name"]),
        Sender(body["from_address"], body["from_name"], body.get("reply_to", "")),
        template,
        body.get("data"),
        None if template else {part: body[part] for part in PARTS if part in body},
        body.get("deadline"),
    )
    try:
        return prepared(mail, body.get("pool") or usual_pool(), body["priority"])
    except TemplateProblem as problem:
        raise serializers.ValidationError({"data" if template else "subject": str(problem)}) from problem


def _answer(message: Mapping[str, object], *, replayed: bool = False) -> Response:
    headers = {"Location": reverse("api:delivery-detail", args=[message["id"]])}
    if replayed:
        headers[REPLAYED] = "true"
    return Response(message, status.HTTP_202_ACCEPTED, headers=headers)
