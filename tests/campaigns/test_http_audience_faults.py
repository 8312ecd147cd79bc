"""The audience of a JSON list over HTTP: what is repeated, how long and how much, what is not public, and garbage."""

import asyncio
import gzip
import json
import socket
import tracemalloc
from collections import deque
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from itertools import islice

import pytest

from campaigns.audiences.exceptions import AudienceRefused, AudienceTooSlow, AudienceUnreachable
from campaigns.audiences.http_fetch import LONGEST_WAIT, Surroundings
from campaigns.audiences.http_json import HttpJsonSource
from campaigns.audiences.rows import Row
from tests.campaigns.list_api import (
    NOON,
    World,
    addresses,
    api,
    asked,
    listing,
    people,
    refusal,
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
