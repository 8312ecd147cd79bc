"""An engine for any JSON API: what it sends, what it makes of answers, and what it finds wrong before it is saved."""

import asyncio
import json
from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core.answer import Answer
from delivery.core.envelope import Kind, Mailbox
from delivery.engines.http_api import KIND
from delivery.engines.http_api.engine import HttpApiEngine
from delivery.engines.http_api.oauth import Grant, TokenClient
from delivery.engines.http_api.rules import parse_rules
from delivery.engines.http_api.settings import MOST_RECORDS, grant_of, make_provider
from delivery.http import Unreachable
from tests.delivery.http_server import answer as raw_answer
from tests.delivery.http_server import says, serving, stays_silent
from tests.delivery.provider_mails import LOGO, NOW, PDF, PLAIN, answer, envelope, frame
from tests.servers import free_port

URL = "https://api.example/v1/messages"
BODY = '{"to": "{{ to.address }}", "subject": "{{ subject }}", "age": "{{ data.age|int }}"}'
CREDENTIAL = "cr3dential-0123456789"
SECRET = "s3cret-0123456789"
BASIC = b64encode(f"ann:{CREDENTIAL}".encode()).decode()


def options(**given_options):
    return {"url": URL, "body": BODY, **given_options}


def provider(secrets=None, **given_options):
    return make_provider(options(**given_options), secrets or {})


def mail(number=1, **changes):
    return envelope(number, **{"data": {"age": "42"}, **changes})


def call(*mails, secrets=None, **given_options):
    return provider(secrets, **given_options).call(mails or [mail()], NOW)


def sent(*mails, **given):
    """The body of a call, as JSON."""
    return json.loads(call(*mails, **given).content)


def read(given_answer, count=1, **given_options):
    """What an answer to a call with `count` records means."""
    return provider(**given_options).read(given_answer, [mail(number) for number in range(count)], NOW)


def kinds(outcomes):
    return [outcome.kind.value for outcome in outcomes]


def problems(secrets=None, **given_options):
    return KIND.problems(options(**given_options), secrets or {})


def engine(handler, secrets=None, **given_options):
    """The working engine, whose calls `handler` answers."""
    made, given = provider(secrets, **given_options), options(**given_options)
    return HttpApiEngine(
        made,
        origin="https://api.example",
        concurrency=1,
        timeout=5,
        secrets=[*(secrets or {}).values(), *made.proof.hidden],
        grant=grant_of(given, secrets or {}),
        transport=httpx.MockTransport(handler),
    )


def send(handler, *mails, **given):
    return asyncio.run(engine(handler, **given).send(mails or [mail()]))


# What is sent


def test_a_mail_becomes_the_record_that_the_operator_wrote():
    made = call(headers="X-Age: {{ data.age }}\nX-None: {{ data.nothing|omit }}", method="PUT")

    assert (made.method, made.url) == ("PUT", URL)
    assert json.loads(made.content) == {"to": "ann@mail.example", "subject": "Offer № 1", "age": 42}
    assert made.headers == {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "X-Age": "42",
        "Idempotency-Key": mail().key,
    }


