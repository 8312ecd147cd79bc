"""The unsubscribe page: what GET, the button, and a mail program's one click do (RFC 8058)."""

import pytest
from django.test import Client

from delivery.unsubscribe import token_for


@pytest.fixture
def delivery(db):
    from delivery.models import Batch, Delivery, Message, Pool

    pool = Pool.objects.create(name="pool", slug="pool")
    batch = Batch.objects.create(label="letter", reference="letter", scope="letter", pool=pool)
    message = Message.objects.create(
        batch=batch, token="t", subject="Hi", from_name="Ann", from_address="ann@a.example", return_path="ann@a.example"
    )
    return Delivery.objects.create(
        batch=batch, message=message, address="bob@b.example", identity="bob@b.example", data={}
    )


@pytest.fixture
def address(delivery):
    return f"/u/{token_for(delivery.pk)}"


def suppressed():
    from delivery.models import Suppression

    return list(Suppression.objects.values_list("address", "scope", "reason"))


@pytest.mark.parametrize("method", ["get", "head"])
def test_opening_the_link_unsubscribes_nobody(client, address, method):
    answer = getattr(client, method)(address)

    assert answer.status_code == 200
    assert suppressed() == []


def test_one_click_of_a_mail_program_suppresses_this_list_without_session_or_redirect(address):
    client = Client(enforce_csrf_checks=True)

    for _ in range(2):
        answer = client.post(address, "List-Unsubscribe=One-Click", content_type="application/x-www-form-urlencoded")
        assert answer.status_code == 200

    assert suppressed() == [("bob@b.example", "letter", "unsubscribe")]


def test_one_click_may_come_as_multipart(client, address):
    answer = client.post(address, {"List-Unsubscribe": "One-Click"})

    assert answer.status_code == 200
    assert suppressed() == [("bob@b.example", "letter", "unsubscribe")]


def test_the_second_button_suppresses_everything(client, address):
    answer = client.post(address, {"confirm": "all"})

    assert "You are unsubscribed" in answer.content.decode()
    assert suppressed() == [("bob@b.example", "", "unsubscribe")]


def test_a_post_of_something_else_changes_nothing(client, address):
    answer = client.post(address, {"something": "else"})

    assert answer.status_code == 400
    assert suppressed() == []


def test_a_forged_link_tells_nothing_about_anybody(client, delivery):
    forged = token_for(delivery.pk)[:-4] + "AAA="

    answer = client.post(f"/u/{forged}", {"List-Unsubscribe": "One-Click"})

    assert answer.status_code == 404
    assert "bob@b.example" not in answer.content.decode()
    assert suppressed() == []
