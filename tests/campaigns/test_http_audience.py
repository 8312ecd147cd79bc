"""The audience of a JSON list over HTTP, read from a real server: who calls, what is repeated, what is refused, and
what an item becomes."""

import asyncio
import base64
import gzip
import json
import logging
import re
import socket
import threading
import traceback
import tracemalloc
from collections import deque
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from itertools import islice

import httpx
import pytest

from campaigns.audiences.exceptions import AudienceError, AudienceRefused, AudienceTooSlow, AudienceUnreachable
from campaigns.audiences.http_fetch import LONGEST_WAIT, Surroundings
from campaigns.audiences.http_json import MAX_DEPTH, MAX_ITEM, HttpJsonSource
from campaigns.audiences.http_settings import problems_with
from campaigns.audiences.json_increment import Bookmark
from campaigns.audiences.rows import BadRow, Reason, Row
from tests.campaigns.list_api import (
    LOOPBACK,
    NOON,
    World,
    addresses,
    api,
    asked,
    listing,
    people,
    serving_here,
    settings_of,
    source,
)
from tests.delivery.http_server import (
    Received,
    answer,
    drips,
    resets,
    says,
    says_and_closes,
    stays_silent,
)

pytestmark = pytest.mark.once

SECRET = 'p"s&cr%t+/ key=42'


def refusal(url: str, kind: type[AudienceError] = AudienceRefused, **options: object) -> str:
    """The words with which the list is refused."""
    with pytest.raises(kind) as refused:
        list(source(url, **options).rows())
    assert type(refused.value) is kind
    return str(refused.value)


# --- Who calls --------------------------------------------------------------------------------------------------------


def test_without_authentication_nothing_is_told_but_what_is_wanted():
    with api(listing(people(1))) as server:
        list(source(server.url).rows())

    (request,) = server.received
    assert request.method == "GET"
    assert request.body == b""
    assert request.headers["accept"] == "application/json"
    assert "authorization" not in request.headers


BASIC = base64.b64encode(b"reader:t0ken-of-mine").decode()


@pytest.mark.parametrize(
    ("options", "header", "query"),
    [
        ({"auth": "bearer"}, ("authorization", "Bearer t0ken-of-mine"), {}),
        ({"auth": "header", "key_name": "X-Api-Key"}, ("x-api-key", "t0ken-of-mine"), {}),
        ({"auth": "query", "key_name": "key"}, ("accept", "application/json"), {"key": "t0ken-of-mine"}),
        ({"auth": "basic", "username": "reader"}, ("authorization", f"Basic {BASIC}"), {}),
    ],
)
def test_the_credential_goes_with_every_page_in_the_way_that_is_chosen(options, header, query):
    def two_pages(request: Received) -> bytes:
        return answer(200, people(1) if asked(request)["page"] == "1" else [])

    with api(two_pages) as server:
        list(source(server.url, credential="t0ken-of-mine", paging="page", page_parameter="page", **options).rows())

    name, value = header
    assert [request.headers[name] for request in server.received] == [value, value]
    assert [asked(request) for request in server.received] == [query | {"page": "1"}, query | {"page": "2"}]
    assert sum("t0ken-of-mine" in request.headers.get(other, "") for request in server.received
               for other in request.headers if other != name) == 0  # fmt: skip


def test_a_key_in_the_url_is_there_once_also_when_the_next_link_repeats_it():
    def respond(request: Received) -> bytes:
        if "page" in asked(request):
            return answer(200, people(1, start=2))
        return answer(200, people(1), Link=f"<{request.target}&page=2>; rel=next")

    with api(respond) as server:
        options = {"auth": "query", "key_name": "key", "credential": SECRET, "paging": "link_header"}
        rows = list(source(server.url, **options).rows())

    assert [row.address for row in rows] == addresses(2)
    assert [asked(request)["key"] for request in server.received] == [SECRET, SECRET]
    assert [request.target.count("key=") for request in server.received] == [1, 1]


