"""Holding an engine in the admin, and its history: who held, released or changed it, and never a secret."""

import re

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from delivery.hold import hold
from delivery.models import Delivery, Engine, EngineEvent, EngineLimit
from tests.delivery import admin_pages
from tests.delivery.admin_pages import CONFIRMED, superuser, text_of
from tests.delivery.pumping import FakeEngine, batch_in, pool_of, states
from tests.delivery.test_admin_engines import PASSWORD, change, page_of, smtp_engine

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def root() -> Client:
    return superuser()


@pytest.fixture
def engine() -> Engine:
    return smtp_engine()


def url(engine: Engine, deed: str) -> str:
    return reverse(f"admin:delivery_engine_{deed}", args=[engine.pk])


def history(engine: Engine) -> list[str]:
    return list(EngineEvent.objects.filter(engine=engine).values_list("what", flat=True))


# ---- hold and release ----


def test_an_engine_is_held_for_a_reason_which_the_list_and_its_page_show(root, engine):
    response = root.post(url(engine, "hold"), CONFIRMED | {"why": "moving house"}, follow=True)

    engine.refresh_from_db()
    assert (engine.held, engine.held_until, engine.hold_reason) == (True, None, "moving house")
    assert "The engine is held." in text_of(response)
    assert "held: moving house" in text_of(root.get("/admin/delivery/engine/"))
    page = text_of(root.get(page_of(engine)))
    assert re.search(r">\s*held: moving house\s*<", page)
    assert "held by root: moving house" in page


def test_a_hold_for_minutes_ends_then(root, engine):
    root.post(url(engine, "hold"), CONFIRMED | {"why": "lunch", "minutes": 30})

    engine.refresh_from_db()
    assert (engine.held_until - timezone.now()).total_seconds() / 60 == pytest.approx(30, abs=0.5)


@pytest.mark.parametrize("answers", [{"why": ""}, {"why": "lunch", "minutes": 0}, {"why": "lunch", "minutes": "soon"}])
def test_a_hold_without_a_reason_or_for_no_time_is_asked_about_again(root, engine, answers):
    response = root.post(url(engine, "hold"), CONFIRMED | answers)

    assert response.status_code == 200
    assert not Engine.objects.get().held


def test_the_page_offers_to_hold_an_engine_or_to_release_it_never_both(root, engine):
    def offered() -> list[str]:
        page = text_of(root.get(page_of(engine)))
        return [deed for deed in ("hold", "release") if f'"{url(engine, deed)}"' in page]

    before = offered()
    hold(engine, "ada", "lunch")

    assert (before, offered()) == (["hold"], ["release"])


def test_a_held_engine_is_released_and_a_second_release_is_refused_with_its_reason(root, engine):
    hold(engine, "ada", "lunch")

    first = root.post(url(engine, "release"), CONFIRMED, follow=True)
    second = root.post(url(engine, "release"), CONFIRMED, follow=True)

    assert "The engine is released." in text_of(first)
    assert "is not held: there is nothing to release" in text_of(second)
    assert history(engine) == ["held", "released"]


def test_who_may_only_look_holds_and_releases_nothing(engine):
    viewer = admin_pages.viewer()

    assert viewer.post(url(engine, "hold"), CONFIRMED | {"why": "lunch"}).status_code == 403
    assert viewer.post(url(engine, "release"), CONFIRMED).status_code == 403
    assert url(engine, "hold") not in text_of(viewer.get(page_of(engine)))

    assert history(engine) == []


# ---- what was changed ----


def test_a_change_of_the_settings_is_kept_with_the_old_and_the_new_value(root, engine):
    response = change(root, engine, option_max_connections=9, enabled="", fault_threshold=7)

    assert response.status_code == 302
    assert history(engine)[0] == "switched off"
    assert "faults that open the circuit: 5 → 7" in history(engine)
    assert "max_connections: none → 9" in history(engine)
    assert set(EngineEvent.objects.values_list("by", flat=True)) == {"root"}
    assert "max_connections: none → 9 by root" in text_of(root.get(page_of(engine)))


def test_a_change_of_a_limit_is_kept(root, engine):
    limit = EngineLimit.objects.create(engine=engine, quantity=10, period="second", burst=1)
    row = {"limits-0-id": limit.pk, "limits-0-engine": engine.pk, "limits-0-counts": "messages"}
    row |= {"limits-0-quantity": 20, "limits-0-period": "second", "limits-0-burst": 1}

    change(root, engine, **row | {"limits-TOTAL_FORMS": 1, "limits-INITIAL_FORMS": 1})
    change(root, engine, **row | {"limits-TOTAL_FORMS": 1, "limits-INITIAL_FORMS": 1, "limits-0-DELETE": "on"})

    assert [what for what in history(engine) if what.startswith("limit")] == [
        "limit: 10 messages/second, 1 at once → 20 messages/second, 1 at once",
        "limit: 20 messages/second, 1 at once → none",
    ]


def test_of_credentials_only_the_change_is_kept(root, engine):
    change(root, engine, option_password="another-horse")

    assert "credentials changed" in history(engine)
    words = "\n".join(history(engine)) + text_of(root.get(page_of(engine)))
    assert PASSWORD not in words
    assert "another-horse" not in words


def test_saving_without_a_change_leaves_no_trace(root, engine):
    change(root, engine)
    before = history(engine)

    change(root, engine)

    assert history(engine) == before


def test_an_engine_that_is_switched_on_gets_at_once_what_waited_for_it(root, engine):
    pool, _ = pool_of(FakeEngine())
    pool.members.update(engine=engine)
    batch = batch_in(pool, 2)
    Engine.objects.filter(pk=engine.pk).update(enabled=False)
    Delivery.objects.update(state="waiting", not_before=timezone.now(), words="no engine of the pool is able now")

    change(root, engine)

    assert "switched on" in history(engine)
    assert states(batch) == {"ready": 2}
