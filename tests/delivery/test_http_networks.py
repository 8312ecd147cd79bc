"""Which addresses an outgoing request reaches, and that what was checked is what is connected to."""

import asyncio
import socket
from ipaddress import ip_network

import pytest
from aiohttp.abc import AbstractResolver

from delivery.http.client import Call, Client, Unreachable
from delivery.http.networks import is_allowed, problem_with_url
from delivery.http.reach import reach
from delivery.http.transport import AiohttpTransport
from tests.delivery.http_server import answer, says, serving

NOWHERE = ()
HOME = (ip_network("127.0.0.1/32"),)
OFFICE = (ip_network("10.20.0.0/16"), ip_network("fd00:1::/32"))

PUBLIC = ("1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1")
NOT_PUBLIC = {
    "loopback": ("127.0.0.1", "127.8.9.10", "::1"),
    "private": ("10.0.0.1", "172.16.0.1", "192.168.1.1", "fd00::1", "fc00::1"),
    "metadata services": ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "fe80::a9fe:a9fe"),
    "link and site local": ("169.254.0.1", "fe80::1", "fe80::1%eth0", "fec0::1"),
    "shared, reserved, test": ("100.64.0.1", "0.0.0.0", "240.0.0.1", "255.255.255.255", "192.0.2.1", "2001:db8::1"),
    "multicast": ("224.0.0.1", "ff02::1"),
    "mapped": ("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0a00:1"),
    "compatible, translated": ("::127.0.0.1", "::ffff:0:127.0.0.1"),
    "NAT64": ("64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::7f00:1"),
    "6to4, Teredo": ("2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::"),
    "no address": ("2130706433", "0x7f000001", "127.1", "0177.0.0.1", "localhost", "", "127.0.0.1 "),
}


