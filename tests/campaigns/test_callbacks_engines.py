"""What webhooks are told of engines: what people do to them, and what their circuits do."""

import json
from collections.abc import Iterator

import pytest
from django.db import transaction
from django.utils.timezone import now

from campaigns.callbacks import subscriptions
from campaigns.models import Callback
from delivery.catalogue import StoredCatalogue
from delivery.core.breaker import State
from delivery.core.condition import Health, News
from delivery.engine_changes import Snapshot, record
from delivery.engine_desk import EngineDesk, tell_by_signal
from delivery.hold import hold, release
from delivery.models import Engine
from delivery.shared import shared
from tests.campaigns import cast
from tests.campaigns.receiving import webhook

pytestmark = pytest.mark.django_db

URL = "https://shop.example/hook"


@pytest.fixture
def engine() -> Iterator[Engine]:
    cast.pool(slug="main")
    webhook(URL, "engine.*")
    yield Engine.objects.get()
    subscriptions.forget()


def told() -> list[tuple[str, dict[str, object]]]:
    return [(each.type, json.loads(each.body)["data"]) for each in Callback.objects.order_by("pk")]


def test_a_hold_and_its_end_are_told_with_who_and_why(engine):
    hold(engine, "ada", "the provider is down")
    release(engine, "grace")

    (held, about), (released, _) = told()
    assert (held, released) == ("engine.held", "engine.released")
    assert about["engine"] == {"id": engine.pk, "slug": "main", "name": "Main", "kind": "sandbox"}
    assert (about["by"], about["why"], about["until"]) == ("ada", "the provider is down", None)


def test_switching_off_and_on_is_told_and_another_change_is_not(engine):
    for change in ({"enabled": False}, {"name": "Other"}, {"enabled": True}):
        before = Snapshot(engine.pk)
        Engine.objects.filter(pk=engine.pk).update(**change)
        record(Engine.objects.get(), before, "ada")

    assert [kind for kind, _ in told()] == ["engine.switched_off", "engine.switched_on"]


def test_a_hold_that_is_rolled_back_is_told_to_nobody(engine):
    with transaction.atomic():
        hold(engine, "ada", "perhaps")
        transaction.set_rollback(True)

    assert told() == []


def test_a_circuit_that_opens_and_closes_is_told_once_each_without_anybodys_address(engine):
    desk = EngineDesk(StoredCatalogue(), shared(), tell_by_signal)
    fatal = [News(Health.FATAL, "535 no login for ada@example.test, password=hunter2")]

    desk.record(engine.pk, fatal)
    desk.record(engine.pk, fatal)
    condition = shared().conditions([engine.pk])[engine.pk]
    shared().change(engine.pk, lambda before, at: _probing(before))
    desk.record(engine.pk, [News(Health.GOOD)])

    assert condition.breaker.state is State.OPEN
    assert [kind for kind, _ in told()] == ["engine.circuit_opened", "engine.circuit_closed"]
    assert "535 no login" in told()[0][1]["why"]
    assert "ada@example.test" not in told()[0][1]["why"]
    assert "hunter2" not in told()[0][1]["why"]


def _probing(condition):
    from dataclasses import replace

    return replace(condition, breaker=replace(condition.breaker, state=State.HALF_OPEN, probe_at=now()))


def test_the_simulators_engines_are_told_of_to_nobody(engine):
    desk = EngineDesk(StoredCatalogue(), shared())

    desk.record(engine.pk, [News(Health.FATAL, "no")])

    assert told() == []
