"""Suppressions: addresses that must not be mailed. Rows are added and deleted, never changed: another address is
another row."""

import django_filters
from django import forms
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.mixins import DestroyModelMixin, ListModelMixin, RetrieveModelMixin
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from delivery.addresses import ImpossibleAddress, identity, normalise
from delivery.api.requests import Body, Refused, allowed, who
from delivery.models import Suppression, SuppressionReason
from delivery.suppression import suppress

# What the recipient has said, and not we.
OWN_WORD = (SuppressionReason.UNSUBSCRIBE, SuppressionReason.COMPLAINT)
DESPITE = "despite"


class AddressField(forms.CharField):
    """An address, compared in the form in which addresses are."""

    def clean(self, value: object) -> str:
        text = super().clean(value)
        try:
            return identity(normalise(text)) if text else ""
        except ImpossibleAddress as problem:
            raise forms.ValidationError("Not an address: %(why)s", params={"why": problem.reason}) from None


@extend_schema_field(OpenApiTypes.STR)
class AddressFilter(django_filters.Filter):
    """Rows of one address, however it is spelt: a look into the index on `identity`."""

    field_class = AddressField

    def __init__(self, **kwargs: object) -> None:
        super().__init__(
            **{"field_name": "identity", "max_length": 1000, "help_text": "A whole address, however spelt."} | kwargs
        )


class SuppressionSerializer(serializers.ModelSerializer):
    """An address that gets no mail: none at all, or none of a `scope`, which is the slug of a workflow, or a run."""

    class Meta:
        model = Suppression
        fields = ("id", "address", "reason", "scope", "source", "created_at")
        read_only_fields = fields


class SuppressionBody(Body):
    """Whom not to mail. Without a scope: not at all."""

    address = serializers.CharField(max_length=320)
    reason = serializers.ChoiceField(
        SuppressionReason.choices,
        required=False,
        default=SuppressionReason.MANUAL.value,
        error_messages={"invalid_choice": f'"{{input}}" is none of {", ".join(SuppressionReason.values)}.'},
    )
    scope = serializers.CharField(max_length=100, required=False, default="", allow_blank=True)
    source = serializers.CharField(
        max_length=200, required=False, default="", allow_blank=True, help_text="Where this is known from."
    )

    def validate_address(self, text: str) -> str:
        try:
            return normalise(text)
        except ImpossibleAddress as problem:
            raise serializers.ValidationError(f"Not an address: {problem.reason}") from None


class SuppressionFilter(django_filters.FilterSet):
    address = AddressFilter()
    reason = django_filters.ChoiceFilter(choices=SuppressionReason.choices)
    scope = django_filters.CharFilter(max_length=100)

    class Meta:
        model = Suppression
        fields = ()


class SuppressionViewSet(ListModelMixin, RetrieveModelMixin, DestroyModelMixin, GenericViewSet):
    queryset = Suppression.objects.all()
    serializer_class = SuppressionSerializer
    filterset_class = SuppressionFilter
    ordering = "-id"
    lookup_value_regex = r"[0-9]{1,18}"

    def get_permissions(self) -> list[BasePermission]:
        deed = "delete" if self.action == "destroy" else "add"
        return [allowed(to_see="delivery.view_suppression", to_act=f"delivery.{deed}_suppression")()]

    @extend_schema(
        request=SuppressionBody,
        responses={201: SuppressionSerializer, 200: SuppressionSerializer},
        description="From now on the address gets no mail. 200: that was so already, and this is the row.",
        examples=[
            OpenApiExample("Not at all", {"address": "ada@example.test", "source": "by phone"}, request_only=True),
            OpenApiExample(
                "Not of one workflow",
                {"address": "ada@example.test", "reason": "unsubscribe", "scope": "newsletter"},
                request_only=True,
            ),
        ],
    )
    def create(self, request: Request) -> Response:
        body = SuppressionBody.of(request)
        source = body["source"] or f"by {who(request)}"
        new = suppress(body["address"], SuppressionReason(body["reason"]), scope=body["scope"], source=source)
        row = get_object_or_404(Suppression, identity=identity(body["address"]), scope=body["scope"])
        return Response(self.get_serializer(row).data, status.HTTP_201_CREATED if new else status.HTTP_200_OK)

    @extend_schema(
        parameters=[
            OpenApiParameter(
                DESPITE,
                enum=[reason.value for reason in OWN_WORD],
                description="The reason, for a row that the recipient's own word has made.",
            )
        ],
        description="The address may be mailed again. What the recipient has said, an unsubscribe or a complaint, is "
        f"only set aside when `{DESPITE}` names it.",
    )
    def destroy(self, request: Request, *args: object, **kwargs: object) -> Response:
        row = get_object_or_404(self.get_queryset(), pk=self.kwargs["pk"])
        if row.reason in OWN_WORD and request.query_params.get(DESPITE) != row.reason:
            raise Refused(
                f"{row.address} is suppressed by the recipient's own word ({row.get_reason_display()}). If it is "
                f"withdrawn, say so: ?{DESPITE}={row.reason}."
            )
        row.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)
