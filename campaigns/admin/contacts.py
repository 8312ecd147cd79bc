"""Contact lists, and the contacts on them."""

from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from campaigns.admin.contact_imports import ImportsAndExports
from campaigns.models import Contact, ContactList
from delivery.admin.address_form import AddressForm
from delivery.admin.address_search import AddressSearch
from delivery.admin.keyset import KeysetList


@admin.register(ContactList)
class ContactListAdmin(ImportsAndExports, ModelAdmin):
    list_display = ("name", "slug", "contacts_link", "created_at")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    empty_hint = "A contact list is an audience that is kept here. Add a list, then add contacts to it."
    fields = ("name", "slug")
    actions_detail = ("import_a_file", "export_contacts")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        # Counted list by list in the index, not by a join that groups every contact.
        counted = Contact.objects.filter(contact_list=OuterRef("pk")).order_by().values("contact_list")
        number = Subquery(counted.annotate(n=Count("pk")).values("n"))
        return super().get_queryset(request).annotate(number_of_contacts=Coalesce(number, 0))

    @display(description="Contacts", ordering="number_of_contacts")
    def contacts_link(self, contact_list: ContactList) -> SafeString:
        url = reverse("admin:campaigns_contact_changelist") + f"?contact_list__id__exact={contact_list.pk}"
        return format_html('<a class="text-link" href="{}">{}</a>', url, f"{contact_list.number_of_contacts:,}")


@admin.register(Contact)
class ContactAdmin(AddressSearch, KeysetList, ModelAdmin):
    form = AddressForm
    list_display = ("address", "name", "list_name", "created_at")
    list_filter = ("contact_list",)
    list_select_related = ("contact_list",)
    autocomplete_fields = ("contact_list",)
    empty_hint = "There are no contacts yet. Add a contact list first, then its contacts."
    fields = ("contact_list", "address", "name", "attributes")

    @display(description="List")
    def list_name(self, contact: Contact) -> str:
        return contact.contact_list.name
