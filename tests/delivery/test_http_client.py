"""The shared client against real servers: what each failure says about whether a request arrived, and what it keeps."""

import asyncio
import gzip
import socket
import ssl
import time
from ipaddress import ip_network

import httpx
import pytest
import uvloop

from delivery.conf import conf
from delivery.http.client import Call, Client, Unreachable
from delivery.http.reach import reach
from delivery.http.transport import MAX_ANSWER, USER_AGENT, AiohttpTransport
from tests.delivery.certificates import self_signed
from tests.delivery.http_server import (
    answer,
    drips,
    resets,
    says,
    says_and_closes,
    serving,
    stays_silent,
)
from tests.delivery.test_http_networks import Names
from tests.servers import free_port

LOOPBACK = (ip_network("127.0.0.0/8"),)
HTML = b"<html><head><title>502</title></head><body>Bad gateway</body></html>"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """`asyncio.run` on either event loop: their errors for the same thing are not the same."""

    def run(coroutine):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(coroutine)

    return run


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("certificate"), "127.0.0.1", "localhost")


@pytest.fixture
def loopback_allowed(settings):
    settings.OUTREACH = settings.OUTREACH | {"ALLOWED_NETWORKS": list(LOOPBACK)}
    assert conf().allowed_networks == LOOPBACK


def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def own_client(connect=2.0, names=None, trust=None):
    return Client(AiohttpTransport(LOOPBACK, resolver=names, tls=trust), connect=connect)


async def exchange(url, *, method="POST", timeout=2.0, **given):
    """One exchange through a client of its own."""
    client = own_client(**given)
    try:
        return await client.exchange(Call(method, url, {"Content-Type": "application/json"}, b'{"a": 1}'), timeout)
    finally:
        await client.close()


async def failure(url, **given):
    with pytest.raises(Unreachable) as caught:
        await exchange(url, **given)
    return caught.value


def told(error):
    return error.sent, error.hopeless


NEVER_SENT, MAYBE_SENT, WRONG = (False, False), (True, False), (False, True)


# Never sent


def test_a_refused_connection_was_never_sent(run):
    error = run(failure(f"http://127.0.0.1:{free_port()}/"))

    assert told(error) == NEVER_SENT
    assert "Connection refused" in str(error)


def test_a_name_that_nobody_knows_was_never_sent(run):
    class NoNames(Names):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    error = run(failure("http://nobody.example/", names=NoNames([])))

    assert told(error) == NEVER_SENT
    assert str(error) == "no connection to nobody.example:80: Name or service not known"


def test_a_server_that_does_not_let_anybody_in_was_never_sent_to(run):
    async def attempt(url):
        return await failure(url, connect=0.1)

    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:  # more than the queue holds: the next one is not answered
            each.setblocking(False)
            each.connect_ex(address)
        error = run(attempt(f"http://127.0.0.1:{address[1]}/"))
        for each in waiting:
            each.close()

    assert told(error) == NEVER_SENT


def test_a_certificate_that_nobody_vouches_for_was_never_sent_to(run, certificate):
    async def attempt():
        async with serving(says(answer()), context=tls(certificate)) as server:
            return await failure(server.url), server.received

    error, received = run(attempt())

    assert told(error) == NEVER_SENT
    assert "its certificate cannot be trusted: self-signed certificate" in str(error)
    assert received == []


def test_a_server_without_tls_was_never_sent_to(run):
    async def attempt():
        async with serving(says(answer())) as server:
            return await failure(f"https://127.0.0.1:{server.port}/", connect=0.2)

    assert told(run(attempt())) == NEVER_SENT


# Perhaps sent


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "conduct",
    [says_and_closes(), says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Le"), resets],
    ids=["closes", "half a head", "resets"],
)
def test_a_server_that_read_the_request_and_hung_up_may_have_taken_it_and_is_not_asked_again(run, conduct, method):
    async def attempt():
        async with serving(conduct) as server:
            return await failure(server.url, method=method), len(server.received)

    error, received = run(attempt())

    assert told(error) == MAYBE_SENT
    assert received == 1


@pytest.mark.parametrize(
    "raw",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id": "h',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"id": "h\r\n',
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n....",
        b"220 mail.example ESMTP\r\n",
    ],
    ids=["half a body", "half of the chunks", "broken compression", "another protocol"],
)
def test_an_answer_that_does_not_come_to_its_end_leaves_it_open(run, raw):
    async def attempt():
        async with serving(says_and_closes(raw)) as server:
            return await failure(server.url)

    assert told(run(attempt())) == MAYBE_SENT


