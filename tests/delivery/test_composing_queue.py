"""Words that are to be composed, on real rows: claimed once, written once, and never sent unreviewed."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from delivery import queue
from delivery.core.envelope import MAX_WORDS
from delivery.models import NO_DEADLINE, Composition, Delivery, Engine, Lease, Tally
from delivery.queue import composing, leasing
from delivery.queue.composing import Result, Source, ToCompose, Wording
from delivery.queue.ends import PREDECESSOR
from tests.delivery.composing import composed_batch, composer, compositions, deliveries, ids_of, states

pytestmark = pytest.mark.django_db

TERM = timedelta(minutes=5)
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def lease():
    return leasing.acquire("another-host/boot/1:1:1", TERM)


def claimed(batch, limit=100, lease_id=None, **options):
    """A lease, and what it claims of a batch."""
    lease_id = lease_id or lease()
    return lease_id, composing.claim(lease_id, batch.pk, composer().pk, limit, **options)


def settled(lease_id, *results):
    with transaction.atomic():
        return composing.settle(lease_id, results)


def done(item, text="Hello Ann"):
    return Result(item.id, "done", item.attempts + 1, text)


def in_review(size=1, **options):
    """A batch whose words wait for a person, and the ids of its deliveries."""
    batch = composed_batch(size, review=True, **options)
    lease_id, items = claimed(batch)
    settled(lease_id, *(Result(item.id, "review", 1, f"Words {n}") for n, item in enumerate(items)))
    assert states(batch) == ["review"] * size
    return batch, ids_of(batch)


# ---- wanting and claiming ----


def test_a_delivery_that_waits_for_its_words_has_them_asked_for_with_its_deadline():
    batch = composed_batch(2, deadline=LATER)

    assert (
        compositions(batch, "batch", "engine", "state", "deadline", "attempts", "text")
        == [(batch.pk, composer().pk, "wanted", LATER, 0, "")] * 2
    )


def test_a_claim_hands_over_all_that_is_needed_to_compose_and_the_message_says_the_rest():
    batch = composed_batch(1, review=True, deadline=LATER)
    row = Delivery.objects.get(batch=batch)

    _, (item,) = claimed(batch)

    assert item._replace(data="") == ToCompose(
        row.pk, batch.pk, row.message_id, composer().pk, row.address, "", "", LATER, 0, ""
    )
    assert "Ann 0" in item.data
    assert composing.wording(row.message_id) == Wording(row.message.token, "Write to {{ first }}.", True)


def test_the_earliest_deadline_is_claimed_first():
    batch = composed_batch(4)
    first, second, third, fourth = ids_of(batch)
    for pk, minutes in ((third, 1), (first, 2), (fourth, 3)):
        Composition.objects.filter(pk=pk).update(deadline=LATER + timedelta(minutes=minutes))

    lease_id, items = claimed(batch, 3)
    _, (rest,) = claimed(batch, 3, lease_id)

    assert [item.id for item in items] == [third, first, fourth]
    assert (rest.id, rest.deadline) == (second, NO_DEADLINE)


def test_what_one_worker_has_no_other_gets():
    batch = composed_batch(3)

    _, first = claimed(batch, 2)
    _, second = claimed(batch, 2)

    assert [item.id for item in first + second] == ids_of(batch)
    assert claimed(batch)[1] == []


def test_only_what_is_urgent_is_claimed_when_that_is_asked_for():
    batch = composed_batch(2, deadline=LATER)
    Composition.objects.filter(pk=ids_of(batch)[0]).update(deadline=LATER + timedelta(seconds=1))

    _, items = claimed(batch, until=LATER)

    assert [item.id for item in items] == ids_of(batch)[1:]


def test_what_waits_for_another_try_is_claimed_when_its_time_has_come():
    batch = composed_batch(2)
    Composition.objects.filter(pk=ids_of(batch)[0]).update(not_before=timezone.now() + timedelta(hours=1))
    Composition.objects.filter(pk=ids_of(batch)[1]).update(not_before=timezone.now() - timedelta(hours=1))

    _, items = claimed(batch)

    assert [item.id for item in items] == ids_of(batch)[1:]


def test_nothing_is_claimed_of_a_batch_that_is_held_nor_under_a_lease_that_is_gone():
    batch = composed_batch()
    lease_id, _ = lease(), lease()
    queue.hold(batch.pk, "wait")
    assert claimed(batch, lease_id=lease_id)[1] == []
    queue.release(batch.pk)
    Lease.objects.filter(pk=lease_id).delete()

    assert claimed(batch, lease_id=lease_id)[1] == []
    assert states(batch) == ["wanted"]


def test_what_is_wanted_of_one_composer_is_not_claimed_for_another():
    batch = composed_batch()

    assert composing.claim(lease(), batch.pk, composer("other").pk, 10) == []


def test_a_delivery_that_has_ended_needs_no_words_any_more():
    batch = composed_batch(2)
    Delivery.objects.filter(pk=ids_of(batch)[0]).update(state="suppressed")

    _, items = claimed(batch)

    assert [item.id for item in items] == ids_of(batch)[1:]
    assert compositions(batch, "state", "lease")[0] == ("lapsed", None)


def test_a_delivery_whose_predecessor_failed_gets_its_words_when_it_waits_again():
    batch = composed_batch(2)
    rows = Delivery.objects.filter(batch=batch, pk=ids_of(batch)[0])
    rows.update(state="skipped", code=PREDECESSOR, settled_at=timezone.now(), pending=2)

    lease_id, items = claimed(batch)
    settled(lease_id, *map(done, items))

    assert states(batch) == ["wanted", "done"]
    assert compositions(batch, "not_before")[0] > timezone.now()
    assert deliveries(batch) == [("skipped", 2), ("ready", 0)]


def test_words_that_come_after_the_predecessor_failed_bring_nobody_back():
    batch = composed_batch(1)
    lease_id, items = claimed(batch)
    Delivery.objects.filter(batch=batch).update(state="skipped", code=PREDECESSOR, settled_at=timezone.now())

    settled(lease_id, *map(done, items))

    assert states(batch) == ["done"]
    assert deliveries(batch) == [("skipped", 0)]


# ---- sources ----


def test_the_sources_are_the_open_batches_that_want_words_now_the_most_urgent_first():
    late, urgent, early = (
        composed_batch(deadline=LATER + timedelta(hours=1), priority=5),
        composed_batch(priority=1),
        composed_batch(2, deadline=LATER, priority=5),
    )
    held, waiting, other = composed_batch(), composed_batch(), composed_batch(engine=composer("other"), priority=9)
    queue.hold(held.pk, "wait")
    Composition.objects.filter(batch=waiting).update(not_before=timezone.now() + timedelta(hours=1))
    mine, others = composer().pk, composer("other").pk

    assert composing.sources() == [
        Source(urgent.pk, mine, 1, NO_DEADLINE),
        Source(early.pk, mine, 5, LATER),
        Source(late.pk, mine, 5, LATER + timedelta(hours=1)),
        Source(other.pk, others, 9, NO_DEADLINE),
    ]
    assert composing.sources(early.pk) == [Source(early.pk, mine, 5, LATER)]


# ---- results ----


def test_words_are_written_and_their_delivery_may_go():
    batch = composed_batch(2)
    lease_id, (first, second) = claimed(batch)

    ready = settled(lease_id, done(first, "Hello"), Result(second.id, "wanted", 1, words="503 busy", not_before=LATER))

    assert ready == 1
    assert compositions(batch, "state", "text", "words", "attempts", "not_before", "lease") == [
        ("done", "Hello", "", 1, None, None),
        ("wanted", "", "503 busy", 1, LATER, None),
    ]
    assert deliveries(batch) == [("ready", 0), ("waiting", 1)]
    assert composing.texts(ids_of(batch)) == {first.id: "Hello"}
    assert [at is None for at in compositions(batch, "composed_at")] == [False, True]


def test_the_template_lets_a_delivery_go_without_words():
    batch = composed_batch()
    lease_id, (item,) = claimed(batch)

    assert settled(lease_id, Result(item.id, "fallback", 3, words="503 busy")) == 1

    assert deliveries(batch) == [("ready", 0)]
    assert composing.texts(ids_of(batch)) == {}
    assert compositions(batch, "state", "words", "attempts") == [("fallback", "503 busy", 3)]


def test_words_that_are_to_be_reviewed_hold_their_delivery_back():
    batch, rows = in_review()

    assert deliveries(batch) == [("waiting", 1)]
    assert composing.texts(rows) == {}


def test_writing_the_same_results_twice_changes_nothing():
    batch = composed_batch(2)
    Delivery.objects.filter(batch=batch).update(pending=2)
    lease_id, items = claimed(batch)

    settled(lease_id, *map(done, items))
    settled(lease_id, *(done(item, "Something else") for item in items))

    assert deliveries(batch) == [("waiting", 1)] * 2
    assert compositions(batch, "text") == ["Hello Ann"] * 2


def test_what_came_after_the_lease_was_lost_is_dropped():
    batch = composed_batch()
    lost, (item,) = claimed(batch)
    Lease.objects.filter(pk=lost).delete()
    assert composing.take_back() == 1
    lease_id, (again,) = claimed(batch)

    settled(lost, done(item, "Too late"))
    settled(lease_id, done(again, "In time"))

    assert compositions(batch, "text") == ["In time"]


def test_a_worker_that_stops_gives_back_what_it_had_and_nothing_else():
    batch = composed_batch(3)
    mine, (first, _) = claimed(batch, 2)
    claimed(batch)
    settled(mine, done(first))

    assert composing.give_back(mine) == 1
    assert composing.take_back() == 0

    assert states(batch) == ["done", "wanted", "claimed"]
    assert compositions(batch, "lease")[:2] == [None, None]


def test_words_of_a_failure_are_cut_and_cleaned_and_no_later_result_forgets_them():
    batch = composed_batch()
    lease_id, (item,) = claimed(batch)
    settled(lease_id, Result(item.id, "wanted", 1, words="bad\x00\ud800" + "x" * 1000))
    claimed(batch, lease_id=lease_id)

    settled(lease_id, done(item))

    assert compositions(batch, "words") == [("bad " + "x" * 1000)[:MAX_WORDS]]


def test_a_thousand_results_are_written_by_a_handful_of_statements(django_assert_max_num_queries):
    batch = composed_batch(200)
    lease_id, items = claimed(batch, 200)

    with django_assert_max_num_queries(15):
        settled(lease_id, *map(done, items))

    assert set(deliveries(batch)) == {("ready", 0)}


# ---- coming back ----


def test_a_delivery_that_came_back_keeps_the_words_it_had_and_waits_for_them_no_more():
    batch = composed_batch(2)
    lease_id, (first, second) = claimed(batch)
    settled(lease_id, done(first), Result(second.id, "fallback", 3))
    Delivery.objects.filter(batch=batch).update(state="waiting", pending=2, deadline=LATER)

    with transaction.atomic():
        composing.want(ids_of(batch), timezone.now())

    assert deliveries(batch) == [("waiting", 1)] * 2
    assert compositions(batch, "state", "text", "deadline") == [("done", "Hello Ann", LATER), ("fallback", "", LATER)]


def test_a_delivery_that_came_back_without_words_wants_them_again():
    batch = composed_batch(2)
    lapsed, wanted = ids_of(batch)
    Composition.objects.filter(pk=lapsed).update(state="lapsed")

    composing.want([lapsed, wanted], timezone.now())

    assert states(batch) == ["wanted", "wanted"]
    assert deliveries(batch) == [("waiting", 1)] * 2


# ---- when there is something to do ----


def test_a_batch_is_due_now_at_its_next_try_at_the_end_of_its_reviews_or_not_at_all():
    batch = composed_batch(2, deadline=LATER)
    now = timezone.now()
    assert now - timedelta(minutes=1) < composing.due(batch.pk) <= timezone.now()

    lease_id, (first, second) = claimed(batch)
    assert composing.due(batch.pk) is None

    again = LATER - timedelta(hours=1)
    settled(lease_id, Result(first.id, "review", 1, "Hi"), Result(second.id, "wanted", 1, not_before=again))
    assert composing.due(batch.pk) == again

    Composition.objects.filter(pk=second.id).update(state="done")
    assert composing.due(batch.pk) == LATER

    Composition.objects.filter(batch=batch).update(deadline=NO_DEADLINE)
    assert composing.due(batch.pk) is None


# ---- reviews ----


def test_approved_words_go_once_and_say_who_approved_them():
    batch, (first, second) = in_review(2)

    assert composing.approve([first], "root") == 1
    assert composing.approve([first, 0], "somebody else") == 0

    assert deliveries(batch) == [("ready", 0), ("waiting", 1)]
    assert composing.texts([first, second]) == {first: "Words 0"}
    assert compositions(batch, "state", "reviewed_by") == [("done", "root"), ("review", "")]
    assert compositions(batch, "reviewed_at")[0] is not None


def test_a_persons_own_words_go_instead():
    batch, (pk,) = in_review()

    assert composing.reword(pk, "  My own\r\nwords ", "root")
    assert not composing.reword(pk, "Others", "root")

    assert composing.texts([pk]) == {pk: "My own\nwords"}
    assert deliveries(batch) == [("ready", 0)]


def test_no_words_are_no_mail():
    batch, (pk,) = in_review()

    with pytest.raises(ValueError, match="use the template"):
        composing.reword(pk, " \n", "root")

    assert states(batch) == ["review"]


def test_the_template_may_be_sent_instead():
    batch, (pk,) = in_review()

    assert composing.use_template([pk], "root") == 1

    assert (states(batch), deliveries(batch), composing.texts([pk])) == (["fallback"], [("ready", 0)], {})


def test_what_is_rejected_is_not_sent_and_says_who_said_so():
    batch, rows = in_review(2)

    assert composing.reject(rows[:1], "root") == 1
    assert composing.approve(rows[:1], "root") == 0

    row = Delivery.objects.get(pk=rows[0])
    assert (row.state, row.words, row.settled_at is None) == ("skipped", "rejected in review by root", False)
    assert states(batch) == ["rejected", "review"]
    assert list(Tally.objects.filter(batch=batch).values_list("state", "count")) == [("skipped", 1)]


def test_what_nobody_reviewed_before_its_deadline_is_not_sent():
    batch, (late, early, _) = in_review(3)
    now = timezone.now()
    Composition.objects.filter(pk=late).update(deadline=now - timedelta(seconds=1))
    Composition.objects.filter(pk=early).update(deadline=now + timedelta(hours=1))

    assert (composing.lapse(), composing.lapse()) == (1, 0)

    assert states(batch) == ["lapsed", "review", "review"]
    assert [state for state, _ in deliveries(batch)] == ["skipped", "waiting", "waiting"]
    assert Delivery.objects.get(pk=late).words == "nobody reviewed its words before its deadline"


@pytest.mark.parametrize("decide", [composing.approve, composing.use_template, composing.reject])
def test_a_decision_about_a_delivery_that_has_ended_sends_nothing(decide):
    batch, (pk,) = in_review()
    queue.cancel(batch.pk)

    decide([pk], "root")

    assert deliveries(batch)[0][0] == "cancelled"


def test_the_indexes_serve_the_questions_that_are_asked_all_the_time():
    if connection.vendor != "sqlite":
        pytest.skip("SQLite says which index it takes whatever the statistics are")
    batch = composed_batch()
    head = f"SELECT deadline FROM {composing.C} WHERE batch_id = 1 AND engine_id = 2 AND state = 'wanted'"
    review = f"SELECT delivery_id FROM {composing.C} WHERE state = 'review' AND deadline < '2026' ORDER BY deadline"

    with connection.cursor() as cursor:
        plans = [cursor.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()[0][3] for sql in (head, review)]

    assert ["composition_wanted" in plans[0], "composition_review" in plans[1]] == [True, True]
    assert Engine.objects.filter(pk=composer().pk).exists()
    assert states(batch) == ["wanted"]
