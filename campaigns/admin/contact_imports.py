"""Contacts by a file: uploaded on the page of a list, checked, imported and undone on the page of the import. Also the
way out: a list as a file."""

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from campaigns.audiences.columns import field_name
from campaigns.audiences.exceptions import AudienceError
from campaigns.contacts import states
from campaigns.contacts.mapping import Mapping, problems_with
from campaigns.contacts.uploads import FileTooLarge, store
from campaigns.exceptions import ImportImpossible
from campaigns.exports import tables
from campaigns.exports.formats import CSV
from campaigns.exports.stream import answer
from campaigns.models import UNDER_WAY, ContactImport, ContactList, ImportPolicy, ImportState
from delivery.admin.keyset import KeysetList
from delivery.admin.readonly import ReadOnly

STATE_COLOURS = {"imported": "success", "checked": "info", "refused": "danger", "undone": "warning"}
IGNORED, ADDRESS, NAME, ATTRIBUTE = "", "address", "name", "attribute"
ROLES = [(IGNORED, "not imported"), (ADDRESS, "the address"), (NAME, "the name"), (ATTRIBUTE, "an attribute")]


class UploadForm(forms.Form):
    """The file, and what is known of it."""

    file = forms.FileField(label="CSV file", widget=UnfoldAdminFileFieldWidget)
    encoding = forms.CharField(
        required=False,
        max_length=20,
        widget=UnfoldAdminTextInputWidget,
        help_text="Such as cp1252. Empty for UTF-8, and for UTF-16 with a mark.",
    )
    delimiter = forms.CharField(
        required=False, max_length=1, strip=False, widget=UnfoldAdminTextInputWidget, help_text="Empty to find it."
    )


class MappingForm(forms.Form):
    """What each column is, and what becomes of contacts that are there."""

    policy = forms.ChoiceField(
        label="Contacts that are on the list",
        choices=ImportPolicy.choices,
        widget=UnfoldAdminSelectWidget,
        help_text="An empty cell never changes anything.",
    )

    def __init__(self, of: ContactImport, *args: object, **kwargs: object) -> None:
        mapping = Mapping.of(of.mapping)
        super().__init__(*args, initial={"policy": of.policy}, **kwargs)
        self._headings = of.columns
        for place, heading in enumerate(of.columns):
            role = {mapping.address: ADDRESS, mapping.name: NAME}.get(heading)
            role = role or (ATTRIBUTE if heading in mapping.attributes else IGNORED)
            self.fields[f"role_{place}"] = forms.ChoiceField(
                choices=ROLES, required=False, initial=role, widget=UnfoldAdminSelectWidget
            )
            self.fields[f"as_{place}"] = forms.CharField(
                required=False,
                max_length=100,
                initial=mapping.attributes.get(heading, field_name(heading)),
                widget=UnfoldAdminTextInputWidget,
            )

    def columns(self) -> list[tuple[str, forms.BoundField, forms.BoundField]]:
        """Heading, role and name of each column."""
        return [(h, self[f"role_{place}"], self[f"as_{place}"]) for place, h in enumerate(self._headings)]

    def clean(self) -> dict[str, object]:
        cleaned = super().clean()
        by_role: dict[str, list[int]] = {}
        for place in range(len(self._headings)):
            by_role.setdefault(cleaned.get(f"role_{place}", IGNORED), []).append(place)
        for role in (ADDRESS, NAME):
            if len(by_role.get(role, ())) > 1:
                self.add_error(f"role_{by_role[role][1]}", f"One column is {dict(ROLES)[role]}, not two.")
        headings = {role: self._headings[places[0]] for role, places in by_role.items()}
        attributes = {self._headings[place]: cleaned.get(f"as_{place}", "") for place in by_role.get(ATTRIBUTE, ())}
        self.mapping = Mapping(headings.get(ADDRESS, ""), headings.get(NAME, ""), attributes)
        if not self.errors:
            self._refuse(problems_with(self.mapping, self._headings))
        return cleaned

    def _refuse(self, problems: dict[str, object]) -> None:
        for heading, words in problems.pop("attributes", {}).items():
            self.add_error(f"as_{self._headings.index(heading)}", words)
        for words in problems.values():
            self.add_error(None, words)


