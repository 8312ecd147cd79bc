"""What all that is set up has in common over REST: a body of which nothing is ignored, other objects that are named by
id or slug, who may look, add, change and delete, and that nothing is deleted which something else needs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import NON_FIELD_ERRORS as ALL_FIELDS
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import ProtectedError, QuerySet
from django.http import Http404
from rest_framework import serializers
from rest_framework.mixins import (
    CreateModelMixin,
    DestroyModelMixin,
    ListModelMixin,
    RetrieveModelMixin,
    UpdateModelMixin,
)
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.validators import UniqueValidator
from rest_framework.viewsets import GenericViewSet

from delivery.api.json_types import other_types
from delivery.api.requests import MOST_NAMED, Refused, allowed

LARGEST_ID = 2**63 - 1


def named(things: QuerySet, name: object) -> models.Model | None:
    """The one with this slug or id: a slug of digits comes before an id."""
    if isinstance(name, str):
        if not re.fullmatch(r"[-\w]{1,100}", name):
            return None
        if found := things.filter(slug=name).first():
            return found
        name = int(name) if name.isascii() and name.isdigit() else None
    if type(name) is not int or not 0 < name <= LARGEST_ID:
        return None
    return things.filter(pk=name).first()


class IdOrSlugField(serializers.PrimaryKeyRelatedField):
    """Another object: shown by its id, named by its id or its slug."""

    default_error_messages = {
        "does_not_exist": "There is no {what} {name}: name one that is there by its slug or its id, such as "
        '"newsletter" or 7.'
    }

    def to_internal_value(self, name: object) -> models.Model:
        things = self.get_queryset()
        found = named(things, name)
        if found is None:
            self.fail("does_not_exist", what=things.model._meta.verbose_name, name=repr(name)[:100])
        return found


class StrictSerializer(serializers.ModelSerializer):
    """Refuses fields that it does not know, and those that are only shown, by name: a misspelt one must not be ignored.
    Whether a value is taken already is left to the model, which says it as in the admin."""

    serializer_related_field = IdOrSlugField

    def to_internal_value(self, data: object) -> dict[str, object]:
        if isinstance(data, dict):
            shown = {name for name, field in self.fields.items() if field.read_only}
            settable = ", ".join(name for name in self.fields if name not in shown)
            wrong = {
                name: "This is shown and cannot be set."
                if name in shown
                else f"There is no such field. There is: {settable}."
                for name in sorted(name for name in data if name in shown or name not in self.fields)[:MOST_NAMED]
            }
            if wrong := wrong or other_types(self, data):
                raise serializers.ValidationError(wrong)
        return super().to_internal_value(data)

    def build_standard_field(self, field_name: str, model_field: models.Field) -> tuple[type, dict[str, object]]:
        field, kwargs = super().build_standard_field(field_name, model_field)
        if "choices" in kwargs:
            choices = ", ".join(str(value) for value, _ in model_field.choices)
            kwargs["error_messages"] = {"invalid_choice": f'"{{input}}" is none of {choices}.'}
        elif issubclass(field, serializers.IntegerField):
            kwargs["error_messages"] = {"invalid": "This is no whole number. A good one: 120."}
        elif issubclass(field, serializers.FloatField):
            kwargs["error_messages"] = {"invalid": "This is no number. A good one: 60."}
        kwargs["validators"] = [each for each in kwargs.get("validators", []) if not isinstance(each, UniqueValidator)]
        return field, kwargs


@contextmanager
def writing(thing: models.Model) -> Iterator[None]:
    """All of what is written, or nothing. Who has taken the name or the slug meanwhile was first, and is told of."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError:
        try:
            thing.full_clean()
        except ValidationError as refusal:
            raise serializers.ValidationError(by_field(refusal)) from refusal
        raise


def by_field(refusal: ValidationError) -> dict[str, list[str]]:
    """What a model refuses, by field; what is wrong between fields is of the whole."""
    places = refusal.message_dict if hasattr(refusal, "error_dict") else {ALL_FIELDS: refusal.messages}
    if ALL_FIELDS in places:
        places[api_settings.NON_FIELD_ERRORS_KEY] = places.pop(ALL_FIELDS)
    return places


def delete(thing: models.Model) -> None:
    """Deletes it, and what is only a part of it. Raises Refused when something else needs it."""
    for relation in thing._meta.related_objects:
        # Asked for one of them: who collects them all, as Django does, may collect a million runs.
        if relation.on_delete is models.PROTECT:
            needing = relation.related_model._base_manager.filter(**{relation.field.name: thing}).order_by("pk").first()
            if needing is not None:
                raise _needed(thing, needing)
    try:
        thing.delete()
    except ProtectedError as refusal:  # it came to be needed at this moment, or a part of it is
        raise _needed(thing, next(iter(refusal.protected_objects))) from refusal


def _needed(thing: models.Model, needing: models.Model) -> Refused:
    what, by = thing._meta.verbose_name, needing._meta.verbose_name
    return Refused(f"The {what} {str(thing)!r} cannot be deleted: the {by} {str(needing)!r} needs it, for example.")


def page_of(view: GenericViewSet, rows: QuerySet) -> Response:
    """A page of what belongs to one thing, narrowed by what the action says."""
    page = view.paginate_queryset(view.filter_queryset(rows))
    return view.get_paginated_response(view.get_serializer(page, many=True).data)


class SettingUpViewSet(
    CreateModelMixin, ListModelMixin, RetrieveModelMixin, UpdateModelMixin, DestroyModelMixin, GenericViewSet
):
    """What is set up: named by its slug or its id, changed in part."""

    http_method_names = ["get", "head", "options", "post", "patch", "delete"]
    lookup_value_regex = r"[-\w]+"
    filterset_class = None
    search_fields = ("name", "slug")
    ordering = "id"
    ordering_fields = ("id", "name", "slug", "created_at")
    deeds = {"create": "add", "destroy": "delete"}  # each other one is a change

    def get_queryset(self) -> QuerySet:
        things = super().get_queryset()
        return things.select_for_update(of=("self",)) if self.action == "partial_update" else things

    def get_object(self) -> models.Model:
        found = named(self.get_queryset(), self.kwargs["pk"])
        if found is None:
            raise Http404
        return found

    def get_permissions(self) -> list[BasePermission]:
        app, model = self.queryset.model._meta.app_label, self.queryset.model._meta.model_name
        deed = self.deeds.get(self.action, "change")
        return [allowed(to_see=f"{app}.view_{model}", to_act=f"{app}.{deed}_{model}")()]

    @transaction.atomic
    def partial_update(self, request: Request, *args: object, **kwargs: object) -> Response:
        # What is judged is what is there when it is written: two who change at once do so one after the other.
        return super().partial_update(request, *args, **kwargs)

    def perform_destroy(self, thing: models.Model) -> None:
        delete(thing)
