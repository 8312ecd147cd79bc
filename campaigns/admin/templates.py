"""Templates: written here, each save a new version; and the versions, to look at."""

from django.contrib import admin
from django.db.models import Max, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from campaigns.admin.template_form import WORDS, TemplateForm
from campaigns.authoring import save_version
from campaigns.models import Template, TemplateVersion
from delivery.admin.readonly import ReadOnly


@admin.register(Template)
class TemplateAdmin(ModelAdmin):
    form = TemplateForm
    list_display = ("name", "slug", "version")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    empty_hint = (
        "A template is the wording of a mail: subject, text and HTML, with {{ variables }} from the audience's fields."
    )
    change_form_outer_after_template = "admin/campaigns/template/versions.html"
    words_help = (
        "Jinja2: <code>{{ first_name }}</code> is replaced by the recipient's field; "
        "<code>{{ first_name|default('friend') }}</code> where a field may be missing. "
        "<code>{{ unsubscribe_url }}</code> is the recipient's own link. Every save makes a new version; a run keeps "
        "the version it began with."
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).annotate(latest_number=Max("versions__number"))

    def get_fieldsets(self, request: HttpRequest, obj: Template | None = None) -> list:
        may_edit = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        sets = [(None, {"fields": ("name", "slug")})]
        if may_edit:
            sets.append(("Words", {"fields": WORDS, "description": self.words_help}))
        return sets

    def has_delete_permission(self, request: HttpRequest, obj: Template | None = None) -> bool:
        # Its versions are the record of what was sent, and are never deleted.
        return False

    def save_related(self, request: HttpRequest, form: ModelForm, formsets: list, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        words = {part: form.cleaned_data[part] for part in WORDS}
        save_version(form.instance, **words, by=request.user)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict | None = None
    ) -> HttpResponse:
        versions = TemplateVersion.objects.filter(template=object_id).select_related("created_by").defer("text", "html")
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), "versions": versions})

    @display(description="Latest version", ordering="latest_number")
    def version(self, template: Template) -> str:
        return f"v{template.latest_number}" if template.latest_number else "none yet"


@admin.register(TemplateVersion)
class TemplateVersionAdmin(ReadOnly, ModelAdmin):
    """One wording, as it was sent. There is nothing to change about it."""

    list_display = ("template", "number", "subject", "created_at", "created_by")
    list_select_related = ("template", "created_by")
    list_filter = ("template",)
    fieldsets = (
        (None, {"fields": ("template_link", "number", "created_at", "created_by")}),
        ("Words", {"fields": ("subject", "text_source", "html_source")}),
    )

    @display(description="Template")
    def template_link(self, version: TemplateVersion) -> SafeString:
        url = reverse("admin:campaigns_template_change", args=[version.template_id])
        return format_html('<a class="text-link" href="{}">{}</a>', url, version.template)

    @display(description="Text")
    def text_source(self, version: TemplateVersion) -> SafeString | str:
        made = "Made from the HTML:\n\n" if version.text_from_html else ""
        return _source(made + version.text if version.text else "")

    @display(description="HTML")
    def html_source(self, version: TemplateVersion) -> SafeString | str:
        return _source(version.html)


def _source(text: str) -> SafeString | str:
    return format_html('<pre class="outreach-source">{}</pre>', text) if text else "none"
