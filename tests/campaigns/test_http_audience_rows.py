"""The audience of a JSON list over HTTP: what an item becomes, what is new, and which settings are refused."""

import re
import threading
from collections import deque

import pytest

from campaigns.audiences.exceptions import AudienceRefused
from campaigns.audiences.http_json import MAX_DEPTH, MAX_ITEM
from campaigns.audiences.http_settings import problems_with
from campaigns.audiences.json_increment import Bookmark
from campaigns.audiences.rows import BadRow, Reason, Row
from tests.campaigns.list_api import (
    LOOPBACK,
    addresses,
    api,
    asked,
    listing,
    people,
    refusal,
    source,
)
from tests.delivery.http_server import (
    Received,
    answer,
)

pytestmark = pytest.mark.once

# --- Rows ------------------------------------------------------------------------------------------------------------


def read_items(items: list, **options: object) -> list[Row | BadRow]:
    with api(listing(items)) as server:
        return list(source(server.url, **options).rows())


def test_without_named_fields_the_scalars_of_an_item_are_the_fields_as_they_are():
    item = {"email": "a@example.test", "name": "  A\nB ", "age": 3, "score": 1.5, "vip": True, "nothing": None,
            "First Name": "A", "tags": ["x"], "address": {"city": "Leeds"}}  # fmt: skip

    with api(listing([item])) as server:
        read = source(server.url)
        fields, rows = read.fields(), list(read.rows())

    assert fields == ("email", "name", "age", "score", "vip", "nothing", "first_name")
    data = {"email": "a@example.test", "name": "  A\nB ", "age": 3, "score": 1.5, "vip": True, "nothing": None,
            "first_name": "A"}  # fmt: skip
    assert rows == [Row(1, "a@example.test", "A B", data)]


def test_the_fields_are_those_of_all_items_of_the_first_page_and_what_one_lacks_is_not_in_its_row():
    def respond(request: Received) -> bytes:
        pages = [
            [{"email": "a@example.test"}, {"email": "b@example.test", "city": "Leeds"}],
            [{"email": "c@example.test", "x": 1}],
            [],
        ]
        return answer(200, pages[int(asked(request)["page"]) - 1])

    with api(respond) as server:
        read = source(server.url, paging="page", page_parameter="page")
        fields, rows = read.fields(), list(read.rows())

    assert fields == ("email", "city")
    assert [row.data for row in rows] == [
        {"email": "a@example.test"},
        {"email": "b@example.test", "city": "Leeds"},
        {"email": "c@example.test"},
    ]


def test_named_fields_are_read_from_where_they_are_with_their_types():
    item = {"contact": {"mail": "a@example.test"}, "who": {"names": ["A", "B"]}, "age": "41", "paid": "yes",
            "due": "2026-11-24T12:00:00+01:00", "needs": "m1, m2,", "extra": {"a": [1]}}  # fmt: skip
    mapping = """
        email = contact.mail
        name = who.names[0]
        age = age : integer
        paid = paid : boolean
        due = due : datetime
        needs = needs : list
        extra = extra : json
        city = address.city : optional
    """

    (row,) = read_items([item], fields=mapping)

    assert row == Row(1, "a@example.test", "A", {
        "email": "a@example.test", "name": "A", "age": 41, "paid": True, "due": "2026-11-24T12:00:00+01:00",
        "needs": ["m1", "m2"], "extra": {"a": [1]}, "city": None,
    })  # fmt: skip


def test_named_fields_are_known_without_asking():
    with api(listing([])) as server:
        read = source(server.url, fields="email = e\nage = a : integer")
        assert read.fields() == ("email", "age")
        assert server.received == []
        assert list(read.rows()) == []


def test_a_list_of_bare_addresses_is_an_audience_when_its_items_are_named():
    rows = read_items(["a@example.test", "b@example.test"], fields="email = $")

    assert [row.address for row in rows] == ["a@example.test", "b@example.test"]


