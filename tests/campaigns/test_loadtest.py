"""`manage.py loadtest`: a storm that keeps its bounds, callbacks that are heard and checked, and a report of both.

The server is one that does as it is told (tests/delivery/http_server.py), or Django's own with the real API.
"""

import asyncio
import contextlib
import io
import json
import os
import random
import signal
import socket
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime

import httpx
import pytest
from django.core.management import CommandError, call_command
from rich.console import Console

from campaigns.callbacks import signing
from campaigns.loadtest import chart, report
from campaigns.loadtest.caller import BROKEN_OFF, NO_CONNECTION, TIMEOUT, Caller
from campaigns.loadtest.loading import Listening, Refused, Result, load
from campaigns.loadtest.plan import ASYNC, SYNC, Plan
from campaigns.loadtest.receiver import Receiver
from campaigns.loadtest.storm import storm
from campaigns.loadtest.target import own
from campaigns.models import Run, RunRequest
from tests.campaigns import cast
from tests.delivery.http_server import Server, answer, resets, says, serving, stays_silent
from tests.servers import free_port

KEYS = [signing.new_secret()]
LOOPBACK = own("http://127.0.0.1", ()).networks


# ---- the storm ----


def stormed(ask, **how):
    return asyncio.run(storm(ask, **how))


def test_a_storm_asks_as_often_as_planned_and_never_more_at_once():
    under_way, most, asked = set(), 0, []

    async def ask(number):
        nonlocal most
        under_way.add(number)
        most = max(most, len(under_way))
        for _ in range(random.Random(number).randrange(4)):
            await asyncio.sleep(0)
        under_way.discard(number)
        asked.append(number)
        return 202, True

    found = stormed(ask, count=200, at_once=7)

    assert sorted(asked) == sorted(sample.number for sample in found.samples) == list(range(200))
    assert most == 7


def test_none_begins_after_its_time_and_those_under_way_are_waited_for():
    now = 0.0

    async def ask(number):
        nonlocal now
        now += 1.0
        return 202, True

    found = stormed(ask, count=1000, at_once=1, seconds=5.0, clock=lambda: now)

    assert [(sample.began, sample.seconds) for sample in found.samples] == [(float(n), 1.0) for n in range(5)]
    assert found.seconds == 5.0


def test_who_stops_a_storm_gets_what_there_is():
    async def stopped_at_ten():
        stop = asyncio.Event()

        async def ask(number):
            if number == 9:
                stop.set()
            return 202, True

        return await storm(ask, count=1000, at_once=1, stop=stop)

    assert len(asyncio.run(stopped_at_ten()).samples) == 10


# ---- one request ----


async def said_by(conduct: Callable[..., Awaitable[None]], patience: float = 10.0):
    async with serving(conduct) as server:
        caller = Caller(server.url.rstrip("/"), "word", LOOPBACK, patience)
        try:
            return await caller.post("/x", b"{}"), server
        finally:
            await caller.close()


def test_an_answer_is_its_status_and_the_token_goes_along():
    said, server = asyncio.run(said_by(says(answer(503, b"busy"))))

    assert (said.status, said.content) == (503, b"busy")
    assert server.received[0].headers["authorization"] == "Bearer word"


@pytest.mark.parametrize(("conduct", "kind"), [(stays_silent, TIMEOUT), (resets, BROKEN_OFF)])
def test_why_there_was_no_answer_is_said_in_a_word(conduct, kind):
    said, _ = asyncio.run(said_by(conduct, patience=0.2))

    assert said.status == kind


def test_a_server_that_is_not_there_is_no_connection():
    async def ask():
        caller = Caller(f"http://127.0.0.1:{free_port()}", "", LOOPBACK, 5)
        try:
            return await caller.get("/")
        finally:
            await caller.close()

    assert asyncio.run(ask()).status == NO_CONNECTION


# ---- callbacks ----


def callback(key: str = KEYS[0], kind: str = "run.completed", at: float | None = None) -> dict[str, object]:
    """What httpx needs to send a callback that is signed."""
    body = json.dumps({"type": kind, "data": {}}).encode()
    signed_at = datetime.fromtimestamp(time.time() if at is None else at, UTC)
    return {"content": body, "headers": signing.headers([key], "msg_1", signed_at, body)}


async def heard_of(*callbacks: dict[str, object]):
    async with Receiver("127.0.0.1", 0, KEYS, clock=lambda: 42.0) as receiver, httpx.AsyncClient() as client:
        answers = [await client.post(receiver.address_of(7), **each) for each in callbacks]
        return [each.status_code for each in answers], receiver.heard


def test_a_callback_is_noted_with_its_trigger_its_time_and_that_it_is_signed():
    statuses, (heard,) = asyncio.run(heard_of(callback()))

    assert statuses == [204]
    assert (heard.number, heard.at, heard.type, heard.signed) == (7, 42.0, "run.completed", True)


