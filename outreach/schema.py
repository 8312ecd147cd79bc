"""The OpenAPI document of the API: what every operation has in common, said once."""

from django.db.models import Model
from drf_spectacular.contrib.django_filters import DjangoFilterExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import get_view_model
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema_serializer
from rest_framework import serializers

from delivery.api.problems import CONTENT_TYPE
from delivery.api.requests import Body
from delivery.api.setting_up import StrictSerializer


class ErrorSerializer(serializers.Serializer):
    """What is wrong with one field."""

    pointer = serializers.CharField(help_text="Where it stands: a JSON pointer into the body, such as #/steps/2/after.")
    detail = serializers.CharField()


@extend_schema_serializer(
    component_name="Problem",
    examples=[
        OpenApiExample(
            "A field is to blame",
            {
                "type": "urn:outreach:problem:invalid",
                "title": "Bad Request",
                "status": 400,
                "detail": "slug: This field is required.",
                "instance": "/api/v1/workflows/",
                "request_id": "0b5f1c4f9a3e4d52",
                "errors": [{"pointer": "#/slug", "detail": "This field is required."}],
            },
            response_only=True,
            status_codes=["400"],
        )
    ],
)
class ProblemSerializer(serializers.Serializer):
    """A problem document (RFC 9457). `errors`: when fields are to blame."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField(min_value=400, max_value=599)
    detail = serializers.CharField()
    instance = serializers.CharField(help_text="The path that was asked for.")
    request_id = serializers.CharField(allow_blank=True, help_text="In every line of the log about this request.")
    errors = ErrorSerializer(many=True, required=False)


ALWAYS = {
    "401": "Nobody is logged in, or the token is not valid.",
    "403": "Not allowed.",
    "429": "Too many requests: see Retry-After.",
    "503": "The database cannot be used now.",
}
READS = {"400": "The query cannot be understood.", "404": "There is nothing here.", "406": "No such representation."}
WRITES = {
    "400": "The body is refused, field by field.",
    "404": "There is nothing here.",
    "406": "No such representation.",
    "409": "Not possible as things stand.",
    "413": "The body is too large.",
    "415": "A body is application/json.",
    "422": "The Idempotency-Key was used with another body.",
}


# Of what every resource has; everything else says its own.
SUMMARIES = {
    "list": "List {many}",
    "retrieve": "Show {one}",
    "create": "Add {one}",
    "partial_update": "Change {one} in part",
    "destroy": "Delete {one}",
}


class Schema(AutoSchema):
    """Adds the problems to the answers of each operation, a summary, and that unknown fields are refused."""

    def get_summary(self) -> str | None:
        words = SUMMARIES.get(getattr(self.view, "action", None))
        model = get_view_model(self.view, emit_warnings=False)
        if words is None or model is None:
            return None
        return words.format(one=_one(model), many=model._meta.verbose_name_plural)

    def get_tags(self) -> list[str]:
        """What is before the first dot: `runs.csv` is of the runs."""
        return [tag.partition(".")[0] for tag in super().get_tags()]

    def _map_basic_serializer(self, serializer: serializers.Serializer, direction: str) -> dict[str, object]:
        schema = super()._map_basic_serializer(serializer, direction)
        if direction == "request" and isinstance(serializer, Body | StrictSerializer):
            schema["additionalProperties"] = False
        return schema

    def _get_response_bodies(self, direction: str = "response") -> dict[str, object]:
        bodies = super()._get_response_bodies(direction)
        for status, words in ((READS if self.method == "GET" else WRITES) | ALWAYS).items():
            if status not in bodies:
                problem = OpenApiResponse(ProblemSerializer, words)
                bodies[status] = self._get_response_for_code(problem, status, [CONTENT_TYPE], direction)
        return bodies


class Filters(DjangoFilterExtension):
    """Filters that say their type themselves say what they are for, too. A form sends those that were left empty."""

    target_class = "delivery.api.pages.Narrowing"
    priority = 1  # before the one for the class that it inherits from

    def resolve_filter_field(self, *args: object) -> list[dict[str, object]]:
        parameters, field = super().resolve_filter_field(*args), args[-1]
        for parameter in parameters:
            parameter["allowEmptyValue"] = True
            if help_text := field.extra.get("help_text"):
                parameter.setdefault("description", str(help_text))
        return parameters


def _one(model: type[Model]) -> str:
    name = model._meta.verbose_name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
