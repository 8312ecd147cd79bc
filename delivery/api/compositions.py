"""Composed texts: those that wait for a person to review them, and what he says to each. What follows is decided by
`delivery.queue.composing`."""

from collections.abc import Callable, Collection

import django_filters
from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from delivery.api.delivery_lists import is_there
from delivery.api.narrowing import NumberFilter
from delivery.api.requests import Body, NoBody, Refused, allowed, who
from delivery.models import NO_DEADLINE, Batch, Composition, CompositionState, Delivery, DeliveryState, Engine, Message
from delivery.queue import composing
from delivery.rendered_mail import rendered_part

REVIEWERS = ("delivery.change_composition", "delivery.change_delivery")
TOO_LATE = "There is nothing to decide: somebody else has decided meanwhile, or its mail has ended."
LONGEST = 100_000  # characters of a text

# No join: what a composition belongs to has no constraint in the database.
ROWS = Composition.objects.prefetch_related(
    Prefetch("engine", Engine.objects.only("slug")),
    Prefetch(
        "delivery",
        Delivery.objects.only("address", "name", "state", "message").prefetch_related(
            Prefetch("message", Message.objects.only("position"))
        ),
    ),
)


class CompositionSerializer(serializers.ModelSerializer):
    """The words that a model wrote for a delivery. `waits`: a person is to say something to them."""

    id = serializers.IntegerField(source="pk", read_only=True, help_text="That of its delivery.")
    address = serializers.SerializerMethodField()
    name = serializers.SerializerMethodField()
    step = serializers.SerializerMethodField()
    engine_slug = serializers.SerializerMethodField()
    deadline = serializers.SerializerMethodField()
    waits = serializers.SerializerMethodField()

    class Meta:
        model = Composition
        fields = (
            "id",
            "batch",
            "step",
            "address",
            "name",
            "state",
            "waits",
            "text",
            "words",
            "engine",
            "engine_slug",
            "attempts",
            "deadline",
            "composed_at",
            "reviewed_by",
            "reviewed_at",
        )
        extra_kwargs = {name: {"read_only": True} for name in fields}

    def get_address(self, composition: Composition) -> str:
        return composition.delivery.address if is_there(composition, "delivery") else ""

    def get_name(self, composition: Composition) -> str:
        return composition.delivery.name if is_there(composition, "delivery") else ""

    def get_step(self, composition: Composition) -> int | None:
        delivery = composition.delivery if is_there(composition, "delivery") else None
        return delivery.message.position if delivery and is_there(delivery, "message") else None

    def get_engine_slug(self, composition: Composition) -> str | None:
        return composition.engine.slug if is_there(composition, "engine") else None

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_deadline(self, composition: Composition) -> object:
        return None if composition.deadline == NO_DEADLINE else composition.deadline

    def get_waits(self, composition: Composition) -> bool:
        return (
            composition.state == CompositionState.REVIEW
            and is_there(composition, "delivery")
            and composition.delivery.state == DeliveryState.WAITING
        )


class CompositionDetailSerializer(CompositionSerializer):
    """With what the model was asked, the subject, and the recipient's data."""

    subject = serializers.SerializerMethodField()
    prompt = serializers.SerializerMethodField()
    data = serializers.SerializerMethodField()

    class Meta(CompositionSerializer.Meta):
        fields = (*CompositionSerializer.Meta.fields, "subject", "prompt", "data")

    def get_subject(self, composition: Composition) -> str:
        return self._rendered(composition, lambda message: message.subject, line=True)

    def get_prompt(self, composition: Composition) -> str:
        return self._rendered(composition, lambda message: (message.composing or {}).get("prompt", ""), line=False)

    @extend_schema_field(serializers.DictField())
    def get_data(self, composition: Composition) -> dict[str, object]:
        return composition.delivery.data if is_there(composition, "delivery") else {}

    def _rendered(self, composition: Composition, source: Callable[[Message], str], *, line: bool) -> str:
        delivery = composition.delivery if is_there(composition, "delivery") else None
        if delivery is None or not is_there(delivery, "message"):
            return ""
        return rendered_part(source(delivery.message), delivery.data, line=line)


