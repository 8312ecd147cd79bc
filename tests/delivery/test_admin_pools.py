"""Pools in the admin: the strategy, the weights and the rules of retrying, as they are entered and as they are told."""

from datetime import timedelta

import pytest
from django.http import HttpResponse
from django.test import Client

from delivery.admin.pool_words import duration, waits
from delivery.core.retry import NONE, Backoff, Growth, Jitter, RetryRule, Trouble
from delivery.models import Engine, Pool, PoolMember, SpecialRule
from delivery.shared import shared
from tests.delivery import admin_pages
from tests.delivery.admin_pages import NOBODY_LISTENS, queries_of, shared_store_away, superuser, text_of

POOLS = "/admin/delivery/pool/"
RETRY = {
    "max_attempts": 4,
    "backoff": "constant",
    "first_wait_seconds": 30,
    "factor": 2,
    "longest_wait_seconds": 600,
    "jitter_percent": 10,
}


@pytest.fixture
def root(db) -> Client:
    return superuser()


@pytest.fixture
def engines(db) -> list[Engine]:
    return [Engine.objects.create(name=name, slug=name.lower(), kind="sandbox") for name in ("One", "Two", "Three")]


def pool_of(engines: list[Engine], *weights: int, **fields: object) -> Pool:
    pool = Pool.objects.create(**{"name": "Pool", "slug": "pool"} | fields)
    for position, engine in enumerate(engines):
        weight = weights[position] if weights else 1
        PoolMember.objects.create(pool=pool, engine=engine, position=position, weight=weight)
    return pool


def form(engines: list[Engine], *rules: dict[str, object], **values: object) -> dict[str, object]:
    """A pool's form: its engines weigh 1, 2, 3 …"""
    filled = {"name": "Pool", "slug": "pool", "strategy": "weighted", "max_age_hours": 12, **RETRY}
    filled |= {"members-TOTAL_FORMS": len(engines), "members-INITIAL_FORMS": 0}
    filled |= {"special_rules-TOTAL_FORMS": len(rules), "special_rules-INITIAL_FORMS": 0}
    for number, engine in enumerate(engines):
        member = {"engine": engine.pk, "weight": number + 1, "position": number}
        filled |= {f"members-{number}-{name}": value for name, value in member.items()}
    for number, rule in enumerate(rules):
        filled |= {f"special_rules-{number}-{name}": value for name, value in (RETRY | rule).items()}
    return filled | values


def page(client: Client, pool: Pool) -> HttpResponse:
    return client.get(f"{POOLS}{pool.pk}/change/")


def test_a_pool_is_stored_with_its_weights_and_a_rule_for_each_kind_of_trouble(root, engines):
    rules = ({"trouble": "mailbox", "backoff": "exponential"}, {"trouble": "unknown", "max_attempts": 1})

    response = root.post(f"{POOLS}add/", form(engines, *rules))

    pool = Pool.objects.get()
    steady = Backoff(Growth.CONSTANT, timedelta(seconds=30), 2.0, timedelta(minutes=10), Jitter(0.9, 1.1))
    growing = Backoff(Growth.EXPONENTIAL, timedelta(seconds=30), 2.0, timedelta(minutes=10), Jitter(0.9, 1.1))
    assert response.status_code == 302
    assert (pool.strategy, list(pool.members.values_list("engine__name", "weight"))) == (
        "weighted",
        [("One", 1), ("Two", 2), ("Three", 3)],
    )
    assert (pool.retry_policy.rule, pool.retry_policy.max_age) == (RetryRule(4, steady), timedelta(hours=12))
    assert pool.retry_policy.special == {
        Trouble.MAILBOX: RetryRule(4, growing),
        Trouble.UNKNOWN: RetryRule(1, steady),
    }


def test_one_kind_of_trouble_has_one_rule(root, engines):
    response = root.post(f"{POOLS}add/", form(engines, {"trouble": "mailbox"}, {"trouble": "mailbox"}))

    assert "duplicate" in text_of(response)
    assert not SpecialRule.objects.exists()


