"""Whatever body anybody sends, the API answers with 4xx and a problem document: never with a fault or a secret."""

import io
import json
import random
from collections.abc import Iterator

import pytest

from outreach.wsgi import application
from tests.outreach import hostile
from tests.outreach.documented import JSON, Route, asked
from tests.outreach.everything import SECRET
from tests.outreach.judging import pointers, wrong

pytestmark = pytest.mark.django_db

FUZZED = 300  # bodies for all addresses together
MEGABYTE = 1024**2


@pytest.fixture
def with_body(everywhere: list[Route]) -> list[Route]:
    """Those that take a body of JSON."""
    return [route for route in everywhere if route.body is not None]


@pytest.mark.parametrize("body", hostile.BODIES.values(), ids=hostile.BODIES)
def test_a_body_that_is_none_is_refused_wherever_one_is_taken(body, with_body, program, judge):
    """An empty one is as good as {}."""
    assert not wrong(
        (route, judge(asked(program, route.method, route.url, body), refused=body != b"")) for route in with_body
    )


def test_a_body_where_none_is_taken_does_no_harm(everywhere, program, judge, rng: random.Random):
    assert not wrong(
        (route, judge(asked(program, route.method, route.url, hostile.BODIES[name]), refused=False))
        for route in everywhere
        if route.body is None
        for name in rng.sample(sorted(hostile.BODIES), 3)
    )


@pytest.mark.parametrize("media_type", hostile.MEDIA_TYPES)
def test_a_body_of_another_type_is_refused(media_type, with_body, program, judge):
    assert not wrong(
        (route, judge(asked(program, route.method, route.url, b'{"a": 1}', content_type=media_type)))
        for route in with_body
    )


def test_an_unknown_field_is_refused_by_its_place_at_every_level(with_body, document, program):
    missed, tried = [], set()
    for route in with_body:
        for example in route.examples:
            for pointer, body in hostile.with_unknown_fields(example, route.body, document):
                answer = asked(program, route.method, route.url, json.dumps(body))
                tried.add(str(route))
                if answer.status_code != 409 and pointer not in pointers(answer):
                    missed.append(f"{route} {pointer}: {answer.status_code} {answer.content[:300]!r}")

    assert missed == []
    assert tried == {str(route) for route in with_body}


def test_a_value_of_another_type_is_refused_by_the_place_of_its_field(with_body, document, program, rng: random.Random):
    missed = []
    for route in with_body:
        for pointer, body in hostile.with_other_types(route.examples[0], route.body, document, rng):
            answer = asked(program, route.method, route.url, json.dumps(body))
            found = answer.status_code == 400 and any(each.startswith(pointer) for each in pointers(answer))
            if not found and answer.status_code != 409:
                missed.append(f"{route} {pointer}={body[pointer[1:]]!r}: {answer.status_code} {answer.content[:300]!r}")

    assert missed == []


@pytest.mark.parametrize("other", hostile.UNKEEPABLE, ids=lambda value: ascii(value)[:20])
def test_what_cannot_be_kept_is_refused_wherever_it_stands(other, with_body, program, judge):
    assert not wrong(
        (f"{route} {body}"[:500], judge(asked(program, route.method, route.url, json.dumps(body))))
        for route in with_body
        for example in route.examples
        for body in hostile.with_each_replaced(example, other)
    )


def test_bodies_made_at_random_of_what_the_document_shows_break_nothing(with_body, program, judge, rng: random.Random):
    def fuzzed() -> Iterator[tuple[str, str]]:
        for _ in range(FUZZED):
            route = rng.choice(with_body)
            body = hostile.mutated(rng.choice(route.examples), rng)
            if rng.random() < 0.5:
                body = hostile.mutated(body, rng)
            answer = asked(program, route.method, route.url, json.dumps(body))
            yield f"{route} {json.dumps(body)[:500]}", judge(answer, refused=False)

    assert not wrong(fuzzed())


@pytest.mark.parametrize("name", ["credentials", "credential"])
def test_a_credential_that_is_refused_is_not_said_again(name, with_body, program, judge):
    bodies = [{name: {"password": [SECRET]}}, {name: SECRET, "kind": 7}, {name: [SECRET]}, {name: {SECRET[:5]: SECRET}}]

    assert not wrong(
        (route, judge(asked(program, route.method, route.url, json.dumps(example | body))))
        for route in with_body
        for example in route.examples
        for body in bodies
        if "redentials" in json.dumps(example) or "redential" in json.dumps(example)
    )


class Endless:
    """A body of so many blanks, and how much of it was taken."""

    def __init__(self, octets: int) -> None:
        self._left = octets
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        self._left -= size
        self.taken += size
        return b" " * size

    readline = read


def raw(route: Route, token: str, stream: object, length: str, **environ: object) -> tuple[str, bytes]:
    """Status and content that a server passes on, for a body that it passes in."""
    said: list[str] = []
    about = {
        "REQUEST_METHOD": route.method,
        "PATH_INFO": route.url,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": stream,
        "CONTENT_TYPE": JSON,
        "CONTENT_LENGTH": length,
        "HTTP_AUTHORIZATION": f"Bearer {token}",
    }
    answer = application(about | environ, lambda status, headers, exc_info=None: said.append(status))
    content = b"".join(answer)
    answer.close()
    return said[0].split()[0], content


def test_a_body_that_is_too_large_is_not_read_to_its_end(with_body, installation):
    for route in with_body:
        stream = Endless(1000 * MEGABYTE)

        status, content = raw(route, installation.token, stream, str(1000 * MEGABYTE))

        assert status == "413" or int(status) in (404, 409), f"{route}: {status} {content[:300]!r}"
        assert stream.taken <= 10 * MEGABYTE + 1


@pytest.mark.parametrize("length", ["1", "999", "-1", "abc", "", "9" * 30, "1, 2", "٣", "0x10"])
def test_a_length_that_lies_breaks_nothing(length, with_body, installation):
    answers = {
        str(route): raw(route, installation.token, io.BytesIO(b'{"nobody": 1}'), length)[0] for route in with_body
    }

    assert {name: status for name, status in answers.items() if not 200 <= int(status) < 500} == {}
