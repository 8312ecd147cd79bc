"""Whom a load test may ask, what it asks for, and that both have bounds."""

import ipaddress
import json

import pytest

from campaigns.loadtest.plan import ASYNC, SYNC, BadPlan, Bodies, Plan, read_payload
from campaigns.loadtest.target import NotOwn, own

pytestmark = pytest.mark.once

OFFICE = [ipaddress.ip_network("10.20.0.0/16")]
NAMES = {
    "127.0.0.1": ["127.0.0.1"],
    "localhost": ["127.0.0.1", "::1"],
    "::1": ["::1"],
    "mail.office.example": ["10.20.0.5"],
    "10.20.0.5": ["10.20.0.5"],
    "half.example": ["127.0.0.1", "203.0.113.9"],
    "outreach.example": ["203.0.113.7"],
    "other.example": ["203.0.113.8"],
    "0.0.0.0": ["0.0.0.0"],
}


def look_up(host: str) -> list[str]:
    if host not in NAMES:
        raise OSError("Name or service not known")
    return NAMES[host]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "http://localhost:8000/",
        "http://[::1]:8000",
        "http://10.20.0.5",
        "https://mail.office.example",
        "https://outreach.example",
    ],
)
def test_this_machine_the_allowed_networks_and_the_public_host_may_be_asked(url):
    target = own(url, OFFICE, "https://outreach.example", look_up)

    assert target.url == url.rstrip("/")


@pytest.mark.parametrize("url", ["https://other.example", "http://half.example", "http://0.0.0.0:8000"])
def test_nobody_elses_server_is_asked_and_the_refusal_says_whose_may_be(url):
    with pytest.raises(NotOwn, match="OUTREACH_ALLOWED_NETWORKS"):
        own(url, OFFICE, "https://outreach.example", look_up)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://user:word@127.0.0.1",
        "http://127.0.0.1:99999",
        "http://127.0.0.1/?x=1",
        "http://[::1",
        "http://nowhere.example",
    ],
)
def test_what_is_no_address_of_a_server_is_refused_with_a_good_example(url):
    with pytest.raises(NotOwn, match=r"http://127\.0\.0\.1:8000"):
        own(url, OFFICE, "", look_up)


def test_only_the_addresses_that_were_judged_are_connected_to():
    assert [str(each) for each in own("http://localhost", (), "", look_up).networks] == ["127.0.0.1/32", "::1/128"]
    assert own("http://localhost", (), "", look_up).is_this_machine
    assert not own("http://10.20.0.5", OFFICE, "", look_up).is_this_machine


# ---- what is asked for ----


def test_a_test_is_what_is_asked_for_unless_mails_are_meant():
    assert Plan(ASYNC, "news").body() == {"test": 1}
    assert Plan(ASYNC, "news", real=True).body() == {}
    assert Plan(SYNC, "news", wait=5).body() == {"test": 1, "wait": 5}


def test_as_many_recipients_as_wanted_are_made_up_and_all_of_them_go_into_the_sandbox():
    body = Plan(ASYNC, "news", recipients=3).body()

    assert [row["email"] for row in body["recipients"]] == [f"load-{n}@example.test" for n in (1, 2, 3)]
    assert body["test"] == 3


def test_recipients_of_the_payload_all_go_into_the_sandbox():
    rows = [{"email": "ada@example.test"}, {"email": "grace@example.test"}]

    assert Plan(ASYNC, "news", payload={"recipients": rows}).body() == {"recipients": rows, "test": 2}


@pytest.mark.parametrize("real", [False, True])
def test_a_body_is_the_plans_with_the_address_to_call_back(real):
    plan = Plan(ASYNC, "news", real=real)
    bodies = Bodies(plan)

    assert json.loads(bodies.one()) == plan.body()
    assert json.loads(bodies.one("http://127.0.0.1:1/x")) == plan.body() | {"callback_url": "http://127.0.0.1:1/x"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"count": 0}, "--count must be from 1 to 100,000"),
        ({"count": 100_001}, "--count"),
        ({"at_once": 501}, "--concurrency must be from 1 to 500"),
        ({"seconds": 601}, "--seconds"),
        ({"seconds": float("nan")}, "--seconds"),
        ({"wait": 61}, "--wait"),
        ({"recipients": 10_001}, "--recipients"),
        ({"count": 100_000, "recipients": 100}, "more than 1,000,000 mails"),
        ({"workflow": "../admin"}, "--workflow"),
        ({"payload": {"test": None}}, "test is set by the load test itself"),
        ({"payload": {"callback_url": "http://x"}}, "callback_url is set"),
        ({"payload": {"recipients": [{}]}, "recipients": 1}, "Leave one of both out"),
    ],
)
def test_a_plan_without_bounds_or_sense_is_refused(changed, words):
    with pytest.raises(BadPlan, match=words):
        Plan(**({"mode": ASYNC, "workflow": "news"} | changed))


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_a_payload_that_is_no_json_object_is_refused_by_name(content):
    with pytest.raises(BadPlan, match=r"body\.json"):
        read_payload("body.json", content)