def test_every_field_of_an_envelope_can_be_sent():
    fields = ("key", "message_id", "to", "sender", "reply_to", "subject", "text", "html", "headers", "date", "data")
    body = json.dumps({name: f"{{{{ {name} }}}}" for name in fields})

    assert sent(body=body) == {
        "key": "00ff00ff00ff00ff.1",
        "message_id": "00ff00ff00ff00ff.1@shop.example",
        "to": {"address": "ann@mail.example", "name": "Ann Álvarez"},
        "sender": {"address": "news@shop.example", "name": "Shop & Söhne"},
        "reply_to": "help@shop.example",
        "subject": "Offer № 1",
        "text": "Hello 1\n",
        "html": "<p>Hello 1</p>",
        "headers": {
            "X-Campaign": "spring",
            "List-Unsubscribe": "<https://shop.example/u/t1>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
        "date": "2026-01-02T04:04:05+01:00",
        "data": {"age": "42"},
    }


def test_the_operators_own_content_type_takes_the_place_of_the_usual_one():
    headers = call(headers="content-type: application/vnd.api+json").headers

    assert {name: value for name, value in headers.items() if name.lower() == "content-type"} == {
        "content-type": "application/vnd.api+json"
    }


def test_a_mail_without_a_reply_address_has_an_empty_one():
    assert sent(mail(frame=PLAIN), body='{"r": "{{ reply_to }}", "o": "{{ reply_to|omit }}"}') == {"r": ""}


def test_files_go_where_the_body_has_a_place_for_them_and_are_refused_where_it_has_none():
    with_files = mail(frame=frame(attachments=(PDF, LOGO)))
    body = '{"files": "{{ attachments }}"}'

    files = sent(with_files, body=body)["files"]
    refused = provider().refuse(with_files)

    assert [(each["filename"], each["content_type"], each["content_id"]) for each in files] == [
        ("price list.pdf", "application/pdf", ""),
        ("logo.png", "image/png", "logo@shop.example"),
    ]
    assert b64decode(files[0]["content"]) == PDF.content
    assert (refused.kind, "no place" in refused.text) == (Kind.MESSAGE, True)
    assert provider(body=body).refuse(with_files) is None


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_a_value_stays_in_its_place_of_the_url(value):
    url = "https://api.example/lists/{{ data.list }}/members?name={{ data.list }}&fixed=1"
    made = httpx.URL(call(mail(data={"age": 1, "list": f"x{value}"}), url=url).url)
    segments = made.raw_path.decode().partition("?")[0].split("/")

    assert made.host == "api.example"
    assert [unquote(segment) for segment in segments] == ["", "lists", f"x{value}", "members"]
    assert dict(made.params) == {"name": f"x{value}", "fixed": "1"}
    assert made.fragment == ""


@pytest.mark.parametrize("value", ["..", ".", ""])
def test_a_value_that_would_lead_to_another_place_is_refused(value):
    with pytest.raises(ValueError, match="The URL leads elsewhere"):
        call(mail(data={"age": 1, "list": value}), url="https://api.example/lists/{{ data.list }}/members")


def test_a_query_may_have_an_empty_value():
    assert call(mail(data={"age": 1, "n": ""}), url=URL + "?n={{ data.n }}").url == URL + "?n="


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "Käthe"])
def test_a_value_that_no_header_can_carry_is_refused_by_name(value):
    with pytest.raises(ValueError, match="header X-List"):
        call(mail(data={"age": 1, "list": value}), headers="X-List: {{ data.list }}")


def test_what_one_record_cannot_hold_ends_that_mail_and_the_others_go():
    bodies = []

    def handler(request):
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json={})

    mails = [mail(1), mail(2, data={"age": "old"}), mail(3, data={}), mail(4)]
    outcomes = send(handler, *mails, batch_size=10)

    assert kinds(outcomes) == ["accepted", "message", "message", "accepted"]
    assert "The field age, line 1: “old” is no whole number" in outcomes[1].text
    assert "The field age, line 1: the data has no `data.age`" in outcomes[2].text
    assert not any(outcome.shared for outcome in outcomes)
    assert [[record["subject"] for record in body] for body in bodies] == [["Offer № 1", "Offer № 4"]]


@pytest.mark.parametrize("value", [float("nan"), "\ud800"])
def test_what_json_cannot_say_ends_that_mail(value):
    outcomes = send(lambda request: httpx.Response(200), mail(data={"x": value}), body='{"x": "{{ data.x }}"}')

    assert kinds(outcomes) == ["message"]


# Who calls


@pytest.mark.parametrize(
    ("given_options", "headers", "url"),
    [
        ({"auth": "none"}, {}, URL),
        ({"auth": "basic", "username": "ann"}, {"Authorization": f"Basic {BASIC}"}, URL),
        ({"auth": "bearer"}, {"Authorization": f"Bearer {CREDENTIAL}"}, URL),
        ({"auth": "header", "key_name": "X-Api-Key"}, {"X-Api-Key": CREDENTIAL}, URL),
        ({"auth": "query", "key_name": "api key"}, {}, f"{URL}?api+key={CREDENTIAL}"),
        ({"auth": "query", "key_name": "k", "url": URL + "?a=1"}, {}, f"{URL}?a=1&k={CREDENTIAL}"),
    ],
    ids=["none", "basic", "bearer", "header", "query", "second parameter"],
)  # fmt: skip
def test_a_call_says_who_calls(given_options, headers, url):
    made = call(secrets={"credential": CREDENTIAL}, **given_options)

    assert made.url == url
    assert {name: made.headers.get(name) for name in headers} == headers


def test_another_secret_stands_where_the_operator_places_it():
    made = call(
        secrets={"secret": SECRET},
        headers="X-Tenant: t1 {{ secret }}",
        body='{"api_key": "{{ secret }}"}',
        url="https://api.example/{{ secret }}/send",
    )

    assert made.url == f"https://api.example/{SECRET}/send"
    assert made.headers["X-Tenant"] == f"t1 {SECRET}"
    assert json.loads(made.content) == {"api_key": SECRET}