def test_further_headers_are_sent():
    with api(listing(people(1))) as server:
        list(source(server.url, headers="Accept-Language: en\nX-Team:  a: b \naccept: application/vnd.x+json").rows())

    headers = server.received[0].headers
    assert (headers["accept-language"], headers["x-team"]) == ("en", "a: b")
    assert headers["accept"] == "application/vnd.x+json"


# --- Secrets ---------------------------------------------------------------------------------------------------------


def echoing(status: int):
    """Answers with all that it was told, in several spellings."""

    def respond(request: Received) -> bytes:
        told = {"target": request.target, "headers": request.headers, "asked": asked(request)}
        return answer(status, told, Location=request.target)

    return respond


@pytest.mark.parametrize("status", [301, 400, 401, 404, 418, 500])
@pytest.mark.parametrize(
    "options",
    [
        {"auth": "bearer"},
        {"auth": "header", "key_name": "X-Api-Key"},
        {"auth": "query", "key_name": "key"},
        {"auth": "basic", "username": "reader"},
    ],
)
def test_no_message_and_no_traceback_and_no_log_line_holds_a_credential(status, options, caplog):
    caplog.set_level(logging.DEBUG)

    with api(echoing(status)) as server, pytest.raises(AudienceError) as error:
        list(source(server.url, credential=SECRET, **options).rows())

    pair = base64.b64encode(f"reader:{SECRET}".encode()).decode()
    everything = "\n".join([str(error.value), *traceback.format_exception(error.value), caplog.text])
    assert str(status) in str(error.value)
    for part in ("s&cr", "cr%t", "cr%25t", "key=42", "key%3D42", pair, pair[:12]):
        assert part not in everything


class Breaks(httpx.AsyncBaseTransport):
    """Says the whole request in its error, as aiohttp does with a URL that it cannot read."""

    def __init__(self, kind: type[httpx.HTTPError]) -> None:
        self._kind = kind

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise self._kind(f"cannot reach {request.url} with {request.headers!r} {dict(request.headers)}")


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ReadError, httpx.UnsupportedProtocol])
@pytest.mark.parametrize(
    "options", [{"auth": "query", "key_name": "key"}, {"auth": "header", "key_name": "X-Plain"}, {"auth": "bearer"}]
)
def test_no_error_of_the_connection_brings_the_credential_out(options, kind, caplog):
    caplog.set_level(logging.DEBUG)
    around = World().surroundings(transport=Breaks(kind))

    with pytest.raises(AudienceError) as error:
        list(source("https://api.example/", credential=SECRET, around=around, **options).rows())

    everything = "\n".join([str(error.value), *traceback.format_exception(error.value), caplog.text])
    assert "cannot reach https://api.example/" in str(error.value)
    for part in ("s&cr", "cr%t", "cr%25t", "key=42", "key%3D42"):
        assert part not in everything


def test_a_secret_is_hidden_before_a_message_is_cut_so_that_no_half_of_it_stays():
    for room in range(280, 300):
        with api(lambda request, room=room: answer(400, ("x" * room + "s3cretive").encode())) as server:
            words = refusal(server.url, auth="bearer", credential="s3cretive")
        assert "s3c" not in words


def test_no_repr_shows_a_credential():
    settings = settings_of({"url": "https://api.example/", "auth": "query", "key_name": "key"}, SECRET)

    shown = repr(settings) + repr(settings.proof) + repr(HttpJsonSource(settings)) + HttpJsonSource(settings).label()

    assert "s&cr" not in shown
    assert "s%26cr" not in shown


def test_a_broken_page_does_not_repeat_what_stands_in_it_when_that_is_the_key():
    with api(listing({"key": "s3cretive"})) as server:
        words = refusal(server.url, auth="bearer", credential="s3cretive", items="key")

    assert "there is no list at key: there is “***”" in words


# --- What is repeated -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_after_a_growing_wait(status):
    world = World()
    wrong = answer(status, b"later")

    with serving_here(says(wrong, wrong, answer(200, people(2)))) as server:
        rows = list(source(server.url, world=world).rows())

    assert [row.address for row in rows] == addresses(2)
    assert len(server.received) == 3
    first, second = world.slept
    assert 0.5 <= first <= 1.5 <= second <= 4.5


