"""The limit of requests: by token, by user, by address; told on each answer, and shared by all processes."""

import subprocess
import sys
import threading

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from delivery.core.throttle import Period, Rate
from delivery.models import Bucket
from delivery.shared import SharedAway
from outreach.access import throttling
from outreach.access.address import address_of, network_of
from outreach.access.hand import Hands
from outreach.models import AuditEntry
from tests.outreach.access import bearer, browser, token, user
from tests.problems import detail
from tests.sinks import ROOT

pytestmark = pytest.mark.django_db(transaction=True)

TRAIL = "/api/v1/audit/"


@pytest.fixture(autouse=True)
def _empty_hands(monkeypatch):
    monkeypatch.setattr(throttling, "hands", Hands(throttling.draw))


@pytest.fixture
def five_an_hour(outreach):
    outreach(API_RATE=Rate.of(5, Period.HOUR, 5))


@pytest.fixture
def ada():
    return user("ada", "view_auditentry")


def statuses(client: APIClient, count: int, **headers: str) -> list[int]:
    return [client.get(TRAIL, headers=headers).status_code for _ in range(count)]


@pytest.mark.usefixtures("five_an_hour")
def test_a_token_has_its_limit_and_is_then_told_when_to_come_back(ada):
    program = bearer(token(ada).text)

    assert statuses(program, 5) == [200] * 5

    refused = program.get(TRAIL)
    assert refused.status_code == 429
    assert 700 < int(refused.headers["Retry-After"]) <= 720
    assert "Too many" in detail(refused) or "throttled" in detail(refused)


@pytest.mark.usefixtures("five_an_hour")
def test_each_answer_says_what_is_left(ada):
    program = bearer(token(ada).text)

    answers = [program.get(TRAIL) for _ in range(6)]

    told = [(each.headers["RateLimit-Limit"], each.headers["RateLimit-Remaining"]) for each in answers]
    assert told == [("5", "4"), ("5", "3"), ("5", "2"), ("5", "1"), ("5", "0"), ("5", "0")]


@pytest.mark.usefixtures("five_an_hour")
def test_tokens_users_and_addresses_are_counted_apart(ada):
    first, second = bearer(token(ada).text), bearer(token(ada).text)
    person, nobody = browser(ada), APIClient()

    for _ in range(5):
        first.get(TRAIL)

    assert statuses(first, 1) + statuses(second, 1) + statuses(person, 1) + statuses(nobody, 1) == [429, 200, 200, 401]


@pytest.mark.usefixtures("five_an_hour")
def test_who_guesses_tokens_is_counted_by_address_whatever_he_shows():
    guesses = [bearer(f"outreach_{n:040}").get(TRAIL) for n in range(7)]

    assert [each.status_code for each in guesses] == [401] * 5 + [429] * 2
    assert int(guesses[-1].headers["Retry-After"]) > 0
    assert guesses[0].headers["RateLimit-Remaining"] == "4"


@pytest.mark.usefixtures("five_an_hour")
def test_what_is_refused_for_its_rights_counts_as_well():
    program = bearer(token(user("eve")).text)

    assert statuses(program, 7) == [403] * 5 + [429] * 2


@pytest.mark.usefixtures("five_an_hour")
def test_too_many_writes_do_nothing_and_leave_no_flood_in_the_audit_trail():
    program = bearer(token(user("eve")).text)

    answers = [program.post("/api/v1/contact-lists/", {}, format="json").status_code for _ in range(20)]

    assert answers.count(429) == 15
    assert AuditEntry.objects.count() == 5


def test_without_a_limit_nothing_is_said_of_one(ada, outreach):
    outreach(API_RATE=None)

    assert "RateLimit-Limit" not in bearer(token(ada).text).get(TRAIL).headers


