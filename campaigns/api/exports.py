"""Contacts, deliveries and runs as files, streamed: CSV, or JSON lines for what must be exact.

A cell of CSV that a spreadsheet would take for a formula has an apostrophe before it. Nothing takes it away again when
such a file is imported; an address that bears one is refused there.
"""

from collections.abc import Sequence

from django.http import Http404, StreamingHttpResponse
from django.urls import re_path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from campaigns.api.setting_up import IdOrSlugField, named
from campaigns.exports import tables
from campaigns.exports.formats import MEDIA_TYPES
from campaigns.exports.stream import Table, answer
from campaigns.models import ContactImport, ContactList, Run, RunState, Workflow
from delivery.api.requests import Query, allowed, who
from delivery.models import DeliveryState


class AsTheAddressSays(BaseContentNegotiation):
    """The format is in the address; a problem is JSON."""

    def select_parser(self, request: Request, parsers: Sequence[object]) -> object:
        return parsers[0]

    def select_renderer(
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class NoQuery(Query):
    """An export that is not narrowed further."""


class StateQuery(Query):
    """By what the deliveries of a run are narrowed."""

    state = serializers.ChoiceField(DeliveryState.choices, required=False)


class DeliveriesQuery(StateQuery):
    """By what deliveries are narrowed."""

    run = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)


class RunsQuery(Query):
    """By what runs are narrowed."""

    workflow = IdOrSlugField(queryset=Workflow.objects.all(), required=False)
    state = serializers.ChoiceField(RunState.choices, required=False)


FORM = OpenApiParameter("form", str, OpenApiParameter.PATH, enum=list(MEDIA_TYPES))
FILE = {(200, media_type): OpenApiTypes.STR for media_type in MEDIA_TYPES.values()}
BY_ID = OpenApiParameter("id", OpenApiTypes.INT64, OpenApiParameter.PATH)
BY_NAME = OpenApiParameter("id", str, OpenApiParameter.PATH, description="Its id or slug.")
WORKFLOW = OpenApiParameter("workflow", str, description="Its id or slug.")
RUN_STATE = OpenApiParameter("state", str, enum=RunState.values)


class _Export(APIView):
    renderer_classes = [JSONRenderer]
    content_negotiation_class = AsTheAddressSays
    query: type[Query] = NoQuery

    def _answer(self, request: Request, form: str, table: Table) -> StreamingHttpResponse:
        return answer(table, form, by=who(request))

    def _query(self, request: Request) -> dict[str, object]:
        query = self.query(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        return query.validated_data


def _run(pk: int | str) -> Run:
    found = Run.objects.filter(pk=pk).first()
    if found is None:
        raise Http404
    return found


class ContactsExport(_Export):
    permission_classes = [allowed(to_see="campaigns.view_contact", to_act="campaigns.view_contact")]

    @extend_schema(
        operation_id="contact_lists_contacts_export",
        summary="Everybody on a list, as a file",
        parameters=[BY_NAME, FORM],
        responses=FILE,
    )
    def get(self, request: Request, pk: str, form: str) -> StreamingHttpResponse:
        self._query(request)
        found = named(ContactList.objects.all(), pk)
        if found is None:
            raise Http404
        return self._answer(request, form, tables.contacts(found))


class ImportErrorsExport(_Export):
    permission_classes = [allowed(to_see="campaigns.view_contactimport", to_act="campaigns.view_contactimport")]

    @extend_schema(
        operation_id="imports_errors_export",
        summary="The rows of an import that make no contact, and why",
        parameters=[BY_ID, FORM],
        responses=FILE,
    )
    def get(self, request: Request, pk: str, form: str) -> StreamingHttpResponse:
        self._query(request)
        found = ContactImport.objects.filter(pk=pk).first()
        if found is None:
            raise Http404
        return self._answer(request, form, tables.problems(found))


class RunDeliveriesExport(_Export):
    permission_classes = [allowed(to_see="delivery.view_delivery", to_act="delivery.view_delivery")]
    query = StateQuery

    @extend_schema(
        operation_id="runs_deliveries_export",
        summary="The deliveries of a run, as a file",
        parameters=[BY_ID, FORM, StateQuery],
        responses=FILE,
    )
    def get(self, request: Request, pk: str, form: str) -> StreamingHttpResponse:
        query = self._query(request)
        return self._answer(request, form, tables.deliveries(_run(pk), query.get("state", "")))


class DeliveriesExport(_Export):
    permission_classes = RunDeliveriesExport.permission_classes
    query = DeliveriesQuery

    @extend_schema(
        operation_id="deliveries_export",
        summary="All deliveries, those of a run, or those in a state, as a file",
        parameters=[FORM, DeliveriesQuery],
        responses=FILE,
    )
    def get(self, request: Request, form: str) -> StreamingHttpResponse:
        query = self._query(request)
        run = Run.objects.filter(pk=query["run"]).first() if "run" in query else None
        if "run" in query and run is None:
            raise serializers.ValidationError({"run": [f"There is no run {query['run']}."]})
        return self._answer(request, form, tables.deliveries(run, query.get("state", "")))


class RunsExport(_Export):
    permission_classes = [allowed(to_see="campaigns.view_run", to_act="campaigns.view_run")]
    query = RunsQuery

    @extend_schema(
        operation_id="runs_export",
        summary="Runs and what became of their deliveries, as a file",
        parameters=[FORM, WORKFLOW, RUN_STATE],
        responses=FILE,
    )
    def get(self, request: Request, form: str) -> StreamingHttpResponse:
        query = self._query(request)
        workflow = query.get("workflow")
        return self._answer(request, form, tables.runs(workflow.pk if workflow else None, query.get("state", "")))


ID, NAME, FORMS = r"(?P<pk>[0-9]{1,18})", r"(?P<pk>[-\w]+)", rf"\.(?P<form>{'|'.join(MEDIA_TYPES)})$"

urls = [
    re_path(rf"^contact-lists/{NAME}/contacts{FORMS}", ContactsExport.as_view(), name="contacts-export"),
    re_path(rf"^imports/{ID}/errors{FORMS}", ImportErrorsExport.as_view(), name="import-errors"),
    re_path(rf"^runs/{ID}/deliveries{FORMS}", RunDeliveriesExport.as_view(), name="run-deliveries-export"),
    re_path(rf"^deliveries{FORMS}", DeliveriesExport.as_view(), name="deliveries-export"),
    re_path(rf"^runs{FORMS}", RunsExport.as_view(), name="runs-export"),
]