@pytest.mark.parametrize(
    "given_options",
    [
        {"auth": "bearer"},
        {"auth": "header", "key_name": "X-Api-Key"},
        {"auth": "basic", "username": "ann"},
        {"auth": "query", "key_name": "k"},
    ],
    ids=lambda given_options: given_options["auth"],
)
def test_no_outcome_repeats_a_credential_even_when_the_api_does(given_options):
    secrets = {"credential": "cr3d/ential+0123", "secret": SECRET}

    def handler(request):
        shown = [str(request.url), *request.headers.values(), request.content.decode(), *secrets.values()]
        return httpx.Response(403, json={"error": shown})

    placed = {"body": '{"k": "{{ secret }}"}', "headers": "X: {{ secret }}"}
    (outcome,) = send(handler, secrets=secrets, error_path="error", **placed, **given_options)
    basic = b64encode(f"ann:{secrets['credential']}".encode()).decode()

    assert outcome.kind is Kind.ENGINE
    for secret in (*secrets.values(), basic, "cr3d%2Fential%2B0123"):
        assert secret not in outcome.text


def test_a_secret_that_a_filter_refuses_is_not_repeated():
    outcome = send(lambda request: httpx.Response(200), secrets={"secret": SECRET}, body='{"k": "{{ secret|int }}"}')[0]

    assert outcome.kind is Kind.MESSAGE
    assert SECRET not in outcome.text


# The idempotency key


def test_the_key_goes_in_the_header_that_the_operator_names_or_in_none():
    named = call(idempotency_header="X-Request-Id").headers
    none = [call(idempotency_header=none).headers for none in ("-", "")]

    assert named["X-Request-Id"] == mail().key
    assert not any(mail().key in headers.values() for headers in none)


def test_a_call_with_several_records_has_a_key_of_its_own_that_stays_with_them():
    keys = [
        call(*mails, batch_size=5).headers["Idempotency-Key"]
        for mails in ([mail(1), mail(2)], [mail(1), mail(2)], [mail(1), mail(3)])
    ]

    assert keys[0] == keys[1] != keys[2]


def test_that_keys_are_honoured_is_what_the_operator_says():
    assert not engine(lambda request: None).honours_keys
    assert engine(lambda request: None, honours_keys=True).honours_keys


def test_an_emptied_header_field_of_the_form_stays_empty():
    field = KIND.fields()["idempotency_header"]

    assert field.initial == "Idempotency-Key"
    assert "Idempotency-Key" not in call(idempotency_header=field.clean("")).headers


# What answers mean


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, "accepted"), (201, "accepted"), (202, "accepted"), (204, "accepted"), (299, "accepted"),
        (302, "engine"), (307, "engine"), (400, "message"), (401, "engine"), (402, "engine"), (403, "engine"),
        (404, "engine"), (405, "engine"), (408, "transient"), (413, "message"), (415, "message"), (422, "message"),
        (425, "transient"), (429, "throttled"), (500, "transient"), (502, "transient"), (503, "transient"),
    ],
)  # fmt: skip
def test_without_rules_a_status_means_what_it_means_in_http(status, kind):
    assert kinds(read(answer(status))) == [kind]


def test_not_found_is_the_records_fault_where_the_url_is_the_records_own():
    url = "https://api.example/lists/{{ data.age }}/members"

    assert kinds(read(answer(404), url=url)) == ["message"]
    assert kinds(read(answer(404), url="https://api.example/{{ secret }}/send")) == ["engine"]


RULES = """
422: recipient
410: suppress
$.error.code=rate_limited: throttled
$.error.code = "No such list" : engine
400 $.error.code=gone: suppress
$.errors[0]: message
200 $.status=queued: accepted
200 $.ok=false: transient
4xx: unknown
"""


