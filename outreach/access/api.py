"""The audit trail over REST."""

import django_filters
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.routers import SimpleRouter
from rest_framework.viewsets import ReadOnlyModelViewSet

from delivery.api.requests import allowed
from outreach.models import AuditEntry

TO_SEE = "outreach.view_auditentry"


class AuditEntrySerializer(serializers.ModelSerializer):
    """Who did what. `token` and `token_id` are empty for what was done in a browser."""

    user = serializers.CharField(source="user_name")
    token = serializers.CharField(source="token_name")
    object = serializers.CharField(source="thing", help_text="The id or slug in the address.")
    body_fields = serializers.ListField(child=serializers.CharField(), help_text="Their names; no values are kept.")

    class Meta:
        model = AuditEntry
        fields = (
            "id",
            "at",
            "user",
            "user_id",
            "token",
            "token_id",
            "method",
            "route",
            "path",
            "object",
            "status",
            "request_id",
            "body_fields",
            "address",
        )


class AuditFilter(django_filters.FilterSet):
    """By user, and by method."""

    user = django_filters.CharFilter(field_name="user_name", max_length=150)
    method = django_filters.ChoiceFilter(choices=[(each, each) for each in ("POST", "PUT", "PATCH", "DELETE")])

    class Meta:
        model = AuditEntry
        fields = ()


EXAMPLE = OpenApiExample(
    "A pool was changed by a program",
    {
        "id": 4711,
        "at": "2026-11-25T09:30:00.123456Z",
        "user": "ada",
        "user_id": 7,
        "token": "shop, production",
        "token_id": 3,
        "method": "PATCH",
        "route": "api/v1/pools/(?P<pk>[-\\w]+)/$",
        "path": "/api/v1/pools/fast/",
        "object": "fast",
        "status": 200,
        "request_id": "93068e356184df4e",
        "body_fields": ["strategy"],
        "address": "192.0.2.7",
    },
    response_only=True,
)


@extend_schema_view(
    list=extend_schema(summary="The audit trail, newest first", examples=[EXAMPLE]),
    retrieve=extend_schema(summary="One entry of the audit trail", examples=[EXAMPLE]),
)
class AuditViewSet(ReadOnlyModelViewSet):
    """What was changed over the API, and what somebody was refused. Runs and single mails have records of their own."""

    queryset = AuditEntry.objects.all()
    serializer_class = AuditEntrySerializer
    permission_classes = [allowed(to_see=TO_SEE, to_act=TO_SEE)]
    filterset_class = AuditFilter
    ordering = "-id"
    lookup_value_regex = r"[0-9]{1,18}"


router = SimpleRouter()
router.register("audit", AuditViewSet, basename="audit")
