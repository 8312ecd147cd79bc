"""Webhooks and callbacks over REST: set up, tested, listed, sent again; and who may."""

from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest
from django.contrib.auth.models import Permission, User
from django.utils.timezone import now
from rest_framework.test import APIClient

from campaigns.callbacks import names, subscriptions, webhooks
from campaigns.models import Callback, CallbackAttempt, CallbackState, Webhook
from tests.campaigns.receiving import Receiver, receiving, webhook
from tests.delivery.http_server import answer
from tests.problems import detail, errors

pytestmark = pytest.mark.django_db

WEBHOOKS = "/api/v1/webhooks/"
CALLBACKS = "/api/v1/callbacks/"
BODY = {"name": "shop", "url": "https://shop.example/hook", "events": ["run.*", "delivery.rejected"]}


@pytest.fixture(autouse=True)
def _near(outreach: Callable[..., None]) -> Iterator[None]:
    outreach(ALLOWED_NETWORKS=[ip_network("127.0.0.0/8")])
    yield
    subscriptions.forget()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as there:
        yield there


def client(*permissions: str, name: str = "ada") -> APIClient:
    user = User.objects.create(username=name)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="campaigns", codename__in=permissions))
    signed_in = APIClient()
    signed_in.force_login(user)
    return signed_in


@pytest.fixture
def operator() -> APIClient:
    deeds = ("view", "add", "change", "delete")
    return client(*(f"{deed}_webhook" for deed in deeds), "view_callback")


def callback(**fields: object) -> Callback:
    usual = {"url": "https://shop.example/hook?key=1", "type": "run.completed", "body": '{"type":"run.completed"}'}
    return Callback.objects.create(**usual | fields)