def test_waits_are_drawn_by_chance_so_that_those_who_failed_together_do_not_come_back_together():
    def waits(seed: int) -> list[float]:
        import random

        world = World()
        with api(lambda request: answer(500)) as server, pytest.raises(AudienceUnreachable):
            list(source(server.url, around=world.surroundings(rng=random.Random(seed))).rows())
        return world.slept

    assert waits(1) != waits(2)
    assert waits(1) == waits(1)


def test_the_tries_are_bounded_and_then_the_audience_is_unreachable_with_the_last_words():
    world = World()

    with api(lambda request: answer(503, b"<h1>We are <b>moving</b></h1>")) as server:
        words = refusal(server.url, AudienceUnreachable, world=world, attempts=3)

    assert len(server.received) == 3
    assert len(world.slept) == 2
    assert words == (
        f"the people ({server.url}), page 1: it answered 503 We are moving (tries: 3). See whether the API is up, "
        "then start again."
    )


@pytest.mark.parametrize(
    "told", ["7", format_datetime(NOON + timedelta(seconds=7), usegmt=True), str(int(NOON.timestamp()) + 7)]
)
@pytest.mark.parametrize("status", [429, 503])
def test_who_is_told_when_to_come_back_does_so_and_not_earlier(status, told):
    world = World()

    with serving_here(says(answer(status, Retry_After=told), answer(200, people(1)))) as server:
        rows = list(source(server.url, world=world).rows())

    assert [row.address for row in rows] == addresses(1)
    (wait,) = world.slept
    assert 7 <= wait <= 8


def test_a_run_does_not_wait_for_longer_than_a_minute_for_one_page():
    world = World()

    with api(lambda request: answer(429, Retry_After=f"{LONGEST_WAIT + 1:.0f}")) as server:
        words = refusal(server.url, AudienceUnreachable, world=world)

    assert world.slept == []
    assert "it wants to be asked again in 61 s" in words


@pytest.mark.parametrize(
    "conduct", [resets, says_and_closes(), says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[")]
)
def test_a_connection_that_breaks_is_tried_again(conduct):
    world = World()
    left = [conduct]

    async def breaks_once(request: Received, writer: asyncio.StreamWriter) -> None:
        if left:
            await left.pop()(request, writer)
        writer.write(answer(200, people(1)))
        await writer.drain()

    with serving_here(breaks_once) as server:
        rows = list(source(server.url, world=world).rows())

    assert [row.address for row in rows] == addresses(1)
    assert len(server.received) == 2
    assert len(world.slept) == 1


def test_a_server_that_is_not_there_is_unreachable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        words = refusal(f"http://127.0.0.1:{taken.getsockname()[1]}/", AudienceUnreachable)

    assert "Connection refused (tries: 4)" in words


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 422, 301, 302, 307, 202, 206])
def test_what_does_not_pass_by_itself_is_asked_once(status):
    world = World()

    with api(lambda request: answer(status, people(1), Location="https://elsewhere.example/x?key=1")) as server:
        refusal(server.url, world=world)

    assert len(server.received) == 1
    assert world.slept == []


def test_a_redirect_is_not_followed_and_named_without_its_query():
    other: list[Received] = []

    with (
        api(lambda request: other.append(request) or answer(200, people(1))) as second,
        api(lambda request: answer(302, Location=f"{second.url}list?session=hidden")) as first,
    ):
        words = refusal(first.url)

    assert other == []
    assert f"it redirects (302) to {second.url}list. Redirects are not followed" in words


def test_wrong_credentials_are_called_so():
    with api(lambda request: answer(401, {"error": "no such token"})) as server:
        words = refusal(server.url, auth="bearer", credential="wrong")

    assert words == (
        f'the people ({server.url}), page 1: it answered 401 {{"error": "no such token"}}. Enter the credentials '
        "again, or ask the API's operator for the right to read this."
    )


