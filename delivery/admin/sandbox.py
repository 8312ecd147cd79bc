"""The mails that the sandbox kept, to look at."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin

from delivery.admin.keyset import KeysetList
from delivery.admin.mail_view import fenced, read_mail
from delivery.models import KeptMail


@admin.register(KeptMail)
class KeptMailAdmin(KeysetList, ModelAdmin):
    """Kept mails are shown, and deleted when nobody needs them any more."""

    list_display = ("recipient", "subject", "engine", "kept_at")
    list_filter = ("engine",)
    search_fields = ("recipient__startswith",)
    search_help_text = "A recipient, or the beginning of the address"
    empty_hint = "Start a test run of a workflow: its mails are kept here instead of being sent."
    change_form_template = "admin/delivery/keptmail/change_form.html"
    fields = ("recipient", "subject", "engine", "kept_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: KeptMail | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).select_related("engine").defer("raw")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict | None = None
    ) -> HttpResponse:
        kept = self.get_object(request, object_id)
        mail = read_mail(bytes(kept.raw)) if kept and self.has_view_permission(request, kept) else None
        shown = {"mail": mail, "srcdoc": fenced(mail.html) if mail else ""}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})
