"""Engines: set up and changed, checked, looked at, held and released."""

from datetime import timedelta

import django_filters
from django.db.models import QuerySet
from django.http import Http404
from django.utils.timezone import now
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.exceptions import APIException
from rest_framework.mixins import ListModelMixin
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from delivery.api import engine_examples as examples
from delivery.api.engine_body import SHOWN, EngineSerializer
from delivery.api.engine_state import EngineStateSerializer, state_of
from delivery.api.narrowing import YesNoFilter
from delivery.api.requests import Body, NoBody, allowed, refusing, who
from delivery.api.setting_up import SettingUpViewSet, named
from delivery.checking import PATIENCE, check
from delivery.engines import KINDS
from delivery.exceptions import IllegalHold
from delivery.hold import hold, release
from delivery.models import Engine, EngineEvent
from delivery.shared import SharedAway

LONGEST = 366 * 24 * 60  # minutes
TO_SEE = "delivery.view_engine"
TO_HOLD = ("delivery.hold_engine", "delivery.change_engine")


class HoldBody(Body):
    """Why, and for how long."""

    why = serializers.CharField(max_length=200)
    minutes = serializers.IntegerField(min_value=1, max_value=LONGEST, required=False, allow_null=True)


class ReleaseBody(Body):
    """Why, if there is anything to say."""

    why = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")


class FindingSerializer(serializers.Serializer):
    """Something wrong with the settings. `certain`: the provider said so; else it could not be asked or did not say."""

    words = serializers.CharField()
    certain = serializers.BooleanField()


class CheckSerializer(serializers.Serializer):
    """What a check found: nothing, when all is well."""

    findings = FindingSerializer(many=True)


class EngineEventSerializer(serializers.ModelSerializer):
    """One thing that a person did to an engine."""

    class Meta:
        model = EngineEvent
        fields = ("id", "at", "what", "by", "why")
        extra_kwargs = {name: {"read_only": True} for name in fields}


class NotKnown(APIException):
    """Where the workers keep what they know cannot be asked now."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "away"


class EngineFilter(django_filters.FilterSet):
    kind = django_filters.ChoiceFilter(choices=[(slug, kind.label) for slug, kind in KINDS.items()])
    enabled = YesNoFilter()

    class Meta:
        model = Engine
        fields = ()


@extend_schema_view(
    create=extend_schema(examples=[examples.SMTP, examples.SES]),
    partial_update=extend_schema(examples=[examples.PATCH]),
)
class EngineViewSet(SettingUpViewSet):
    """An engine is named by its slug or its id."""

    queryset = SHOWN
    serializer_class = EngineSerializer
    filterset_class = EngineFilter
    ordering = "name"

    def get_permissions(self) -> list[BasePermission]:
        if self.action in ("hold", "release"):
            return [allowed(to_see=TO_SEE, to_act=TO_HOLD)()]
        return super().get_permissions()

    @extend_schema(
        summary="Hold an engine", request=HoldBody, responses={200: EngineSerializer}, examples=[examples.HOLD]
    )
    @action(detail=True, methods=["post"])
    def hold(self, request: Request, pk: str) -> Response:
        """Lets nothing go through it until it is released, or until so many minutes are over."""
        engine, body = self.get_object(), HoldBody.of(request)
        minutes = body.get("minutes")
        with refusing(IllegalHold):
            hold(engine, who(request), body["why"], now() + timedelta(minutes=minutes) if minutes else None)
        return Response(self.get_serializer(engine).data)

    @extend_schema(
        summary="Release an engine", request=ReleaseBody, responses={200: EngineSerializer}, examples=[examples.RELEASE]
    )
    @action(detail=True, methods=["post"])
    def release(self, request: Request, pk: str) -> Response:
        """Ends a hold."""
        engine, body = self.get_object(), ReleaseBody.of(request)
        with refusing(IllegalHold):
            release(engine, who(request), body["why"])
        return Response(self.get_serializer(engine).data)

    @extend_schema(
        summary="Check the settings of an engine",
        request=NoBody,
        responses={200: CheckSerializer},
        examples=[examples.NOTHING, examples.CHECKED],
        description="Asks the provider whether it could work: credentials, region, sender identities. No mail is sent, "
        f"nothing is changed. Takes up to {PATIENCE:g} seconds.",
    )
    @action(detail=True, methods=["post"])
    def check(self, request: Request, pk: str) -> Response:
        NoBody.of(request)
        return Response({"findings": [finding._asdict() for finding in check(self.get_object())]})

    @extend_schema(
        summary="Show the state of an engine", responses={200: EngineStateSerializer}, examples=[examples.STATE]
    )
    @action(detail=True, methods=["get"])
    def state(self, request: Request, pk: str) -> Response:
        """What the workers know of it at this moment: circuit, pace, pause, last error, and what its limits allow."""
        try:
            state = state_of(self.get_object(), now())
        except SharedAway as away:
            raise NotKnown(str(away)) from away
        return Response(EngineStateSerializer(state).data)


@extend_schema(
    parameters=[OpenApiParameter("engine", OpenApiTypes.STR, OpenApiParameter.PATH, description="Its slug or its id.")]
)
class EngineEventViewSet(ListModelMixin, GenericViewSet):
    """What people did to an engine, the last thing first."""

    queryset = EngineEvent.objects.all()
    serializer_class = EngineEventSerializer
    permission_classes = [allowed(to_see=TO_SEE, to_act=TO_SEE)]
    ordering = "-id"

    def get_queryset(self) -> QuerySet[EngineEvent]:
        engine = named(Engine.objects.only("pk"), self.kwargs["engine"])
        if engine is None:
            raise Http404
        return super().get_queryset().filter(engine=engine)
