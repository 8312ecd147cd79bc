"""Where the cluster's wake-ups wait: in the database or in Redis, by OUTREACH_BROKER."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import redis_server
from tests.clusters import Cluster, enqueue, python

pytestmark = pytest.mark.once

AT_MOST = 2.0  # seconds that a Redis which is not there may cost a web request
NOISE = 1.0  # of a busy machine


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a process with an empty database of its own. What this session may have set for Redis does not reach it."""
    ours = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'broker.sqlite3'}",
        "OUTREACH_VAR_DIR": str(tmp_path),
        "OUTREACH_OUTPUT_DIR": str(tmp_path / "output"),
        "OUTREACH_WORKERS": "1",
        "OUTREACH_BROKER": "",
        "REDIS_URL": "",
    }
    return os.environ | ours


@pytest.fixture
def redis() -> Iterator[redis_server.RedisServer]:
    redis_server.needed()
    with redis_server.RedisServer() as server:
        yield server


def done_by_a_cluster(environment: dict[str, str], tmp_path: Path) -> str:
    """Starts a cluster, has it do one task, ends it. Returns the broker's name."""
    assert python(environment, "manage.py", "migrate", "--verbosity=0").returncode == 0
    with Cluster(environment, tmp_path / "log") as cluster:
        (name,) = enqueue(environment, tmp_path / "made")
        cluster.wait_until((tmp_path / "made").exists)
        assert cluster.stop() == 0
    return name


def test_without_a_word_wake_ups_wait_in_the_database(environment, tmp_path):
    assert done_by_a_cluster(environment, tmp_path) == "ORM"


def test_they_wait_in_redis_when_it_is_the_broker(environment, tmp_path, redis):
    asked = environment | {"OUTREACH_BROKER": "redis", "REDIS_URL": redis.url}

    assert done_by_a_cluster(asked, tmp_path) == "Redis"


def test_a_redis_url_alone_does_not_move_them_to_redis(environment, tmp_path, redis):
    python(environment, "manage.py", "migrate", "--verbosity=0")

    assert enqueue(environment | {"REDIS_URL": redis.url}, tmp_path / "made") == ["ORM"]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"OUTREACH_BROKER": "redis"}, "REDIS_URL must be set, because OUTREACH_BROKER is redis."),
        ({"OUTREACH_BROKER": "redis", "REDIS_URL": "http://x"}, "REDIS_URL must be a URL that starts with redis://"),
        ({"OUTREACH_BROKER": "rabbit"}, "OUTREACH_BROKER must be one of database, redis, not 'rabbit'."),
    ],
)
def test_a_broker_that_cannot_be_is_named_once_at_the_start(environment, variables, sentence):
    checked = python(environment | variables, "manage.py", "check")

    assert checked.returncode == 1
    assert [sentence in line for line in checked.stderr.splitlines() if "outreach.E001" in line] == [True]


def assert_soon_refused(answer: list[str]) -> None:
    name, seconds = answer
    assert name in ("TimeoutError", "ConnectionError")
    assert float(seconds) < AT_MOST + NOISE


def test_a_redis_that_stands_still_holds_an_enqueue_up_for_two_seconds_and_no_longer(environment, tmp_path, redis):
    redis.freeze()

    answer = enqueue(environment | {"OUTREACH_BROKER": "redis", "REDIS_URL": redis.url}, tmp_path / "made")

    assert_soon_refused(answer)


def test_a_redis_behind_a_wall_holds_an_enqueue_up_for_two_seconds_and_no_longer(environment, tmp_path):
    # A full queue of connections: further ones are dropped without a word, as a firewall does.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as wall, socket.socket() as first, socket.socket() as second:
        for filling in (first, second):
            filling.setblocking(False)
            filling.connect_ex(wall.getsockname())
        url = f"redis://127.0.0.1:{wall.getsockname()[1]}/0"

        answer = enqueue(environment | {"OUTREACH_BROKER": "redis", "REDIS_URL": url}, tmp_path / "made")

    assert_soon_refused(answer)
