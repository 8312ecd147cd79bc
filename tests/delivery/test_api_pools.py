"""Pools over the API: their engines in order, the strategy, and how hard they try."""

import pytest
from rest_framework.test import APIClient

from delivery.models import Batch, Engine, Pool, PoolMember, SpecialRule
from delivery.models.engine import NO_SENDER
from tests.campaigns.clients import client
from tests.problems import detail, errors

pytestmark = pytest.mark.django_db

POOLS = "/api/v1/pools/"
ALL = [f"{deed}_pool" for deed in ("view", "add", "change", "delete")]


@pytest.fixture
def editor() -> APIClient:
    return client("editor", *ALL)


@pytest.fixture(autouse=True)
def engines() -> dict[str, Engine]:
    kinds = {"first": "sandbox", "second": "sandbox", "writer": "mock_composer"}
    return {slug: Engine.objects.create(name=slug, slug=slug, kind=kind) for slug, kind in kinds.items()}


def made(who: APIClient, **changes: object) -> Pool:
    answer = who.post(
        POOLS, {"name": "Main", "slug": "main", "members": [{"engine": "first"}]} | changes, format="json"
    )
    assert answer.status_code == 201, answer.content
    return Pool.objects.get(pk=answer.json()["id"])


def patch(who: APIClient, pool: Pool, **body: object):
    return who.patch(f"{POOLS}{pool.slug}/", body, format="json")


def members(pool: Pool) -> list[tuple[str, int, int]]:
    return [(each.engine.slug, each.position, each.weight) for each in pool.members.select_related("engine")]


def test_a_pool_is_made_with_its_engines_in_order_and_its_rules_and_shown_as_it_is(editor, engines):
    rule = {"trouble": "mailbox", "max_attempts": 8, "first_wait_seconds": 300}
    pool = made(
        editor, members=[{"engine": "second", "weight": 3}, {"engine": engines["first"].pk}], special_rules=[rule]
    )

    shown = editor.get(f"{POOLS}main/").json()

    assert members(pool) == [("second", 0, 3), ("first", 1, 1)]
    assert shown["members"] == [
        {"engine": engines["second"].pk, "engine_slug": "second", "position": 0, "weight": 3},
        {"engine": engines["first"].pk, "engine_slug": "first", "position": 1, "weight": 1},
    ]
    assert {name: shown["special_rules"][0][name] for name in rule} == rule
    assert (shown["strategy"], shown["max_attempts"], shown["max_age_hours"]) == ("priority", 5, 24)
    assert editor.get(f"{POOLS}{pool.pk}/").json() == shown


def test_what_was_shown_may_come_back_and_changes_nothing(editor):
    pool = made(editor, special_rules=[{"trouble": "engine"}])
    shown = editor.get(f"{POOLS}main/").json()

    answer = patch(editor, pool, **{name: value for name, value in shown.items() if name != "id"})

    assert (answer.status_code, answer.json()) == (200, shown)


def test_members_are_written_as_a_whole_and_stay_when_they_are_not_given(editor):
    pool = made(editor, special_rules=[{"trouble": "engine"}])

    patch(editor, pool, max_attempts=3)
    kept = members(pool)
    patch(editor, pool, members=[{"engine": "second", "position": 7}], special_rules=[])

    assert (kept, members(pool)) == ([("first", 0, 1)], [("second", 7, 1)])
    assert (Pool.objects.get().max_attempts, SpecialRule.objects.count()) == (3, 0)


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        ({"members": []}, "members", "A pool has at least one engine"),
        ({"members": None}, "members", "A pool has at least one engine"),
        ({"members": [{"engine": "first"}, {"engine": "writer"}]}, "members/1/engine", NO_SENDER.format("writer")),
        ({"members": [{"engine": "nobody"}]}, "members/0/engine", "There is no engine 'nobody'"),
        ({"members": [{"engine": "first"}, {"engine": "first"}]}, "members/1/engine", "in the list already"),
        ({"members": [{"weight": 1}]}, "members/0/engine", "null"),
        ({"members": [{"engine": "first", "weight": 1001}]}, "members/0/weight", "1000"),
        ({"members": [{"engine": "first", "place": 1}]}, "members/0/place", "There is no such field."),
        ({"special_rules": [{"trouble": "weather"}]}, "special_rules/0/trouble", '"weather" is none of engine'),
        ({"special_rules": [{"trouble": "engine"}, {"trouble": "engine"}]}, "special_rules/1/trouble", "already"),
        ({"special_rules": [{"max_attempts": 3}]}, "special_rules/0/trouble", "blank"),
        ({"strategy": "chance"}, "strategy", '"chance" is none of priority, sticky, weighted'),
        ({"max_attempts": 0}, "max_attempts", "1"),
        ({"factor": "much"}, "factor", "This is no number."),
        ({"tries": 3}, "tries", "There is no such field."),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place_and_changes_nothing(change, place, words, editor):
    pool = made(editor)

    answer = patch(editor, pool, **change)

    assert answer.status_code == 400, answer.content
    assert words in " ".join(errors(answer)[place])
    assert members(pool) == [("first", 0, 1)]
    assert Pool.objects.get().max_attempts == 5


def test_a_pool_that_mails_went_through_is_not_deleted_and_another_is(editor):
    pool = made(editor)
    batch = Batch.objects.create(label="Spring", reference="spring", pool=pool)

    refused = editor.delete(f"{POOLS}main/")
    batch.delete()

    assert (refused.status_code, "Spring" in detail(refused)) == (409, True)
    assert editor.delete(f"{POOLS}main/").status_code == 204
    assert (Pool.objects.count(), PoolMember.objects.count(), Engine.objects.count()) == (0, 0, 3)


def test_a_list_of_many_asks_no_more_than_one_of_few(editor, engines, django_assert_num_queries):
    made(editor, special_rules=[{"trouble": "engine"}])
    editor.get(POOLS)
    with django_assert_num_queries(7):
        editor.get(POOLS)
    for n in range(20):
        pool = Pool.objects.create(name=f"p{n}", slug=f"p{n}")
        PoolMember.objects.bulk_create(PoolMember(pool=pool, engine=engines[slug]) for slug in ("first", "second"))

    with django_assert_num_queries(7):
        answer = editor.get(POOLS)

    assert len(answer.json()["results"]) == 21


def test_pools_are_found_by_an_engine_and_a_strategy(editor):
    made(editor)
    made(editor, name="Other", slug="other", strategy="sticky", members=[{"engine": "second"}])

    def slugs(query: str) -> list[str]:
        return [pool["slug"] for pool in editor.get(f"{POOLS}?{query}").json()["results"]]

    assert (slugs("engine=second"), slugs("strategy=priority"), slugs("search=oth")) == (["other"], ["main"], ["other"])


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("post", POOLS, "add_pool"),
        ("patch", f"{POOLS}main/", "change_pool"),
        ("delete", f"{POOLS}main/", "delete_pool"),
    ],
)
def test_each_deed_needs_its_own_right(method, path, right, editor):
    made(editor)
    others, allowed = client("others", *{*ALL} - {right}), client("allowed", right)
    body = {"name": "Two", "slug": "two", "members": [{"engine": "first"}]}

    assert getattr(others, method)(path, body, format="json").status_code == 403
    assert getattr(APIClient(), method)(path, body, format="json").status_code in (401, 403)
    assert getattr(allowed, method)(path, body, format="json").status_code in (200, 201, 204)
