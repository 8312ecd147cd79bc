"""Audiences: set up and changed, and refused where their settings cannot work, in the words of the admin; with their
files, their first rows and how far they were read.

A credential goes in and never comes out: a stored one is kept when none is given, is forgotten when nothing needs it,
and does not go to whom the URL now leads.
"""

from collections.abc import Mapping
from copy import copy
from io import SEEK_END, IOBase

import django_filters
from django.core.exceptions import ValidationError
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings

from campaigns.api.audience_parts import BookmarkSerializer, SampleSerializer, UploadSerializer, bookmark_of
from campaigns.api.file_body import A_FILE, CsvFileParser, pieces
from campaigns.api.narrowing import NamedFilter
from campaigns.api.setting_up import SettingUpViewSet, StrictSerializer, writing
from campaigns.audiences.bookmarks import reset_bookmark
from campaigns.audiences.http_settings import CREDENTIAL
from campaigns.audiences.http_url import ELSEWHERE, leads_elsewhere
from campaigns.audiences.sample import sample_of
from campaigns.audiences.stored import store_upload
from campaigns.models import Audience, AudienceKind, ContactList
from delivery.api.requests import Refused
from delivery.exceptions import SecretUnreadable
from delivery.secrets import Sealed

LONGEST_NAME = 255
NO_FILE = "There is no file: send it as the body, its first line with the names of the columns."
ONLY_HTTP = "Only an audience of the kind http has this: leave it empty."
NO_USE = 'It would go with no request: say how it is to go in the options, such as "auth": "bearer".'

SHOWN = Audience.objects.select_related("contact_list", "upload")


class AudienceSerializer(StrictSerializer):
    """An audience. `options` are written as a whole. `file`: the name of the one that was uploaded."""

    contact_list_slug = serializers.SerializerMethodField()
    credential = serializers.CharField(write_only=True, required=False, allow_blank=True, max_length=4000)
    has_credential = serializers.SerializerMethodField()
    file = serializers.SerializerMethodField()

    class Meta:
        model = Audience
        fields = (
            "id",
            "name",
            "slug",
            "kind",
            "contact_list",
            "contact_list_slug",
            "file",
            "delimiter",
            "encoding",
            "connection",
            "query",
            "options",
            "credential",
            "has_credential",
            "address_field",
            "name_field",
            "key_field",
            "depends_field",
            "deadline_field",
            "created_at",
            "changed_at",
        )
        read_only_fields = ("created_at", "changed_at")
        extra_kwargs = {"delimiter": {"trim_whitespace": False}}  # a tab is one
        validators = []

    def get_contact_list_slug(self, audience: Audience) -> str | None:
        return audience.contact_list.slug if audience.contact_list else None

    def get_has_credential(self, audience: Audience) -> bool:
        return bool(audience.secrets)

    def get_file(self, audience: Audience) -> str | None:
        return audience.upload.filename if hasattr(audience, "upload") else None

    def validate(self, given: dict[str, object]) -> dict[str, Audience]:
        credential = given.pop(CREDENTIAL, "")
        before = self.instance or Audience()
        audience = copy(before)
        for field, value in given.items():
            setattr(audience, field, value)
        if audience.kind == AudienceKind.HTTP:
            _settle_http(audience, before, credential)
        else:
            _settle_other(audience, before, {CREDENTIAL: credential, "options": given.get("options")})
        try:
            audience.full_clean()
        except ValidationError as refusal:
            raise serializers.ValidationError(_by_place(refusal)) from refusal
        return {"audience": audience}

    def create(self, made: dict[str, Audience]) -> Audience:
        return _write(**made)

    def update(self, instance: Audience, made: dict[str, Audience]) -> Audience:
        return _write(**made)


def _settle_http(audience: Audience, before: Audience, credential: str) -> None:
    """Leaves out of the options what is empty, and settles which credential there is. Raises ValidationError."""
    if isinstance(audience.options, Mapping):
        audience.options = {name: value for name, value in audience.options.items() if value not in ("", None)}
    if (_setting(audience, "auth") or "none") == "none":
        if credential:
            raise serializers.ValidationError({CREDENTIAL: [NO_USE]})
        audience.secrets = Sealed()
    elif credential:
        try:
            audience.secrets = Sealed.seal({CREDENTIAL: credential})
        except SecretUnreadable as refusal:
            raise serializers.ValidationError({CREDENTIAL: [str(refusal)]}) from refusal
    # Who may set the URL is not thereby told the credential that somebody else has entered.
    elif audience.secrets and leads_elsewhere(_setting(before, "url"), _setting(audience, "url")):
        raise serializers.ValidationError({CREDENTIAL: [ELSEWHERE]})


def _settle_other(audience: Audience, before: Audience, given: Mapping[str, object]) -> None:
    """Refuses what only an audience over HTTP has; one that was over HTTP forgets it. Raises ValidationError."""
    if wrong := {name: [ONLY_HTTP] for name, value in given.items() if value}:
        raise serializers.ValidationError(wrong)
    if before.kind == AudienceKind.HTTP or given["options"] is not None:
        audience.options, audience.secrets = {}, Sealed()


