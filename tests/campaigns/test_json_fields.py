"""Fields of a JSON item: where they are, as what they are wanted, and which items are new. Tables and properties."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.audiences import json_increment
from campaigns.audiences.json_increment import COMPARABLE, MAX_TIES, Bookmark, Reading, Since, TooManyTies
from campaigns.audiences.json_mapping import Mapped, Worded, parse_mapping
from campaigns.audiences.json_path import MISSING, find, nested_deeper, parse_path
from campaigns.audiences.json_types import LARGEST, Type, Unfit, fit, moment
from campaigns.audiences.rows import BadRow, Reason
from tests.campaigns.list_api import api, source
from tests.delivery.http_server import answer

pytestmark = pytest.mark.once

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
CALM = settings(deadline=None, print_blob=True)  # other processes take their time from a test, too
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


# --- Paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        ("", ()),
        ("$", ()),
        ("  data.items ", ("data", "items")),
        ("$.data.items", ("data", "items")),
        ("data[0].x", ("data", 0, "x")),
        ("data[-1]", ("data", -1)),
        ('["@odata.nextLink"]', ("@odata.nextLink",)),
        ('$["a b"].c', ("a b", "c")),
        ("straße-1.x_2", ("straße-1", "x_2")),
    ],
)
def test_a_path_is_read_step_by_step(written, steps):
    assert parse_path(written) == steps


@pytest.mark.parametrize("written", ["a..b", ".a", "a.", "a b", "a[b]", "a[", '["a]', "a/b", "*", "a[*]", "[1234567]"])
def test_what_is_no_path_is_refused_with_a_good_one(written):
    with pytest.raises(ValueError, match=r"is no path: write names with dots between them, such as data\.items"):
        parse_path(written)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b", 1),
        ("a.c", None),
        ("a.c.d", None),
        ("a.x", MISSING),
        ("a.b.x", MISSING),
        ("list[0]", "p"),
        ("list[-1]", "q"),
        ("list.1", "q"),
        ("list[2]", MISSING),
        ("list[-3]", MISSING),
        ("list.x", MISSING),
        ("text[0]", MISSING),
        ("0", "zero"),
    ],
)
def test_null_and_nothing_are_told_apart(path, value):
    document = {"a": {"b": 1, "c": None}, "list": ["p", "q"], "text": "abc", "0": "zero"}

    assert find(document, parse_path(path)) is value or find(document, parse_path(path)) == value


@CALM
@given(ANYTHING, st.lists(NAMES | st.integers(-3, 3), max_size=4))
def test_no_document_and_no_path_raise(document, steps):
    find(document, tuple(steps))


def test_depth_counts_lists_and_objects_in_each_other():
    assert not nested_deeper("x", 0)
    assert nested_deeper([], 0)
    assert not nested_deeper([{}], 2)
    assert nested_deeper([{"a": []}], 2)
    assert not nested_deeper({"a": 1, "b": [1]}, 2)


# --- Types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "value", "kept"),
    [
        (Type.TEXT, "x", "x"),
        (Type.TEXT, 5, "5"),
        (Type.TEXT, 5.5, "5.5"),
        (Type.INTEGER, 5, 5),
        (Type.INTEGER, 5.0, 5),
        (Type.INTEGER, " -05 ", -5),
        (Type.INTEGER, LARGEST, LARGEST),
        (Type.NUMBER, 5.5, 5.5),
        (Type.NUMBER, "5.5e1", 55.0),
        (Type.NUMBER, "5", 5),
        (Type.BOOLEAN, True, True),
        (Type.BOOLEAN, "No", False),
        (Type.BOOLEAN, 1, True),
        (Type.DATE, "2028-02-29", "2028-02-29"),
        (Type.DATETIME, "2026-11-24T12:00:00Z", "2026-11-24T12:00:00+00:00"),
        (Type.DATETIME, "2026-11-24 12:00", "2026-11-24T12:00:00+00:00"),
        (Type.DATETIME, "2026-11-24T12:00:00.25+05:30", "2026-11-24T12:00:00.250000+05:30"),
        (Type.DATETIME, 1_700_000_000, "2023-11-14T22:13:20+00:00"),
        (Type.LIST, ["a", 1], ["a", "1"]),
        (Type.LIST, " a, b ,,c ", ["a", "b", "c"]),
        (Type.LIST, "", []),
        (Type.JSON, {"a": [1]}, {"a": [1]}),
    ],
)
def test_a_value_that_fits_is_kept_as_its_type(wanted, value, kept):
    found = fit(value, wanted)

    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        *((Type.TEXT, value) for value in (True, [], {}, float("inf"))),
        *((Type.INTEGER, value) for value in (True, 5.5, "5.0", "", "x", "1_000", "٣", LARGEST + 1, [], float("nan"))),
        *((Type.NUMBER, value) for value in (True, "nan", "inf", "1e999", "", "1,5", float("inf"), "0x1", {})),
        *((Type.BOOLEAN, value) for value in (2, "maybe", "", 1.0, [])),
        *((Type.DATE, value) for value in ("2026-02-29", "20260101", "2026-1-1", "2026-01-01T00:00", 5)),
        *((Type.DATETIME, value) for value in ("soon", "", True, 1_700_000_000_000, "2026-13-01")),
        (Type.DATETIME, "0001-01-01T00:00+10:00"),
        *((Type.LIST, value) for value in (5, True, {}, [[1]], [None], [True])),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_and_named(wanted, value):
    with pytest.raises(Unfit, match=f"^holds .*, which is no {wanted}$"):
        fit(value, wanted)


@CALM
@given(ANYTHING, st.sampled_from(list(Type)))
def test_what_is_kept_is_of_its_type_can_be_stored_and_fits_again(value, wanted):
    try:
        kept = fit(value, wanted)
    except Unfit:
        return  # that it says why is another test's

    assert (kept is None) == (value is None)
    assert fit(kept, wanted) == kept or wanted is Type.JSON
    if wanted is not Type.JSON:
        json.dumps(kept, allow_nan=False)
    if kept is not None and wanted in (Type.TEXT, Type.DATE, Type.DATETIME):
        assert isinstance(kept, str)
    if kept is not None and wanted is Type.LIST:
        assert all(isinstance(each, str) for each in kept)


@CALM
@given(st.datetimes(timezones=st.timezones()))
def test_every_instant_survives_whatever_its_offset(at):
    at = at.replace(microsecond=at.microsecond)
    written = at.isoformat()
    if at.utcoffset() % timedelta(minutes=1):  # the old offsets with seconds in them
        return

    try:
        kept = fit(written, Type.DATETIME)
    except Unfit:
        assert at.year in (1, 9999)
        return

    assert datetime.fromisoformat(kept) == datetime.fromisoformat(written)
    assert moment(kept) == datetime.fromisoformat(written).astimezone(UTC)


# --- Mapping ---------------------------------------------------------------------------------------------------------


def test_a_mapping_is_lines_of_name_path_and_type():
    text = '# whom\nemail = contact.email\n\nage=age:integer\nx = ["a = b : c"].d : optional list\nall = $ : json'

    assert parse_mapping(text) == (
        Mapped("email", ("contact", "email"), "contact.email"),
        Mapped("age", ("age",), "age", Type.INTEGER),
        Mapped("x", ("a = b : c", "d"), '["a = b : c"].d', Type.LIST, True),
        Mapped("all", (), "$", Type.JSON),
    )


def test_a_text_in_quotes_has_values_of_the_item_where_paths_stand_in_braces():
    text = 'email = "case-{id}@replies.example"\nwhose = "{list[0].name} & {list[1]}"\ncolour = "light = blue: #add"'
    item = {"id": 17, "list": [{"name": "Zoë"}, 1.5]}

    email, whose, colour = parse_mapping(text)

    assert email == Worded(
        "email", '"case-{id}@replies.example"', ("case-", (("id",), "id"), "@replies.example"), Type.TEXT
    )
    assert [field.of(item) for field in (email, whose, colour)] == [
        "case-17@replies.example",
        "Zoë & 1.5",
        "light = blue: #add",
    ]


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ({}, "There is nothing at id, of which the field 'email' is made."),
        ({"id": None}, "There is nothing at id, of which the field 'email' is made."),
        ({"id": ""}, "There is nothing at id, of which the field 'email' is made."),
        ({"id": [1]}, "The field 'email' (id) holds a list, which is no text."),
        ({"id": True}, "The field 'email' (id) holds true, which is no text."),
    ],
)
def test_a_text_with_a_hole_in_it_is_none(item, problem):
    (email,) = parse_mapping('email = "case-{id}@replies.example"')

    with pytest.raises(Unfit) as caught:
        email.of(item)

    assert str(caught.value) == problem


@pytest.mark.parametrize("source", ['"', '""', '"a', '"a" b', '"a" : integer', '"a"b"', '"{a"', '"a}"', '"{{a}}"'])
def test_what_is_no_text_in_quotes_is_refused_with_a_good_one(source):
    with pytest.raises(ValueError, match=r"^Line 1: .* is no text: .*such as \"case-\{id\}@replies\.example\"\.$"):
        parse_mapping(f"email = {source}")


def test_a_path_in_a_text_is_judged_as_every_path_is():
    with pytest.raises(ValueError, match=r"^Line 1: “a b” is no path: "):
        parse_mapping('email = "{a b}@replies.example"')


def test_an_address_made_of_an_id_makes_a_recipient_of_each_item():
    items = [{"id": 1}, {"id": "2"}, {"id": None}, {"id": "not one"}]
    with api(lambda request: answer(200, items)) as server:
        rows = list(source(server.url, fields='email = "case-{id}@replies.example"').rows())

    assert [row.address for row in rows[:2]] == ["case-1@replies.example", "case-2@replies.example"]
    assert [row.reason for row in rows[2:]] == [Reason.WRONG_VALUE, Reason.IMPOSSIBLE_ADDRESS]


@CALM
@given(
    st.dictionaries(
        NAMES.filter(lambda name: name not in ("true", "false", "none", "not", "self")),
        st.tuples(st.lists(NAMES, min_size=1, max_size=3), st.sampled_from(list(Type)), st.booleans()),
        max_size=5,
    )
)
def test_every_mapping_that_is_written_is_read_as_it_was_meant(meant):
    lines = [
        f"{name} = {'.'.join(path)} : {'optional ' if optional else ''}{type_}"
        for name, (path, type_, optional) in meant.items()
    ]

    read = parse_mapping("\n".join(lines))

    assert [(field.name, list(field.path), field.type, field.optional) for field in read] == [
        (name, path, type_, optional) for name, (path, type_, optional) in meant.items()
    ]


@CALM
@given(st.text(max_size=80))
def test_no_text_makes_the_mapping_fail_otherwise_than_with_a_sentence(text):
    words = "Line "
    try:
        parse_mapping(text)
    except ValueError as error:
        words = str(error)

    assert words.startswith("Line ")


@settings(deadline=None, max_examples=50)  # each asks a server
@given(st.lists(ANYTHING, min_size=1, max_size=6))
def test_whatever_the_items_are_each_is_a_row_or_a_bad_row_and_none_is_lost(items):
    def respond(request):
        return answer(200, json.dumps(items, allow_nan=False).encode())

    try:
        json.dumps(items, allow_nan=False)
    except ValueError:
        return  # no JSON
    with api(respond) as server:
        fields = "email = email : optional\nage = age : optional integer\nall = $ : json"
        rows = list(source(server.url, fields=fields).rows())

    assert [row.position for row in rows] == list(range(1, len(items) + 1))
    assert all(isinstance(row, BadRow) and row.detail for row in rows)


# --- What is new ------------------------------------------------------------------------------------------------------

BY_ID = Since("since", ("id",), "id", Type.INTEGER)
BY_TIME = Since("since", ("at",), "at", Type.DATETIME)


def new(since: Since, bookmark: Bookmark, items: list) -> tuple[list, Bookmark]:
    reading = Reading(since, bookmark)
    found = [item for item in items if reading.is_new(item)]
    return found, reading.reached()


def test_the_bookmark_is_the_highest_value_as_the_api_writes_it_whatever_the_order():
    times = ["2026-01-02T00:00:00Z", "2026-01-02T03:00:00+02:00", "2026-01-01T23:00:00Z"]
    items = [{"at": time} for time in times]

    found, reached = new(BY_TIME, Bookmark(), items)

    assert found == items
    assert reached.value == "2026-01-02T03:00:00+02:00"


def test_numbers_are_compared_as_numbers_and_not_as_text():
    found, reached = new(BY_ID, Bookmark("9"), [{"id": 10}, {"id": 8}, {"id": "11"}])

    assert [item["id"] for item in found] == [10, "11"]
    assert reached.value == "11"


def test_an_api_that_sends_the_last_items_again_makes_nobody_new():
    items = [{"id": 1}, {"id": 2}]
    _, reached = new(BY_ID, Bookmark(), items)

    found, again = new(BY_ID, reached, items)

    assert (found, again) == ([], reached)


def test_what_comes_later_with_the_same_value_is_new_and_what_was_there_is_not():
    early, late = {"at": "2026-01-01", "who": "a"}, {"at": "2026-01-01", "who": "b"}
    _, reached = new(BY_TIME, Bookmark(), [early])

    found, again = new(BY_TIME, reached, [early, late])

    assert found == [late]
    assert new(BY_TIME, again, [early, late])[0] == []


@CALM
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=6), max_size=5))
def test_over_any_growing_list_everybody_is_new_once(additions):
    """Each reading gets the whole list, as from an API that ignores what it is asked; later items bear later or equal
    values."""
    bookmark, everything, seen = Bookmark(), [], []
    lowest = 0
    for added in additions:
        fresh = [{"id": lowest + step, "who": who} for step, who in added]
        everything += [item for item in fresh if item not in everything]
        lowest = max((item["id"] for item in everything), default=0)

        found, bookmark = new(BY_ID, Bookmark.of(bookmark.value, list(bookmark.ties)), everything)
        seen += found

    assert len(seen) == len(everything)
    assert all(item in seen for item in everything)


@pytest.mark.parametrize(
    "item", [{}, {"id": None}, {"id": "x"}, {"id": True}, {"id": {}}, {"id": 1.5}, {"id": ""}, [], "x"]
)
def test_an_item_that_does_not_say_how_new_it_is_is_told_so_and_moves_nothing(item):
    reading = Reading(BY_ID, Bookmark("3"))

    with pytest.raises(Unfit, match=r"at id"):
        reading.is_new(item)
    assert reading.reached() == Bookmark("3")


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "x" * 201])
def test_a_value_that_cannot_be_stored_or_sent_is_refused(value):
    with pytest.raises(Unfit, match="printable characters"):
        Reading(Since("s", ("v",), "v", Type.TEXT), Bookmark()).is_new({"v": value})


def test_a_bookmark_of_another_type_is_no_beginning():
    with pytest.raises(Unfit, match="It was read up to “2026-01-01”, which is no integer"):
        Reading(BY_ID, Bookmark("2026-01-01"))


def test_more_items_of_one_value_than_can_be_remembered_are_an_error():
    reading = Reading(BY_ID, Bookmark())
    for n in range(MAX_TIES):
        reading.is_new({"id": 1, "n": n})

    with pytest.raises(TooManyTies):
        reading.is_new({"id": 1, "n": MAX_TIES})
    reading = Reading(BY_ID, Bookmark())
    assert all(reading.is_new({"id": n}) for n in range(MAX_TIES + 10))


@CALM
@given(ANYTHING, st.sampled_from(COMPARABLE))
def test_any_value_is_new_or_refused_and_a_bookmark_of_it_can_be_begun_with(value, wanted):
    since = Since("since", ("v",), "v", wanted)
    reading = Reading(since, Bookmark())
    try:
        assert reading.is_new({"v": value})
    except Unfit:
        return

    again = Reading(since, reading.reached())

    assert not again.is_new({"v": value})
    assert json_increment.MAX_VALUE >= len(reading.reached().value) > 0