class ImportsAndExports:
    """Mixed into the admin of contact lists: the ways in and out on a list's page."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:pk>/import/", view(self.import_view), name="campaigns_contactlist_import"),
            path("<int:pk>/contacts.csv", view(self.export_view), name="campaigns_contactlist_export"),
            *super().get_urls(),
        ]

    def has_import_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("campaigns.add_contactimport")

    def has_export_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("campaigns.view_contact")

    @action(description="Import a file", icon="upload", permissions=["import"], url_path="import-a-file")
    def import_a_file(self, request: HttpRequest, object_id: int) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:campaigns_contactlist_import", args=[object_id]))

    @action(description="Export as CSV", icon="download", permissions=["export"], url_path="export")
    def export_contacts(self, request: HttpRequest, object_id: int) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:campaigns_contactlist_export", args=[object_id]))

    def import_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Asks for the file, and leads to the page of its import."""
        contact_list = get_object_or_404(ContactList, pk=pk)
        if not self.has_import_permission(request):
            raise PermissionDenied
        form = UploadForm(request.POST or None, request.FILES or None)
        if form.is_valid():
            said, by = form.cleaned_data, request.user.get_username()
            file = said.pop("file")
            try:
                kept = store(contact_list, file.name, file.chunks(), by=by, **said)
            except (AudienceError, FileTooLarge) as refusal:
                form.add_error("file", str(refusal))
            else:
                return HttpResponseRedirect(reverse("admin:campaigns_contactimport_change", args=[kept.pk]))
        title = f"Import contacts into {contact_list.name}"
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": title, "form": form}
        return TemplateResponse(request, "admin/campaigns/contactlist/import.html", context)

    def export_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        contact_list = get_object_or_404(ContactList, pk=pk)
        if not self.has_export_permission(request):
            raise PermissionDenied
        return answer(tables.contacts(contact_list), CSV, by=request.user.get_username(), for_spreadsheets=True)


@admin.register(ContactImport)
class ContactImportAdmin(KeysetList, ReadOnly, ModelAdmin):
    list_display = ("filename", "state_badge", "list_name", "position", "by", "created_at")
    list_filter = ("state", "contact_list")
    list_select_related = ("contact_list",)
    empty_hint = "Open a contact list and choose “Import a file”."
    change_form_template = "admin/campaigns/contactimport/change_form.html"
    fields = ("filename",)

    @display(description="State", label=STATE_COLOURS)
    def state_badge(self, of: ContactImport) -> str:
        return of.get_state_display()

    @display(description="Into")
    def list_name(self, of: ContactImport) -> str:
        return of.contact_list.name

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:pk>/deed/", view(self.deed_view), name="campaigns_contactimport_deed"),
            path("<int:pk>/progress/", view(self.progress_view), name="campaigns_contactimport_progress"),
            path("<int:pk>/errors.csv", view(self.errors_view), name="campaigns_contactimport_errors"),
            *super().get_urls(),
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict | None = None
    ) -> HttpResponse:
        of = self.get_object(request, object_id)
        shown = {}
        if of and self.has_view_permission(request, of):
            shown = self._page_of(request, of, MappingForm(of) if of.columns else None)
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})

    def deed_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Checks, starts or undoes it."""
        of = get_object_or_404(ContactImport.objects.select_related("contact_list"), pk=pk)
        if request.method != "POST" or not _may_act(request):
            raise PermissionDenied
        deed, by = request.POST.get("deed"), request.user.get_username()
        url = reverse("admin:campaigns_contactimport_change", args=[of.pk])
        try:
            if deed == "check":
                form = MappingForm(of, request.POST)
                if not form.is_valid():
                    return self._again(request, of, form)
                states.check(of, by, form.mapping, form.cleaned_data["policy"])
            elif deed == "start":
                states.start(of, by)
            elif deed == "undo":
                states.undo(of, by)
        except ImportImpossible as refusal:
            messages.error(request, str(refusal))
        return HttpResponseRedirect(url)

    def _again(self, request: HttpRequest, of: ContactImport, form: MappingForm) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": str(of), "original": of}
        context |= self._page_of(request, of, form)
        return TemplateResponse(request, "admin/campaigns/contactimport/again.html", context)

    def progress_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The part of the page that moves; in another state the whole page is made anew."""
        of = get_object_or_404(ContactImport.objects.select_related("contact_list"), pk=pk)
        if not self.has_view_permission(request, of):
            raise PermissionDenied
        response = render(request, "admin/campaigns/contactimport/progress.html", self._page_of(request, of, None))
        if request.GET.get("state") != of.state:
            response["HX-Refresh"] = "true"
        return response

    def errors_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        of = get_object_or_404(ContactImport, pk=pk)
        if not self.has_view_permission(request, of):
            raise PermissionDenied
        return answer(tables.problems(of), CSV, by=request.user.get_username(), for_spreadsheets=True)

    def _page_of(self, request: HttpRequest, of: ContactImport, form: MappingForm | None) -> dict[str, object]:
        return {
            "of": of,
            "state_colour": STATE_COLOURS.get(of.get_state_display(), "default"),
            "under_way": of.state in UNDER_WAY,
            "mapping_form": form if of.state in states.CHECKABLE and _may_act(request) else None,
            "may_start": of.state == ImportState.CHECKED and _may_act(request),
            "may_undo": of.state in states.UNDOABLE and _may_act(request),
            "counted": [
                (title, [(name.replace("_", " "), f"{n:,}") for name, n in counts.items()])
                for title, counts in (
                    ("What would come of it", of.forecast),
                    ("What was done", of.counts),
                    ("Rows that make no contact", of.problem_counts),
                    ("What was undone", of.undone),
                )
                if counts
            ],
            "has_problems": of.problems.exists(),
        }


def _may_act(request: HttpRequest) -> bool:
    return request.user.has_perm("campaigns.change_contactimport")