def test_a_404_after_the_first_page_is_no_silent_end():
    def respond(request: Received) -> bytes:
        return answer(200, people(3)) if asked(request)["page"] == "1" else answer(404, {"detail": "Invalid page."})

    with api(respond) as server:
        words = refusal(server.url, paging="page", page_parameter="page")

    assert "page 2: it answered 404" in words
    assert "page by a link or a cursor instead" in words


# --- Time and size ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conduct", [drips, stays_silent])
def test_an_answer_that_does_not_come_to_its_end_is_given_up(conduct):
    around = World().surroundings()

    with serving_here(conduct) as server:
        settings = settings_of({"url": server.url, "attempts": 2})
        short = replace(settings, limits=replace(settings.limits, timeout=0.2))
        with pytest.raises(AudienceUnreachable, match=r"no answer within 0.2 s|[Tt]imeout"):
            list(HttpJsonSource(short, around=around).rows())

    assert len(server.received) == 2


def test_the_time_for_all_pages_is_limited_and_counts_what_is_done_with_the_rows():
    world = World()

    def respond(request: Received) -> bytes:
        return answer(200, people(1, start=int(asked(request)["page"])))

    rows = []

    def taken_slowly(row: Row) -> None:
        rows.append(row)
        world.now += 50

    with api(respond) as server:
        paged = source(server.url, world=world, paging="page", page_parameter="page", total_minutes=2)
        taken = map(taken_slowly, paged.rows())
        with pytest.raises(AudienceTooSlow, match="not all pages were there within 2 minutes"):
            deque(taken, maxlen=0)

    assert len(rows) == 3
    assert len(server.received) == 3


def test_a_wait_that_would_outlast_the_time_limit_is_not_begun():
    world = World()

    with api(lambda request: answer(429, Retry_After="59")) as server:
        refusal(server.url, AudienceTooSlow, world=world, total_minutes=1, attempts=9)

    assert world.slept == [pytest.approx(59.5, abs=0.5)] or world.slept == []
    assert len(server.received) <= 2


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_page_of_ten_megabytes_is_refused_with_the_limit_and_not_cut(encoding):
    body = json.dumps([{"email": "a@example.test", "text": "x" * 1000}] * 10_000).encode()
    assert len(body) > 10_000_000
    sent = gzip.compress(body) if encoding == "gzip" else body

    with api(lambda request: answer(200, sent, Content_Encoding=encoding)) as server:
        words = refusal(server.url)

    assert "page 1: the page is larger than 5,000,000 octets. Ask for smaller pages, or raise the limit." in words


def test_a_page_of_just_the_size_allowed_is_read_and_one_octet_more_is_not():
    body = json.dumps(people(20)).encode()

    with api(lambda request: answer(200, body)) as server:
        assert len(list(source(server.url, max_page_octets=len(body)).rows())) == 20
        assert "larger than" in refusal(server.url, max_page_octets=len(body) - 1)


def test_an_answer_larger_than_a_mail_apis_is_read_whole():
    body = json.dumps([{"email": "a@example.test", "text": "x" * 1000}] * 3_000).encode()

    with api(lambda request: answer(200, body)) as server:
        rows = list(source(server.url).rows())

    assert len(body) > 3_000_000
    assert len(rows) == 3_000


def test_memory_stays_flat_over_two_hundred_pages():
    size, long = 20, "x" * 5_000

    def respond(request: Received) -> bytes:
        number = int(asked(request)["page"])
        server.received.clear()  # what the server remembers is in this process, too
        return answer(200, [person | {"text": long} for person in people(size if number <= 200 else 0, number * size)])

    with api(respond) as server:
        rows = source(server.url, paging="page", page_parameter="page").rows()
        deque(islice(rows, 20 * size), maxlen=0)
        tracemalloc.start()
        deque(islice(rows, 20 * size), maxlen=0)
        early = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        count = 40 * size + sum(1 for _ in rows)
        late = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert count == 200 * size
    assert early > 100_000  # something is measured
    assert late < early + 1_000_000  # caches of URLs fill; 160 pages are 16 MB


