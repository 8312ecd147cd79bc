"""Templates: written, changed by new versions, and tried out. Nothing that was sent is ever changed or deleted."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy

from django.core.exceptions import ValidationError
from django.db.models import OuterRef, QuerySet, Subquery
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from campaigns.api.setting_up import SettingUpViewSet, StrictSerializer, by_field, page_of, writing
from campaigns.authoring import preview, save_version
from campaigns.models import Template, TemplateVersion
from delivery.api.requests import Body
from delivery.templating import TemplateProblem
from delivery.templating.part import MAX_SOURCE

WORDS = ("subject", "text", "html")
NOTHING = dict.fromkeys(WORDS, "")
LONGEST_SUBJECT = 2000

LATEST = TemplateVersion.objects.filter(template=OuterRef("pk")).order_by("-number")
LISTED = Template.objects.annotate(
    version=Subquery(LATEST.values("number")[:1]), latest_subject=Subquery(LATEST.values("subject")[:1])
)


def _source(source: str | None, help_text: str) -> serializers.CharField:
    return serializers.CharField(
        source=source,
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        max_length=MAX_SOURCE,
        help_text=help_text,
    )


class TemplateSerializer(StrictSerializer):
    """A template, with the number and the subject of its latest version."""

    version = serializers.IntegerField(read_only=True, allow_null=True)
    subject = serializers.CharField(source="latest_subject", read_only=True, allow_null=True)

    class Meta:
        model = Template
        fields = ("id", "name", "slug", "version", "subject", "created_at")
        validators = []


class TemplateDetailSerializer(StrictSerializer):
    """A template with the words of its latest version. New words make a new version; those that are not given stay."""

    version = serializers.IntegerField(read_only=True, allow_null=True)
    subject = serializers.CharField(source="words.subject", max_length=LONGEST_SUBJECT, help_text="Jinja2.")
    text = _source("words.text", "Jinja2. Empty: made from the HTML.")
    html = _source("words.html", "Jinja2. Empty: a mail of plain text.")

    class Meta:
        model = Template
        fields = ("id", "name", "slug", "version", *WORDS, "created_at")
        read_only_fields = ("created_at",)
        validators = []

    def to_representation(self, template: Template) -> dict[str, object]:
        latest = template.latest
        template.version, template.words = (latest.number, _words_of(latest)) if latest else (None, NOTHING)
        return super().to_representation(template)

    def validate(self, given: dict[str, object]) -> dict[str, object]:
        # A line end alone makes no new version.
        words = {part: source.replace("\r\n", "\n") for part, source in given.pop("words", {}).items()}
        template = copy(self.instance) if self.instance else Template()
        for field, value in given.items():
            setattr(template, field, value)
        try:
            template.full_clean()
        except ValidationError as refusal:
            raise serializers.ValidationError(by_field(refusal)) from refusal
        return {"template": template, "words": words}

    def create(self, made: dict[str, object]) -> Template:
        return self._write(**made)

    def update(self, instance: Template, made: dict[str, object]) -> Template:
        return self._write(**made)

    def _write(self, template: Template, words: Mapping[str, str]) -> Template:
        with writing(template), refusing_words():
            template.save()
            if words:
                latest = template.latest
                words = (_words_of(latest) if latest else NOTHING) | words
                save_version(template, **words, by=self.context["request"].user)
        return template


class VersionSerializer(serializers.ModelSerializer):
    """One wording. `text_from_html`: its text part was made from the HTML."""

    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)

    class Meta:
        model = TemplateVersion
        fields = ("number", "subject", "text_from_html", "created_at", "created_by")


class VersionDetailSerializer(VersionSerializer):
    """One wording in full."""

    class Meta(VersionSerializer.Meta):
        fields = (*VersionSerializer.Meta.fields, "text", "html")


class PreviewBody(Body):
    """For whom, and in which words: those of the latest version, of another one, or others that are tried out."""

    data = serializers.DictField(required=False, help_text="The recipient's fields.")
    version = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=2**31 - 1)
    subject = serializers.CharField(required=False, allow_blank=True, max_length=LONGEST_SUBJECT)
    text = _source(None, "In place of the version's.")
    html = _source(None, "In place of the version's.")


class PreviewSerializer(serializers.Serializer):
    """What somebody with this data gets."""

    subject = serializers.CharField()
    text = serializers.CharField()
    html = serializers.CharField()


def _words_of(version: TemplateVersion) -> dict[str, str]:
    """As an author wrote them: a text that was made is none."""
    return {"subject": version.subject, "text": "" if version.text_from_html else version.text, "html": version.html}


@contextmanager
def refusing_words(place: Callable[[str], str] = str) -> Iterator[None]:
    """Answers what is wrong with a template with 400: by its part, or by the `place` that is to blame for it."""
    try:
        yield
    except TemplateProblem as problem:
        raise serializers.ValidationError({place(problem.part): [problem.message]}) from problem


WELCOME = {"name": "Welcome", "slug": "welcome", "subject": "Welcome, {{ name }}", "text": "Dear {{ name }}, …"}


@extend_schema_view(
    list=extend_schema(responses=TemplateSerializer(many=True)),
    create=extend_schema(
        request=TemplateDetailSerializer,
        responses={201: TemplateDetailSerializer},
        examples=[OpenApiExample("A template", WELCOME, request_only=True)],
    ),
    partial_update=extend_schema(
        examples=[OpenApiExample("A new version", {"subject": "Welcome aboard, {{ name }}"}, request_only=True)]
    ),
)
class TemplateViewSet(SettingUpViewSet):
    queryset = Template.objects.all()
    http_method_names = ["get", "head", "options", "post", "patch"]  # versions are the record of what was sent
    deeds = {"create": "add", "preview": "view"}

    def get_queryset(self) -> QuerySet[Template]:
        return LISTED if self.action == "list" else super().get_queryset()

    def get_serializer_class(self) -> type[serializers.Serializer]:
        if self.action in ("list", "versions", "version"):
            return self.serializer_class or TemplateSerializer
        return TemplateDetailSerializer

    @extend_schema(summary="The versions of a template", responses=VersionSerializer(many=True))
    @action(
        detail=True,
        serializer_class=VersionSerializer,
        ordering="-number",
        search_fields=(),
        ordering_fields=(),
    )
    def versions(self, request: Request, pk: str) -> Response:
        """Newest first, without their words."""
        return page_of(self, self.get_object().versions.select_related("created_by").defer("text", "html"))

    @extend_schema(
        summary="A version of a template",
        parameters=[OpenApiParameter("number", int, OpenApiParameter.PATH)],
        responses=VersionDetailSerializer,
    )
    @action(
        detail=True,
        url_path=r"versions/(?P<number>[0-9]{1,9})",
        url_name="version",
        serializer_class=VersionDetailSerializer,
    )
    def version(self, request: Request, pk: str, number: str) -> Response:
        """As it was sent."""
        versions = self.get_object().versions.select_related("created_by")
        return Response(self.get_serializer(get_object_or_404(versions, number=number)).data)

    @extend_schema(
        summary="Try a template out",
        request=PreviewBody,
        responses={200: PreviewSerializer},
        examples=[
            OpenApiExample("The latest version, for Ada", {"data": {"name": "Ada"}}, request_only=True),
            OpenApiExample("Other words", {"data": {"name": "Ada"}, "text": "Hello {{ name }}"}, request_only=True),
        ],
    )
    @action(detail=True, methods=["post"])
    def preview(self, request: Request, pk: str) -> Response:
        """Makes the mail for a recipient with this data, and keeps nothing. What is wrong is said with its line: at the
        words that came with the request, else at `data`."""
        template, body = self.get_object(), PreviewBody.of(request)
        given = {part: body[part] for part in WORDS if part in body}
        words = _words_of(_version(template, body.get("version"))) | given
        with refusing_words(lambda part: part if part in given else "data"):
            made = preview(**words, data=body.get("data", {}))
        return Response({part: getattr(made, part) for part in WORDS})


def _version(template: Template, number: int | None) -> TemplateVersion:
    """Raises NotFound."""
    found = template.latest if number is None else template.versions.filter(number=number).first()
    if found is None:
        raise NotFound(f"The template {template.name!r} has no version{'' if number is None else f' {number}'}.")
    return found