def test_address_and_name_are_the_fields_that_are_set():
    rows = read_items(
        [{"email": "old@example.test", "work": "a@example.test", "who": "A"}], address_field="work", name_field="who"
    )

    assert [(row.address, row.name) for row in rows] == [("a@example.test", "A")]


@pytest.mark.parametrize(
    ("item", "reason", "detail", "raw"),
    [
        ("hello", Reason.NOT_A_ROW, "The item is “hello”, and not an object.", '"hello"'),
        (None, Reason.NOT_A_ROW, "The item is null, and not an object.", "null"),
        ([1], Reason.NOT_A_ROW, "The item is a list, and not an object.", "[1]"),
        ({"name": "A"}, Reason.NO_ADDRESS, "The address is empty.", '{"name": "A"}'),
        ({"email": None}, Reason.NO_ADDRESS, "The address is empty.", '{"email": null}'),
        ({"email": "nobody"}, Reason.IMPOSSIBLE_ADDRESS, "There is no @ in it.", '{"email": "nobody"}'),
        ({"email": 17}, Reason.IMPOSSIBLE_ADDRESS, "There is no @ in it.", '{"email": 17}'),
        (
            {"email": "a@example.test", "name": "\0"},
            Reason.NOT_A_ROW,
            "The field 'name' holds a NUL character.",
            '{"email": "a@example.test", "name": "\\u0000"}',
        ),
        (
            {"email": "a@example.test", "name": "\ud800"},
            Reason.NOT_A_ROW,
            "The field 'name' holds bytes that are not UTF-8.",
            '{"email": "a@example.test", "name": "?"}',
        ),
    ],
)  # fmt: skip
def test_an_item_that_is_no_recipient_is_a_bad_row_with_its_place_and_reason_and_the_rest_is_read(
    item, reason, detail, raw
):
    rows = read_items([*people(1), item, *people(1, start=2)])

    assert [row.address for row in rows if isinstance(row, Row)] == addresses(2)
    assert [row for row in rows if isinstance(row, BadRow)] == [BadRow(2, reason, detail, raw)]


def test_a_value_of_another_type_makes_a_bad_row_that_says_which():
    items = [{"mail": "a@example.test", "age": value} for value in (3, "x", 3.5, None, {}, True)]
    items.append({"mail": "a@example.test"})

    rows = read_items(items, fields="email = mail\nage = age : integer")

    assert [row.position for row in rows if isinstance(row, Row)] == [1, 4]
    assert [(row.position, row.reason, row.detail) for row in rows if isinstance(row, BadRow)] == [
        (2, Reason.WRONG_VALUE, "The field 'age' (age) holds “x”, which is no integer."),
        (3, Reason.WRONG_VALUE, "The field 'age' (age) holds 3.5, which is no integer."),
        (5, Reason.WRONG_VALUE, "The field 'age' (age) holds an object, which is no integer."),
        (6, Reason.WRONG_VALUE, "The field 'age' (age) holds true, which is no integer."),
        (7, Reason.WRONG_VALUE, "There is nothing at age, where the field 'age' is looked for."),
    ]


def test_an_item_that_is_nested_too_deeply_or_too_long_is_a_bad_row():
    deep: object = "x"
    for _ in range(MAX_DEPTH):
        deep = [deep]
    good, bad = {"email": "a@example.test", "x": deep[0]}, {"email": "b@example.test", "x": deep}
    long = {"email": "c@example.test", "text": "x" * MAX_ITEM}

    rows = read_items([good, bad, long], fields="email = email\nx = x : optional json")

    assert [(row.position, getattr(row, "detail", "")) for row in rows] == [
        (1, ""),
        (2, f"The item is nested deeper than {MAX_DEPTH} levels."),
        (3, f"The item is longer than {MAX_ITEM:,} characters."),
    ]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "the list is empty, and no fields are named"),
        ([{"mail_address": "a@example.test"}], "no column holds the address; there are 'mail_address'"),
        ([{"a b": 1, "A-B": 2, "email": "x"}], "would both be 'a_b' in templates"),
        ([{f"f{n}": n for n in range(300)}], "its items have 300 fields, more than 200"),
    ],
)
def test_a_list_whose_fields_cannot_be_told_is_refused_by_fields_and_rows_alike(items, words):
    with api(listing(items)) as server:
        assert words in refusal(server.url)
        with pytest.raises(AudienceRefused, match=re.escape(words)):
            source(server.url).fields()


