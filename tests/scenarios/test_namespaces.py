"""The hosts that other tests rely on, tried on purpose."""

import os
import re
import signal
import subprocess
import sys

import pytest

from delivery import owner
from tests.recording_sink import Behaviour
from tests.scenarios import namespaces
from tests.sinks import RecordingSink

pytestmark = pytest.mark.once

REACH = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1); print('reached')"
ME = f"import sys; sys.path.insert(0, {os.getcwd()!r}); from delivery import owner; print(owner.name())"


@pytest.fixture
def network():
    namespaces.needed()
    with namespaces.Network() as made:
        yield made


def on(host: namespaces.Host, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(host.command(*words), capture_output=True, text=True, timeout=30)


def reaches(host: namespaces.Host, address: str, port: int) -> bool:
    return on(host, sys.executable, "-c", REACH, address, str(port)).stdout == "reached\n"


def left_over(network: namespaces.Network) -> set[str]:
    """The interfaces and namespaces that are there and bear the network's name."""
    listed = [subprocess.run(["ip", *words], capture_output=True, text=True).stdout for words in (["link"], ["netns"])]
    return set(re.findall(rf"{network._name}\w*", "".join(listed)))


def test_a_host_that_is_cut_off_reaches_nobody_until_it_is_mended(network):
    first, second = network.host("first"), network.host("second")
    with RecordingSink(Behaviour(), network.address) as sink:
        both = [reaches(host, network.address, sink.port) for host in (first, second)]
        first.cut()
        one = [reaches(host, network.address, sink.port) for host in (first, second)]
        first.mend()
        both_again = [reaches(host, network.address, sink.port) for host in (first, second)]

    assert (both, one, both_again) == ([True, True], [False, True], [True, True])


def test_hosts_have_names_and_processes_of_their_own(network):
    hosts = [network.host(name) for name in ("first", "second")]

    owners = [on(host, sys.executable, "-c", ME).stdout.strip() for host in hosts]

    assert [name.partition("/")[0] for name in owners] == ["first", "second"]
    assert len({name.rsplit(":", 2)[0] for name in owners}) == 2
    # They have ended, and still nobody elsewhere may say so.
    assert [owner.is_gone(name) for name in owners] == [False, False]


def test_a_host_ends_with_what_it_runs_and_gives_its_exit_code(network):
    assert on(network.host("first"), "sh", "-c", "exit 7").returncode == 7


def test_nothing_is_left_of_a_network_even_when_a_test_fails_and_a_process_still_runs():
    namespaces.needed()
    running = []

    def failing() -> None:
        with namespaces.Network() as network:
            host = network.host("first")
            running.append((network, subprocess.Popen(host.command("sleep", "60"))))
            assert left_over(network) == {network._name, host.namespace}
            raise LookupError

    with pytest.raises(LookupError):
        failing()
    [(network, process)] = running
    left = left_over(network)
    process.kill()
    process.wait()

    assert left == set()


def test_a_host_that_is_killed_takes_all_its_processes_along(network):
    host = network.host("first")
    running = subprocess.Popen(
        host.command("sh", "-c", "sleep 60 & echo up; wait"), stdout=subprocess.PIPE, start_new_session=True
    )
    assert running.stdout.readline() == b"up\n"

    running.send_signal(signal.SIGKILL)
    running.wait()

    # Whoever still held the other end of the pipe would keep it open.
    assert running.stdout.read() == b""
    running.stdout.close()
