"""Schedules: set up, changed, paused, resumed, deleted; with the slots that come and what became of the last."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from datetime import datetime

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ModelViewSet

from campaigns import scheduling
from campaigns.api.narrowing import NamedFilter, YesNoFilter
from campaigns.api.runs import TO_CONTROL, WhyBody
from campaigns.api.setting_up import StrictSerializer, by_field, page_of, writing
from campaigns.exceptions import BadSchedule, CampaignError
from campaigns.models import Schedule, ScheduleEvent, ScheduleKind, Slot, Workflow
from campaigns.models.schedule import NEEDS
from campaigns.wall_clock import instant_of, zone_named
from delivery.api.requests import allowed, refusing, who
from delivery.queue import database_now

INSTANTS = ("at", "anchor", "starts_at", "ends_at")
LAST_SLOTS = 20
TO_SEE = "campaigns.view_schedule"


class InstantField(serializers.DateTimeField):
    """An instant. Without an offset it is what the clock shows in the schedule's time zone: left naive here."""

    default_error_messages = {
        "invalid": "This is no instant. A good one: 2027-03-01T09:00, by the clock of the schedule's time zone, or "
        "2027-03-01T09:00+01:00."
    }

    def enforce_timezone(self, value: datetime) -> datetime:
        return value


class SlotSerializer(serializers.ModelSerializer):
    """A slot whose time has come, and what became of it."""

    class Meta:
        model = Slot
        fields = ("at", "outcome", "reason", "run")


class ScheduleEventSerializer(serializers.ModelSerializer):
    """What somebody did to a schedule."""

    class Meta:
        model = ScheduleEvent
        fields = ("at", "what", "by", "why")


class ScheduleSerializer(StrictSerializer):
    """A schedule. `next_at` is its next slot: null when it is paused or none is to come."""

    at = InstantField(required=False, allow_null=True)
    anchor = InstantField(required=False, allow_null=True)
    starts_at = InstantField(required=False, allow_null=True)
    ends_at = InstantField(required=False, allow_null=True)
    workflow_slug = serializers.CharField(source="workflow.slug", read_only=True)
    in_words = serializers.CharField(read_only=True)

    class Meta:
        model = Schedule
        fields = (
            "id",
            "workflow",
            "workflow_slug",
            "name",
            "kind",
            "at",
            "every",
            "unit",
            "anchor",
            "cron",
            "time_zone",
            "starts_at",
            "ends_at",
            "late_policy",
            "late_grace_seconds",
            "paused",
            "in_words",
            "next_at",
            "created_at",
            "changed_at",
        )
        validators = []  # the model's own words are better, and say which field
        extra_kwargs = {"every": {"error_messages": {"invalid": "This is no whole number. A good one: 15."}}}

    def validate(self, given: dict[str, object]) -> dict[str, object]:
        schedule = copy(self.instance) if self.instance else Schedule()
        if self.instance and given.get("paused", self.instance.paused) != self.instance.paused:
            deed = "pause" if given["paused"] else "resume"
            raise serializers.ValidationError({"paused": f"This is done by a POST to {deed}/."})
        for field, value in (_emptied(self.instance, given) | given).items():
            setattr(schedule, field, value)
        with _answering_refusals():
            _read_clocks(schedule)
            scheduling.check(schedule, database_now())
        return {"schedule": schedule}

    def create(self, made: dict[str, Schedule]) -> Schedule:
        return self._save(made["schedule"])

    def update(self, instance: Schedule, made: dict[str, Schedule]) -> Schedule:
        return self._save(made["schedule"])

    def _save(self, schedule: Schedule) -> Schedule:
        request = self.context["request"]
        may_start = request.user.has_perm(TO_CONTROL)
        with _answering_refusals(), writing(schedule):
            scheduling.save(schedule, by=who(request), now=database_now(), may_start=may_start)
        return schedule


class ScheduleDetailSerializer(ScheduleSerializer):
    """With its next ten slots, by the clock of its time zone, and what became of the last ones."""

    next_slots = serializers.SerializerMethodField()
    last_slots = serializers.SerializerMethodField()

    class Meta(ScheduleSerializer.Meta):
        fields = (*ScheduleSerializer.Meta.fields, "next_slots", "last_slots")

    @extend_schema_field({"type": "array", "items": {"type": "string", "format": "date-time"}})
    def get_next_slots(self, schedule: Schedule) -> list[str]:
        return [at.isoformat() for at in schedule.next_slots(database_now())]

    @extend_schema_field(SlotSerializer(many=True))
    def get_last_slots(self, schedule: Schedule) -> list[dict[str, object]]:
        return SlotSerializer(schedule.slots.all()[:LAST_SLOTS], many=True).data


def _emptied(before: Schedule | None, given: dict[str, object]) -> dict[str, object]:
    """The fields of the kind that a schedule was of: with another kind they need not be emptied one by one."""
    if before is None or given.get("kind", before.kind) == before.kind:
        return {}
    return {field: Schedule._meta.get_field(field).get_default() for field in NEEDS[ScheduleKind(before.kind)]}


