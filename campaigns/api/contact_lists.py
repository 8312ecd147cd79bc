"""Contact lists and the contacts on them. Many contacts at once come by an import."""

import json
from copy import copy

import django_filters
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.viewsets import ModelViewSet

from campaigns.api.setting_up import SettingUpViewSet, StrictSerializer, by_field, named, writing
from campaigns.models import Contact, ContactList
from delivery.addresses import ImpossibleAddress, identity, normalise
from delivery.admin.address_search import by_address
from delivery.api.requests import allowed

MOST_ATTRIBUTES = 64_000  # octets as JSON: each is carried by every mail
ON_IT_ALREADY = "This address is on the list already: change the contact that there is."
TAKEN = "contact_once_per_list"


class ContactListSerializer(StrictSerializer):
    """A contact list."""

    class Meta:
        model = ContactList
        fields = ("id", "name", "slug", "created_at")
        validators = []

    def validate(self, given: dict[str, object]) -> dict[str, ContactList]:
        contact_list = copy(self.instance) if self.instance else ContactList()
        for field, value in given.items():
            setattr(contact_list, field, value)
        try:
            contact_list.full_clean()
        except ValidationError as refusal:
            raise serializers.ValidationError(by_field(refusal)) from refusal
        return {"contact_list": contact_list}

    def create(self, made: dict[str, ContactList]) -> ContactList:
        return self._write(**made)

    def update(self, instance: ContactList, made: dict[str, ContactList]) -> ContactList:
        return self._write(**made)

    def _write(self, contact_list: ContactList) -> ContactList:
        with writing(contact_list):
            contact_list.save()
        return contact_list


@extend_schema_view(
    create=extend_schema(
        examples=[OpenApiExample("A list", {"name": "Customers", "slug": "customers"}, request_only=True)]
    ),
    partial_update=extend_schema(
        examples=[OpenApiExample("Another name", {"name": "Customers in Europe"}, request_only=True)]
    ),
)
class ContactListViewSet(SettingUpViewSet):
    queryset = ContactList.objects.all()
    serializer_class = ContactListSerializer


class ContactSerializer(StrictSerializer):
    """A contact. The address is kept in its normal form; two spellings of one are the same contact. `attributes` are
    fields for the template, and written as a whole."""

    address = serializers.CharField(max_length=1016)
    attributes = serializers.DictField(required=False)

    class Meta:
        model = Contact
        fields = ("id", "address", "name", "attributes", "created_at")
        read_only_fields = ("created_at",)
        validators = []

    def validate_address(self, written: str) -> str:
        try:
            return normalise(written)
        except ImpossibleAddress as error:
            raise serializers.ValidationError(error.reason) from None

    def validate_attributes(self, attributes: dict[str, object]) -> dict[str, object]:
        if len(json.dumps(attributes)) > MOST_ATTRIBUTES:
            raise serializers.ValidationError(f"These are more than {MOST_ATTRIBUTES:,} characters as JSON.")
        return attributes

    def create(self, given: dict[str, object]) -> Contact:
        return self._write(Contact(contact_list=self.context["contact_list"]), given)

    def update(self, contact: Contact, given: dict[str, object]) -> Contact:
        return self._write(contact, given)

    def _write(self, contact: Contact, given: dict[str, object]) -> Contact:
        for field, value in given.items():
            setattr(contact, field, value)
        contact.identity = identity(contact.address)
        try:
            with transaction.atomic():
                contact.save()
        except IntegrityError as error:
            if not _same(contact).exists():
                raise
            raise serializers.ValidationError({"address": [ON_IT_ALREADY]}) from error
        return contact


def _same(contact: Contact) -> QuerySet[Contact]:
    """Another contact of the same list with this address."""
    others = Contact.objects.exclude(pk=contact.pk)
    return others.filter(contact_list=contact.contact_list_id, identity=contact.identity)


class ContactFilter(django_filters.FilterSet):
    address = django_filters.CharFilter(
        method="of_address",
        max_length=1016,
        help_text="An address, however it is spelt; also its beginning, where the database finds that in its index.",
    )

    def of_address(self, contacts: QuerySet[Contact], name: str, written: str) -> QuerySet[Contact]:
        return by_address(contacts, written)


@extend_schema_view(
    create=extend_schema(
        examples=[
            OpenApiExample(
                "Somebody",
                {"address": "ada@example.test", "name": "Ada Lovelace", "attributes": {"city": "London"}},
                request_only=True,
            )
        ]
    ),
    partial_update=extend_schema(
        examples=[OpenApiExample("She has moved", {"attributes": {"city": "Paris"}}, request_only=True)]
    ),
)
class ContactViewSet(ModelViewSet):
    """The contacts of one list, in the order of their addresses."""

    queryset = Contact.objects.none()
    serializer_class = ContactSerializer
    http_method_names = ["get", "head", "options", "post", "patch", "delete"]
    lookup_value_regex = r"[0-9]{1,18}"
    filterset_class = ContactFilter
    ordering = "identity"  # with the list, the index that also finds addresses
    deeds = {"create": "add", "destroy": "delete"}

    def get_queryset(self) -> QuerySet[Contact]:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        return Contact.objects.filter(contact_list=self._contact_list())

    def get_object(self) -> Contact:
        found = self.get_queryset().filter(pk=self.kwargs["pk"]).first()
        if found is None:
            raise Http404
        return found

    def get_permissions(self) -> list:
        deed = self.deeds.get(self.action, "change")
        return [allowed(to_see="campaigns.view_contact", to_act=f"campaigns.{deed}_contact")()]

    def get_serializer_context(self) -> dict[str, object]:
        known = super().get_serializer_context()
        return known | {"contact_list": self._contact_list()} if self.action == "create" else known

    def _contact_list(self) -> ContactList:
        found = named(ContactList.objects.all(), self.kwargs["contact_list_pk"])
        if found is None:
            raise Http404
        return found
