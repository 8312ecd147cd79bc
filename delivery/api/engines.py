"""Engines: looked at, held and released."""

from datetime import timedelta

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils.timezone import now
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from delivery.api.requests import Body, allowed, refusing, who
from delivery.exceptions import IllegalHold
from delivery.hold import hold, release
from delivery.models import Engine

LONGEST = 366 * 24 * 60  # minutes


class EngineSerializer(serializers.ModelSerializer):
    """An engine without its options and credentials."""

    held = serializers.SerializerMethodField()

    class Meta:
        model = Engine
        fields = ("id", "slug", "name", "kind", "enabled", "held", "held_until", "hold_reason")

    def get_held(self, engine: Engine) -> bool:
        return engine.is_held(now())


class HoldBody(Body):
    """Why, and for how long."""

    why = serializers.CharField(max_length=200)
    minutes = serializers.IntegerField(min_value=1, max_value=LONGEST, required=False, allow_null=True)


class ReleaseBody(Body):
    """Why, if there is anything to say."""

    why = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")


class EngineViewSet(ReadOnlyModelViewSet):
    """An engine is named by its slug or its id."""

    serializer_class = EngineSerializer
    permission_classes = [allowed(to_see="delivery.view_engine", to_act="delivery.change_engine")]
    ordering = "name"
    lookup_value_regex = r"[-\w]+"

    def get_queryset(self) -> QuerySet[Engine]:
        return Engine.objects.all()

    def get_object(self) -> Engine:
        named = self.kwargs["pk"]
        engine = Engine.objects.filter(slug=named).first()
        if engine is None and named.isascii() and named.isdigit() and len(named) <= 18:
            engine = get_object_or_404(Engine, pk=named)
        return engine or get_object_or_404(Engine, slug=named)

    @action(detail=True, methods=["post"])
    def hold(self, request: Request, pk: str) -> Response:
        engine, body = self.get_object(), HoldBody.of(request)
        minutes = body.get("minutes")
        with refusing(IllegalHold):
            hold(engine, who(request), body["why"], now() + timedelta(minutes=minutes) if minutes else None)
        return Response(self.get_serializer(engine).data)

    @action(detail=True, methods=["post"])
    def release(self, request: Request, pk: str) -> Response:
        engine, body = self.get_object(), ReleaseBody.of(request)
        with refusing(IllegalHold):
            release(engine, who(request), body["why"])
        return Response(self.get_serializer(engine).data)