def test_requests_now_and_then_write_nothing_and_many_at_once_write_seldom(ada, outreach, monkeypatch):
    # The clock of what is in hand stands still: on a slow machine it would lapse between two requests.
    monkeypatch.setattr(throttling, "hands", Hands(throttling.draw, lambda: 1))
    outreach(API_RATE=Rate(10**9 // 40, 1000))  # two of forty in a second are free
    program = bearer(token(ada).text)

    with CaptureQueriesContext(connection) as captured:
        statuses(program, 2)
    assert [each for each in captured.captured_queries if "delivery_bucket" in each["sql"]] == []

    outreach(API_RATE=Rate.of(1000, Period.SECOND, 1000))
    with CaptureQueriesContext(connection) as captured:
        statuses(program, 150)
    writes = [each for each in captured.captured_queries if each["sql"].startswith('UPDATE "delivery_bucket')]
    assert len(writes) <= 10


def test_a_limit_holds_for_all_threads_together(ada, outreach):
    outreach(API_RATE=Rate.of(40, Period.HOUR, 40))
    text = token(ada).text
    found: list[int] = []

    def ask() -> None:
        found.extend(statuses(bearer(text), 15))
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == [200] * 40 + [429] * 50


def test_another_process_counts_on_from_where_this_one_is(ada, outreach, process_environment):
    outreach(API_RATE=Rate.of(5, Period.HOUR, 5))
    text = token(ada).text
    statuses(bearer(text), 3)
    there = (
        "import django; django.setup()\n"
        "from rest_framework.test import APIClient\n"
        "client = APIClient(SERVER_NAME='localhost')\n"
        f"client.credentials(HTTP_AUTHORIZATION='Bearer ' + {text!r})\n"
        f"print([client.get({TRAIL!r}).status_code for _ in range(4)])\n"
    )

    said = subprocess.run(
        [sys.executable, "-c", there],
        cwd=ROOT,
        env=process_environment | {"OUTREACH_API_RATE": "5/hour"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert said.stdout.strip() == "[200, 200, 429, 429]"


def test_a_store_that_is_away_stops_nobody(ada, outreach, monkeypatch, lines):
    class Away:
        def draw(self, rates: object, wanted: int) -> None:
            raise SharedAway("Redis: gone")

    outreach(API_RATE=Rate.of(5, Period.HOUR, 5))
    monkeypatch.setattr(throttling, "shared", Away)

    assert statuses(bearer(token(ada).text), 10) == [200] * 10
    assert "The limits of the API are not held at the moment: Redis: gone" in lines()[0]["event"]


@pytest.mark.usefixtures("five_an_hour")
def test_a_bucket_is_one_of_the_caller(ada):
    made = token(ada)
    bearer(made.text).get(TRAIL)

    assert list(Bucket.objects.values_list("pk", flat=True)) == [f"api:token:{made.token.pk}"]


# ---- from where a request comes ----


@pytest.mark.parametrize(
    ("proxied", "remote", "forwarded", "address"),
    [
        (False, "192.0.2.7", "", "192.0.2.7"),
        (False, "192.0.2.7", "198.51.100.1", "192.0.2.7"),
        (True, "10.0.0.1", "198.51.100.1", "198.51.100.1"),
        (True, "10.0.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        (True, "10.0.0.1", "nonsense", None),
        (False, "fe80::1%eth0", "", "fe80::1"),
        (False, "", "", None),
    ],
)
def test_behind_a_proxy_the_address_is_what_the_proxy_says_and_nobody_else(rf, proxied, remote, forwarded, address):
    request = rf.get("/", REMOTE_ADDR=remote, headers={"X-Forwarded-For": forwarded} if forwarded else {})
    header = ("HTTP_X_FORWARDED_PROTO", "https") if proxied else None

    with override_settings(SECURE_PROXY_SSL_HEADER=header):
        assert address_of(request) == address


def test_in_ipv6_a_caller_is_a_network_of_64_bits():
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert network_of("192.0.2.7") == "192.0.2.7"
