"""Contacts by a file: uploaded, looked at, checked, imported, undone.

POST contact-lists/customers/imports/   the file              → its columns, and how they would be read
POST imports/7/check/                   {"mapping": …}        → what would come of it, and nothing changes
POST imports/7/start/
GET  imports/7/                         how far it is
GET  imports/7/errors.csv               the rows that make no contact, and why
POST imports/7/undo/
"""

from collections.abc import Iterable

import django_filters
from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.parsers import MultiPartParser
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from campaigns.api.file_body import A_FILE, CsvFileParser, pieces
from campaigns.api.setting_up import named
from campaigns.audiences.exceptions import AudienceError
from campaigns.contacts import states
from campaigns.contacts.mapping import Mapping, problems_with
from campaigns.contacts.uploads import FileTooLarge, store
from campaigns.exceptions import ImportImpossible
from campaigns.models import ContactImport, ContactList, ImportPolicy, ImportState
from delivery.api.parsing import TooLarge
from delivery.api.requests import Body, NoBody, Query, allowed, refusing, who

MAPPING_EXAMPLE = {"address": "E-mail", "name": "Full name", "attributes": {"City": "city", "Plan": "plan"}}


class MappingBody(Body):
    """How the columns are read. Columns are called by their headings; those that are not named are ignored."""

    address = serializers.CharField(max_length=1000, help_text="The column with the address.")
    name = serializers.CharField(max_length=1000, required=False, allow_blank=True, default="")
    attributes = serializers.DictField(
        child=serializers.CharField(max_length=1000),
        required=False,
        default=dict,
        help_text="The attributes for the template, by the column that they come from.",
    )


class CheckBody(Body):
    """How the file is to be read. Without `mapping`, as was guessed or said before."""

    mapping = MappingBody(required=False)
    policy = serializers.ChoiceField(
        ImportPolicy.choices,
        required=False,
        help_text="What becomes of contacts that are on the list. An empty cell never changes anything.",
    )


class UploadQuery(Query):
    """What is said of a file beside it."""

    filename = serializers.CharField(max_length=255, required=False, default="contacts.csv")
    encoding = serializers.CharField(
        max_length=20, required=False, default="", help_text="Such as cp1252. UTF-8 and what has a mark need none."
    )
    delimiter = serializers.CharField(
        max_length=1, required=False, default="", trim_whitespace=False, help_text="Found by itself, if not given."
    )


class FileBody(Body):
    """A file in a form."""

    file = serializers.FileField(max_length=255)


class CountsField(serializers.DictField):
    """How many of what."""

    child = serializers.IntegerField()


class ImportSerializer(serializers.ModelSerializer):
    """An import. `forecast` is what its check has counted, `counts` what the import has done so far, `undone` what its
    undoing has: each is empty before. `suppressed` contacts are imported and get no mail all the same;
    `suppressed_in_part` get none of some workflow. `position` is how many rows of the file are worked through."""

    contact_list_slug = serializers.CharField(source="contact_list.slug", read_only=True)
    forecast, counts, undone, problem_counts = CountsField(), CountsField(), CountsField(), CountsField()

    class Meta:
        model = ContactImport
        fields = (
            "id",
            "contact_list",
            "contact_list_slug",
            "filename",
            "size",
            "state",
            "policy",
            "position",
            "forecast",
            "counts",
            "undone",
            "problem_counts",
            "error",
            "by",
            "created_at",
            "started_at",
            "ended_at",
        )
        read_only_fields = fields


class MappingShown(serializers.Serializer):
    """How the columns are read."""

    address = serializers.CharField(help_text='"" when no column looks like one: then say which.')
    name = serializers.CharField()
    attributes = serializers.DictField(child=serializers.CharField())


class WholeImportSerializer(ImportSerializer):
    """An import with its columns, the first rows, and how it is read."""

    columns = serializers.ListField(child=serializers.CharField(), read_only=True)
    sample = serializers.ListField(child=serializers.ListField(child=serializers.CharField()), read_only=True)
    mapping = MappingShown(read_only=True)

    class Meta(ImportSerializer.Meta):
        fields = (*ImportSerializer.Meta.fields, "encoding", "delimiter", "columns", "sample", "mapping")
        read_only_fields = fields


class ImportFilter(django_filters.FilterSet):
    state = django_filters.ChoiceFilter(choices=ImportState.choices)

    class Meta:
        model = ContactImport
        fields = ()


A_FORM = OpenApiExample(
    "A form", {"file": "email,name\nada@example.test,Ada\n"}, request_only=True, media_type="multipart/form-data"
)
LIST_OF = OpenApiParameter("contact_list_pk", str, OpenApiParameter.PATH, description="The list's id or slug.")


