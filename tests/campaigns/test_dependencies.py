"""Recipients that depend on each other: order, failures, and what is found before anything is sent."""

import pytest
from django.utils import timezone

from campaigns import housekeeping
from campaigns.models import OnFailed, RunState
from campaigns.replay import replay_run
from delivery import queue
from delivery.models import Delivery, Suppression, Tally
from tests.campaigns import cast

pytestmark = [pytest.mark.usefixtures("output_dir"), pytest.mark.django_db(transaction=True)]


def audience(rows, **settings):
    """People by id, and whom each depends on."""
    lines = "".join(f'{key},{key}@example.test,"{after}"\n' for key, after in rows.items())
    fields = {"key_field": "id", "depends_field": "after", **settings}
    return cast.csv_audience(f"id,email,after\n{lines}", **fields)


def workflow(rows, **settings):
    return cast.workflow(
        audience=audience(rows), version=cast.template(subject="Hello", text="Hello {{ id }}"), **settings
    )


def by_key(run):
    return {row.key: row for row in Delivery.objects.filter(batch=run.batch_id)}


def test_each_goes_after_those_that_it_depends_on():
    run = cast.ended(workflow({"c": "a, b", "b": "a", "a": "", "d": "c"}))

    rows = by_key(run)
    assert {row.state for row in rows.values()} == {"accepted"}
    for later, earlier in (("c", "a"), ("c", "b"), ("b", "a"), ("d", "c")):
        assert rows[later].tried_at > rows[earlier].settled_at
    assert run.state == RunState.COMPLETED


@pytest.mark.parametrize(
    ("on_failed", "ends"),
    [
        (OnFailed.SKIP, {"a": "suppressed", "b": "skipped", "c": "skipped", "d": "accepted"}),
        (OnFailed.RELEASE, {"a": "suppressed", "b": "accepted", "c": "accepted", "d": "accepted"}),
    ],
)
def test_a_failed_one_skips_or_releases_who_depends_on_it(on_failed, ends):
    Suppression.objects.create(address="a@example.test", identity="a@example.test")

    run = cast.ended(workflow({"a": "", "b": "a", "c": "b, d", "d": ""}, on_failed=on_failed))

    rows = by_key(run)
    assert {key: row.state for key, row in rows.items()} == ends
    if on_failed == OnFailed.SKIP:
        assert rows["b"].words == "it depends on a, which was not accepted"
    assert run.state == RunState.COMPLETED
    assert queue.progress(run.batch_id) == cast.nonzero(run.counts)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"a": "c", "b": "a", "c": "b"}, "Recipients depend on each other in a circle"),
        ({"a": "a"}, "a → a"),
        ({"a": "", "b": "a, x"}, "1 dependencies name an id that nobody in the audience has"),
    ],
)
def test_circles_and_unknown_ids_are_told_before_anything_is_sent(rows, words):
    run = cast.ended(workflow(rows))

    assert run.state == RunState.FAILED
    assert words in run.error
    assert not Delivery.objects.exists()


def test_an_id_that_is_there_twice_is_a_bad_row_and_an_address_may_be_there_twice():
    content = "id,email,after\na,x@example.test,\nb,x@example.test,a\na,y@example.test,\n"
    kept = cast.csv_audience(content, key_field="id", depends_field="after")
    run = cast.ended(cast.workflow(audience=kept, version=cast.template(subject="Hello", text="Hello {{ id }}")))

    assert [(row.key, row.address) for row in Delivery.objects.order_by("pk")] == [
        ("a", "x@example.test"),
        ("b", "x@example.test"),
    ]
    assert list(run.problems.values_list("reason", "detail")) == [("duplicate", "the id a was there before")]


def test_a_dependent_that_was_skipped_goes_when_its_predecessor_is_replayed():
    flow = workflow({"a": "", "b": "a"})
    run = cast.initialized(flow)
    now = timezone.now()
    Delivery.objects.filter(key="a").update(deadline=now)
    cast.pump(run.batch_id)
    assert {key: row.state for key, row in by_key(run).items()} == {"a": "expired", "b": "skipped"}
    Delivery.objects.filter(key="a").update(deadline=now.replace(year=9000))

    replay_run(cast.fresh(run), "tester", states=["expired"])
    cast.pump(run.batch_id)

    assert {key: row.state for key, row in by_key(run).items()} == {"a": "accepted", "b": "accepted"}
    assert cast.fresh(run).state == RunState.COMPLETED


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", ""), ("until", "tomorrow"), ("until", "2026-12-24T09:00:00")],
)
def test_a_row_that_makes_no_sense_is_a_bad_row_with_the_field_and_a_good_example(field, value):
    row = {"id": "a", "until": "2999-12-24T09:00:00+01:00"} | {field: value}
    content = f"id,email,until\n{row['id']},x@example.test,{row['until']}\nb,y@example.test,\n"
    kept = cast.csv_audience(content, key_field="id", deadline_field="until")
    run = cast.ended(cast.workflow(audience=kept, version=cast.template(subject="Hello", text="Hello {{ id }}")))

    ((reason, detail),) = run.problems.values_list("reason", "detail")
    assert reason == "wrong_value"
    assert f"'{field}'" in detail
    assert "such as" in detail
    assert [row.key for row in Delivery.objects.all()] == ["b"]


def test_who_waits_for_one_that_ended_unnoticed_is_released_by_the_tick():
    run = cast.initialized(workflow({"a": "", "b": "a"}))
    Delivery.objects.filter(key="a").update(state="accepted", settled_at=timezone.now())
    Tally.objects.create(batch=run.batch, state="accepted", shard=0, count=1)

    housekeeping.tick()
    cast.pump(run.batch_id)

    assert {key: row.state for key, row in by_key(run).items()} == {"a": "accepted", "b": "accepted"}
    assert cast.fresh(run).state == RunState.COMPLETED
