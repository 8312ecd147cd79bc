"""The kinds of engines that there are, with what each is told: which options, which of them credentials."""

from django import forms
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from delivery.api.requests import allowed
from delivery.engines import KINDS, EngineKind

TYPES = (("boolean", forms.BooleanField), ("number", forms.FloatField), ("integer", forms.IntegerField))


class OptionSerializer(serializers.Serializer):
    """One option. `credential`: it is given among the credentials, and never shown again. `default`: what a needed one
    is when it is left out, and what is usual for others."""

    name = serializers.CharField()
    label = serializers.CharField()
    type = serializers.ChoiceField(["text", *(name for name, _ in TYPES)])
    credential = serializers.BooleanField()
    required = serializers.BooleanField()
    default = serializers.JSONField(allow_null=True)
    choices = serializers.ListField(child=serializers.CharField(allow_blank=True), allow_null=True)
    minimum = serializers.FloatField(allow_null=True)
    maximum = serializers.FloatField(allow_null=True)
    help = serializers.CharField(allow_blank=True)


class EngineKindSerializer(serializers.Serializer):
    """A kind of engine. `composes`: it writes mails and sends none, so it has no place in a pool."""

    slug = serializers.CharField()
    label = serializers.CharField()
    hint = serializers.CharField(allow_blank=True)
    composes = serializers.BooleanField()
    options = OptionSerializer(many=True)


SCRIPTED = OpenApiExample(
    "One that only sends for tests",
    {
        "slug": "sandbox",
        "label": "Sandbox",
        "hint": "Sends nothing. Keeps every mail to look at: good to begin with.",
        "composes": False,
        "options": [],
    },
    response_only=True,
)


class EngineKindViewSet(ViewSet):
    permission_classes = [allowed(to_see="delivery.view_engine", to_act="delivery.view_engine")]
    lookup_field = "slug"
    lookup_value_regex = r"[-\w]+"

    @extend_schema(summary="List engine kinds", responses={200: EngineKindSerializer(many=True)}, examples=[SCRIPTED])
    def list(self, request: Request) -> Response:
        """All of them, in the order in which the admin offers them."""
        return Response([shown(kind) for kind in KINDS.values()])

    @extend_schema(
        summary="Show an engine kind",
        responses={200: EngineKindSerializer},
        parameters=[OpenApiParameter("slug", OpenApiTypes.STR, OpenApiParameter.PATH)],
        examples=[SCRIPTED],
    )
    def retrieve(self, request: Request, slug: str) -> Response:
        """One of them."""
        if slug not in KINDS:
            raise NotFound(f"There is no engine kind {slug[:100]!r}; known are {', '.join(KINDS)}.")
        return Response(shown(KINDS[slug]))


def shown(kind: EngineKind) -> dict[str, object]:
    """What a kind says of itself."""
    return {
        "slug": kind.slug,
        "label": kind.label,
        "hint": kind.hint,
        "composes": kind.composes,
        "options": [_option(name, field, kind) for name, field in kind.fields().items()],
    }


def _option(name: str, field: forms.Field, kind: EngineKind) -> dict[str, object]:
    return {
        "name": name,
        "label": str(field.label),
        "type": next((word for word, of in TYPES if isinstance(field, of)), "text"),
        "credential": name in kind.secret_fields,
        "required": field.required,
        "default": field.initial,
        "choices": [str(value) for value, _ in field.choices] if isinstance(field, forms.ChoiceField) else None,
        "minimum": getattr(field, "min_value", None),
        "maximum": getattr(field, "max_value", None),
        "help": str(field.help_text),
    }