class Names(AbstractResolver):
    """A DNS that gives one list of addresses after the other, the last one again and again."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def resolve(self, host, port=0, family=socket.AF_INET):
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            {"hostname": host, "host": each, "port": port, "family": _family(each), "proto": 0, "flags": 0}
            for each in found
        ]

    async def close(self):
        """Holds nothing."""


def _family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def ask(url, networks, names=None):
    """The status of one call through a transport of its own."""
    client = Client(AiohttpTransport(networks, resolver=names))
    try:
        return (await client.exchange(Call("GET", url), 2)).status
    finally:
        await client.close()


def refusal(url, networks=NOWHERE, names=None):
    with pytest.raises(Unreachable) as caught:
        asyncio.run(ask(url, networks, names))
    return caught.value


# Addresses


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_reached(address):
    assert is_allowed(address, NOWHERE)


@pytest.mark.parametrize("address", [each for group in NOT_PUBLIC.values() for each in group])
def test_whatever_is_not_public_may_not_be_reached_however_it_is_wrapped(address):
    assert not is_allowed(address, NOWHERE)
    assert not is_allowed(address, OFFICE)


def test_an_allowed_network_opens_that_network_and_its_wrapped_spellings_only():
    reached = {
        address: is_allowed(address, OFFICE)
        for address in ("10.20.1.1", "::ffff:10.20.1.1", "64:ff9b::10.20.1.1", "fd00:1::5", "10.21.0.1", "fd00:2::5")
    }

    assert reached == {
        "10.20.1.1": True,
        "::ffff:10.20.1.1": True,
        "64:ff9b::10.20.1.1": True,
        "fd00:1::5": True,
        "10.21.0.1": False,
        "fd00:2::5": False,
    }


# URLs as they are saved


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://169.254.169.254/latest/meta-data", "169.254.169.254 is not a public address"),
        ("https://[::ffff:127.0.0.1]/", "::ffff:127.0.0.1 is not a public address"),
        ("https://[fe80::1%25eth0]/", "is not a public address"),
        ("http://api.example/", "is not encrypted: use https"),
        ("ftp://api.example/", "is not a URL"),
        ("https:///path", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("https://api.example:99999/", "is not a URL"),
        ("https://ann:secret@api.example/", "do not belong in a URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_its_reason(url, says):
    assert says in problem_with_url(url, NOWHERE)


def test_plain_http_is_for_allowed_networks_only():
    assert problem_with_url("http://10.20.1.1/", OFFICE) == ""
    assert problem_with_url("http://intranet/", OFFICE) == ""
    assert "not encrypted" in problem_with_url("http://1.1.1.1/", OFFICE)
    assert problem_with_url("https://api.example/v1", NOWHERE) == ""


# Connections


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost", "0x7f000001", "0x7f.1"]
)
def test_no_spelling_of_this_host_leads_to_it(host):
    async def attempt():
        async with serving(says(answer())) as server:
            with pytest.raises(Unreachable) as caught:
                await ask(f"http://{host}:{server.port}/", NOWHERE)
            return caught.value, server.connections

    error, connections = asyncio.run(attempt())

    assert connections == 0
    assert "is not a public address" in str(error)
    assert (error.sent, error.hopeless) == (False, True)


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0177.0.0.1", "017700000001", "127.0.0.1."])
@pytest.mark.parametrize("networks", [NOWHERE, HOME], ids=["nothing allowed", "loopback allowed"])
def test_addresses_written_in_old_ways_are_no_addresses(host, networks):
    error = refusal(f"http://{host}:9/", networks)

    assert (error.sent, error.hopeless) == (False, True)


def test_a_name_that_leads_to_private_addresses_is_refused_and_named():
    error = refusal("http://intranet.example/", names=Names(["10.0.0.5", "::1"]))

    assert str(error).startswith("intranet.example (10.0.0.5) is not a public address")
    assert (error.sent, error.hopeless) == (False, True)


def test_of_a_names_addresses_only_the_allowed_ones_are_connected_to():
    async def attempt():
        async with serving(says(answer())) as good, serving(says(answer()), host="127.0.0.2", port=good.port) as bad:
            status = await ask(f"http://api.example:{good.port}/", HOME, Names(["127.0.0.2", "127.0.0.1"]))
            return status, good.connections, bad.connections

    assert asyncio.run(attempt()) == (200, 1, 0)


def test_a_name_that_points_elsewhere_after_the_check_is_not_followed():
    """DNS rebinding: allowed when it is looked up, private when it is looked up again."""

    async def attempt():
        async with serving(says(answer())) as good, serving(says(answer()), host="127.0.0.2", port=good.port) as bad:
            names = Names(["127.0.0.1"], ["127.0.0.2"])
            url = f"http://api.example:{good.port}/"
            first = await ask(url, HOME, names)
            with pytest.raises(Unreachable) as caught:
                await ask(url, HOME, names)
            return first, str(caught.value), names.asked, good.connections, bad.connections

    first, words, asked, good, bad = asyncio.run(attempt())

    assert (first, asked, good, bad) == (200, ["api.example", "api.example"], 1, 0)
    assert words.startswith("api.example (127.0.0.2) is not a public address")


def test_the_socket_itself_is_the_last_gate_whatever_a_resolver_let_through():
    """As if the resolver had been talked into anything: aiohttp connects to what the socket is made for."""
    transport = AiohttpTransport(HOME)
    allowed = transport._socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80)))
    allowed.close()

    with pytest.raises(OSError, match="is not a public address"):
        transport._socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.2", 80)))


def test_a_redirect_to_a_private_address_is_an_answer_and_nothing_more():
    async def attempt():
        async with serving(says(answer(307, Location="http://169.254.169.254/"))) as server:
            return await ask(server.url, HOME), len(server.received)

    assert asyncio.run(attempt()) == (307, 1)


# Reaching without saying anything


def test_reaching_a_host_says_nothing_to_it():
    async def attempt():
        async with serving(says(answer())) as server:
            await reach(server.url, 2, HOME)
            return server.received

    assert asyncio.run(attempt()) == []


def test_reaching_is_guarded_as_calls_are():
    async def attempt():
        async with serving(says(answer())) as server:
            with pytest.raises(Unreachable) as caught:
                await reach(server.url, 2, NOWHERE)
            return caught.value, server.connections

    error, connections = asyncio.run(attempt())

    assert (error.hopeless, connections) == (True, 0)
    assert "127.0.0.1" in str(error)
