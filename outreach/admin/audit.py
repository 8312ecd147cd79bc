"""The audit trail: looked at, newest first."""

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from delivery.admin.keyset import KeysetList
from delivery.admin.readonly import ReadOnly
from outreach.models import AuditEntry

METHODS = ("POST", "PUT", "PATCH", "DELETE")
LISTED_USERS = 100


class UserFilter(admin.SimpleListFilter):
    """One user, by name: also one who is gone, if the address of the page says so."""

    title = "user"
    parameter_name = "user"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        user_model = get_user_model()
        names = list(user_model.objects.order_by("username").values_list("username", flat=True)[:LISTED_USERS])
        chosen = self.value()
        return [(name, name) for name in names + ([chosen] if chosen and chosen not in names else [])]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(user_name=self.value()) if self.value() else queryset


class MethodFilter(admin.SimpleListFilter):
    """One method."""

    title = "method"
    parameter_name = "method"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return [(method, method) for method in METHODS]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(method=self.value()) if self.value() else queryset


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly, KeysetList, ModelAdmin):
    list_display = ("at", "user_name", "token_name", "deed", "shown_status", "shown_fields", "address")
    list_filter = (UserFilter, MethodFilter)
    empty_hint = "Whatever is changed over the API stands here, with who did it. Runs and mails have their own records."

    @display(description="What")
    def deed(self, entry: AuditEntry) -> str:
        return f"{entry.method} {entry.path}"

    @display(description="Answer", label={"done": "success", "refused": "warning", "failed": "danger"})
    def shown_status(self, entry: AuditEntry) -> tuple[str, str]:
        kind = "done" if entry.status < 400 else "refused" if entry.status < 500 else "failed"
        return kind, str(entry.status)

    @display(description="Fields")
    def shown_fields(self, entry: AuditEntry) -> str:
        return ", ".join(entry.body_fields)
