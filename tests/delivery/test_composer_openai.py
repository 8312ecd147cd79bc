"""A composer over an OpenAI-compatible chat API: what it asks, and what it makes of every answer."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest

from delivery.core.answer import Answer
from delivery.core.envelope import Kind
from delivery.engines.base import Finding
from delivery.engines.composers import Prompt
from delivery.engines.composers.chat import ChatApi
from delivery.engines.composers.openai import KIND
from delivery.engines.composers.written import MOST_TEXT
from tests.delivery.http_server import answer, resets, says, says_and_closes, serving, stays_silent
from tests.servers import free_port

pytestmark = pytest.mark.once

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
KEY = "sk-0123456789-abcdefg"
LOCAL = "http://127.0.0.1:1/v1"
PROMPT = Prompt("Write to Ann.", key="token.1f.1")
API = ChatApi("https://api.example/v1", "small-1", KEY, max_tokens=600)


@pytest.fixture(autouse=True)
def loopback_is_allowed(settings):
    settings.OUTREACH = settings.OUTREACH | {"ALLOWED_NETWORKS": [ip_network("127.0.0.0/8")]}


def options(**given):
    return {"base_url": LOCAL, "model": "small-1", **given}


def completion(content="Hello Ann", reason="stop", **message):
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": content, **message}}
    return {"id": "c-1", "object": "chat.completion", "choices": [choice], "usage": {"total_tokens": 9}}


def read(body, status=200, **headers):
    """What an answer means."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return API.read(Answer(status, named, content), NOW)


def refused(status, **error):
    return read({"error": error}, status)


def composed(conduct, secrets=None, prompt=PROMPT, **given):
    """What comes of a prompt at a server that behaves so, and the server."""

    async def ask():
        async with serving(conduct) as server:
            composer = KIND.open(1, options(base_url=f"{server.url}v1/", **given), secrets or {"credential": KEY})
            try:
                return await composer.compose(prompt), server
            finally:
                await composer.close()

    return asyncio.run(ask())


def checked(conduct, secrets=None, **given):
    async def ask():
        async with serving(conduct) as server:
            composer = KIND.open(1, options(base_url=f"{server.url}v1", **given), secrets or {"credential": KEY})
            try:
                return await composer.check(frozenset())
            finally:
                await composer.close()

    return asyncio.run(ask())


# ---- what is asked ----


def test_a_prompt_is_asked_of_the_model_with_its_key_its_instructions_and_its_limits():
    found, server = composed(
        says(answer(body=completion())), system="Be short.", temperature=0.0, max_tokens=300, limit_field="max_tokens"
    )

    (request,) = server.received
    assert (found.outcome.kind, found.text) == (Kind.ACCEPTED, "Hello Ann")
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == "token.1f.1"
    assert request.json() == {
        "model": "small-1",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Write to Ann."}],
        "max_tokens": 300,
        "temperature": 0.0,
    }


def test_a_prompt_without_more_than_itself_asks_for_nothing_more_and_without_a_key_shows_none():
    api = ChatApi("https://api.example/v1", "small-1")

    call = api.call(Prompt("Write to Ann."))

    assert json.loads(call.content) == {
        "model": "small-1",
        "messages": [{"role": "user", "content": "Write to Ann."}],
    }
    assert set(call.headers) == {"Accept", "Content-Type"}


def test_a_prompts_own_instructions_stand_in_for_those_of_the_engine():
    call = replace(API, system="Be long.").call(Prompt("Write.", system="Be short."))

    assert json.loads(call.content)["messages"][0] == {"role": "system", "content": "Be short."}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"base_url": "https://api.openai.com/v1"}, "max_completion_tokens"),
        ({"base_url": "https://eu.api.openai.com/v1"}, "max_completion_tokens"),
        ({"base_url": "https://llm.example/v1"}, "max_tokens"),
        ({"base_url": "https://llm.example/v1", "limit_field": "max_completion_tokens"}, "max_completion_tokens"),
    ],
)
def test_the_token_limit_is_called_as_the_server_wants_it(given, name):
    api = KIND.open(1, options(max_tokens=500, **given), {})._api

    assert json.loads(api.call(PROMPT).content)[name] == 500


# ---- answers with words ----


def test_words_come_tidied_so_that_every_database_keeps_them():
    found = read(completion("  Hello\r\n\r\n\r\n\r\nAnn,\x00 how\u2028are you? \t\n\n"))

    assert found.text == "Hello\n\nAnn,  how\nare you?"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "Hello "}, {"type": "image"}, {"type": "text", "text": "Ann"}], "Hello Ann"),
        ("<think>\nShe is called Ann.\n</think>\n\nHello Ann", "Hello Ann"),
        ("I <think> so", "I <think> so"),
    ],
    ids=["in parts", "thoughts in front", "a word that looks like it"],
)
def test_what_a_model_says_is_told_from_what_it_thinks(content, text):
    assert read(completion(content)).text == text


