"""A check of an engine: bounded in time, in order to the end, and never an error of ours because of a provider."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_network

import pytest

from delivery.checking import check
from delivery.engines.base import Finding
from delivery.models import Engine
from delivery.secrets import Sealed
from tests.delivery import postmark_server, smtp_server

SECRET = "a-very-secret-key"


class Way:
    """A way out (see `delivery.engines.base.Engine`), as far as it is checked."""

    def __init__(self, checking: Callable[[], Awaitable[list[Finding]]], closing: float = 0.0) -> None:
        self.domains: frozenset[str] | None = None
        self.closed = False
        self._checking = checking
        self._closing = closing

    async def check(self, domains: frozenset[str]) -> list[Finding]:
        self.domains = domains
        return await self._checking()

    async def close(self) -> None:
        await asyncio.sleep(self._closing)
        self.closed = True


def finding(*findings: Finding) -> Callable[[], Awaitable[list[Finding]]]:
    async def checking() -> list[Finding]:
        return list(findings)

    return checking


def sandbox(**fields: object) -> Engine:
    return Engine(name="Sandbox", slug="sandbox", kind="sandbox", **fields)


def smtp(port: int, password: str = "right") -> Engine:
    options = {"host": "127.0.0.1", "port": port, "security": "none", "username": "mailer"}
    return Engine(name="Relay", kind="smtp", options=options, secrets=Sealed.seal({"password": password}))


def test_it_asks_about_the_engines_from_domains_gives_what_was_found_and_ends_in_order():
    found = [Finding("The key is wrong."), Finding("The region may be wrong.", certain=False)]
    way = Way(finding(*found))

    assert check(sandbox(sender_domains="Shop.example\nnews.example"), opening=lambda engine: way) == found
    assert (way.domains, way.closed) == ({"shop.example", "news.example"}, True)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (Engine(kind="smtp", options={}), "The host is missing."),
        (Engine(kind="pigeon"), "There is no engine kind 'pigeon'"),
        (Engine(kind="sandbox", secrets=Sealed("what no key made")), "The stored credentials cannot be decrypted"),
    ],
)
def test_what_is_wrong_without_asking_is_certain_and_nothing_is_opened(engine, words):
    def opening(engine: Engine) -> Way:
        raise AssertionError("opened")

    (found,) = check(engine, opening=opening)

    assert found.words.startswith(words)
    assert found.certain


def test_a_provider_that_never_answers_is_a_doubt_when_the_time_is_up():
    way = Way(asyncio.Event().wait)
    begun = time.monotonic()

    found = check(sandbox(), patience=0.1, opening=lambda engine: way)

    assert time.monotonic() - begun < 1
    assert found == [Finding("There was no complete answer within 0.1 s.", certain=False)]
    assert way.closed


def test_a_thread_that_hangs_in_a_name_server_is_not_waited_for():
    answered = threading.Event()

    async def checking() -> list[Finding]:
        await asyncio.get_running_loop().run_in_executor(None, answered.wait, 5)
        return []

    begun = time.monotonic()
    try:
        found = check(sandbox(), patience=0.1, opening=lambda engine: Way(checking))
        took = time.monotonic() - begun
    finally:
        answered.set()

    assert took < 1
    assert [each.certain for each in found] == [False]


def test_a_farewell_that_takes_too_long_takes_nothing_from_what_was_found():
    way = Way(finding(Finding("The key is wrong.")), closing=60)
    begun = time.monotonic()

    found = check(sandbox(), grace=0.1, opening=lambda engine: way)

    assert time.monotonic() - begun < 1
    assert found == [Finding("The key is wrong.")]


def test_a_defect_is_a_doubt_and_its_words_are_written_nowhere(warnings, caplog):
    async def checking() -> list[Finding]:
        raise KeyError(SECRET)

    way = Way(checking)

    found = check(sandbox(), opening=lambda engine: way)

    assert found == [Finding("The check broke with KeyError: the log says where.", certain=False)]
    assert way.closed
    assert warnings("The check of engine Sandbox broke: KeyError") == 1
    assert "test_checking.py" in caplog.text
    assert SECRET not in caplog.text


def test_words_are_one_line_and_nothing_that_a_terminal_would_obey():
    (found,) = check(sandbox(), opening=lambda engine: Way(finding(Finding("red\x1b[31m\r\nrose \x07  is"))))

    assert found.words == "red [31m rose is"


def test_a_mail_server_that_knows_the_login_has_nothing_to_object():
    with smtp_server.serving(auth="PLAIN", username="mailer", password="right") as server:
        assert check(smtp(server.port)) == []
        assert server.commands()[-1] == "QUIT"
        assert server.accepted == []


def test_a_mail_server_that_refuses_the_login_is_certain_and_the_password_is_not_repeated():
    with smtp_server.serving(auth="PLAIN", username="mailer", password="another") as server:
        (found,) = check(smtp(server.port, SECRET))

    assert "refused the login of “mailer”" in found.words
    assert found.certain
    assert SECRET not in found.words


def test_a_mail_server_that_is_not_there_is_a_doubt():
    (found,) = check(smtp(1))

    assert not found.certain


def test_an_api_on_loopback_is_asked_only_where_the_settings_allow_it(settings):
    with postmark_server.serving() as postmark:
        options = {"stream": "broadcast", "endpoint": postmark.url}
        engine = Engine(kind="postmark", options=options, secrets=Sealed.seal({"token": postmark_server.TOKEN}))

        forbidden = check(engine)
        asked = list(postmark.asked)
        settings.OUTREACH = settings.OUTREACH | {"ALLOWED_NETWORKS": [ip_network("127.0.0.0/8")]}
        allowed = check(engine)

    assert ([each.certain for each in forbidden], asked, allowed) == ([True], [], [])