@pytest.mark.parametrize(
    "forged",
    [
        callback(key=signing.new_secret()),
        callback() | {"content": b'{"type": "run.completed", "data": {"id": 1}}'},
        callback(at=time.time() - 3600),
        callback() | {"headers": {}},
        callback() | {"headers": {"webhook-timestamp": "9" * 40, "webhook-id": "x", "webhook-signature": "v1,eA=="}},
    ],
)
def test_a_callback_that_another_key_an_old_time_or_nobody_has_signed_is_heard_as_such(forged):
    _, (heard,) = asyncio.run(heard_of(forged))

    assert not heard.signed


def test_what_is_no_callback_is_refused_and_the_receiver_goes_on():
    statuses, heard = asyncio.run(heard_of({"content": b"["}, {"content": b"[1]"}, callback()))

    assert statuses == [400, 400, 204]
    assert len(heard) == 1


# ---- all of it ----


async def loaded(plan: Plan, conduct, listening: Listening | None = None, **how) -> tuple[Result, Server]:
    async with serving(conduct) as server:
        return await load(plan, own(server.url, ()), "word", listening, **how), server


def taken_and_called_back(times: Callable[[str], int]):
    """A server that takes every trigger and calls back, so often as `times` says for its address."""
    calls = []

    async def call_back(url: str, count: int) -> None:
        async with httpx.AsyncClient() as client:
            for _ in range(count):
                await client.post(url, **callback())

    async def conduct(request, writer):
        url = request.json()["callback_url"]
        calls.append(asyncio.get_running_loop().create_task(call_back(url, times(url))))
        writer.write(answer(202, {"id": 1}))
        await writer.drain()

    return conduct


def test_callbacks_that_come_are_timed_and_those_that_do_not_or_do_twice_are_counted():
    def times(url: str) -> int:
        return {"3": 0, "4": 2}.get(url.rpartition("/")[2], 1)

    listening = Listening("127.0.0.1", 0, KEYS, patience=0.5)
    plan = Plan(ASYNC, "news", count=20, at_once=4)

    result, _ = asyncio.run(loaded(plan, taken_and_called_back(times), listening))

    back = result.returned
    assert (back.asked, len(back.back), back.missing, back.doubled, back.unsigned) == (20, 19, 1, 1, 0)
    assert all(seconds > 0 for _, seconds in back.back)
    assert not result.went_well


def test_triggers_that_wait_say_what_became_of_their_runs():
    answers = says(*[answer(201, {"state": "completed"})] * 8, answer(201, {"state": "failed"}), answer(202, {}))

    result, server = asyncio.run(loaded(Plan(SYNC, "news", count=8, at_once=2, wait=7), answers))

    assert result.runs == {"completed": 6, "failed": 1}  # two were for warming up
    assert result.failed_runs == 1
    assert {request.path for request in server.received} == {"/api/v1/workflows/news/runs/"}
    assert all(request.json() == {"test": 1, "wait": 7} for request in server.received)


def test_the_warm_up_is_not_counted_and_errors_are_with_their_words():
    busy = answer(503, {"detail": "The database cannot be used now."}, content_type="application/problem+json")
    answers = says(*[answer(202, {})] * 6, busy)

    result, server = asyncio.run(loaded(Plan(ASYNC, "news", count=10, at_once=2), answers))

    assert len(server.received) == 12
    assert report.said(result.stormed.samples) == {503: 6, 202: 4}
    assert result.words == {503: "The database cannot be used now."}


def test_a_server_that_does_not_take_the_first_trigger_is_asked_for_no_more_and_its_words_are_told():
    answers = says(answer(401, {"detail": "There is no such token."}))

    with pytest.raises(Refused, match=r"answered 401\. There is no such token\. Make a token with"):
        asyncio.run(loaded(Plan(ASYNC, "news", count=10), answers))


# ---- the report ----


@pytest.fixture(scope="module")
def result() -> Result:
    listening = Listening("127.0.0.1", 0, KEYS, patience=5)
    return asyncio.run(
        loaded(Plan(ASYNC, "news", count=30, at_once=3), taken_and_called_back(lambda url: 1), listening)
    )[0]


def test_the_report_says_how_many_how_quickly_and_what_came_back(result):
    console = Console(width=110, highlight=False, color_system=None, file=io.StringIO())

    console.print(report.summary(result))

    said = console.file.getvalue()
    for words in ("30 asynchronous triggers of news", "30 taken in", "p95", "the callback", "30 of 30 came back"):
        assert words in said
    assert "0 missing; 0 doubled; all signed rightly" in said


