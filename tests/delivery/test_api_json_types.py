"""A value of another type than the document says is refused at its place, and not taken for something like it."""

import pytest
from rest_framework import serializers

from delivery.api.json_types import other_types
from delivery.api.requests import Body

pytestmark = pytest.mark.once


class Everything(Body):
    text = serializers.CharField(required=False)
    whole = serializers.IntegerField(required=False)
    number = serializers.FloatField(required=False)
    yes = serializers.BooleanField(required=False)
    at = serializers.DateTimeField(required=False)
    texts = serializers.ListField(child=serializers.CharField(), required=False)
    named = serializers.DictField(child=serializers.CharField(allow_null=True), required=False)


@pytest.mark.parametrize(
    "right",
    [
        {"text": "0", "whole": 5, "number": 5, "yes": False},
        {"whole": 5.0, "number": 1.5, "text": None, "named": {"a": None, "b": "c"}, "texts": ["a"]},
        {"texts": "left to the field", "named": [1], "at": 7, "unknown": 7},
    ],
)
def test_what_has_its_type_or_is_judged_by_its_field_is_left_alone(right):
    assert other_types(Everything(), right) == {}


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"text": 0}, "text"),
        ({"text": True}, "text"),
        ({"whole": "5"}, "whole"),
        ({"whole": True}, "whole"),
        ({"number": "1.5"}, "number"),
        ({"number": False}, "number"),
        ({"yes": "true"}, "yes"),
        ({"yes": 1}, "yes"),
        ({"texts": ["a", 1]}, "texts"),
        ({"named": {"a": 1}}, "named"),
    ],
)
def test_another_type_is_refused_by_the_name_of_the_field(wrong, place):
    with pytest.raises(serializers.ValidationError) as refused:
        Everything().run_validation(wrong)

    assert list(refused.value.detail) == [place]


def test_in_a_list_or_an_object_the_place_is_named():
    wrong = other_types(Everything(), {"texts": ["a", 1], "named": {"b": 2}})

    assert {name: list(inner) for name, inner in wrong.items()} == {"texts": ["1"], "named": ["b"]}