@pytest.mark.parametrize(
    ("status", "body", "kind", "hard"),
    [
        (422, {}, "recipient", False),
        (410, {}, "recipient", True),
        (400, {"error": {"code": "rate_limited"}}, "throttled", False),
        (200, {"error": {"code": "RATE_LIMITED"}}, "throttled", False),
        (500, {"error": {"code": "no such list"}}, "engine", False),
        (400, {"error": {"code": "gone"}}, "recipient", True),
        (404, {"error": {"code": "gone"}}, "unknown", False),
        (200, {"errors": [{"id": 1}]}, "message", False),
        (200, {"errors": []}, "accepted", False),
        (200, {"status": "queued", "ok": False}, "accepted", False),
        (200, {"ok": False}, "transient", False),
        (200, {"ok": True}, "accepted", False),
        (418, {}, "unknown", False),
        (503, {}, "transient", False),
        (503, b"<html>", "transient", False),
        (400, b"[" * 100_000, "unknown", False),
    ],
)
def test_the_first_rule_that_fits_decides_and_else_http_does(status, body, kind, hard):
    (outcome,) = read(answer(status, body), rules=RULES)

    assert (outcome.kind.value, outcome.hard) == (kind, hard)


def test_the_id_comes_from_the_body_or_a_header_and_else_is_our_own():
    told = answer(201, {"data": [{"id": 7}]}, x_message_id="h-1")

    found = [
        read(told, id_path=where)[0].provider_id
        for where in ("data.0.id", "$.data[0].id", "header:X-Message-Id", "data.1.id", "")
    ]

    own = mail(0).key
    assert found == ["7", "7", "h-1", own, own]


def test_the_error_is_told_in_the_apis_words():
    body = {"error": {"message": "no\x00 such list", "details": ["a", {"b": 1}]}}

    assert read(answer(400, body), error_path="error.message")[0].text == "no  such list"
    assert read(answer(400, body), error_path="error.details")[0].text == '["a", {"b": 1}]'
    assert read(answer(502, b"<h1>Bad gateway</h1>"), error_path="error.message")[0].text == "Bad gateway"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7),
        ({"ratelimit-reset": "30"}, 30),
        ({"retry-after": "Fri, 02 Jan 2026 03:05:05 GMT"}, 60),
        ({}, None),
    ],
)
def test_a_wait_is_what_the_api_asks_for(headers, wait):
    expected = None if wait is None else timedelta(seconds=wait)

    by_status = read(Answer(429, headers))[0]
    by_rule = read(Answer(200, headers, b'{"e": "slow"}'), rules="$.e=slow: throttled")[0]

    assert [by_status.retry_after, by_rule.retry_after] == [expected, expected]


def test_a_page_of_html_with_a_status_of_success_is_no_yes():
    page = answer(200, b"\n<!DOCTYPE html><html><body>Log in</body></html>")

    assert kinds(read(page)) == ["unknown"]
    assert kinds(read(page, rules="200: accepted")) == ["accepted"]


@given(st.integers(100, 599), st.binary(max_size=60), st.sampled_from(["", RULES]), st.sampled_from(["", "a.b"]))
def test_whatever_an_api_answers_there_is_an_outcome_for_each_mail(status, body, rules, path):
    outcomes = read(Answer(status, {}, body), 3, rules=rules, batch_size=3, error_path=path, id_path=path)

    assert len(outcomes) == 3


# Several records in a call

BATCH = {"batch_size": 100, "body": '{"to": "{{ to.address }}"}'}


def test_several_records_are_a_list_or_stand_where_the_document_has_a_place():
    mails = [mail(1), mail(2, recipient=Mailbox("bob@mail.example"))]
    records = [{"to": "ann@mail.example"}, {"to": "bob@mail.example"}]
    around = '{"account": {"id": 7}, "messages": "{{ records }}", "note": "ünder"}'

    assert sent(*mails, **BATCH) == records
    assert sent(mails[0], **BATCH) == records[:1]
    assert sent(*mails, batch_document=around, **BATCH) == {"account": {"id": 7}, "messages": records, "note": "ünder"}


def test_without_results_a_call_means_the_same_for_all_and_a_refusal_is_shared():
    accepted = read(answer(200), 3, **BATCH)
    refused = read(answer(422), 3, **BATCH)
    alone = read(answer(422), 1, **BATCH)
    slow = read(answer(429), 3, **BATCH)

    assert kinds(accepted) == ["accepted"] * 3
    assert [outcome.provider_id for outcome in accepted] == [mail(number).key for number in range(3)]
    assert kinds(refused) == ["message"] * 3
    assert [outcome.shared for outcome in (*refused, *alone, *slow)] == [True] * 3 + [False] * 4


