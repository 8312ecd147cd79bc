"""Audiences: where recipients come from, with a look at the first of them."""

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import URLPattern, path, reverse
from unfold.admin import ModelAdmin
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display

from campaigns.admin.audience_form import AudienceForm
from campaigns.admin.http_fields import CONDITIONS, NAMES
from campaigns.audiences.bookmarks import reset_bookmark
from campaigns.audiences.http_url import without_query
from campaigns.audiences.sample import sample_of
from campaigns.audiences.stored import store_upload
from campaigns.models import Audience, AudienceBookmark, AudienceKind
from delivery.admin.redirects import go_to

LINKS = ("key_field", "depends_field", "deadline_field")
LINKS_TITLE = "Who waits for whom, and until when"
ABOUT_LINKS = (
    "For recipients that depend on each other, or have deadlines of their own: in which fields that is said. The "
    "sample below shows what is read from them. Empty: everybody gets the mail as soon as may be."
)


@admin.register(Audience)
class AudienceAdmin(ModelAdmin):
    form = AudienceForm
    list_display = ("name", "kind_label", "comes_from", "changed_at")
    list_filter = ("kind",)
    list_select_related = ("contact_list", "upload")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    autocomplete_fields = ("contact_list",)
    empty_hint = (
        "An audience says who gets mail: a contact list, an uploaded CSV file, an SQL query, or a JSON list over HTTP."
    )
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
                    *NAMES,
                    "address_field",
                    "name_field",
                )
            },
        ),
        (LINKS_TITLE, {"fields": LINKS, "description": ABOUT_LINKS, "classes": ["collapse"]}),
    )
    actions_detail = ("read_from_the_beginning",)
    conditional_fields = {
        "contact_list": "kind == 'list'",
        "file": "kind == 'csv'",
        "delimiter": "kind == 'csv'",
        "encoding": "kind == 'csv'",
        "connection": "kind == 'sql'",
        "query": "kind == 'sql'",
        **CONDITIONS,
        "address_field": "kind != 'list'",
        "name_field": "kind != 'list'",
    }

    def get_fieldsets(self, request: HttpRequest, obj: Audience | None = None) -> list:
        if obj is None or self.has_change_permission(request, obj):
            given = [_open_if_used(each, obj) for each in super().get_fieldsets(request, obj)]
            return [*given, ("Only what is new", {"fields": ("read_up_to",)})] if _is_incremental(obj) else given
        # Other names than the form's: unfold would ask the form, which who may only look has not, what to hide.
        return [(None, {"fields": ("name", "slug", "kind_label", "comes_from", "shown_settings", "read_up_to")})]

    def get_readonly_fields(self, request: HttpRequest, obj: Audience | None = None) -> tuple[str, ...]:
        may_edit = obj is None or self.has_change_permission(request, obj)
        return ("read_up_to",) if may_edit else ("kind_label", "comes_from", "shown_settings", "read_up_to")

    def render_change_form(self, request: HttpRequest, context: dict, *args: object, **kwargs: object) -> HttpResponse:
        form = context["adminform"].form
        if request.method == "POST" and isinstance(form, AudienceForm):
            form.want_secrets_again()
        return super().render_change_form(request, context, *args, **kwargs)

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
            case AudienceKind.HTTP:
                return without_query(str(audience.options.get("url") or ""))
            case _:
                return audience.connection

    @display(description="Settings")
    def shown_settings(self, audience: Audience) -> str:
        names = ("query", "address_field", "name_field", *LINKS, "delimiter", "encoding")
        given = {audience._meta.get_field(name).verbose_name: getattr(audience, name) for name in names}
        given |= audience.options if audience.kind == AudienceKind.HTTP else {}
        return "\n".join(f"{name}: {value}" for name, value in given.items() if value) or "none"

    # ---- what is new ----

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[UnfoldAction]:
        """Nothing that is read from its beginning anyway can be reset."""
        read = AudienceBookmark.objects.filter(audience=unquote(str(object_id))).exclude(value="").exists()
        return super().get_actions_detail(request, object_id) if read else []

    @action(
        description="Read from the beginning",
        icon="restart_alt",
        permissions=["change"],
        url_path="read-from-the-beginning",
        dialog={
            "title": "Read this audience from the beginning?",
            "description": "The next run gets everybody, not only who is new: also those who have had a mail. A run "
            "that reads it at this moment does not change that.",
            "form_class": None,
            "form_submit_text": "Read from the beginning",
        },
    )
    def read_from_the_beginning(self, request: HttpRequest, form: object, object_id: str) -> HttpResponse:
        audience = get_object_or_404(Audience, pk=unquote(str(object_id)))
        if reset_bookmark(audience):
            self.log_change(request, audience, "To be read from the beginning.")
        messages.success(request, "The next run reads this audience from the beginning.")
        return go_to(request, reverse("admin:campaigns_audience_change", args=[audience.pk]))

    @display(description="Read up to")
    def read_up_to(self, audience: Audience) -> str:
        if not _is_incremental(audience):
            return "each run gets everything"
        bookmark = AudienceBookmark.objects.filter(audience=audience.pk).exclude(value="").first()
        if bookmark is None:
            return "not read yet: the next run gets everything"
        return f"{bookmark.value}, by run {bookmark.run_id} on {bookmark.moved_at:%Y-%m-%d %H:%M} UTC"


def _is_incremental(audience: Audience | None) -> bool:
    return audience is not None and audience.kind == AudienceKind.HTTP and bool(audience.options.get("since_path"))


def _open_if_used(fieldset: tuple, audience: Audience | None) -> tuple:
    """The fields of dependencies and deadlines are folded away where there are none."""
    title, options = fieldset
    if title != LINKS_TITLE or audience is None or not any(getattr(audience, name) for name in LINKS):
        return fieldset
    return title, options | {"classes": []}
