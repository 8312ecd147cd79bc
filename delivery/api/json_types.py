"""That a value of JSON has the type that the document names: the framework would take 0 for a text, and "5" for a
number, which no program means that sends it."""

from collections.abc import Mapping

from rest_framework import serializers

# A serializer's fields by what of JSON they take. The first that fits decides.
_TYPES: tuple[tuple[type[serializers.Field], tuple[type, ...]], ...] = (
    (serializers.BooleanField, (bool,)),
    (serializers.IntegerField, (int, float)),
    (serializers.FloatField, (int, float)),
    (serializers.CharField, (str,)),
)


def other_types(serializer: serializers.Serializer, data: Mapping[str, object]) -> dict[str, object]:
    """What is wrong with the types of the values, by field."""
    found = {}
    for name, value in data.items():
        field = serializer.fields.get(name)
        if field is not None and value is not None and (words := _refusal(field, value)):
            found[name] = words
    return found


def _refusal(field: serializers.Field, value: object) -> object:
    """What is wrong with the type of a value, or of the values in it by their places; None when nothing is."""
    if isinstance(field, serializers.ListField) and isinstance(value, list):
        words = {str(place): refusal for place, each in enumerate(value) if (refusal := _refusal(field.child, each))}
        return words or None
    if isinstance(field, serializers.DictField) and isinstance(value, Mapping):
        return {name: refusal for name, each in value.items() if (refusal := _refusal(field.child, each))} or None
    for of, types in _TYPES:
        if isinstance(field, of):
            right = isinstance(value, types) and (bool in types or not isinstance(value, bool))
            return None if right or value is None else _invalid(field, value)
    return None


def _invalid(field: serializers.Field, value: object) -> list[object]:
    try:
        field.fail("invalid", input=value)
    except serializers.ValidationError as refusal:
        return refusal.detail