def test_a_reading_that_is_left_half_way_closes_its_connection_and_the_next_one_begins_anew():
    def respond(request: Received) -> bytes:
        return answer(200, people(2, start=int(asked(request)["page"])))

    with api(respond) as server:
        read = source(server.url, paging="page", page_parameter="page")
        first = read.rows()
        next(first)
        first.close()
        second = read.rows()
        assert [next(second).address for _ in range(3)] == ["p1@example.test", "p2@example.test", "p2@example.test"]
        second.close()

    assert [request.target for request in server.received] == ["/?page=1", "/?page=1", "/?page=2"]
    assert not [thread for thread in threading.enumerate() if "asyncio" in thread.name]


# --- Only what is new -------------------------------------------------------------------------------------------------

NEW_ONLY = {"fields": "email = email", "since_path": "id", "since_type": "integer", "since_parameter": "after"}


def test_what_was_reached_is_told_once_after_the_last_row_and_not_before():
    reached: list[Bookmark] = []
    told = []

    with api(listing(people(3))) as server:
        for _ in source(server.url, reached=reached, **NEW_ONLY).rows():
            told.append(list(reached))

    assert told == [[], [], []]
    assert [bookmark.value for bookmark in reached] == ["3"]


def test_a_reading_that_is_left_or_breaks_off_has_reached_nothing():
    reached: list[Bookmark] = []

    def second_is_broken(request: Received) -> bytes:
        return answer(200, people(2)) if asked(request)["page"] == "1" else answer(400)

    with api(second_is_broken) as server:
        read = source(server.url, reached=reached, paging="page", page_parameter="page", **NEW_ONLY)
        left = read.rows()
        next(left)
        left.close()
        with pytest.raises(AudienceRefused):
            deque(read.rows(), maxlen=0)

    assert reached == []


def test_the_bookmark_is_asked_for_with_every_page_and_what_is_sent_in_spite_of_it_is_left_out_and_counted():
    def everybody(request: Received) -> bytes:
        page = int(asked(request)["page"])
        return answer(200, people(6)[(page - 1) * 3 : page * 3])

    reached: list[Bookmark] = []
    with api(everybody) as server:
        options = {"paging": "page", "page_parameter": "page", **NEW_ONLY}
        rows = list(source(server.url, bookmark=Bookmark("4"), reached=reached, **options).rows())

    assert [(row.position, row.address) for row in rows] == [(n, f"p{n}@example.test") for n in (4, 5, 6)]
    assert [asked(request)["after"] for request in server.received] == ["4", "4", "4"]
    assert [bookmark.value for bookmark in reached] == ["6"]


# --- Settings ---------------------------------------------------------------------------------------------------------

GOOD = {"url": "https://api.example/people"}


