"""What a JSON document of templates promises: structure that no value breaks, types kept, values refused by name."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.templating import Limits, TemplateProblem, compile_record
from delivery.templating.patterns import LONGEST_VALUE, problem_with_pattern

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def filled(document, **data):
    return compile_record(json.dumps(document)).fill(data)


def value(leaf, **data):
    """What one field comes to."""
    return filled({"field": leaf}, **data).get("field", "left out")


def problem(document, **data):
    """What is wrong, whether it shows at compiling or at filling in."""
    source = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(TemplateProblem) as caught:
        compile_record(source).fill(data)
    return caught.value.message


# Structure and types


def test_a_record_is_renamed_and_nested_as_the_document_says():
    document = {
        "customer": {"mail": "{{ to.address }}", "name": "{{ data.first }} {{ data.last }}"},
        "lines": ["{{ subject }}", 7, None, True, 1.5],
    }

    record = filled(document, to={"address": "a@b.example"}, subject="Hi", data={"first": "Ann", "last": "Lee"})

    assert record == {
        "customer": {"mail": "a@b.example", "name": "Ann Lee"},
        "lines": ["Hi", 7, None, True, 1.5],
    }


@given(JSON)
def test_one_expression_keeps_the_type_of_its_value_whatever_that_is(given_value):
    record = filled({"field": "{{ data.x }}"}, data={"x": given_value})

    assert json.dumps(record) == json.dumps({"field": given_value})


@given(TEXT)
def test_no_text_breaks_out_of_its_place(text):
    record = filled({"a": "{{ data.x }}", "b": "<{{ data.x }}>", "c": 1}, data={"x": text})

    assert json.loads(json.dumps(record)) == {"a": text, "b": f"<{text}>", "c": 1}


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        ("{{ data.n }}", 5),
        ("{{ data.n + 1 }}", 6),
        ("{{ data.n > 3 }}", True),
        ("{{ data.n }} items", "5 items"),
        ("{{ data.tags.split(',') }}", ["a", "b"]),
        ("{{ {'n': data.n, 'all': [1, data.n]} }}", {"n": 5, "all": [1, 5]}),
        ("{{ data.keys()|list }}", ["n", "tags"]),
        ("{% if data.n > 3 %}many{% else %}few{% endif %}", "many"),
        ("{{ none }}", None),
        ("no template", "no template"),
    ],
)
def test_an_expression_is_a_value_and_everything_else_a_text(leaf, expected):
    assert value(leaf, data={"n": 5, "tags": "a,b"}) == expected


def test_the_whole_document_may_be_one_value():
    assert compile_record('"{{ data }}"').fill({"data": {"a": 1}}) == {"a": 1}


def test_omit_leaves_out_the_key_or_the_item_and_nothing_else():
    document = {
        "a": "{{ data.x|omit }}",
        "b": "{{ data.nowhere|omit|int }}",
        "c": "n: {{ data.x|omit }}",
        "d": {"e": "{{ data.x|omit }}", "f": 1},
        "g": ["{{ data.x|omit }}", 2],
        "h": "{{ data.y|omit|int }}",
    }

    assert filled(document, data={"x": " ", "y": "3"}) == {"d": {"f": 1}, "g": [2], "h": 3}


# Retyping and refusing


@pytest.mark.parametrize(
    ("filter", "given_value", "expected"),
    [
        ("int", "12", 12), ("int", " -3 ", -3), ("int", "12.0", 12), ("int", 12, 12), ("int", "007", 7),
        ("float", "1.5", 1.5), ("float", "2", 2.0), ("float", "1e3", 1000.0), ("float", 3, 3),
        ("bool", "yes", True), ("bool", "OFF", False), ("bool", "1", True), ("bool", 0, False), ("bool", True, True),
        ("required", "x", "x"), ("required", 0, 0), ("required", False, False),
        ("one_of('a', 'b')", "b", "b"), ("int|one_of(1, 2)", "2", 2),
        ("match('[A-Z]{2}[0-9]+')", "AB12", "AB12"), ("match('(?:red|green)')", "green", "green"),
        ("date", "2026-12-31", "2026-12-31"), ("date('%d.%m.%Y')", "2026-12-31", "31.12.2026"),
        ("date(read='%d.%m.%Y')", "31.12.2026", "2026-12-31"),
        ("date('%H:%M')", "2026-12-31T23:59:00+01:00", "23:59"),
        ("date(read='%d.%m.%Y %H:%M')", "31.12.2026 23:59", "2026-12-31T23:59:00"),
    ],
)  # fmt: skip
def test_a_value_is_made_of_the_type_that_the_api_wants(filter, given_value, expected):
    found = value(f"{{{{ data.x|{filter} }}}}", data={"x": given_value})

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("filter", "given_value", "says"),
    [
        ("int", "abc", "“abc” is no whole number"),
        ("int", "1.5", "“1.5” is no whole number"),
        ("int", "1" * 30, "is no whole number"),
        ("int", True, "True is no whole number"),
        ("int", "", "the value is empty"),
        ("int", None, "the value is empty"),
        ("float", "1,5", "“1,5” is no number"),
        ("float", "nan", "“nan” is no number"),
        ("bool", "perhaps", "“perhaps” is neither true nor false"),
        ("required", "  ", "the value is empty"),
        ("one_of('a', 'b')", "c", "“c” is none of a, b"),
        ("match('[a-z]+')", "ab1", "“ab1” does not match [a-z]+"),
        ("match('[a-z]+')", "a" * (LONGEST_VALUE + 1), "is longer than the 100 characters"),
        ("date", "31.12.2026", "“31.12.2026” is no date in ISO 8601"),
        ("date", "2026-02-30", "“2026-02-30” is no date"),
        ("date(read='%d.%m.%Y')", "2026-12-31", "“2026-12-31” is no date written as %d.%m.%Y"),
        ("date('%999999999Y')", "2026-12-31", "its format is none that `date` takes"),
    ],
)
def test_a_value_that_the_api_would_not_take_is_refused_with_the_fields_name(filter, given_value, says):
    found = problem({"a": {"b": f"{{{{ data.x|{filter} }}}}"}}, data={"x": given_value})

    assert found.startswith("The field a.b, line 1: ")
    assert says in found


@pytest.mark.parametrize("filter", ["", "|int", "|float", "|bool", "|required", "|date", "|one_of(1)", "|match('a')"])
def test_an_unknown_column_is_refused_with_its_name_whatever_is_made_of_it(filter):
    found = problem({"a": f"{{{{ data.agee{filter} }}}}"}, data={"age": 5})

    assert found.startswith("The field a, line 1: the data has no `data.agee` (did you mean `age`?)")


@pytest.mark.parametrize(
    "leaf", ["{{ [data.y] }}", "{{ {'a': data.y} }}", "{{ range }}", "{{ [range] }}", "{{ {1: 2} }}"]
)
def test_what_json_cannot_hold_is_refused(leaf):
    assert problem({"a": leaf}, data={}).startswith("The field a, line 1: ")


# What is found when the engine is saved


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('{"a": 1,\n "b" 2}', "The body is no JSON, line 2, column 6: expecting ':' delimiter."),
        ('{"a": {{ data.n }}}', "Templates stand in quotes, also for numbers"),
        ('{"a": "{{ x| }}"}', "The field a does not compile, line 1: "),
        ('{"a": [1, {"b": "{{ x|intt }}"}]}', "The field a[1].b, line 1: there is no filter `intt` (did you mean"),
        ('{"a": "{{ x|match(\'(a+)+\') }}"}', "The field a, line 1: the pattern (a+)+ repeats a group"),
        ('{"a": "{{ x|match(\'[a\') }}"}', "The field a, line 1: the pattern [a cannot be read"),
        ('{"{{ x }}": 1}', "The key “{{ x }}” is a template, and keys are fixed"),
        ('{"a": 1, "a": 2}', "The body has the key “a” twice"),
        ('{"a": NaN}', "The body has NaN, which JSON has not"),
        ("[" * 5000 + "]" * 5000, "The body nests more than 30 deep"),
        (json.dumps(["{{ x }}"] * 501), "The body has more than 500 templates"),
        ('"{{ x|omit }}"', "The whole body is left out"),
    ],
)  # fmt: skip
def test_a_document_that_is_not_right_is_refused_with_the_place(source, says):
    assert says in problem(source, x="")


# Bounds


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a*)*b",
        "(a|a)*b",
        "([a-z]+){5}",
        r"(a)\1",
        "(?=a)b",
        "(?i)a",
        "(?P<n>a)",
        "a*a*a*a*a*b",
        "a" * 201,
        "(",
    ],
)
def test_a_pattern_that_could_be_slow_is_refused(pattern):
    assert problem_with_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", [r"\+?[0-9]{6,15}", r"[^@]+@[^@]+\.[a-z]+", r"[A-Z]{3}-\d{4}", "(?:red|green|blue)", r"\(a\)[*+?|]"]
)
def test_a_usual_pattern_is_allowed(pattern):
    assert problem_with_pattern(pattern) == ""


@pytest.mark.parametrize("pattern", ["a*a*a*a*b", ".*.*.*.*x", "(?:a|aa)(?:a|aa)a*a*b", "a*?a*?b"])
def test_the_worst_pattern_allowed_on_the_longest_value_takes_milliseconds(pattern):
    started = time.perf_counter()
    problem({"a": f"{{{{ data.x|match('{pattern}') }}}}"}, data={"x": "a" * LONGEST_VALUE})

    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    "leaf",
    [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 100000000 }}",
        "{{ [[data.x] * 1000] * 1000 }}",
        "{{ 9 ** 99999 }}",
        "{{ data.x|replace('', 'y' * 10000) }}",
    ],
)
def test_a_value_is_stopped_by_the_same_budget_as_a_mail(leaf):
    started = time.perf_counter()
    found = problem({"a": leaf}, data={"x": "x" * 1000})

    assert "The field a" in found or "the field a" in found
    assert time.perf_counter() - started < 1.0


def test_all_fields_of_a_record_share_one_budget():
    record = compile_record(json.dumps(["{{ range(60)|list }}"] * 10), Limits(steps=500))

    with pytest.raises(TemplateProblem, match="Stopped after 500 steps"):
        record.fill({})


@pytest.mark.parametrize("leaf", ["{{ data.x }}", "{{ data.x|trim }}", "x{{ data.x }}"])
def test_no_value_is_longer_than_the_limit(leaf):
    record = compile_record(json.dumps([leaf]), Limits(size=100))

    with pytest.raises(TemplateProblem, match=r"(more|longer) than 100 characters"):
        record.fill({"data": {"x": "x" * 101}})


def test_every_filter_is_paid_for():
    record = compile_record(json.dumps(["{{ 1|int }}"] * 60), Limits(steps=50))

    with pytest.raises(TemplateProblem, match="Stopped after 50 steps"):
        record.fill({})


@pytest.mark.parametrize("leaf", ["{{ ''.__class__ }}", "{{ data.x.__init__ }}", "{{ data['x'].__class__.__mro__ }}"])
def test_an_expression_reaches_nothing_but_its_data(leaf):
    assert problem({"a": leaf}, data={"x": "x"})
