"""Whatever address, query, header field or method anybody sends, the API answers with 4xx and a problem document: never
with a fault, never with a secret."""

import json
import random
from collections.abc import Iterator

import pytest
from django.test import Client

from tests.outreach import hostile
from tests.outreach.documented import Route, asked
from tests.outreach.judging import pointers, wrong

pytestmark = pytest.mark.django_db

FEW = 5  # of many values, at random, for each of many places: the next run takes others


@pytest.fixture
def lists(everywhere: list[Route]) -> list[Route]:
    return [route for route in everywhere if route.is_list]


# ---- addresses ----


def test_a_query_that_a_list_does_not_know_is_refused_by_its_name(lists, program):
    answers = {str(route): asked(program, "GET", f"{route.url}?{hostile.NOBODY}=1") for route in lists}

    assert {name for name, answer in answers.items() if answer.status_code != 400} == set()
    assert {name for name, answer in answers.items() if f"/{hostile.NOBODY}" not in pointers(answer)} == set()


def test_a_size_of_a_page_that_is_no_number_from_1_to_500_is_refused(lists, program, judge):
    assert not wrong(
        (f"{route.url} {size[:50]}", judge(asked(program, "GET", f"{route.url}?page_size={size}")))
        for route in lists
        for size in hostile.PAGE_SIZES
    )


def test_a_cursor_of_somebody_elses_breaks_nothing(lists, program, judge, rng: random.Random):
    """It may be a good guess, and then there is a page."""
    assert not wrong(
        (f"{route.url} {cursor[:200]}", judge(asked(program, "GET", f"{route.url}?cursor={cursor}"), refused=False))
        for route in lists
        for cursor in rng.sample(hostile.CURSORS, FEW)
    )


def test_whatever_stands_in_a_query_breaks_nothing(everywhere, program, judge, rng: random.Random):
    def queries() -> Iterator[tuple[Route, str]]:
        for route in everywhere:
            for name in sorted(route.query) if route.method == "GET" else ():
                yield from ((route, f"{name}={text}") for text in rng.sample(hostile.TEXTS, FEW))
                yield from ((route, f"{name}=1&{name}=2"), (route, f"{name}[]=1"), (route, name))

    assert not wrong(
        (f"{route.url}?{query[:200]}", judge(asked(program, "GET", f"{route.url}?{query}"), refused=False))
        for route, query in queries()
    )


def test_whatever_stands_in_an_address_is_not_found(everywhere, program, judge, rng: random.Random):
    """Or it is refused: but nothing is found by another name than its own."""
    assert not wrong(
        (f"{route.method} {route.path} {quoted[:200]}", judge(asked(program, route.method, url, b"{}")))
        for route in everywhere
        for name in sorted(route.names - {"form"})
        for quoted in rng.sample(hostile.IDS, FEW)
        for url in [route.with_value(name, quoted)]
    )


# ---- header fields and methods ----


@pytest.mark.parametrize("said", hostile.AUTHORIZATIONS, ids=lambda said: ascii(said[:30]))
def test_who_shows_something_that_is_no_token_is_nobody(said, everywhere):
    nobody = Client(raise_request_exception=False)

    statuses = {
        str(route): asked(nobody, route.method, route.url, HTTP_AUTHORIZATION=said).status_code for route in everywhere
    }

    assert {name: status for name, status in statuses.items() if status not in (401, 403)} == {}


@pytest.mark.parametrize("accepted", hostile.ACCEPTS, ids=lambda said: ascii(said[:30]))
def test_a_wish_for_another_form_breaks_nothing(accepted, everywhere, program, judge):
    assert not wrong(
        (route, judge(asked(program, route.method, route.url, b"{}", HTTP_ACCEPT=accepted), refused=False))
        for route in everywhere
    )


@pytest.mark.parametrize("key", hostile.KEYS, ids=lambda key: ascii(key[:30]))
def test_an_idempotency_key_that_is_none_is_refused(key, everywhere, program, judge):
    keyed = [route for route in everywhere if "Idempotency-Key" in json.dumps(route.operation.get("parameters", ""))]

    assert len(keyed) >= 3
    assert not wrong(
        (route, judge(asked(program, route.method, route.url, json.dumps(example), HTTP_IDEMPOTENCY_KEY=key)))
        for route in keyed
        for example in route.examples
    )


@pytest.mark.parametrize("host", hostile.HOSTS, ids=lambda said: ascii(said[:30]))
def test_a_host_that_is_not_ours_is_refused(host, program, judge):
    assert not judge(asked(program, "GET", "/api/v1/runs/", HTTP_HOST=host))


def test_a_method_in_a_header_field_is_not_listened_to(everywhere, program):
    """What would delete a thing only shows it."""
    for route in everywhere:
        if route.method == "DELETE":
            for name in ("HTTP_X_HTTP_METHOD_OVERRIDE", "HTTP_X_HTTP_METHOD", "HTTP_X_METHOD_OVERRIDE"):
                assert asked(program, "POST", route.url, b"{}", **{name: "DELETE"}).status_code == 405


@pytest.mark.parametrize("method", hostile.METHODS, ids=lambda said: ascii(said[:30]))
def test_a_method_that_there_is_not_is_refused(method, everywhere, program, judge):
    assert not wrong((route.url, judge(asked(program, method, route.url))) for route in everywhere)


def test_a_head_is_the_answer_without_its_content(everywhere, program):
    for route in everywhere:
        if route.method == "GET":
            whole, head = (asked(program, method, route.url) for method in ("GET", "HEAD"))

            assert (head.status_code, head.headers["Content-Type"]) == (
                whole.status_code,
                whole.headers["Content-Type"],
            )
            assert head.streaming or not head.content


def test_options_tell_who_may_ask_what_may_be_done(everywhere, program):
    urls: dict[str, set[str]] = {}
    for route in everywhere:
        urls.setdefault(route.url, set()).add(route.method)

    for url, methods in urls.items():
        allow = set(asked(program, "OPTIONS", url).headers["Allow"].replace(" ", "").split(","))
        assert allow - {"HEAD", "OPTIONS"} == methods, url
        assert asked(Client(), "OPTIONS", url).status_code in (401, 403)