def test_no_answer_in_time_leaves_it_open(run):
    async def attempt():
        async with serving(stays_silent) as server:
            return await failure(server.url, timeout=0.1)

    assert told(run(attempt())) == MAYBE_SENT


def test_an_answer_that_drips_comes_to_an_end_too(run):
    async def attempt():
        async with serving(drips) as server:
            return await failure(server.url, timeout=0.2, connect=0.2)

    started = time.monotonic()
    error = run(attempt())

    assert told(error) == MAYBE_SENT
    assert str(error) == "no answer within 0.2 s"
    assert time.monotonic() - started < 2


def test_a_kept_connection_that_breaks_under_a_request_leaves_it_open(run):
    async def attempt():
        left = [says(answer()), says_and_closes()]
        async with serving(lambda *given: left.pop(0)(*given)) as server:
            client = own_client()
            await client.exchange(Call("PUT", server.url), 2)
            with pytest.raises(Unreachable) as caught:
                await client.exchange(Call("PUT", server.url), 2)
            await client.close()
            return caught.value, len(server.received), server.connections

    error, received, connections = run(attempt())

    assert (told(error), received, connections) == (MAYBE_SENT, 2, 1)


# Wrong, whoever is asked


@pytest.mark.parametrize(
    "call",
    [
        Call("POST", "nothing"),
        Call("POST", "gopher://127.0.0.1/"),
        Call("POST", "http://127.0.0.1:99999/"),
        Call("POST", f"http://{'a' * 70}.example/"),
    ],
    ids=["no URL", "no HTTP", "no port", "no host"],
)
def test_a_call_that_cannot_be_made_says_so_and_sends_nothing(run, call):
    async def attempt():
        client = own_client()
        try:
            with pytest.raises(Unreachable) as caught:
                await client.exchange(call, 2)
            return caught.value
        finally:
            await client.close()

    assert told(run(attempt())) == WRONG


@pytest.mark.parametrize("value", ["Käthe", "a\r\nX-Other: b", "a\nb", "a\0b"])
def test_a_header_that_http_cannot_carry_is_never_sent(run, value):
    async def attempt():
        async with serving(says(answer())) as server:
            client = own_client()
            with pytest.raises(Unreachable) as caught:
                await client.exchange(Call("POST", server.url, {"X-Name": value}), 2)
            await client.close()
            return caught.value, server.received

    error, received = run(attempt())

    assert (told(error), received) == (WRONG, [])


# Answers


def test_an_answer_is_read_whatever_its_status_and_its_words_are(run):
    async def attempt():
        async with serving(says(answer(502, HTML, Content_Type="text/html", Retry_After="7"))) as server:
            return await exchange(server.url)

    found = run(attempt())

    assert (found.status, found.body, found.words()) == (502, HTML, "Bad gateway")
    assert found.headers["retry-after"] == "7"


def test_a_redirect_is_an_answer_and_is_not_followed(run):
    async def attempt():
        async with serving(says(answer())) as other, serving(says(answer(307, Location=other.url))) as server:
            return await exchange(server.url), len(server.received), len(other.received)

    found, asked, elsewhere = run(attempt())

    assert (found.status, asked, elsewhere) == (307, 1, 0)


def test_ten_megabytes_of_answer_are_cut_and_the_next_call_is_not_disturbed(run):
    async def attempt():
        async with serving(says(answer(200, b"x" * 10_000_000), answer(200, b"short"))) as server:
            client = own_client()
            found = [await client.exchange(Call("POST", server.url), 5) for _ in range(2)]
            await client.close()
            return found

    first, second = run(attempt())

    assert (len(first.body), second.body) == (MAX_ANSWER, b"short")


def test_a_small_answer_that_unpacks_to_a_huge_one_is_cut_too(run):
    packed = gzip.compress(b"x" * 50_000_000)

    async def attempt():
        async with serving(says(answer(200, packed, Content_Encoding="gzip"))) as server:
            return await exchange(server.url)

    assert len(run(attempt()).body) == MAX_ANSWER


def test_a_compressed_answer_is_read_as_it_was_meant(run):
    async def attempt():
        async with serving(says(answer(200, gzip.compress(b'{"id": 7}'), Content_Encoding="gzip"))) as server:
            return await exchange(server.url)

    assert run(attempt()).fields() == {"id": 7}