def _read_clocks(schedule: Schedule) -> None:
    """Naive times are by the clock of the schedule's time zone. Raises BadSchedule."""
    zone = zone_named(schedule.time_zone)
    for field in INSTANTS:
        value = getattr(schedule, field)
        if value is not None and value.tzinfo is None:
            setattr(schedule, field, instant_of(value, zone, field))


@contextmanager
def _answering_refusals() -> Iterator[None]:
    """Answers what the deeds refuse with 400, by field."""
    try:
        yield
    except BadSchedule as refusal:
        raise serializers.ValidationError({refusal.field: [str(refusal)]}) from refusal
    except ValidationError as refusal:
        raise serializers.ValidationError(by_field(refusal)) from refusal


class ScheduleFilter(django_filters.FilterSet):
    workflow = NamedFilter(Workflow)
    kind = django_filters.ChoiceFilter(choices=ScheduleKind.choices)
    paused = YesNoFilter(help_text="Paused ones, or the others.")


EXAMPLES = [
    OpenApiExample(
        "Every weekday at nine",
        {"workflow": "welcome", "name": "weekdays", "cron": "0 9 * * 1-5", "time_zone": "Europe/Zurich"},
        request_only=True,
    ),
    OpenApiExample(
        "Once",
        {"workflow": "welcome", "name": "spring", "kind": "once", "at": "2030-03-01T09:00", "time_zone": "Asia/Tokyo"},
        request_only=True,
    ),
]
WHY = OpenApiExample("With a reason", {"why": "the shop is closed"}, request_only=True)
OF_ONE = {"filterset_class": None, "search_fields": (), "ordering_fields": ()}  # what is listed of one schedule


@extend_schema_view(
    create=extend_schema(request=ScheduleSerializer, responses={201: ScheduleDetailSerializer}, examples=EXAMPLES),
    partial_update=extend_schema(
        examples=[OpenApiExample("Half an hour later", {"cron": "30 9 * * 1-5"}, request_only=True)]
    ),
)
class ScheduleViewSet(ModelViewSet):
    http_method_names = ["get", "head", "options", "post", "patch", "delete"]
    filterset_class = ScheduleFilter
    search_fields = ("name", "workflow__name")
    ordering = "id"
    ordering_fields = ("id", "name", "created_at", "changed_at")
    lookup_value_regex = r"[0-9]{1,18}"
    to_act = {
        "create": "campaigns.add_schedule",
        "partial_update": "campaigns.change_schedule",
        "destroy": "campaigns.delete_schedule",
    }

    def get_queryset(self) -> QuerySet[Schedule]:
        return Schedule.objects.select_related("workflow")

    def get_object(self) -> Schedule:
        return get_object_or_404(self.get_queryset(), pk=self.kwargs["pk"])

    def get_serializer_class(self) -> type[serializers.Serializer]:
        if self.serializer_class:  # an action's own
            return self.serializer_class
        return ScheduleSerializer if self.action == "list" else ScheduleDetailSerializer

    def get_permissions(self) -> list[BasePermission]:
        return [allowed(to_see=TO_SEE, to_act=self.to_act.get(self.action, TO_CONTROL))()]

    @extend_schema(summary="Pause a schedule", request=WhyBody, responses=ScheduleDetailSerializer, examples=[WHY])
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """Its slots make no runs until it is resumed."""
        return self._control(request, scheduling.pause)

    @extend_schema(summary="Resume a schedule", request=WhyBody, responses=ScheduleDetailSerializer, examples=[WHY])
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """It goes on with its next slot; those that came meanwhile are skipped."""

        def deed(schedule: Schedule, by: str, why: str) -> None:
            scheduling.resume(schedule, by, database_now(), why)

        return self._control(request, deed)

    @extend_schema(summary="The slots of a schedule", responses=SlotSerializer(many=True))
    @action(detail=True, serializer_class=SlotSerializer, ordering="-at", **OF_ONE)
    def slots(self, request: Request, pk: str) -> Response:
        """Those whose time has come, newest first."""
        return page_of(self, self.get_object().slots.all())

    @extend_schema(summary="The history of a schedule", responses=ScheduleEventSerializer(many=True))
    @action(detail=True, serializer_class=ScheduleEventSerializer, ordering="id", **OF_ONE)
    def events(self, request: Request, pk: str) -> Response:
        """Who did what to it, oldest first."""
        return page_of(self, self.get_object().events.all())

    def _control(self, request: Request, deed: Callable[[Schedule, str, str], None]) -> Response:
        schedule, body = self.get_object(), WhyBody.of(request)
        with refusing(CampaignError):
            deed(schedule, who(request), body["why"])
        return Response(self.get_serializer(self.get_object()).data)