class _Imports(ListModelMixin, GenericViewSet):
    serializer_class = ImportSerializer
    filterset_class = ImportFilter
    ordering = "-id"
    queryset = ContactImport.objects.select_related("contact_list")

    def get_permissions(self) -> list[BasePermission]:
        deed = "add" if self.action == "create" else "change"
        return [allowed(to_see="campaigns.view_contactimport", to_act=f"campaigns.{deed}_contactimport")()]


class ImportsOfListViewSet(_Imports):
    """The imports into one list; a new one begins with its file."""

    def get_queryset(self) -> QuerySet[ContactImport]:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        return self.queryset.filter(contact_list=self._contact_list())

    def get_parsers(self) -> list:
        return [CsvFileParser(), MultiPartParser()]

    @extend_schema(operation_id="contact_lists_imports_list", parameters=[LIST_OF])
    def list(self, request: Request, *args: object, **kwargs: object) -> Response:
        return super().list(request, *args, **kwargs)

    @extend_schema(
        operation_id="contact_lists_imports_create",
        summary="Upload a file of contacts",
        description="The file as the body (text/csv), or as `file` in a form. Nothing is imported yet.",
        parameters=[LIST_OF, UploadQuery],
        request={"text/csv": OpenApiTypes.BINARY, "multipart/form-data": FileBody},
        responses={201: WholeImportSerializer},
        examples=[A_FILE, A_FORM],
        filters=False,
    )
    def create(self, request: Request, *args: object, **kwargs: object) -> Response:
        contact_list, file = self._contact_list(), request.data
        about = UploadQuery(data=request.query_params.dict())
        about.is_valid(raise_exception=True)
        said = about.validated_data
        if isinstance(file, dict):
            form = FileBody(data=file)
            form.is_valid(raise_exception=True)
            file = form.validated_data["file"]
            if "filename" not in request.query_params:
                said["filename"] = file.name
            chunks: Iterable[bytes] = file.chunks()
        else:
            chunks = pieces(file)
        try:
            kept = store(contact_list, said.pop("filename"), chunks, by=who(request), **said)
        except FileTooLarge as refusal:
            raise TooLarge(str(refusal)) from refusal
        except AudienceError as refusal:
            raise serializers.ValidationError({"file": [str(refusal)]}) from refusal
        return Response(WholeImportSerializer(kept).data, status.HTTP_201_CREATED)

    def _contact_list(self) -> ContactList:
        found = named(ContactList.objects.all(), self.kwargs["contact_list_pk"])
        if found is None:
            raise Http404
        return found


STARTED = {202: WholeImportSerializer}


@extend_schema_view(retrieve=extend_schema(summary="An import, and how far it is"))
class ImportViewSet(RetrieveModelMixin, _Imports):
    """The imports of all lists."""

    lookup_value_regex = r"[0-9]{1,18}"

    def get_serializer_class(self) -> type[serializers.Serializer]:
        return ImportSerializer if self.action == "list" else WholeImportSerializer

    @extend_schema(
        summary="Read the whole file and say what would come of it",
        request=CheckBody,
        responses=STARTED,
        examples=[
            OpenApiExample("By these columns", {"mapping": MAPPING_EXAMPLE, "policy": "overwrite"}, request_only=True),
            OpenApiExample("As it was guessed", {}, request_only=True),
        ],
    )
    @action(detail=True, methods=["post"])
    def check(self, request: Request, pk: str) -> Response:
        of, body = self.get_object(), CheckBody.of(request)
        mapping = Mapping(**body["mapping"]) if "mapping" in body else Mapping.of(of.mapping or Mapping().as_json())
        if problems := problems_with(mapping, of.columns):
            raise serializers.ValidationError({"mapping": problems})
        with refusing(ImportImpossible):
            states.check(of, who(request), mapping, body.get("policy", of.policy))
        return self._shown(of)

    @extend_schema(summary="Import the file as it was checked", request=NoBody, responses=STARTED)
    @action(detail=True, methods=["post"])
    def start(self, request: Request, pk: str) -> Response:
        of, _ = self.get_object(), NoBody.of(request)
        with refusing(ImportImpossible):
            states.start(of, who(request))
        return self._shown(of)

    @extend_schema(summary="Take back what the import did", request=NoBody, responses=STARTED)
    @action(detail=True, methods=["post"])
    def undo(self, request: Request, pk: str) -> Response:
        of, _ = self.get_object(), NoBody.of(request)
        with refusing(ImportImpossible):
            states.undo(of, who(request))
        return self._shown(of)

    def _shown(self, of: ContactImport) -> Response:
        return Response(WholeImportSerializer(of).data, status.HTTP_202_ACCEPTED)