def test_the_json_has_every_figure_and_times_in_milliseconds(result):
    found = json.loads(json.dumps(report.as_json(result)))

    assert (found["requests"], found["taken"], found["errors"], found["said"]) == (30, 30, 0, {"202": 30})
    assert found["latency_ms"].keys() == {"p50", "p95", "p99", "max", "mean"}
    assert found["callbacks"]["received"] == 30
    assert found["callbacks"]["latency_ms"]["max"] >= found["callbacks"]["latency_ms"]["p50"] > 0
    assert found["ok"] is True
    length, rates = found["over_time"]["slice_seconds"], found["over_time"]["per_second"]
    assert round(sum(rates["triggers"]) * length) == round(sum(rates["callbacks"]) * length) == 30


def test_the_chart_is_one_well_formed_picture_of_rates_and_percentiles_for_light_and_dark(result):
    picture = ElementTree.fromstring(chart.svg(result))

    titles = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[1:] == [
        "A second",
        "Time until the answer",
        "Time until the callback",
        "All of them, from the quickest to the slowest",
    ]
    assert "prefers-color-scheme: dark" in chart.svg(result)


# ---- the command, against the real API ----


def run(*arguments: str) -> tuple[int, str]:
    """Its exit code, and what it printed."""
    out = io.StringIO()
    try:
        call_command("loadtest", *arguments, stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return end.code, out.getvalue()
    return 0, out.getvalue()


@contextlib.contextmanager
def served(conduct) -> Iterator[str]:
    """The URL of a server that lives in a thread of its own."""
    url: Future[str] = Future()
    over = threading.Event()

    async def serve() -> None:
        async with serving(conduct) as server:
            url.set_result(server.url)
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    try:
        yield url.result(10)
    finally:
        over.set()
        thread.join()


@pytest.fixture
def token() -> str:
    """Of somebody who may send."""
    from django.contrib.auth.models import Permission, User

    from outreach.access import tokens

    user = User.objects.create_user("program")
    user.user_permissions.add(Permission.objects.get(codename="send_workflow"))
    return tokens.make("load", user, ["send"], by="test").text


@pytest.mark.django_db(transaction=True)
def test_the_command_makes_test_runs_by_the_api_and_reports_them(live_server, token, tmp_path):
    workflow = cast.workflow()
    picture = tmp_path / "load.svg"

    code, out = run(
        *("async", "--url", live_server.url, "--token", token, "--workflow", workflow.slug),
        *("--count", "6", "--concurrency", "2", "--no-callbacks", "--json", "--chart", str(picture)),
    )

    found = json.loads(out)
    assert (code, found["taken"], found["said"]) == (0, 6, {"202": 6})
    assert set(Run.objects.values_list("test_limit", flat=True)) == {1}
    assert RunRequest.objects.count() == Run.objects.count() == 8
    assert picture.read_text().startswith("<svg")


def test_ctrl_c_ends_it_in_order_and_reports_what_there_is():
    received = 0

    async def interrupted_at_ten(request, writer):
        nonlocal received
        received += 1
        if received == 10:
            os.kill(os.getpid(), signal.SIGINT)
        writer.write(answer(202, {}))
        await writer.drain()

    with served(interrupted_at_ten) as url:
        _, out = run("async", "--url", url, "--workflow", "news", "--concurrency", "1", "--no-callbacks", "--json")

    found = json.loads(out)
    assert found["stopped"] is True
    assert found["taken"] == found["requests"] == received - 1 < 1000  # the first one was for warming up


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"--token": "outreach_unknown"}, "answered 401.*api_token make"),
        ({"--workflow": "nothing"}, "answered 404.*--workflow takes"),
        ({"--callback-listen": "127.0.0.1:0"}, "answered 400.*OUTREACH_ALLOWED_NETWORKS"),
    ],
)
def test_what_the_server_refuses_is_a_usage_error_that_says_what_to_do(live_server, token, changed, words):
    given = {"--url": live_server.url, "--token": token, "--workflow": cast.workflow().slug} | changed
    quiet = () if "--callback-listen" in changed else ("--no-callbacks",)

    with pytest.raises(CommandError, match=words) as refusal:
        run("async", *(part for pair in given.items() for part in pair), "--count", "2", *quiet)

    assert refusal.value.returncode == 2
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "http://203.0.113.5"], "not known to be yours"),
        (["--count", "0"], "--count must be from 1"),
        (["--payload", "no-such-file.json"], "cannot be read"),
        (["--callback-listen", "0.0.0.0:9"], "is no address of this machine"),
        (["--callback-listen", "127.0.0.1:http"], "is no address of this machine"),
        (["--chart", "load.png"], "must end in .svg"),
        (["--really-send"], "This mails people: .* say --yes"),
    ],
)
def test_bad_usage_is_refused_before_anybody_is_asked(arguments, words):
    with pytest.raises(CommandError, match=words) as refusal:
        run("async", "--workflow", "news", *arguments)

    assert refusal.value.returncode == 2


def test_a_second_receiver_on_the_same_port_is_refused_with_words():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match="--callback-listen: cannot listen there"):
            run("async", "--workflow", "news", "--callback-listen", f"127.0.0.1:{port}")
