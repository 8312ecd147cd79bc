"""Workflows with their steps: set up and changed, and refused where they make no sense, in the words of the admin."""

from collections import defaultdict
from collections.abc import Sequence
from copy import copy

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import serializers

from campaigns.api.narrowing import NamedFilter
from campaigns.api.setting_up import SettingUpViewSet, StrictSerializer, by_field, writing
from campaigns.models import Audience, Step, Template, Workflow
from campaigns.sequence import NO_STEP, numbered, problems_of_workflow
from delivery.models import Pool

NO_TEMPLATE = 'Which template? Name it by its slug or its id, such as "newsletter" or 7.'
NO_LIST = 'The steps are a list, such as [{"template": "newsletter"}].'
JUDGED_TOGETHER = ("workflow", "position")

SHOWN = Workflow.objects.select_related("audience", "pool").prefetch_related(
    Prefetch("steps", Step.objects.order_by("position"))
)


def problems_of_step(step: Step) -> dict[str, list[str]]:
    """What is wrong with one step by itself, by field."""
    try:
        step.full_clean(exclude=JUDGED_TOGETHER)
    except ValidationError as refusal:
        return refusal.message_dict
    return {}


def problems_together(workflow: Workflow, steps: Sequence[Step]) -> dict[int, dict[str, list[str]]]:
    """What is wrong with the steps together, by place and field. Each has nothing wrong by itself."""
    found: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    deadlines = bool(workflow.audience.deadline_field)
    for problem in problems_of_workflow(steps, workflow.stops_on, recipients_have_deadlines=deadlines):
        for place, step in enumerate(steps):
            if step.position == problem.position:
                found[place][problem.field].append(problem.words)
    return found


class StepList(serializers.ListSerializer):
    """Steps. What is wrong is said by place, counted from 0: {"1": {"after": ["…"]}}."""

    def to_internal_value(self, data: object) -> list[Step]:
        if not isinstance(data, list):
            raise serializers.ValidationError([NO_LIST])
        steps, problems = [], {}
        for place, each in enumerate(data):
            try:
                steps.append(self.run_child_validation(each))
            except serializers.ValidationError as refusal:
                problems[str(place)] = refusal.detail
        if problems:
            raise serializers.ValidationError(problems)
        return steps


class StepSerializer(StrictSerializer):
    """A step. What is left out is as usual: also of one that was there before."""

    # Judged with the others, in the words of `campaigns.sequence`.
    position = serializers.IntegerField(
        required=False, allow_null=True, error_messages={"invalid": "This is no whole number. A good one: 2."}
    )

    class Meta:
        model = Step
        list_serializer_class = StepList
        fields = (
            "position",
            "template",
            "after",
            "delay",
            "condition",
            "deadline_minutes",
            "on_late",
            "lead_seconds",
            "thread",
            "composer",
            "prompt",
            "review",
        )
        validators = []
        # A change of the workflow asks for none of its fields, and a step for its template all the same.
        extra_kwargs = {"template": {"required": False, "error_messages": {"null": NO_TEMPLATE}}}

    def validate(self, given: dict[str, object]) -> Step:
        """The step. Without a number it gets one among the others."""
        if "template" not in given:
            raise serializers.ValidationError({"template": NO_TEMPLATE})
        step = Step(**given)
        step.position = given.get("position")
        if problems := problems_of_step(step):
            raise serializers.ValidationError(problems)
        return step