def _setting(audience: Audience, name: str) -> str:
    return str(audience.options.get(name) or "") if isinstance(audience.options, Mapping) else ""


def _by_place(refusal: ValidationError) -> dict[str, object]:
    """By field; what is said of the options by setting: {"options": {"fields": ["…"]}}. The credential is a field."""
    places: dict[str, object] = refusal.message_dict
    if places.pop("options", None):
        settings = {
            str(problem.code): [problem.message.removeprefix(f"{problem.code}: ")]
            for problem in refusal.error_dict["options"]
        }
        if CREDENTIAL in settings:
            places[CREDENTIAL] = settings.pop(CREDENTIAL)
        if settings:
            places["options"] = settings
    return places


def _write(audience: Audience) -> Audience:
    with writing(audience):
        audience.save()
    return SHOWN.get(pk=audience.pk)


class AudienceFilter(django_filters.FilterSet):
    kind = django_filters.ChoiceFilter(choices=AudienceKind.choices)
    contact_list = NamedFilter(ContactList)


EXAMPLES = [
    OpenApiExample(
        "A contact list", {"name": "Customers", "slug": "customers", "kind": "list", "contact_list": "customers"}
    ),
    OpenApiExample("A CSV file, to be uploaded", {"name": "Guests", "slug": "guests", "kind": "csv"}),
    OpenApiExample(
        "Rows of a database",
        {
            "name": "Buyers",
            "slug": "buyers",
            "kind": "sql",
            "connection": "shop",
            "query": "SELECT email, name, city FROM buyers WHERE country = 'CH'",
        },
    ),
    OpenApiExample(
        "Only who is new in a JSON list",
        {
            "name": "CRM",
            "slug": "crm",
            "kind": "http",
            "options": {"url": "https://api.example/v1/people", "items": "data", "auth": "bearer"},
            "credential": "the token",
        },
    ),
]
for each in EXAMPLES:
    each.request_only = True
NAME = OpenApiParameter("filename", str, description="What the file is called, such as guests.csv.")


@extend_schema_view(
    create=extend_schema(examples=EXAMPLES),
    partial_update=extend_schema(
        examples=[OpenApiExample("Other columns", {"address_field": "mail", "name_field": "who"}, request_only=True)]
    ),
)
class AudienceViewSet(SettingUpViewSet):
    queryset = SHOWN
    serializer_class = AudienceSerializer
    filterset_class = AudienceFilter
    ordering_fields = (*SettingUpViewSet.ordering_fields, "changed_at")

    @extend_schema(summary="The first rows of an audience", responses=SampleSerializer)
    @action(detail=True)
    def sample(self, request: Request, pk: str) -> Response:
        """Reads them now. What cannot be read is an `error` in the answer; a bad row has its `problem`."""
        return Response(SampleSerializer(sample_of(self.get_object())).data)

    @extend_schema(
        summary="Upload the CSV file of an audience",
        parameters=[NAME],
        request={"text/csv": OpenApiTypes.BINARY},
        responses={201: UploadSerializer},
        examples=[A_FILE],
    )
    @action(detail=True, methods=["post"], parser_classes=[CsvFileParser])
    def upload(self, request: Request, pk: str) -> Response:
        """The body is the file, of 100 MB at most. It takes the place of the one before; runs that are reading that one
        now fail."""
        audience = self.get_object()
        if audience.kind != AudienceKind.CSV:
            raise Refused(f"The audience {audience.name!r} is of the kind {audience.kind}: only one of csv has a file.")
        name = _file_name(request, audience)
        file = request.data
        if not isinstance(file, IOBase) or not file.seek(0, SEEK_END):
            raise serializers.ValidationError({api_settings.NON_FIELD_ERRORS_KEY: [NO_FILE]})
        file.seek(0)
        kept = store_upload(audience, name, pieces(file))
        return Response(UploadSerializer(kept).data, status.HTTP_201_CREATED)

    @extend_schema(summary="How far an audience was read", responses=BookmarkSerializer)
    @action(detail=True)
    def bookmark(self, request: Request, pk: str) -> Response:
        """Of an audience that gives only what is new."""
        return Response(BookmarkSerializer(bookmark_of(self.get_object())).data)

    @extend_schema(summary="Read an audience from its beginning", request=None, responses=BookmarkSerializer)
    @action(detail=True, methods=["post"], url_path="bookmark/reset")
    def reset_bookmark(self, request: Request, pk: str) -> Response:
        """The next run gets everybody again. A run that reads it at this moment does not change that."""
        audience = self.get_object()
        reset_bookmark(audience)
        return Response(BookmarkSerializer(bookmark_of(audience)).data)


def _file_name(request: Request, audience: Audience) -> str:
    name = request.query_params.get(NAME.name, f"{audience.slug}.csv")
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise serializers.ValidationError({NAME.name: f"A name has 1 to {LONGEST_NAME} characters: guests.csv."})
    return name