def test_a_webhook_is_added_and_its_secret_is_shown_once(operator):
    made = operator.post(WEBHOOKS, BODY, format="json")
    secret = made.json()["secret"]

    again = operator.get(f"{WEBHOOKS}{made.json()['id']}/")

    assert made.status_code == 201
    assert secret.startswith("whsec_")
    assert {name: again.json()[name] for name in BODY} == BODY
    assert secret not in again.content.decode()
    assert secret not in operator.get(WEBHOOKS).content.decode()
    assert secret not in Webhook.objects.values_list("secrets", flat=True).get().token


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        ({"url": "http://127.0.0.2:80"}, None, ""),
        ({"url": "http://10.0.0.1/"}, "url", "10.0.0.1 is not a public address"),
        ({"url": "https://169.254.169.254/latest"}, "url", "not a public address"),
        ({"url": "ftp://shop.example/"}, "url", "write it as https://host/path"),
        ({"url": "https://ada:secret@shop.example/"}, "url", "do not belong in a URL"),
        ({"url": "https://shop.example/#top"}, "url", "behind #"),
        ({"url": "https://shop.example/a b"}, "url", "characters that no URL has"),
        ({"events": []}, "events", "Say of what"),
        ({"events": ["run.over"]}, "events", "There is no event 'run.over'"),
        ({"name": ""}, "name", "blank"),
        ({"secret": "mine"}, "secret", "shown and cannot be set"),
        ({"colour": "red"}, "colour", "There is no such field"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place(operator, change, place, words):
    answered = operator.post(WEBHOOKS, BODY | change, format="json")

    if place is None:
        assert answered.status_code == 201
    else:
        assert answered.status_code == 400
        assert words in errors(answered)[place][0]
        assert not Webhook.objects.exists()


def test_a_name_is_taken_once(operator):
    operator.post(WEBHOOKS, BODY, format="json")

    answered = operator.post(WEBHOOKS, BODY, format="json")

    assert "already exists" in errors(answered)["name"][0]


def test_a_webhook_is_changed_in_part_and_its_history_says_by_whom(operator):
    hook, _ = webhook("https://shop.example/hook", "run.*")

    answered = operator.patch(f"{WEBHOOKS}{hook.pk}/", {"events": ["engine.*"], "enabled": False}, format="json")

    assert answered.status_code == 200
    assert (answered.json()["events"], answered.json()["enabled"]) == (["engine.*"], False)
    assert [(each.what, each.by) for each in hook.history.all()][1:] == [
        ("events: run.* → engine.*", "ada"),
        ("switched off", "ada"),
    ]


def test_one_that_was_switched_off_is_switched_on_over_the_api(operator):
    hook, _ = webhook("https://shop.example/hook")
    waiting = callback(webhook=hook)
    webhooks.switch_off(hook.pk, why="It answered 410: nobody is there any more.")

    answered = operator.patch(f"{WEBHOOKS}{hook.pk}/", {"enabled": True}, format="json")

    waiting.refresh_from_db()
    assert (answered.json()["enabled"], answered.json()["switched_off_why"]) == (True, "")
    assert waiting.next_at is not None


def test_a_deleted_webhook_is_gone_and_what_it_was_told_is_kept(operator):
    hook, _ = webhook("https://shop.example/hook")
    kept = callback(webhook=hook)

    answered = operator.delete(f"{WEBHOOKS}{hook.pk}/")

    shown = operator.get(f"{CALLBACKS}{kept.pk}/").json()
    assert answered.status_code == 204
    assert (shown["state"], shown["words"], shown["webhook"]) == ("dead", "Its webhook was deleted.", hook.pk)
    assert operator.post(f"{CALLBACKS}{kept.pk}/replay/").status_code == 409


def test_a_ping_says_what_came_of_it_and_is_recorded(operator, receiver):
    hook, secret = webhook(receiver.url)

    answered = operator.post(f"{WEBHOOKS}{hook.pk}/test/").json()
    receiver.respond = lambda request: answer(401, b"who are you?")
    refused = operator.post(f"{WEBHOOKS}{hook.pk}/test/").json()

    assert receiver.verified(secret, 0)["type"] == "ping"
    assert (answered["delivered"], answered["status"]) == (True, 204)
    assert (refused["delivered"], refused["status"], refused["words"]) == (False, 401, "who are you?")
    assert operator.get(f"{CALLBACKS}{refused['callback']}/").json()["tries"][0]["status"] == 401


def test_a_webhook_that_is_off_is_not_pinged(operator, receiver):
    hook, _ = webhook(receiver.url)
    webhooks.switch_off(hook.pk, "ada")

    answered = operator.post(f"{WEBHOOKS}{hook.pk}/test/")

    assert answered.status_code == 409
    assert "switch it on first" in detail(answered)
    assert receiver.arrived == []


def test_a_replaced_secret_is_shown_once(operator, receiver):
    hook, old = webhook(receiver.url)

    new = operator.post(f"{WEBHOOKS}{hook.pk}/rotate/").json()["secret"]
    operator.post(f"{WEBHOOKS}{hook.pk}/test/")

    assert new != old
    assert receiver.verified(new)["type"] == receiver.verified(old)["type"] == "ping"


def test_a_callback_is_shown_with_what_it_says_and_every_attempt(operator):
    told = callback(state=CallbackState.DEAD, attempts=1, words="500 no")
    CallbackAttempt.objects.create(callback=told, at=now(), seconds=0.5, status=500, words="no")

    shown = operator.get(f"{CALLBACKS}{told.pk}/").json()

    assert shown["payload"] == {"type": "run.completed"}
    assert [(each["status"], each["words"], each["seconds"]) for each in shown["tries"]] == [(500, "no", 0.5)]
    assert shown["url"] == "https://shop.example/hook"


def test_a_dead_letter_is_sent_again_and_nothing_else_is(operator):
    dead, delivered = callback(state=CallbackState.DEAD), callback(state=CallbackState.DELIVERED)

    answers = [operator.post(f"{CALLBACKS}{each.pk}/replay/") for each in (dead, delivered)]

    assert [each.status_code for each in answers] == [202, 409]
    assert answers[0].json()["state"] == "waiting"
    assert "Only a dead letter" in detail(answers[1])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=dead", {"b"}),
        ("type=engine.held", {"c"}),
        ("webhook={hook}", {"c"}),
        ("state=waiting&type=run.completed", {"a"}),
    ],
)
def test_callbacks_are_narrowed(operator, query, expected):
    hook, _ = webhook("https://shop.example/hook")
    callback(key="a")
    callback(key="b", state=CallbackState.DEAD)
    callback(key="c", type="engine.held", webhook=hook)

    rows = operator.get(f"{CALLBACKS}?{query.format(hook=hook.pk)}").json()["results"]

    assert {row["key"] for row in rows} & {"a", "b", "c"} == expected