class WorkflowSerializer(StrictSerializer):
    """A workflow. `steps` are written as a whole: who has the number of one that was there is still that one, and who
    is not named goes."""

    audience_slug = serializers.CharField(source="audience.slug", read_only=True)
    pool_slug = serializers.CharField(source="pool.slug", read_only=True)
    steps = StepSerializer(many=True, error_messages={"required": NO_STEP, "null": NO_STEP})

    class Meta:
        model = Workflow
        fields = (
            "id",
            "name",
            "slug",
            "audience",
            "audience_slug",
            "pool",
            "pool_slug",
            "from_name",
            "from_address",
            "reply_to",
            "return_path",
            "unsubscribe",
            "priority",
            "start",
            "time_limit_minutes",
            "gap_microseconds",
            "window_hours",
            "window_zone",
            "window_per_recipient",
            "window_zone_field",
            "holiday_country",
            "holiday_subdivision",
            "closed_dates",
            "stop_on_reply",
            "stop_on_bounce",
            "on_uncertain",
            "on_render_error",
            "on_failed",
            "steps",
            "created_at",
            "changed_at",
        )
        read_only_fields = ("created_at", "changed_at")
        validators = []

    def validate(self, given: dict[str, object]) -> dict[str, object]:
        steps_given: list[Step] | None = given.pop("steps", None)
        workflow = copy(self.instance) if self.instance else Workflow()
        for field, value in given.items():
            setattr(workflow, field, value)
        try:
            workflow.full_clean()
        except ValidationError as refusal:
            raise serializers.ValidationError(by_field(refusal)) from refusal
        _judge_steps(workflow, list(workflow.steps.all()) if steps_given is None else _numbered(steps_given))
        return {"workflow": workflow, "steps": steps_given}

    def create(self, made: dict[str, object]) -> Workflow:
        return _write(**made)

    def update(self, instance: Workflow, made: dict[str, object]) -> Workflow:
        return _write(**made)


def _numbered(steps: list[Step]) -> list[Step]:
    for step, position in zip(steps, numbered([step.position for step in steps]), strict=True):
        step.position = position
    return steps


def _judge_steps(workflow: Workflow, steps: Sequence[Step]) -> None:
    """Also those that stay as they are: the workflow may now stop at what one waits for. Raises ValidationError."""
    if not steps:
        raise serializers.ValidationError({"steps": [NO_STEP]})
    alone = {place: problems for place, step in enumerate(steps) if (problems := problems_of_step(step))}
    if problems := alone or problems_together(workflow, steps):
        raise serializers.ValidationError({"steps": {str(place): words for place, words in sorted(problems.items())}})


def _write(workflow: Workflow, steps: Sequence[Step] | None) -> Workflow:
    """The workflow as it is shown, after it was written with these steps, or with those that it has."""
    with writing(workflow):
        workflow.save()
        if steps is not None:
            there = dict(workflow.steps.order_by().values_list("position", "pk"))
            for step in steps:
                step.workflow, step.pk = workflow, there.pop(step.position, None)
                step.save()
            Step.objects.filter(pk__in=there.values()).delete()
    return SHOWN.get(pk=workflow.pk)


class WorkflowFilter(django_filters.FilterSet):
    audience = NamedFilter(Audience)
    pool = NamedFilter(Pool)
    template = NamedFilter(Template, method="with_template", help_text="Those with a step of one template.")

    def with_template(self, workflows: QuerySet[Workflow], name: str, template: Template) -> QuerySet[Workflow]:
        return workflows.filter(pk__in=Step.objects.filter(template=template).values("workflow"))


EXAMPLE = {
    "name": "Welcome",
    "slug": "welcome",
    "audience": "customers",
    "pool": "main",
    "from_name": "The shop",
    "from_address": "hello@shop.example",
    "steps": [
        {"template": "welcome"},
        {"template": "reminder", "after": "1 not opened", "delay": "3 days"},
    ],
}


@extend_schema_view(
    create=extend_schema(examples=[OpenApiExample("Two steps", EXAMPLE, request_only=True)]),
    partial_update=extend_schema(
        examples=[OpenApiExample("Only in office hours", {"window_hours": "mon-fri 9-17"}, request_only=True)]
    ),
)
class WorkflowViewSet(SettingUpViewSet):
    queryset = SHOWN
    serializer_class = WorkflowSerializer
    filterset_class = WorkflowFilter
    ordering_fields = (*SettingUpViewSet.ordering_fields, "changed_at")
