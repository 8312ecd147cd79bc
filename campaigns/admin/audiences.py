"""Audiences: where recipients come from, with a look at the first of them."""

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import URLPattern, path
from unfold.admin import ModelAdmin
from unfold.decorators import display

from campaigns.admin.audience_form import AudienceForm
from campaigns.admin.sample import sample_of
from campaigns.audiences.stored import store_upload
from campaigns.models import Audience, AudienceKind


@admin.register(Audience)
class AudienceAdmin(ModelAdmin):
    form = AudienceForm
    list_display = ("name", "kind_label", "comes_from", "changed_at")
    list_filter = ("kind",)
    list_select_related = ("contact_list", "upload")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    autocomplete_fields = ("contact_list",)
    empty_hint = "An audience says who gets mail: a contact list, an uploaded CSV file, or an SQL query."
    change_form_outer_after_template = "admin/campaigns/audience/sample_frame.html"
    fieldsets = (
        (None, {"fields": ("name", "slug", "kind")}),
        (
            "Where the recipients come from",
            {
                "fields": (
                    "contact_list",
                    "file",
                    "delimiter",
                    "encoding",
                    "connection",
                    "query",
                    "address_field",
                    "name_field",
                )
            },
        ),
    )
    conditional_fields = {
        "contact_list": "kind == 'list'",
        "file": "kind == 'csv'",
        "delimiter": "kind == 'csv'",
        "encoding": "kind == 'csv'",
        "connection": "kind == 'sql'",
        "query": "kind == 'sql'",
        "address_field": "kind != 'list'",
        "name_field": "kind != 'list'",
    }

    def get_fieldsets(self, request: HttpRequest, obj: Audience | None = None) -> list:
        if obj is None or self.has_change_permission(request, obj):
            return super().get_fieldsets(request, obj)
        # Other names than the form's: unfold would ask the form, which who may only look has not, what to hide.
        return [(None, {"fields": ("name", "slug", "kind_label", "comes_from", "shown_settings")})]

    def get_readonly_fields(self, request: HttpRequest, obj: Audience | None = None) -> tuple[str, ...]:
        may_edit = obj is None or self.has_change_permission(request, obj)
        return () if may_edit else ("kind_label", "comes_from", "shown_settings")

    def save_related(self, request: HttpRequest, form: ModelForm, formsets: list, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        file = form.cleaned_data.get("file")
        if file and form.instance.kind == AudienceKind.CSV:
            store_upload(form.instance, file.name, file.chunks())

    def get_urls(self) -> list[URLPattern]:
        sample = path(
            "<int:pk>/sample/", self.admin_site.admin_view(self.sample_view), name="campaigns_audience_sample"
        )
        return [sample, *super().get_urls()]

    def sample_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The first rows, as a fragment: a slow query must not keep the page from showing."""
        audience = get_object_or_404(Audience, pk=pk)
        if not self.has_view_permission(request, audience):
            raise PermissionDenied
        return render(request, "admin/campaigns/audience/sample.html", {"sample": sample_of(audience)})

    @display(description="Kind", ordering="kind")
    def kind_label(self, audience: Audience) -> str:
        return audience.get_kind_display()

    @display(description="Comes from")
    def comes_from(self, audience: Audience) -> str:
        match audience.kind:
            case AudienceKind.LIST:
                return str(audience.contact_list or "no list yet")
            case AudienceKind.CSV:
                return audience.upload.filename if hasattr(audience, "upload") else "no file yet"
            case _:
                return audience.connection

    @display(description="Settings")
    def shown_settings(self, audience: Audience) -> str:
        names = ("query", "address_field", "name_field", "delimiter", "encoding")
        given = {audience._meta.get_field(name).verbose_name: getattr(audience, name) for name in names}
        return "\n".join(f"{name}: {value}" for name, value in given.items() if value) or "none"
