"""The audience of a JSON list over HTTP, read from a real server: who calls, and what stays secret."""

import base64
import logging
import traceback

import httpx
import pytest

from campaigns.audiences.exceptions import AudienceError
from campaigns.audiences.http_json import HttpJsonSource
from tests.campaigns.list_api import (
    World,
    addresses,
    api,
    asked,
    listing,
    people,
    refusal,
    settings_of,
    source,
)
from tests.delivery.http_server import (
    Received,
    answer,
)

pytestmark = pytest.mark.once

SECRET = 'p"s&cr%t+/ key=42'


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