def test_with_results_each_record_is_judged_alone_by_the_same_rules():
    results = [
        {"id": "a"},
        {"status": "bounced", "why": "gone"},
        {"status": "slow"},
        "nonsense",
        {"status": "odd", "why": {"code": 1}},
    ]
    outcomes = read(
        answer(207, {"results": results}),
        5,
        results_path="results",
        rules="$.status=bounced: suppress\n$.status=slow: throttled\n$.status: message",
        id_path="id",
        error_path="why",
        **BATCH,
    )

    assert kinds(outcomes) == ["accepted", "recipient", "throttled", "accepted", "message"]
    assert [outcome.provider_id for outcome in outcomes] == ["a", "", "", mail(3).key, ""]
    assert [outcome.text for outcome in outcomes] == ["", "gone", '{"status": "slow"}', "", '{"code": 1}']
    assert [outcome.hard for outcome in outcomes] == [False, True, False, False, False]


def test_results_may_be_the_whole_answer_and_no_more_than_yes_and_no():
    objects = read(answer(200, [{"ok": 1}, {"e": 1}]), 2, results_path="$", rules="$.e: message", **BATCH)
    words = read(answer(200, [True, False, None]), 3, results_path="$", rules="$=false: transient", **BATCH)

    assert kinds(objects) == ["accepted", "message"]
    assert kinds(words) == ["accepted", "transient", "unknown"]


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"results": [{"id": 1}', b"{}", b'{"results": {}}'])
def test_a_yes_without_the_results_leaves_every_mail_open(body):
    assert kinds(read(answer(200, body), 2, results_path="results", **BATCH)) == ["unknown", "unknown"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_that_are_not_one_for_each_leave_every_mail_open(count):
    def handler(request):
        return httpx.Response(200, json=[{"id": number} for number in range(count)])

    outcomes = send(handler, mail(1), mail(2), results_path="$", **BATCH)

    assert kinds(outcomes) == ["unknown", "unknown"]


# OAuth 2

GRANT = Grant("https://login.example/token", "cliënt:1", "s3c ret", scope="mail.send")


class Endpoint:
    """The other side: a token server and an API, as a client sees them."""

    def __init__(self, *tokens, api=(), life=3600):
        self.tokens = list(tokens)
        self.api = list(api)
        self.life = life
        self.asked = []
        self.called = []
        self.closed = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def exchange(self, call, timeout):
        if call.url != GRANT.url:
            self.called.append(call.headers["Authorization"])
            return self.api.pop(0) if self.api else answer(200)
        self.asked.append(call)
        await self.gate.wait()
        found = self.tokens.pop(0)
        if isinstance(found, Exception):
            raise found
        if isinstance(found, Answer):
            return found
        return answer(200, {"access_token": found, "token_type": "Bearer", "expires_in": self.life})

    async def close(self):
        self.closed = True


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


def api_call():
    return call(auth="oauth2")


def with_tokens(scenario, *tokens, **given):
    """What a scenario makes of a client with such an endpoint behind it."""

    async def play():
        endpoint, clock = Endpoint(*tokens, **given), Clock()
        client = TokenClient(endpoint, GRANT, clock)
        found = await scenario(client, endpoint, clock)
        await client.close()
        assert endpoint.closed
        return found

    return asyncio.run(play())


def test_the_client_shows_itself_by_basic_or_in_the_form():
    by_basic, in_form = GRANT.call(), replace(GRANT, in_body=True).call()

    assert by_basic.content == b"grant_type=client_credentials&scope=mail.send"
    assert b64decode(by_basic.headers["Authorization"].removeprefix("Basic ")) == b"cli%C3%ABnt%3A1:s3c+ret"
    assert in_form.content == by_basic.content + b"&client_id=cli%C3%ABnt%3A1&client_secret=s3c+ret"
    assert "Authorization" not in in_form.headers


def test_one_token_is_asked_for_however_many_wait_and_is_used_again():
    async def scenario(client, endpoint, clock):
        endpoint.gate.clear()
        calls = [asyncio.ensure_future(client.exchange(api_call(), 5)) for _ in range(20)]
        await asyncio.sleep(0)
        endpoint.gate.set()
        await asyncio.gather(*calls)
        await client.exchange(api_call(), 5)
        return len(endpoint.asked), set(endpoint.called), len(endpoint.called)

    assert with_tokens(scenario, "t1") == (1, {"Bearer t1"}, 21)


def test_a_token_is_replaced_shortly_before_it_expires():
    async def scenario(client, endpoint, clock):
        for seconds in (0, 3539, 3541):
            clock.now = NOW + timedelta(seconds=seconds)
            await client.exchange(api_call(), 5)
        return endpoint.called

    assert with_tokens(scenario, "t1", "t2") == ["Bearer t1", "Bearer t1", "Bearer t2"]


@pytest.mark.parametrize(("life", "good_for"), [(100, 90), ("100", 90), (None, 270), (0, 270), ("soon", 270)])
def test_how_long_a_token_is_good_is_what_the_server_says_or_a_few_minutes(life, good_for):
    token = GRANT.read(answer(200, {"access_token": "t", "expires_in": life}), NOW)

    assert token.good_until == NOW + timedelta(seconds=good_for)


def test_a_401_gets_a_fresh_token_once_and_the_call_is_made_again():
    async def scenario(client, endpoint, clock):
        first = await client.exchange(api_call(), 5)
        second = await client.exchange(api_call(), 5)
        return first.status, second.status, endpoint.called, len(endpoint.asked)

    api = [answer(401), answer(200), answer(200)]

    assert with_tokens(scenario, "t1", "t2", api=api) == (200, 200, ["Bearer t1", "Bearer t2", "Bearer t2"], 2)


def test_a_second_401_is_the_answer():
    async def scenario(client, endpoint, clock):
        return (await client.exchange(api_call(), 5)).status, len(endpoint.called)

    assert with_tokens(scenario, "t1", "t2", api=[answer(401)] * 2) == (401, 2)


def test_of_many_calls_that_meet_a_401_one_gets_the_fresh_token_for_all():
    async def scenario(client, endpoint, clock):
        await client.token()
        await asyncio.gather(*(client.exchange(api_call(), 5) for _ in range(10)))
        return len(endpoint.asked)

    assert with_tokens(scenario, "t1", "t2", api=[answer(401)] * 10) == 2


def test_one_who_gives_up_waiting_does_not_take_the_token_from_the_others():
    async def scenario(client, endpoint, clock):
        endpoint.gate.clear()
        gone, waits = (asyncio.ensure_future(client.exchange(api_call(), 5)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        endpoint.gate.set()
        return (await waits).status, gone.cancelled(), len(endpoint.asked)

    assert with_tokens(scenario, "t1") == (200, True, 1)


def test_closing_ends_a_request_for_a_token_that_nobody_waits_for():
    async def scenario(client, endpoint, clock):
        endpoint.gate.clear()
        waits = asyncio.ensure_future(client.token())
        await asyncio.sleep(0)
        waits.cancel()

    with_tokens(scenario, "t1")


@pytest.mark.parametrize(
    ("token", "hopeless", "says"),
    [
        (answer(401, {"error": "invalid_client", "error_description": "Who?"}), True, "401 invalid_client Who?"),
        (answer(400, b"<h1>What?</h1>"), True, "400 What?"),
        (answer(302), True, "302"),
        (answer(200, b"<html>"), True, "without a token"),
        (answer(200, {"access_token": ""}), True, "without a token"),
        (answer(200, {"access_token": "t\r\nX: y"}), True, "without a token"),
        (answer(200, {"access_token": "t", "token_type": "mac"}), True, "mac token"),
        (answer(429), False, "429"),
        (answer(503), False, "503"),
        (Unreachable("no connection", sent=False), False, "no connection"),
        (Unreachable("no answer within 20 s", sent=True), False, "no answer"),
        (Unreachable("10.0.0.1 is not a public address", sent=False, hopeless=True), True, "not a public"),
    ],
)  # fmt: skip
def test_without_a_token_nothing_is_sent_and_the_reason_is_told(token, hopeless, says):
    async def scenario(client, endpoint, clock):
        with pytest.raises(Unreachable) as caught:
            await client.exchange(api_call(), 5)
        return caught.value, endpoint.called

    error, called = with_tokens(scenario, token)

    assert called == []
    assert (error.sent, error.hopeless) == (False, hopeless)
    assert says in str(error)


OAUTH = {"auth": "oauth2", "token_url": GRANT.url, "username": "client-1"}


@pytest.mark.parametrize(
    ("status", "kind"), [(200, "accepted"), (401, "engine"), (400, "engine"), (429, "transient"), (500, "transient")]
)
def test_a_mail_waits_or_fails_over_by_what_the_token_server_says(status, kind):
    def handler(request):
        if request.url.host == "login.example":
            return httpx.Response(status, json={"access_token": "t0ken-0123456789", "error": CREDENTIAL})
        return httpx.Response(200, json={})

    outcomes = send(handler, secrets={"credential": CREDENTIAL}, **OAUTH)

    assert kinds(outcomes) == [kind]
    assert CREDENTIAL not in outcomes[0].text


def test_an_api_that_repeats_the_token_does_not_get_it_into_an_outcome():
    def handler(request):
        if request.url.host == "login.example":
            return httpx.Response(200, json={"access_token": "t0ken-0123456789"})
        return httpx.Response(403, text=f"no: {request.headers['authorization']}")

    (outcome,) = send(handler, secrets={"credential": CREDENTIAL}, **OAUTH)

    assert outcome.text == "no: Bearer …"


# The settings


def test_the_example_of_the_form_is_right():
    fields = KIND.fields()
    given = {name: field.initial for name, field in fields.items() if field.initial is not None}

    assert KIND.problems({**given, "url": URL}, {}) == []
    assert set(KIND.secret_fields) < set(fields)


@pytest.mark.parametrize(
    ("given_options", "says"),
    [
        ({"url": ""}, "The URL is missing."),
        ({"body": ""}, "The body is missing."),
        ({"method": "GET"}, "“GET” is no method"),
        ({"url": "http://api.example/"}, "is not encrypted"),
        ({"url": "https://169.254.169.254/"}, "is not a public address"),
        ({"url": "https://{{ data.host }}/x"}, "The URL begins with a fixed host"),
        ({"url": "https://api.{{ data.host }}/x"}, "The URL begins with a fixed host"),
        ({"url": "https://api.example/#a"}, "has a # or a space"),
        ({"url": "https://api.example/{{ data.x| }}"}, "The URL does not compile, line 1"),
        ({"url": "https://api.example/{{ adress }}"}, "The URL: there is no `adress`"),
        ({"body": '{"a": 1,}'}, "The body is no JSON, line 1, column 9"),
        ({"body": '{"a": "{{ subjetc }}"}'}, "The field a: there is no `subjetc` (did you mean `subject`?)"),
        ({"headers": "Content-Length: 5"}, "Headers, line 1: Content-Length is written by the client itself"),
        ({"headers": "X-A: 1\nno header"}, "Headers, line 2: “no header” is no header: write “Name: value”."),
        ({"headers": "X-A: {{ x| }}"}, "The header X-A does not compile"),
        ({"headers": "X-A: Käthe"}, "The value of X-A has letters that no header can carry"),
        ({"headers": "X-A: 1\nx-a: 2"}, "Headers, line 2: x-a is written by the client itself, or stands there twice"),
        ({"headers": "idempotency-key: 1"}, "The header idempotency-key comes from two settings"),
        ({"headers": "authorization: 1", "auth": "bearer"}, "The header authorization comes from two settings"),
        ({"idempotency_header": "Idempotency Key"}, "“Idempotency Key” is no name of a header"),
        ({"rules": "422: recipient\n4xx; message"}, "Rule in line 2, “4xx; message”: after the last colon"),
        ({"rules": "42: message"}, "Rule in line 1, “42: message”: before the colon stands a status"),
        ({"rules": ": message"}, "before the colon stands a status"),
        (
            {"rules": "422: gone"},
            "one of accepted, recipient, suppress, message, engine, throttled, transient, unknown",
        ),
        ({"rules": "$.a..b=1: message"}, "before the colon stands a status"),
        ({"rules": "\n".join(["422: message"] * 201)}, "There are 201 rules"),
        ({"id_path": "a b"}, "“a b” is no path"),
        ({"error_path": "a..b"}, "“a..b” is no path"),
        ({"auth": "digest"}, "“digest” is no auth"),
        ({"auth": "basic"}, "The user name is missing."),
        ({"auth": "basic", "username": "a:b"}, "A user name with a colon"),
        ({"auth": "header"}, "The name of the key's header is missing."),
        ({"auth": "header", "key_name": "X Key"}, "“X Key” is no name of a header"),
        ({"auth": "oauth2", "username": "c"}, "The token URL is missing."),
        ({"auth": "oauth2", "username": "c", "token_url": "http://login.example/"}, "is not encrypted"),
        ({"batch_size": MOST_RECORDS + 1}, "must be between 1 and 1000"),
        ({"batch_size": 5, "headers": "X: {{ key }}"}, "URL and headers belong to none: take key out of them"),
        ({"batch_size": 5, "honours_keys": True}, "only when each call has one record"),
        ({"batch_document": '{"a": []}'}, 'must have "{{ records }}" once'),
        ({"batch_document": '{"a": "{{ records }}", "b": "{{ records }}"}'}, "once"),
        ({"batch_document": '{"{{ records }}": 1}'}, "once"),
        ({"batch_document": '{"a": '}, "The document around the records is no JSON"),
        ({"honours_keys": True, "idempotency_header": "-"}, "is to refuse a key it has seen, and gets none"),
        ({"body": '{"a": "{{ secret }}"}'}, "A template uses {{ secret }}, and there is none."),
        ({"concurrency": 0}, "must be between 1 and 500"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said_before_they_are_saved(given_options, says):
    found = problems({"credential": CREDENTIAL}, **given_options)

    assert says in "\n".join(found)


def test_a_credential_that_no_header_can_carry_is_found():
    assert "copy it again" in problems({"credential": "a b\n"}, auth="bearer")[0]


def test_every_line_of_rules_that_is_wrong_is_told():
    with pytest.raises(ValueError, match=r"line 1.*\n.*line 3"):
        parse_rules("x\n422: message\ny")


# The working engine, with a server of its own

LOOPBACK = [ip_network("127.0.0.1/32")]


@pytest.fixture
def loopback_allowed(settings):
    settings.OUTREACH = settings.OUTREACH | {"ALLOWED_NETWORKS": LOOPBACK}


def opened(url, secrets=None, **given_options):
    given_options = options(url=url, **given_options)
    assert KIND.problems(given_options, secrets or {}) == []
    return KIND.open(1, given_options, secrets or {})


def test_a_mail_goes_to_a_real_server_and_comes_back_with_its_id(loopback_allowed):
    async def attempt():
        async with serving(says(raw_answer(201, {"id": "m-1"}))) as server:
            engine = opened(f"{server.url}send", {"credential": CREDENTIAL}, auth="bearer", id_path="id")
            outcomes = await engine.send([mail()])
            await engine.close()
            return outcomes, server.received

    (outcome,), (request,) = asyncio.run(attempt())

    assert (outcome.kind, outcome.provider_id) == (Kind.ACCEPTED, "m-1")
    assert (request.method, request.target) == ("POST", "/send")
    assert request.json() == {"to": "ann@mail.example", "subject": "Offer № 1", "age": 42}
    assert request.headers["authorization"] == f"Bearer {CREDENTIAL}"
    assert request.headers["idempotency-key"] == mail().key


def test_silence_after_the_hand_over_is_unknown_and_no_connection_is_not(loopback_allowed):
    async def attempt():
        async with serving(stays_silent) as server:
            silent = HttpApiEngine(provider(url=server.url), origin=server.url, concurrency=1, timeout=0.1)
            outcomes = await silent.send([mail()])
            await silent.close()
        nobody = opened(f"http://127.0.0.1:{free_port()}/")
        outcomes += await nobody.send([mail()])
        await nobody.close()
        return outcomes

    assert kinds(asyncio.run(attempt())) == ["unknown", "transient"]


def checked(url, *, secrets=None, **given_options):
    async def attempt():
        engine = opened(url, secrets, **given_options)
        try:
            return await engine.check()
        finally:
            await engine.close()

    return asyncio.run(attempt())


def test_a_check_connects_says_nothing_and_admits_what_it_cannot_know(loopback_allowed):
    async def attempt():
        async with serving(says(raw_answer())) as server:
            plain, with_key = opened(server.url), opened(server.url, {"credential": CREDENTIAL}, auth="bearer")
            found = [await plain.check(), await with_key.check()]
            return found, server.received

    (plain, with_key), received = asyncio.run(attempt())

    assert received == []
    assert plain == []
    assert [(finding.certain, "shows only with the first mail" in finding.words) for finding in with_key] == [
        (False, True)
    ]


def test_a_check_finds_that_nobody_is_there(loopback_allowed):
    (finding,) = checked(f"http://127.0.0.1:{free_port()}/")

    assert finding.words.startswith("127.0.0.1: ")
    assert not finding.certain


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [(200, {"access_token": "t"}, []), (401, {"error": "invalid_client"}, [True]), (503, {}, [False])],
)
def test_a_check_gets_a_token_where_there_is_one_to_get(loopback_allowed, status, body, found):
    async def attempt():
        async with serving(says(raw_answer(status, body))) as server:
            engine = opened(
                f"{server.url}send",
                {"credential": CREDENTIAL},
                auth="oauth2",
                username="c",
                token_url=f"{server.url}token",
            )
            findings = await engine.check()
            await engine.close()
            return findings, [request.path for request in server.received]

    findings, paths = asyncio.run(attempt())

    assert [finding.certain for finding in findings] == found
    assert paths == ["/token"]