def test_a_call_arrives_as_it_was_made_and_with_the_clients_name(run):
    async def attempt():
        async with serving(says(answer())) as server:
            headers = {"X-Key": "k", "Content-Type": "application/json"}
            client = own_client()
            await client.exchange(Call("PUT", f"{server.url}a%2Fb?c=%26", headers, "ü".encode()), 2)
            await client.close()
            return server.received

    (request,) = run(attempt())

    assert (request.method, request.target, request.body) == ("PUT", "/a%2Fb?c=%26", "ü".encode())
    assert request.headers["x-key"] == "k"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == USER_AGENT


def test_no_cookie_is_kept_and_no_proxy_taken_from_the_environment(run, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")

    async def attempt():
        async with serving(says(answer(Set_Cookie="session=1"))) as server:
            client = own_client()
            for _ in range(2):
                await client.exchange(Call("GET", server.url), 2)
            await client.close()
            return server.received

    assert [request.headers.get("cookie") for request in run(attempt())] == [None, None]


def test_a_certificate_of_a_known_authority_is_accepted(run, certificate):
    trust = ssl.create_default_context(cafile=certificate[0])

    async def attempt():
        async with serving(says(answer()), context=tls(certificate)) as server:
            await reach(server.url, 2, LOOPBACK, tls=trust)
            return (await exchange(server.url, trust=trust)).status

    assert run(attempt()) == 200


@pytest.mark.parametrize("reason", ["refused", "certificate", "silent"])
def test_reaching_says_why_not(run, certificate, reason):
    async def attempt():
        async with serving(says(answer()), context=tls(certificate)) as server, serving(stays_silent) as silent:
            url = {
                "refused": f"http://127.0.0.1:{free_port()}/",
                "certificate": server.url,
                "silent": f"https://127.0.0.1:{silent.port}/",
            }[reason]
            with pytest.raises(Unreachable) as caught:
                await reach(url, 0.3, LOOPBACK)
            return caught.value

    expected = {"refused": "Connect", "certificate": "cannot be trusted: self-signed", "silent": "within 0.3 s"}
    error = run(attempt())
    assert told(error) == NEVER_SENT
    assert expected[reason] in str(error)


# Connections kept and shared


def test_connections_are_kept_and_used_again(run):
    async def attempt():
        async with serving(says(answer())) as server:
            client = own_client()
            for _ in range(20):
                await client.exchange(Call("POST", server.url), 2)
            await client.close()
            return server.connections, len(server.received)

    assert run(attempt()) == (1, 20)


def test_engines_of_one_loop_share_one_client_and_the_last_one_closes_it(run, loopback_allowed):
    async def attempt():
        async with serving(says(answer())) as server:
            call = Call("POST", server.url)
            first, second = Client(), Client()
            await first.exchange(call, 2)
            await second.exchange(call, 2)
            shared = server.connections
            await first.close()
            await second.exchange(call, 2)
            still = server.connections
            await second.close()
            third = Client()
            await third.exchange(call, 2)
            afresh = server.connections
            await third.close()
            return shared, still, afresh

    assert run(attempt()) == (1, 1, 2)


def test_each_loop_has_a_client_of_its_own(loopback_allowed):
    async def attempt():
        async with serving(says(answer())) as server:
            client = Client()
            status = (await client.exchange(Call("POST", server.url), 2)).status
            await client.close()
            return status

    assert [asyncio.run(attempt()), asyncio.run(attempt())] == [200, 200]


def test_a_client_of_a_tests_own_is_given_httpx_requests():
    seen = []

    def handler(request):
        seen.append((request.method, str(request.url), request.headers["host"], request.content))
        return httpx.Response(201, json={"id": 1}, headers={"X-Id": "7"})

    async def attempt():
        client = Client(httpx.MockTransport(handler))
        return await client.exchange(Call("POST", "https://api.example/v1", {}, b"{}"), 2)

    found = asyncio.run(attempt())

    assert seen == [("POST", "https://api.example/v1", "api.example", b"{}")]
    assert (found.status, found.fields(), found.headers["x-id"]) == (201, {"id": 1}, "7")


def test_a_cancelled_call_leaves_nothing_open(run):
    async def attempt():
        arrived = asyncio.Event()

        async def notes_and_stays_silent(request, writer):
            arrived.set()
            await stays_silent(request, writer)

        async with serving(notes_and_stays_silent) as server:
            client = own_client()
            task = asyncio.get_running_loop().create_task(client.exchange(Call("POST", server.url), 30))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await client.close()

    run(attempt())


def test_url_and_headers_which_may_hold_credentials_are_not_shown():
    call = Call("POST", "https://api.example/?key=s3cret", {"Authorization": "Bearer s3cret"}, b"s3cret")

    assert "s3cret" not in repr(call)
