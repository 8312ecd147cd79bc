"""Suppressions over the API: looked up, added by a program or a person, and taken away, which a recipient's own word is
not by the way."""

import pytest
from rest_framework.test import APIClient

from delivery.models import Suppression, SuppressionReason
from delivery.suppression import suppress
from tests.campaigns.clients import client
from tests.problems import detail, errors

pytestmark = pytest.mark.django_db

URL = "/api/v1/suppressions/"
ALL = [f"{deed}_suppression" for deed in ("view", "add", "delete")]


@pytest.fixture
def editor() -> APIClient:
    return client("editor", *ALL)


def post(who: APIClient, **body: object):
    return who.post(URL, body, format="json")


def listed(who: APIClient, **query: str) -> list[str]:
    return [row["address"] for row in who.get(URL, query).json()["results"]]


def test_an_address_is_suppressed_once_however_it_is_spelt(editor):
    first = post(editor, address=" Ada@Example.TEST ")
    again = post(editor, address="ada@EXAMPLE.test", reason="complaint")
    scoped = post(editor, address="ada@example.test", scope="newsletter", source="by phone", reason="unsubscribe")

    assert [answer.status_code for answer in (first, again, scoped)] == [201, 200, 201]
    assert first.json() == again.json()
    assert (first.json()["address"], first.json()["reason"], first.json()["source"]) == (
        "Ada@example.test",
        "manual",
        "by editor",
    )
    rows = Suppression.objects.order_by("id").values_list("identity", "scope", "reason", "source")
    assert list(rows) == [
        ("ada@example.test", "", "manual", "by editor"),
        ("ada@example.test", "newsletter", "unsubscribe", "by phone"),
    ]


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "address", "required"),
        ({"address": "ada"}, "address", "Not an address: There is no @ in it."),
        ({"address": "x" * 321}, "address", "320"),
        ({"address": "ada@example.test", "reason": "mood"}, "reason", '"mood" is none of hard_bounce'),
        ({"address": "ada@example.test", "scope": "x" * 101}, "scope", "100"),
        ({"address": "ada@example.test", "workflow": "letters"}, "workflow", "There is no such field."),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field(body, field, words, editor):
    answer = post(editor, **body)

    assert words in errors(answer)[field][0]
    assert not Suppression.objects.exists()


def test_they_are_found_by_address_reason_and_scope_the_newest_first(editor):
    suppress("Ada@example.test", SuppressionReason.MANUAL)
    suppress("bob@example.test", SuppressionReason.UNSUBSCRIBE, scope="news")
    suppress("ada@example.test", SuppressionReason.UNSUBSCRIBE, scope="news")

    assert listed(editor) == ["ada@example.test", "bob@example.test", "Ada@example.test"]
    assert listed(editor, address="ADA@example.test") == ["ada@example.test", "Ada@example.test"]
    assert listed(editor, reason="manual") == ["Ada@example.test"]
    assert listed(editor, scope="news", address="bob@example.test") == ["bob@example.test"]
    assert errors(editor.get(URL, {"address": "ada"}))["address"] == ["Not an address: There is no @ in it."]
    assert list(errors(editor.get(URL, {"adress": "ada@example.test"}))) == ["adress"]


@pytest.mark.parametrize("reason", ["hard_bounce", "manual", "replied", "bounced"])
def test_what_the_recipient_has_not_said_is_taken_away_plainly(reason, editor):
    suppress("ada@example.test", SuppressionReason(reason))

    assert editor.delete(f"{URL}{Suppression.objects.get().pk}/").status_code == 204
    assert not Suppression.objects.exists()


@pytest.mark.parametrize("reason", ["unsubscribe", "complaint"])
def test_a_recipients_own_word_is_set_aside_only_by_name(reason, editor):
    suppress("ada@example.test", SuppressionReason(reason))
    url = f"{URL}{Suppression.objects.get().pk}/"

    refused = [editor.delete(url), editor.delete(f"{url}?despite=manual")]
    there = Suppression.objects.count()

    assert [answer.status_code for answer in refused] == [409, 409]
    assert f"?despite={reason}" in detail(refused[0])
    assert (there, editor.delete(f"{url}?despite={reason}").status_code) == (1, 204)


def test_a_row_is_never_changed(editor):
    suppress("ada@example.test", SuppressionReason.MANUAL)
    url = f"{URL}{Suppression.objects.get().pk}/"

    assert editor.patch(url, {"address": "bob@example.test"}, format="json").status_code == 405
    assert editor.put(url, {"address": "bob@example.test"}, format="json").status_code == 405


def test_a_list_of_many_asks_no_more_than_one_of_few(editor, django_assert_num_queries):
    suppress("ada@example.test", SuppressionReason.MANUAL)
    editor.get(URL)
    with django_assert_num_queries(5):
        editor.get(URL)
    for n in range(30):
        suppress(f"p{n}@example.test", SuppressionReason.MANUAL)

    with django_assert_num_queries(5):
        answer = editor.get(URL)

    assert len(answer.json()["results"]) == 31


def test_each_deed_needs_its_own_right(editor):
    suppress("ada@example.test", SuppressionReason.MANUAL)
    url = f"{URL}{Suppression.objects.get().pk}/"
    viewer, adder, deleter = (client(deed, f"{deed}_suppression") for deed in ("view", "add", "delete"))

    assert [who.get(URL).status_code for who in (viewer, adder, deleter)] == [200, 403, 403]
    assert [post(who, address="b@example.test").status_code for who in (viewer, deleter, adder)] == [403, 403, 201]
    assert [who.delete(url).status_code for who in (viewer, adder, deleter)] == [403, 403, 204]
