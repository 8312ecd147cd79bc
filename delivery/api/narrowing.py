"""By what lists are narrowed. What cannot be understood is refused: it must not be taken for nothing."""

from datetime import datetime

import django_filters
from django import forms
from django.db.models import Model, QuerySet
from django_filters.fields import IsoDateTimeField
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field

from delivery.api.setting_up import named

YEARS = range(1970, 9000)  # beyond them the databases disagree on what an instant is
YES = "true"


class NamedField(forms.CharField):
    """Another object, by its slug or its id."""

    def __init__(self, *, model: type[Model], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.model = model

    def clean(self, value: object) -> Model | None:
        name = super().clean(value)
        if not name:
            return None
        found = named(self.model.objects.all(), name)
        if found is None:
            what = self.model._meta.verbose_name
            # By parameters, for django-filter takes a percent sign in the words for a place to fill in.
            raise forms.ValidationError(
                "There is no %(what)s %(name)r: name one by its slug or its id.",
                params={"what": what, "name": name[:100]},
            )
        return found


@extend_schema_field(OpenApiTypes.STR)
class NamedFilter(django_filters.Filter):
    """What belongs to another object."""

    field_class = NamedField

    def __init__(self, model: type[Model], **kwargs: object) -> None:
        what = model._meta.verbose_name
        super().__init__(**{"model": model, "help_text": f"Those of one {what}, by its slug or its id."} | kwargs)


class InstantField(IsoDateTimeField):
    default_error_messages = {"invalid": "This is no instant. A good one: 2026-12-24T09:00:00Z."}

    def clean(self, value: object) -> datetime | None:
        at = super().clean(value)
        if at is not None and at.year not in YEARS:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid")
        return at


@extend_schema_field(OpenApiTypes.DATETIME)
class InstantFilter(django_filters.Filter):
    """What was before or after an instant (ISO 8601)."""

    field_class = InstantField


@extend_schema_field({"type": "integer", "format": "int64", "minimum": 1})
class NumberFilter(django_filters.Filter):
    """An id, or another whole number from 1 on."""

    field_class = forms.IntegerField

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**{"min_value": 1, "max_value": 2**63 - 1} | kwargs)


@extend_schema_field(OpenApiTypes.BOOL)
class YesNoFilter(django_filters.ChoiceFilter):
    """What is so, or is not: true or false."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(choices=[(YES, YES), ("false", "false")], **kwargs)

    def filter(self, rows: QuerySet, value: str) -> QuerySet:
        return super().filter(rows, value == YES) if value else rows