@pytest.mark.parametrize(("query", "expected"), [("", {"a", "b"}), ("?enabled=true", {"a"}), ("?enabled=false", {"b"})])
def test_webhooks_are_narrowed_to_those_that_are_on_or_off(operator, query, expected):
    webhook("https://shop.example/hook", name="a")
    webhooks.switch_off(webhook("https://shop.example/hook", name="b")[0].pk, "ada")

    assert {row["name"] for row in operator.get(WEBHOOKS + query).json()["results"]} == expected
    assert operator.get(f"{WEBHOOKS}?enabled=2").status_code == 400


@pytest.mark.parametrize("query", ["state=gone", "colour=red", "webhook=x", "webhook=-1", "run=99999999999999999999"])
def test_a_filter_that_is_none_is_refused_by_name(operator, query):
    answered = operator.get(f"{CALLBACKS}?{query}")

    assert answered.status_code == 400
    assert query.partition("=")[0] in errors(answered)


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("path", [WEBHOOKS, CALLBACKS])
def test_a_list_asks_the_same_few_questions_however_long_it_is(operator, path, count, django_assert_num_queries):
    for number in range(count):
        hook, _ = webhook("https://shop.example/hook", name=f"shop {number}")
        callback(webhook=hook)
    operator.get(path)

    with django_assert_num_queries(5):  # session, user, two for permissions, the page
        rows = operator.get(path).json()["results"]

    assert len(rows) == count


@pytest.mark.parametrize(
    ("permissions", "statuses"),
    [
        ((), [403, 403, 403, 403, 403, 403]),
        (("view_webhook", "view_callback"), [200, 200, 403, 403, 403, 403]),
        (("view_webhook", "change_webhook"), [200, 403, 403, 200, 202, 403]),
        (("view_webhook", "add_webhook", "delete_webhook"), [200, 403, 201, 403, 403, 204]),
    ],
)
def test_each_deed_needs_its_permission(permissions, statuses):
    somebody = client(*permissions)
    hook, _ = webhook("https://other.example/hook", name="other")
    dead = callback(state=CallbackState.DEAD)

    answers = [
        somebody.get(WEBHOOKS),
        somebody.get(CALLBACKS),
        somebody.post(WEBHOOKS, BODY, format="json"),
        somebody.post(f"{WEBHOOKS}{hook.pk}/rotate/"),
        somebody.post(f"{CALLBACKS}{dead.pk}/replay/"),
        somebody.delete(f"{WEBHOOKS}{hook.pk}/"),
    ]

    assert [each.status_code for each in answers] == statuses


@pytest.mark.parametrize("path", [f"{WEBHOOKS}999/", f"{CALLBACKS}999999999999999999/", f"{WEBHOOKS}shop/"])
def test_what_is_not_there_is_not_found(operator, path):
    assert operator.get(path).status_code == 404


def test_every_name_can_be_asked_for(operator):
    made = operator.post(WEBHOOKS, BODY | {"events": list(names.ALL)}, format="json")

    assert made.status_code == 201
    assert names.meant(["*"]) == set(names.ALL) == names.meant(["run.*", "delivery.*", "engine.*"])
