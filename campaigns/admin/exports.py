"""Runs and their deliveries as files, from the pages of runs."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from unfold.decorators import action

from campaigns.exports import tables
from campaigns.exports.formats import CSV
from campaigns.exports.stream import Table, answer
from campaigns.models import Run


class ExportsRuns:
    """Mixed into the admin of runs."""

    def has_export_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("delivery.view_delivery")

    @action(description="Export deliveries", icon="download", permissions=["export"], url_path="export-deliveries")
    def export_deliveries(self, request: HttpRequest, object_id: int) -> HttpResponse:
        return _file(request, tables.deliveries(get_object_or_404(Run, pk=object_id)))

    @action(description="Export all runs", icon="download", permissions=["view"], url_path="export-runs")
    def export_runs(self, request: HttpRequest) -> HttpResponse:
        return _file(request, tables.runs())


def _file(request: HttpRequest, table: Table) -> HttpResponse:
    return answer(table, CSV, by=request.user.get_username(), for_spreadsheets=True)
