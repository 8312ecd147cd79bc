"""Workflows of several steps: who gets the next mail, when, in which thread, and that everybody is accounted for."""

import email.policy
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from campaigns.models import OnLate, RunState
from delivery import queue
from delivery.models import Batch, Delivery, KeptMail, Message, Suppression, Tally
from tests.campaigns import cast

pytestmark = [pytest.mark.usefixtures("output_dir"), pytest.mark.django_db(transaction=True)]


def ends(run):
    """How each step's deliveries have ended: {position: {state: count}}."""
    found = {}
    for message in Message.objects.filter(batch=run.batch_id):
        rows = Delivery.objects.filter(message=message)
        found[message.position] = {state: rows.filter(state=state).count() for state in {row.state for row in rows}}
    return found


def assert_accounted_for(run, total):
    assert run.state == RunState.COMPLETED
    assert sum(run.counts.values()) == Batch.objects.get(pk=run.batch_id).size == total
    assert queue.counts_by_state(run.batch_id) == cast.nonzero(run.counts) == queue.progress(run.batch_id)


def test_the_next_step_goes_to_those_who_were_sent_the_one_before():
    workflow = cast.workflow()
    cast.add_step(workflow, 2, after="1")
    cast.add_step(workflow, 3, after="2")

    run = cast.ended(workflow)

    assert ends(run) == {1: {"accepted": 3}, 2: {"accepted": 3}, 3: {"accepted": 3}}
    assert_accounted_for(run, 9)


def test_a_follow_up_answers_the_mails_before_it_in_one_thread():
    workflow = cast.workflow(audience=cast.list_audience([cast.ADA]))
    cast.add_step(workflow, 2, after="1")
    cast.add_step(workflow, 3, after="2")
    cast.add_step(workflow, 4, after="3", thread=False)

    cast.ended(workflow)

    first, second, third, fourth = mails()
    ids = [first["Message-ID"], second["Message-ID"], third["Message-ID"]]
    assert (first["In-Reply-To"], first["References"]) == (None, None)
    assert (second["In-Reply-To"], second["References"]) == (ids[0], ids[0])
    assert (third["In-Reply-To"], third["References"]) == (ids[1], f"{ids[0]} {ids[1]}")
    assert (fourth["In-Reply-To"], fourth["References"]) == (None, None)
    assert {mail["From"] for mail in (first, second, third, fourth)} == {"Letters <letters@sender.example>"}


def mails():
    """Every mail that went out, in order."""
    kept = KeptMail.objects.order_by("pk").values_list("raw", flat=True)
    return [email.message_from_bytes(bytes(raw), policy=email.policy.default) for raw in kept]


def heard(run, address, kind):
    """Something is heard of the first mail to this address."""
    first = Delivery.objects.get(batch=run.batch_id, message__position=1, address=address)
    queue.record_events([queue.Heard(first.pk, kind, timezone.now(), "a test")])


def pumped(run, once_sent, deed):
    """Works on the run to its end, and does a deed as soon as so many have been sent."""

    def watch():
        try:
            while Delivery.objects.filter(batch=run.batch_id, state="accepted").count() < once_sent:
                pass
            deed()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as beside:
        watching = beside.submit(watch)
        cast.pump(run.batch_id)
        watching.result(10)
    return cast.fresh(run)


def test_who_was_not_sent_the_first_mail_gets_no_second_and_is_counted_with_the_reason():
    workflow = cast.workflow()
    cast.add_step(workflow, 2, after="1")
    Suppression.objects.create(address=cast.ADA[0], identity=cast.ADA[0])

    run = cast.ended(workflow)

    assert ends(run) == {1: {"accepted": 2, "suppressed": 1}, 2: {"accepted": 2, "skipped": 1}}
    skipped = Delivery.objects.get(state="skipped")
    assert (skipped.address, skipped.words) == (cast.ADA[0], "message 1 to this recipient ended as suppressed")
    assert_accounted_for(run, 6)


def test_a_delay_is_waited_for():
    workflow = cast.workflow()
    cast.add_step(workflow, 2, after="1", delay="2 seconds")

    run = cast.ended(workflow)

    first = Delivery.objects.filter(message__position=1).order_by("-settled_at").first()
    second = Delivery.objects.filter(message__position=2).order_by("tried_at").first()
    assert timedelta(seconds=2) <= second.tried_at - first.settled_at < timedelta(seconds=4)
    assert_accounted_for(run, 6)


def test_a_step_that_follows_two_goes_once_when_both_were_sent():
    workflow = cast.workflow()
    cast.add_step(workflow, 2)
    cast.add_step(workflow, 3, after="1, 2")
    cast.add_step(workflow, 4, after="3")

    run = cast.ended(workflow)

    assert ends(run) == {n: {"accepted": 3} for n in (1, 2, 3, 4)}
    assert_accounted_for(run, 12)


