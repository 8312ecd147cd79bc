"""What is heard of deliveries, told over the API: by whom, with which words, and what comes of it."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.utils.timezone import now
from rest_framework.test import APIClient

from delivery.models import Batch, Delivery, Event, Message, Pool, Suppression
from tests.problems import errors

pytestmark = pytest.mark.django_db


def client(*permissions, name="reader"):
    """Somebody who may do just this."""
    user = User.objects.create(username=name)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    signed_in = APIClient()
    signed_in.force_login(user)
    return signed_in


@pytest.fixture
def reader():
    """A program that reads a mailbox, for example."""
    return client("change_delivery")


@pytest.fixture
def delivery():
    pool = Pool.objects.create(name="Pool", slug="pool")
    batch = Batch.objects.create(label="Spring", reference="spring", pool=pool, stops_on=["replied"])
    message = Message.objects.create(
        batch=batch, token="t1", subject="Hi", from_address="a@b.example", return_path="a@b.example"
    )
    return Delivery.objects.create(
        batch=batch, message=message, address="Ann@example.test", identity="ann@example.test", data={}, state="accepted"
    )


def post(who, delivery_id, **body):
    response = who.post(f"/api/v1/deliveries/{delivery_id}/events/", body, format="json")
    return response.status_code, response.json()


def test_an_event_is_written_down_and_answered(reader, delivery):
    status, answer = post(
        reader, delivery.pk, kind="replied", at="2026-01-02T03:04:05+01:00", source="the mailbox hello@"
    )

    at = datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)
    assert (status, answer["delivery"], answer["kind"], answer["source"]) == (
        201,
        delivery.pk,
        "replied",
        "the mailbox hello@",
    )
    assert datetime.fromisoformat(answer["at"]) == at
    assert list(Event.objects.values_list("delivery", "kind", "at", "source")) == [
        (delivery.pk, "replied", at, "the mailbox hello@")
    ]
    stop = Suppression.objects.get()
    assert (stop.identity, stop.scope, stop.reason) == ("ann@example.test", "spring", "replied")


def test_without_an_instant_it_is_now_and_without_a_source_it_is_whoever_tells(reader, delivery):
    before = now()

    status, answer = post(reader, delivery.pk, kind="opened")

    event = Event.objects.get()
    assert status == 201
    assert before <= event.at <= now()
    assert (event.source, answer["source"]) == ("by reader", "by reader")
    assert not Suppression.objects.exists()


def test_an_event_that_is_told_twice_is_kept_once(reader, delivery):
    told = [post(reader, delivery.pk, kind="clicked", at="2026-01-02T03:04:05Z")[0] for _ in range(2)]

    assert told == [201, 201]
    assert Event.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "kind", "required"),
        ({"kind": "eaten"}, "kind", "not a valid choice"),
        ({"kind": "opened", "at": "yesterday"}, "at", "wrong format"),
        ({"kind": "opened", "at": "9000-01-01T00:00:00Z"}, "at", "This is in the future."),
        ({"kind": "opened", "source": "x" * 201}, "source", "no more than 200"),
        ({"kind": "opened", "when": "now"}, "when", "There is no such field. There is: kind, at, source."),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field(body, field, words, reader, delivery):
    answer = reader.post(f"/api/v1/deliveries/{delivery.pk}/events/", body, format="json")

    refusal = errors(answer)
    assert (answer.status_code, list(refusal)) == (400, [field])
    assert words in refusal[field][0]
    assert not Event.objects.exists()


def test_a_clock_that_is_a_little_fast_is_no_future(reader, delivery):
    assert post(reader, delivery.pk, kind="opened", at=(now() + timedelta(minutes=1)).isoformat())[0] == 201


@pytest.mark.parametrize("number", ["999999", "9" * 18])
def test_a_delivery_that_is_not_there_is_not_found(number, reader, delivery):
    assert post(reader, number, kind="opened")[0] == 404


def test_who_may_not_change_deliveries_may_tell_nothing(delivery):
    viewer, nobody = client("view_delivery", name="viewer"), APIClient()

    assert [post(who, delivery.pk, kind="opened")[0] for who in (viewer, nobody)] == [403, 401]
    assert not Event.objects.exists()


def test_only_a_post_tells_anything(reader, delivery):
    seeing = client("view_delivery", "change_delivery", name="seeing")

    assert seeing.get(f"/api/v1/deliveries/{delivery.pk}/events/").status_code == 405