@pytest.mark.parametrize(
    "body",
    [completion(None), completion(""), completion(" \n"), completion("<think>so long"), completion(7), completion([7])],
)
def test_an_answer_without_words_is_tried_again_and_is_not_held_against_the_service(body):
    found = read(body)

    assert (found.outcome.kind, found.outcome.faults_engine, found.text) == (Kind.TRANSIENT, False, "")
    assert found.outcome.text == "The answer has no text."


def test_words_that_were_cut_off_are_not_used_nor_asked_for_again():
    # Another try would meet the same limit and cost as much.
    found = read(completion("Hello An", reason="length"))

    assert (found.outcome.kind, found.text) == (Kind.MESSAGE, "")
    assert found.outcome.text == (
        "The answer was cut off at the limit of 600 tokens: raise it, or ask for fewer words in the prompt."
    )


def test_a_refusal_and_a_content_filter_end_this_text_alone():
    refusal = read(completion(None, refusal="I will not."))
    filtered = read(completion("Hello", reason="content_filter"))

    assert (refusal.outcome.kind, refusal.outcome.text) == (Kind.MESSAGE, "The model refused: I will not.")
    assert filtered.outcome.kind is Kind.MESSAGE
    assert (refusal.text, filtered.text) == ("", "")


def test_a_text_without_end_is_no_mail():
    found = read(completion("x" * (MOST_TEXT + 1)))

    assert (found.outcome.kind, found.text) == (Kind.MESSAGE, "")
    assert len(read(completion("x" * MOST_TEXT)).text) == MOST_TEXT


@pytest.mark.parametrize(
    "body", [b"<html>Log in</html>", b"", b"{", b"[]", b'{"choices": []}', b'{"choices": [7]}', b'{"choices": "x"}']
)
def test_an_answer_that_is_no_completion_is_the_services_trouble(body):
    found = read(body)

    assert (found.outcome.kind, found.outcome.faults_engine) == (Kind.TRANSIENT, True)
    assert found.outcome.text.startswith("The answer is no chat completion")


# ---- answers that refuse ----


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (refused(401, message="Incorrect API key", code="invalid_api_key"), Kind.ENGINE),
        (refused(403, message="Country not supported"), Kind.ENGINE),
        (refused(402, message="Insufficient credits"), Kind.ENGINE),
        (refused(404, message="no such model", code="model_not_found"), Kind.ENGINE),
        (read(b"404 page not found", 404), Kind.ENGINE),
        (refused(429, message="You exceeded your quota", type="insufficient_quota", code="new_word"), Kind.ENGINE),
        (refused(429, message="No credit", code="credit_balance_exhausted"), Kind.ENGINE),
        (refused(400, message="Unsupported parameter: 'max_tokens'", code="unsupported_parameter"), Kind.ENGINE),
        (refused(400, message="too long", code="context_length_exceeded"), Kind.MESSAGE),
        (refused(400, message="flagged", code="content_filter"), Kind.MESSAGE),
        (refused(413, message="too large"), Kind.MESSAGE),
        (refused(422, message="cannot be read"), Kind.MESSAGE),
        (refused(429, message="Rate limit reached", code="rate_limit_exceeded"), Kind.THROTTLED),
        (refused(408, message="timeout"), Kind.TRANSIENT),
        (refused(409, message="conflict"), Kind.TRANSIENT),
        (refused(500, message="server had an error"), Kind.TRANSIENT),
        (refused(503, message="overloaded", code="server_is_overloaded"), Kind.TRANSIENT),
        (read(b"<h1>Bad gateway</h1>", 502), Kind.TRANSIENT),
        (read({"error": {"code": 429, "message": "slow"}}, 200), Kind.THROTTLED),
        (read({"error": {"message": "the upstream broke"}}, 200), Kind.TRANSIENT),
        (read({"choices": [{"error": {"code": 402, "message": "pay"}}]}, 200), Kind.ENGINE),
        (read(b"", 302), Kind.ENGINE),
        (read(b"", 799), Kind.TRANSIENT),
    ],
)
def test_a_refusal_is_the_settings_the_prompts_the_paces_or_the_moments_fault(found, kind):
    assert (found.outcome.kind, found.text) == (kind, "")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "No such thing", "type": "invalid_request_error"}}, "No such thing"),
        ({"error": "model is loading"}, "model is loading"),
        ({"object": "error", "message": "bad request", "code": 400}, "bad request"),
        ({"detail": "Not here"}, "Not here"),
        (b"<title>x</title><p>Sorry,\nno</p>", "x Sorry, no"),
    ],
)
def test_a_refusal_is_kept_in_the_servers_own_words(body, words):
    assert read(body, 400).outcome.text == words


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry_after": "7"}, timedelta(seconds=7)),
        ({"retry_after_ms": "250", "retry_after": "1"}, timedelta(milliseconds=250)),
        ({"retry_after_ms": "soon", "retry_after": "3"}, timedelta(seconds=3)),
        ({}, None),
    ],
)
def test_slow_down_says_how_long_when_the_server_does(headers, wait):
    assert read({"error": {"message": "slow"}}, 429, **headers).outcome.retry_after == wait


# ---- over the wire ----