def test_a_step_that_follows_two_is_skipped_when_one_of_them_was():
    workflow = cast.workflow()
    cast.add_step(workflow, 2, condition="city == 'Oslo'")
    cast.add_step(workflow, 3, after="1, 2")
    cast.add_step(workflow, 4, after="3 not accepted")

    run = cast.ended(workflow)

    assert ends(run) == {
        1: {"accepted": 3},
        2: {"accepted": 1, "skipped": 2},
        3: {"accepted": 1, "skipped": 2},
        4: {"accepted": 2, "skipped": 1},
    }
    assert_accounted_for(run, 12)


def test_what_was_heard_of_a_mail_decides_who_gets_the_next():
    workflow = cast.workflow(stop_on_reply=False)
    cast.add_step(workflow, 2, after="1 opened", delay="1 second")
    cast.add_step(workflow, 3, after="1 not opened", delay="1 second")
    run = cast.initialized(workflow)

    run = pumped(run, 3, lambda: heard(run, cast.ADA[0], "opened"))

    assert ends(run) == {1: {"accepted": 3}, 2: {"accepted": 1, "skipped": 2}, 3: {"accepted": 2, "skipped": 1}}
    assert set(Delivery.objects.filter(state="skipped").values_list("words", flat=True)) == {
        "message 1 to this recipient was not opened",
        "message 1 to this recipient was opened",
    }
    assert_accounted_for(run, 9)


@pytest.mark.parametrize("kind", ["replied", "bounced"])
@pytest.mark.parametrize("stops", [True, False])
def test_who_has_replied_or_whose_mail_came_back_gets_no_more_of_the_run_unless_it_goes_on(kind, stops):
    workflow = cast.workflow(stop_on_reply=stops, stop_on_bounce=stops)
    cast.add_step(workflow, 2, after="1", delay="1 second")
    run = cast.initialized(workflow)

    run = pumped(run, 3, lambda: heard(run, cast.ADA[0], kind))

    assert ends(run)[2] == ({"accepted": 2, "suppressed": 1} if stops else {"accepted": 3})
    assert [row.words for row in Delivery.objects.filter(state="suppressed")] == [f"suppressed: {kind}"] * stops
    assert_accounted_for(run, 6)


def test_who_unsubscribes_between_two_steps_gets_no_more():
    workflow = cast.workflow()
    cast.add_step(workflow, 2, after="1", delay="1 second")
    run = cast.initialized(workflow)

    def unsubscribe():
        Suppression.objects.create(address=cast.ADA[0], identity=cast.ADA[0], scope="letters", reason="unsubscribe")

    run = pumped(run, 3, unsubscribe)

    assert ends(run)[2] == {"accepted": 2, "suppressed": 1}
    assert_accounted_for(run, 6)


def test_a_stop_is_for_one_run_only():
    workflow = cast.workflow()
    run = cast.ended(workflow)
    heard(run, cast.ADA[0], "replied")

    assert ends(cast.ended(workflow)) == {1: {"accepted": 3}}


@pytest.mark.parametrize(("on_late", "end"), [(OnLate.EXPIRE, "expired"), (OnLate.SEND, "accepted")])
def test_what_missed_its_deadline_expires_or_goes_late_and_is_counted(on_late, end):
    content = "email,name,until\n" + "".join(f"p{n}@example.test,P {n},2020-01-01T00:00:00Z\n" for n in range(3))
    audience = cast.csv_audience(content, deadline_field="until")
    version = cast.template(text="Hello {{ name }}")
    workflow = cast.workflow(audience=audience, version=version)
    workflow.steps.update(on_late=on_late)

    run = cast.ended(workflow)

    assert ends(run) == {1: {end: 3}}
    assert queue.late(run.batch_id) == (3 if end == "accepted" else 0)
    assert_accounted_for(run, 3)


def test_what_a_worker_of_an_older_version_sent_is_followed_all_the_same():
    workflow = cast.workflow()
    cast.add_step(workflow, 2, after="1")
    run = cast.initialized(workflow)
    first = Delivery.objects.filter(batch=run.batch_id)
    first.update(state="accepted", settled_at=timezone.now())  # and nothing else: it knows of no steps
    Tally.objects.create(batch=run.batch, state="accepted", shard=0, count=3)

    cast.pump(run.batch_id)

    run = cast.fresh(run)
    assert ends(run) == {1: {"accepted": 3}, 2: {"accepted": 3}}
    assert_accounted_for(run, 6)