@pytest.mark.parametrize(
    ("wrong", "setting", "words"),
    [
        ({"url": ""}, "url", "such as https://api.example/v1/people"),
        ({"url": "api.example/people"}, "url", "write it as https://host/path"),
        ({"url": "ftp://api.example/"}, "url", "write it as https://host/path"),
        ({"url": "http://api.example/"}, "url", "use https"),
        ({"url": "https://me:pw@api.example/"}, "url", "do not belong in a URL"),
        ({"url": "https://10.1.2.3/"}, "url", "OUTREACH_ALLOWED_NETWORKS"),
        ({"url": "https://api.example/a b"}, "url", "characters that no URL has"),
        ({"url": "https://api.example/#x"}, "url", "characters that no URL has"),
        ({"items": "data..items"}, "items", "such as data.items"),
        ({"auth": "digest"}, "auth", "choose one of none, bearer, header, query, basic"),
        ({"auth": "oauth2"}, "auth", "choose one of none, bearer, header, query, basic"),
        ({"auth": "bearer"}, "credential", "Enter the token"),
        ({"auth": "header", "key_name": "a b"}, "key_name", "such as X-Api-Key"),
        ({"auth": "header", "key_name": "Host"}, "key_name", "such as X-Api-Key"),
        ({"auth": "header"}, "key_name", "such as X-Api-Key"),
        ({"auth": "basic"}, "username", "such as reader"),
        ({"headers": "Accept-Language en"}, "headers", "Line 1 is no header: write Name: value, such as"),
        ({"headers": "A: 1\n\na: 2"}, "headers", "Line 3: a is there twice"),
        ({"headers": "Authorization: Bearer x"}, "headers", "use the authentication's fields"),
        ({"headers": "X: ü"}, "headers", "Line 1 is no header"),
        ({"parameters": "status"}, "parameters", "such as status=active"),
        ({"paging": "magic"}, "paging", "choose one of none, link_header"),
        ({"paging": "cursor", "page_parameter": "c"}, "next_path", "such as meta.next_cursor"),
        ({"paging": "link_body"}, "next_path", "such as links.next"),
        ({"paging": "page"}, "page_parameter", "such as page"),
        ({"paging": "offset", "page_parameter": "o", "parameters": "o=1"}, "parameters", "leave it out here"),
        ({"paging": "offset", "page_parameter": "o", "size_parameter": "o"}, "size_parameter", "one of its own"),
        ({"page_size": 0}, "page_size", "between 1 and 100,000, such as 100"),
        ({"page_size": "100"}, "page_size", "must be a whole number"),
        ({"max_pages": True}, "max_pages", "must be a whole number"),
        ({"max_page_octets": 10**9}, "max_page_octets", "between 1,000 and 100,000,000"),
        ({"timeout_seconds": 601}, "timeout_seconds", "between 1 and 600"),
        ({"fields": "email contact.email"}, "fields", "Line 1: “email contact.email” is no field: write name = path"),
        ({"fields": "email = e\n\nage = a : int"}, "fields", "Line 3: “int” is no type: choose one of text, integer"),
        ({"fields": "e mail = e"}, "fields", "such as e_mail"),
        ({"fields": "a = x\na = y"}, "fields", "Line 2: the field 'a' is there twice"),
        ({"since_path": "id", "fields": "email = e"}, "since_parameter", "such as updated_since"),
        ({"since_parameter": "since", "fields": "email = e"}, "since_path", "such as updated_at or id"),
        ({"since_parameter": "since", "since_path": "id"}, "fields", "such as email = contact.email"),
        ({"since_type": "list"}, "since_type", "choose one of integer, number, text, date, datetime"),
        ({"urll": "x"}, "urll", "There is no setting 'urll'"),
        ({"items": 5}, "items", "must be a text"),
        ({"items": "x" * 30_000}, "items", "up to 20,000 characters"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_its_name_with_a_good_one(wrong, setting, words):
    secrets = {"credential": "x"} if wrong.get("auth") in ("header", "basic") else {}

    problems = problems_with(GOOD | wrong, secrets, [])

    assert words in problems.get(setting, f"nothing about {setting}: {problems}")


@pytest.mark.parametrize("options", [None, [], "https://api.example/", 5])
def test_settings_that_are_no_object_are_refused(options):
    assert 'must be an object, such as {"url"' in problems_with(options, {}, [])["url"]


@pytest.mark.parametrize("credential", [" x", "x\n", "ключ", "a\x7fb"])
def test_a_credential_that_no_header_can_carry_is_refused_without_repeating_it(credential):
    problems = problems_with(GOOD | {"auth": "bearer"}, {"credential": credential}, [])

    assert list(problems) == ["credential"]
    assert credential.strip() not in problems["credential"] or len(credential.strip()) < 2


def test_plain_http_is_for_networks_that_are_allowed():
    assert problems_with({"url": "http://127.0.0.1:8000/"}, {}, LOOPBACK) == {}
    assert "url" in problems_with({"url": "http://127.0.0.1:8000/"}, {}, [])
