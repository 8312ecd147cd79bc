"""Composed texts over the API: what waits for a person, decided once, by those who may."""

import pytest
from rest_framework.test import APIClient

from delivery.models import Composition, Delivery
from delivery.queue import composing
from tests.campaigns.clients import client
from tests.delivery.composing import composed_batch, deliveries
from tests.delivery.test_admin_compositions import in_review
from tests.problems import detail, errors

pytestmark = pytest.mark.django_db

URL = "/api/v1/compositions/"


@pytest.fixture
def reviewer() -> APIClient:
    return client("rita", "view_composition", "change_composition")


def post(who: APIClient, pk: int, deed: str, **body: object):
    return who.post(f"{URL}{pk}/{deed}/", body, format="json")


def test_what_waits_for_review_is_listed_and_read_with_what_was_asked(reviewer):
    batch, (first, second) = in_review(2)
    composing.approve([first], "root")
    composed_batch(1)

    (listed,) = reviewer.get(f"{URL}?state=review").json()["results"]
    read = reviewer.get(f"{URL}{second}/").json()

    wanted = {"id": second, "batch": batch.pk, "run": None, "step": 1, "state": "review", "waits": True}
    wanted |= {"text": "Hello <b>Ann</b> 1", "address": "person-1@example.test", "engine_slug": "composer"}
    assert wanted.items() <= listed.items() <= read.items()
    assert (read["subject"], read["prompt"], read["data"]) == ("Hi Ann 1", "Write to Ann 1.", {"first": "Ann 1"})


@pytest.mark.parametrize(
    ("deed", "body", "state", "delivery"),
    [
        ("approve", {}, "done", ("ready", 0)),
        ("use-template", {}, "fallback", ("ready", 0)),
        ("reject", {}, "rejected", ("skipped", 0)),
    ],
)
def test_a_decision_is_one_persons_and_made_once(deed, body, state, delivery, reviewer):
    batch, (pk,) = in_review()

    answer = post(reviewer, pk, deed, **body)
    again = post(reviewer, pk, "approve")

    assert (answer.status_code, answer.json()["state"], answer.json()["reviewed_by"]) == (200, state, "rita")
    assert (again.status_code, detail(again).startswith("There is nothing to decide")) == (409, True)
    assert Composition.objects.get().state == state
    assert deliveries(batch)[0][0] == delivery[0]


def test_a_persons_own_words_go_in_place_of_the_models(reviewer):
    batch, (pk,) = in_review()

    blank = post(reviewer, pk, "approve", text=" \n ")
    answer = post(reviewer, pk, "approve", text="Dear Ann,\n\nyes.")

    assert errors(blank)["text"] == ["There is no text: leave it out to approve what was composed."]
    assert (answer.json()["text"], answer.json()["state"]) == ("Dear Ann,\n\nyes.", "done")
    assert deliveries(batch) == [("ready", 0)]


def test_a_text_whose_mail_has_ended_waits_no_more(reviewer):
    _, (pk,) = in_review()
    Delivery.objects.filter(pk=pk).update(state="cancelled")

    assert reviewer.get(f"{URL}{pk}/").json()["waits"] is False


def test_other_states_are_asked_for_within_a_batch(reviewer):
    batch, _ = in_review(2)
    composed_batch(1)

    refused = reviewer.get(f"{URL}?state=wanted")
    rows = reviewer.get(f"{URL}?batch={batch.pk}").json()["results"]

    assert errors(refused)["state"] == ["All but review are of one run or batch: name that, too."]
    assert len(rows) == 2
    assert reviewer.get(f"{URL}?batch=999").json()["results"] == []


def test_a_list_of_many_asks_no_more_than_one_of_few(reviewer, django_assert_num_queries):
    in_review(1)
    reviewer.get(URL)
    with django_assert_num_queries(9):
        reviewer.get(URL)
    in_review(20)

    with django_assert_num_queries(9):
        answer = reviewer.get(URL)

    assert len(answer.json()["results"]) == 21


def test_who_may_change_texts_or_deliveries_decides_and_who_may_look_does_not():
    _, (first, second) = in_review(2)
    viewer, other = client("viewer", "view_composition"), client("other", "view_delivery", "send_workflow")
    composer, deliverer = client("composer", "change_composition"), client("deliverer", "change_delivery")

    assert [viewer.get(URL).status_code, other.get(URL).status_code] == [200, 403]
    assert [post(who, first, "approve").status_code for who in (viewer, other, composer)] == [403, 403, 200]
    assert post(deliverer, second, "reject").status_code == 200