@pytest.mark.parametrize(
    "conduct", [says_and_closes(), resets, says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")]
)
def test_a_connection_that_breaks_may_be_tried_again_for_nothing_has_happened_to_anybody(conduct):
    found, _ = composed(conduct)

    assert (found.outcome.kind, found.outcome.faults_engine) == (Kind.TRANSIENT, True)


def test_a_server_that_stays_silent_is_left_when_the_patience_is_over():
    found, _ = composed(stays_silent, timeout_seconds=1)

    assert (found.outcome.kind, found.outcome.faults_engine) == (Kind.TRANSIENT, True)


def test_an_address_that_may_not_be_reached_is_the_settings_fault(settings):
    settings.OUTREACH = settings.OUTREACH | {"ALLOWED_NETWORKS": []}

    found, server = composed(says(answer(body=completion())))

    assert (found.outcome.kind, server.received) == (Kind.ENGINE, [])
    assert "OUTREACH_ALLOWED_NETWORKS" in found.outcome.text


def test_the_key_is_in_no_words_that_are_kept_nor_in_any_representation():
    found, _ = composed(says(answer(401, {"error": {"message": f"{KEY} is no key"}}, X_Echo=KEY)))
    echoed, _ = composed(says(answer(body=completion(f"Hello {KEY}"))))

    assert found.outcome.text == "… is no key"
    assert echoed.text == "Hello …"
    assert KEY not in repr([API, API.call(PROMPT), found])


def test_calls_of_one_composer_share_their_connections():
    async def ask():
        async with serving(says(answer(body=completion()))) as server:
            composer = KIND.open(1, options(base_url=f"{server.url}v1"), {})
            for _ in range(3):
                await composer.compose(PROMPT)
            await composer.close()
            return server.connections

    assert asyncio.run(ask()) == 1


# ---- the check ----


def models(*names):
    return answer(body={"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


def test_the_check_composes_nothing_and_is_content_when_the_model_is_listed():
    assert checked(says(models("large-1", "small-1"))) == []


def test_the_check_finds_a_wrong_key_for_certain():
    found = checked(says(answer(401, {"error": {"message": "Incorrect API key provided"}})))

    assert found == [Finding("The key is refused: 401 Incorrect API key provided")]


def test_the_check_names_a_model_that_is_meant_when_another_is_written():
    (found,) = checked(says(models("large-1", "small-1-preview")), model="smal-1-preview")

    assert found == Finding(
        "The server does not list a model “smal-1-preview”. Did you mean “small-1-preview”?", certain=False
    )


@pytest.mark.parametrize("body", [answer(404), answer(200, {"data": []}), answer(200, b"<html>"), answer(503)])
def test_the_check_says_so_when_the_server_does_not_tell(body):
    (found,) = checked(says(body))

    assert not found.certain
    assert found.words.startswith("Whether the model “small-1” is there shows with the first text")


def test_the_check_says_when_nobody_is_there():
    async def ask():
        composer = KIND.open(1, options(base_url=f"http://127.0.0.1:{free_port()}/v1"), {})
        return await composer.check(frozenset())

    (found,) = asyncio.run(ask())

    assert found.words.startswith("127.0.0.1 cannot be reached")
    assert not found.certain


# ---- the settings ----


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"base_url": ""}, "The address of the API is missing."),
        ({"model": " "}, "The model is missing."),
        ({"base_url": "api.example"}, "“api.example” is not a URL: write it as https://host/path."),
        ({"base_url": "http://8.8.8.8/v1"}, "http://8.8.8.8/v1 is not encrypted: use https."),
        (
            {"base_url": "https://api.example/v1/chat/completions"},
            "“https://api.example/v1/chat/completions” is one path too long: leave /chat/completions away, such as "
            "https://api.openai.com/v1.",
        ),
        (
            {"base_url": "https://api.example/v1?a=b"},
            "“https://api.example/v1?a=b” has a query or a #: give the address alone, such as "
            "https://api.openai.com/v1.",
        ),
        ({"temperature": 3}, "The setting temperature must be between 0 and 2, not 3."),
        ({"max_tokens": 1}, "The setting max tokens must be between 16 and 100000, not 1."),
        ({"timeout_seconds": 0}, "The setting timeout seconds must be between 1 and 600, not 0."),
        ({"concurrency": 501}, "The setting concurrency must be between 1 and 500, not 501."),
        ({"limit_field": "tokens"}, "“tokens” is no limit field: choose one of max_tokens, max_completion_tokens."),
    ],
)
def test_settings_that_cannot_work_are_named_with_what_would(given, words):
    assert KIND.problems(options(**given), {}) == [words]


def test_settings_that_can_work_have_no_problem_with_or_without_a_key():
    assert KIND.problems(options(temperature=0, max_tokens=600), {"credential": KEY}) == []
    assert KIND.problems(options(), {}) == []


def test_a_key_that_no_header_can_carry_is_named():
    (problem,) = KIND.problems(options(), {"credential": "sk 1\n"})

    assert problem.startswith("The credential has spaces around it")


def test_the_kind_composes_and_its_key_is_a_secret_that_may_be_missing():
    assert (KIND.composes, KIND.secret_fields) == (True, {"credential"})
    assert not KIND.fields()["credential"].required