class ApproveBody(Body):
    """`text`: a person's own words, which go in place of those that were composed."""

    text = serializers.CharField(max_length=LONGEST, required=False, trim_whitespace=False)

    def validate_text(self, text: str) -> str:
        if not text.strip():
            raise serializers.ValidationError("There is no text: leave it out to approve what was composed.")
        return text


class CompositionFilter(django_filters.FilterSet):
    batch = NumberFilter(help_text="Those of one batch, by its id.")
    state = django_filters.ChoiceFilter(
        choices=CompositionState.choices, help_text="`review` lists what waits for a person; others are of one batch."
    )

    class Meta:
        model = Composition
        fields = ()

    within = ("batch",)  # what a batch is named by

    def filter_queryset(self, rows: QuerySet) -> QuerySet:
        given = {name: value for name, value in self.form.cleaned_data.items() if value not in (None, "")}
        named = [self.batch_of(name, given[name]) for name in self.within if name in given]
        if "state" in given and given["state"] != CompositionState.REVIEW and not named:
            raise serializers.ValidationError(
                {"state": [f"All but review are of one {' or '.join(self.within)}: name that, too."]}
            )
        for batch in named:
            if batch is None:
                return rows.none()
            # A composition has its delivery's id, and those of a batch lie together.
            rows = rows.filter(batch=batch.pk, delivery__gte=batch.first_id or 0, delivery__lte=batch.last_id or 0)
        return rows.filter(state=given["state"]) if "state" in given else rows

    def batch_of(self, name: str, value: object) -> Batch | None:
        """The batch that is named; None when there is none."""
        return Batch.objects.filter(pk=value).first()


class CompositionViewSet(ReadOnlyModelViewSet):
    """Composed texts, the newest first. `state=review` lists those that wait for a person."""

    queryset = ROWS
    serializer_class = CompositionSerializer
    detail_serializer_class = CompositionDetailSerializer
    filterset_class = CompositionFilter
    permission_classes = [allowed(to_see="delivery.view_composition", to_act=REVIEWERS)]
    ordering = "-pk"
    lookup_value_regex = r"[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Composition]:
        rows = super().get_queryset()
        return (
            rows
            if self.action == "list"
            else rows.prefetch_related(None).prefetch_related("engine", "delivery__message")
        )

    def get_serializer_class(self) -> type[CompositionSerializer]:
        return self.serializer_class if self.action == "list" else self.detail_serializer_class

    @extend_schema(
        summary="Approve a composed text",
        request=ApproveBody,
        examples=[
            OpenApiExample("As they are", {}, request_only=True),
            OpenApiExample("In other words", {"text": "Dear Ada,\n\nyour books are here."}, request_only=True),
        ],
    )
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """The words go out, or a person's own in their place."""
        text = ApproveBody.of(request).get("text")
        if text is None:
            return self._decided(request, composing.approve)
        return self._decided(request, lambda ids, by: composing.reword(ids[0], text, by))

    @extend_schema(summary="Use the template in place of a composed text", request=NoBody)
    @action(detail=True, methods=["post"], url_path="use-template")
    def use_template(self, request: Request, pk: str) -> Response:
        """The text of the step's template goes out instead."""
        NoBody.of(request)
        return self._decided(request, composing.use_template)

    @extend_schema(summary="Reject a composed text", request=NoBody)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, pk: str) -> Response:
        """Nothing goes out: this recipient gets no mail of this step. It cannot be undone."""
        NoBody.of(request)
        return self._decided(request, composing.reject)

    def _decided(self, request: Request, deed: Callable[[Collection[int], str], int]) -> Response:
        composition = self.get_object()
        if not deed([composition.pk], who(request)):
            raise Refused(TOO_LATE)
        return Response(self.get_serializer(self.get_object()).data)