# --- What is not public -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest/"])
def test_a_private_address_is_refused_when_it_is_connected_to_whatever_was_saved(url):
    settings = settings_of({"url": "https://api.example/"})

    with pytest.raises(AudienceRefused) as refused:
        list(HttpJsonSource(replace(settings, url=url), around=Surroundings(sleep=World().sleep)).rows())

    assert "is not a public address. If that is meant, add the network to OUTREACH_ALLOWED_NETWORKS." in str(
        refused.value
    )


def test_a_name_that_leads_to_this_host_is_refused_unless_its_network_is_allowed():
    with api(listing(people(1))) as server:
        settings = replace(settings_of({"url": "https://api.example/"}), url=f"http://localhost:{server.port}/")
        with pytest.raises(AudienceRefused, match="is not a public address"):
            list(HttpJsonSource(settings, around=Surroundings(sleep=World().sleep)).rows())
        assert server.received == []
        rows = list(HttpJsonSource(settings, around=World().surroundings()).rows())

    assert [row.address for row in rows] == addresses(1)


# --- Garbage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"<!doctype html><title>Log in</title>", "text/html; charset=utf-8", "the answer is text/html, no JSON (Exp"),
        (b'[{"email": "a@example.test"}, {"ema', "application/json", "the answer is no JSON (Unterminated string"),
        (b"", "application/json", "the answer is empty"),
        (b"\xff\xfe\x00[", "application/json", "the answer is no JSON"),
        (b'[{"email": "caf\xe9@example.test"}]', "application/json", "the answer is no JSON"),
        (b'[{"n": NaN}]', "application/json", "the answer is no JSON"),
        (b"[" + b"9" * 5000 + b"]", "application/json", "the answer is no JSON"),
        (b"[" * 200_000, "application/json", "its JSON is nested too deeply"),
        (b'[{"email": "a@example.test"}] [', "application/json", "the answer is no JSON (Extra data"),
    ],
)  # fmt: skip
def test_what_is_no_json_refuses_the_audience_and_says_what_it_is(body, kind, words):
    with api(lambda request: answer(200, body, Content_Type=kind)) as server:
        told = refusal(server.url)

    assert told.startswith(f"the people ({server.url}), page 1: {words}")
    assert told.endswith("See that the URL is the one of the list, and not of a page for people or of a login.")


@pytest.mark.parametrize(
    ("document", "items", "there"),
    [
        ({"error": "quota"}, "", "$: there is an object"),
        ("hello", "", "$: there is “hello”"),
        (None, "", "$: there is null"),
        (17, "data", "data: there is nothing; the page is 17"),
        ({"data": None, "errors": []}, "data", "data: there is null; the page has 'data', 'errors'"),
        ({"data": {"items": {"a": 1}}}, "data.items", "data.items: there is an object; the page has 'data'"),
        ({"dat": []}, "data", "data: there is nothing; the page has 'dat'"),
        ({}, "data", "data: there is nothing; the page has no fields"),
    ],
)
def test_where_no_list_is_the_message_says_what_is_there(document, items, there):
    with api(listing(document)) as server:
        words = refusal(server.url, items=items)

    assert f"page 1: there is no list at {there}" in words


def test_a_byte_order_mark_and_utf_16_are_read_as_what_they_are():
    for encoding in ("utf-8-sig", "utf-16"):
        body = json.dumps([{"email": "å@example.test"}], ensure_ascii=False).encode(encoding)
        with api(lambda request, body=body: answer(200, body)) as server:
            assert [row.address for row in source(server.url).rows()] == ["å@example.test"]


def test_no_content_is_an_empty_page():
    def respond(request: Received) -> bytes:
        if asked(request)["page"] == "1":
            return answer(200, people(2))
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    with api(respond) as server:
        rows = list(source(server.url, paging="page", page_parameter="page").rows())

    assert [row.address for row in rows] == addresses(2)


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
