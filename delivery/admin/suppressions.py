"""The list of addresses that must not be mailed: searched, added to by hand, taken from."""

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from delivery.admin.address_form import AddressForm
from delivery.admin.address_search import AddressSearch
from delivery.admin.keyset import KeysetList
from delivery.models import Suppression


@admin.register(Suppression)
class SuppressionAdmin(AddressSearch, KeysetList, ModelAdmin):
    """Rows are added and deleted, never changed: another address is another row."""

    form = AddressForm
    list_display = ("address", "reason", "shown_scope", "source", "created_at")
    list_filter = ("reason",)
    empty_hint = (
        "No address is suppressed. Hard bounces, complaints and unsubscribes are entered here by themselves; "
        "add by hand whom else must not be mailed."
    )
    fields = ("address", "reason", "scope", "source")

    def has_change_permission(self, request: HttpRequest, obj: Suppression | None = None) -> bool:
        return False

    @display(description="Counts for")
    def shown_scope(self, suppression: Suppression) -> str:
        return suppression.scope or "all mail"