def test_the_list_shows_order_where_it_counts_and_shares_where_they_do(root, engines):
    pool_of(engines, name="Ordered", slug="ordered", strategy="priority")
    pool_of(engines, 3, 1, 0, name="Spread", slug="spread", strategy="weighted")
    pool_of([], name="Empty", slug="empty")

    listed = text_of(root.get(POOLS))

    assert "One → Two → Three" in listed
    assert "One 75%, Two 25%, Three only in need" in listed
    assert "none yet" in listed


def test_a_weighted_pool_without_any_weight_shows_no_shares(root, engines):
    pool_of(engines, 0, 0, 0, strategy="weighted")

    assert "One only in need, Two only in need" in text_of(root.get(POOLS))


def test_the_list_asks_as_much_for_two_pools_as_for_twenty(root, engines):
    def some(number: int) -> None:
        for i in range(number):
            pool_of(engines, name=f"P{number}-{i}", slug=f"p{number}-{i}", strategy="sticky")

    some(2)
    few = queries_of(root, POOLS)
    some(18)
    many = queries_of(root, POOLS)

    assert len(many) == len(few) <= 9


# ---- the engine that a sticky pool is with ----


def test_a_sticky_pools_page_names_the_engine_it_is_with(root, engines):
    pool = pool_of(engines, strategy="sticky")

    before = text_of(page(root, pool))
    shared().move(pool.pk, None, engines[1].pk)
    after = text_of(page(root, pool))
    pool.members.filter(engine=engines[1]).delete()
    gone = text_of(page(root, pool))

    assert "none yet: the first that is able" in before
    assert "Two</div>" in "".join(after.split("Now with")[1].split())[:900]
    assert "an engine that is not in this pool any more" in gone


@pytest.mark.parametrize("strategy", ["priority", "weighted"])
def test_other_pools_are_with_no_engine(strategy, root, engines):
    assert "Now with" not in text_of(page(root, pool_of(engines, strategy=strategy)))


def test_a_pools_page_says_so_when_nobody_can_tell_which_engine_it_is_with(root, engines, settings):
    pool = pool_of(engines, strategy="sticky")
    shared_store_away(settings)

    assert f"not known now: Redis: Error 111 connecting to 127.0.0.1:{NOBODY_LISTENS}" in text_of(page(root, pool))


def test_who_may_only_look_sees_all_of_it(engines):
    pool = pool_of(engines, strategy="sticky")
    SpecialRule.objects.create(pool=pool, trouble="mailbox", max_attempts=8)

    shown = text_of(page(admin_pages.viewer(), pool))

    assert all(words in shown for words in ("Now with", "1 min, 4 min, 16 min, 1 h", "the mailbox cannot take mail"))
    assert 'name="strategy"' not in shown


# ---- numbers in words ----


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (RetryRule(), "1 min, 4 min, 16 min, 1 h; chance makes each anything from nothing to that"),
        (RetryRule(3, Backoff(jitter=NONE)), "1 min, 4 min"),
        (RetryRule(3, Backoff(jitter=Jitter(0.8, 1.2))), "1 min, 4 min; chance makes each up to 20% shorter or longer"),
        (RetryRule(3, Backoff(Growth.CONSTANT, timedelta(seconds=90), jitter=NONE)), "1 min 30 s, 1 min 30 s"),
        (
            RetryRule(9, Backoff(base=timedelta(hours=2), longest=timedelta(hours=2), jitter=NONE)),
            "2 h, 2 h, 2 h, 2 h, 2 h, 2 h and 2 more",
        ),
        (RetryRule(1), "There is one try, and no wait."),
        (RetryRule(3, Backoff(Growth.IMMEDIATE)), "3 tries, one at once after the other."),
    ],
)
def test_a_rule_says_what_its_waits_come_to(rule, words):
    assert waits(rule) == words


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (59, "59 s"), (3_661, "1 h 1 min"), (90_000, "1 d 1 h")])
def test_a_wait_is_told_in_its_two_largest_units(seconds, words):
    assert duration(timedelta(seconds=seconds)) == words
