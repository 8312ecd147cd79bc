"""Callbacks from the news to the answer: what is told, to whom, signed how, and what becomes of a refusal."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from ipaddress import ip_network

import pytest
from django.db import transaction
from django.utils.timezone import now
from standardwebhooks import WebhookVerificationError

from campaigns import control
from campaigns.callbacks import outbox, status_of, subscriptions, webhooks
from campaigns.callbacks.outbox import Told, replay
from campaigns.callbacks.retry import Reply, Verdict
from campaigns.callbacks.sending import ping, send_due
from campaigns.exceptions import CallbackRefused
from campaigns.models import Callback, CallbackAttempt, CallbackSender, CallbackState, Run, Webhook
from delivery.http.networks import BlockedAddress
from delivery.models import Delivery
from delivery.queue import Heard, record_events
from tests.campaigns import cast
from tests.campaigns.receiving import Receiver, receiving, run_secret, webhook, yes
from tests.delivery.http_server import Conduct, Received, answer, stays_silent

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _near(outreach: Callable[..., None]) -> Iterator[None]:
    """Receivers on loopback may be told; no webhook of another test is remembered."""
    outreach(ALLOWED_NETWORKS=[ip_network("127.0.0.0/8")])
    subscriptions.forget()
    yield
    subscriptions.forget()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as there:
        yield there


def run_for(url: str, **settings: object) -> Run:
    """A run whose end this URL is told."""
    return cast.queued(cast.workflow(**settings), callback_url=url)


def finished(run: Run) -> Run:
    cast.initialize(run.pk)
    cast.pump(run.batch_id)
    return cast.fresh(run)


def only() -> Callback:
    return Callback.objects.get()


# ---- what is told ----


def test_a_runs_callback_url_is_told_of_its_end_with_the_run_as_the_api_shows_it(receiver):
    run = finished(run_for(receiver.url))

    send_due()

    told = receiver.verified(run_secret())
    assert told["type"] == "run.completed"
    assert told["data"]["id"] == run.pk
    assert told["data"]["state"] == "completed"
    assert told["data"]["counts"]["accepted"] == 3
    assert receiver.types == ["run.completed"]
    assert status_of([run.pk]) == {run.pk: "delivered"}


def test_a_webhook_hears_of_what_it_asked_for_and_of_nothing_else(receiver):
    webhook(receiver.url, "run.sending", "run.completed")

    finished(run_for(""))
    send_due()

    assert sorted(receiver.types) == ["run.completed", "run.sending"]


def test_a_pause_is_told_and_going_on_is_not_told_to_the_run(receiver):
    run = run_for(receiver.url)
    cast.initialize(run.pk)
    control.pause(cast.fresh(run), "ada")
    control.resume(cast.fresh(run), "ada")
    control.cancel(cast.fresh(run), "ada")

    send_due()

    assert sorted(receiver.types) == ["run.cancelled", "run.paused"]


def test_what_is_rolled_back_is_told_to_nobody(receiver):
    run = run_for(receiver.url)
    cast.initialize(run.pk)
    with transaction.atomic():
        control.pause(cast.fresh(run), "ada")
        transaction.set_rollback(True)

    assert not Callback.objects.exists()


def test_ends_of_deliveries_are_told_together_and_only_those_asked_for(receiver):
    hook, secret = webhook(receiver.url, "delivery.accepted")
    webhook(receiver.url, "delivery.rejected", name="other")

    run = finished(run_for(""))
    send_due()

    told = receiver.verified(secret)
    listed = told["data"]["deliveries"]
    assert told["type"] == "deliveries.ended"
    assert {each["address"] for each in listed} == cast.ADDRESSES
    assert {(each["run"], each["step"], each["state"]) for each in listed} == {(run.pk, 1, "accepted")}
    assert len(receiver.arrived) == Callback.objects.filter(webhook=hook).count() == 1


def test_what_a_cancelled_run_leaves_is_listed(receiver):
    webhook(receiver.url, "delivery.cancelled")
    run = run_for("")
    cast.initialize(run.pk)

    control.cancel(cast.fresh(run), "ada")
    send_due()

    listed = receiver.said()["data"]
    assert {each["address"] for each in listed["deliveries"]} == cast.ADDRESSES
    assert listed["more"] == 0


def test_of_very_many_that_a_cancelled_run_leaves_the_first_are_listed_and_the_rest_is_counted(receiver, monkeypatch):
    monkeypatch.setattr("campaigns.callbacks.news.MOST_LISTED", 4)
    monkeypatch.setattr("campaigns.callbacks.news.LISTED", 3)
    webhook(receiver.url, "delivery.cancelled")
    run = run_for("", audience=cast.list_audience(cast.crowd(9)))
    cast.initialize(run.pk)

    control.cancel(cast.fresh(run), "ada")
    send_due()

    data = [receiver.said(n)["data"] for n in range(len(receiver.arrived))]
    assert sorted((len(each["deliveries"]), each["more"]) for each in data) == [(1, 5), (3, 5)]


def test_what_is_heard_of_deliveries_is_told(receiver):
    run = finished(run_for(""))
    webhook(receiver.url, "delivery.opened")
    delivery = Delivery.objects.filter(batch=run.batch_id).first()

    record_events([Heard(delivery.pk, kind, now(), "a test") for kind in ("opened", "clicked")])
    send_due()

    (heard,) = receiver.said()["data"]["deliveries"]
    assert (heard["id"], heard["run"], heard["kind"]) == (delivery.pk, run.pk, "opened")


def test_nothing_is_written_and_one_question_is_asked_when_nobody_wants_to_hear(django_assert_num_queries):
    run = finished(run_for(""))
    delivery = Delivery.objects.filter(batch=run.batch_id).first()
    subscriptions.forget()

    from campaigns.callbacks import news
    from delivery.queue.ends import Ended

    ended = [Ended(delivery.pk, run.batch_id, "accepted")]
    with django_assert_num_queries(1):
        for _ in range(1000):
            news.deliveries_ended(ended)

    assert not Callback.objects.exists()


def test_a_webhook_that_was_deleted_a_moment_ago_harms_nobody_who_ends(receiver):
    hook, _ = webhook(receiver.url, "*")
    subscriptions.wanting({"run.completed"})
    Webhook.objects.filter(pk=hook.pk).delete()  # by another process: this one remembers

    run = finished(run_for(""))

    assert run.state == "completed"
    assert not Callback.objects.exists()


# ---- signatures ----


def test_a_replaced_secret_signs_beside_the_new_one_for_a_day(receiver):
    hook, old = webhook(receiver.url)
    new = webhooks.rotate(hook, "ada")
    ping(Webhook.objects.get())

    assert receiver.verified(old) == receiver.verified(new)
    with pytest.raises(WebhookVerificationError):
        receiver.verified(run_secret())


def test_each_key_of_the_installation_signs_what_a_run_tells(receiver, outreach, settings):
    before = run_secret()
    fresh = "A" * 43 + "="
    outreach(SECRET_KEYS=[fresh, *settings.OUTREACH["SECRET_KEYS"]], ALLOWED_NETWORKS=[ip_network("127.0.0.0/8")])

    finished(run_for(receiver.url))
    send_due()

    assert run_secret() != before
    assert receiver.verified(before) == receiver.verified(run_secret())


def test_every_attempt_bears_the_same_id(receiver):
    receiver.respond = lambda request: answer(500)
    finished(run_for(receiver.url))
    send_due()
    receiver.respond = yes
    Callback.objects.update(next_at=now())
    send_due()

    ids = {each.headers["webhook-id"] for each in receiver.arrived}
    assert ids == {only().key}
    assert len(receiver.arrived) == 2


# ---- answers ----


@pytest.mark.parametrize(
    ("status", "state", "least", "most"),
    [(500, "waiting", 2.5, 5), (429, "waiting", 2.5, 5), (408, "waiting", 2.5, 5), (404, "waiting", 150, 300)],
)
def test_a_refusal_is_waited_for_by_its_class(receiver, status, state, least, most):
    receiver.respond = lambda request: answer(status)
    finished(run_for(receiver.url))
    begun = now()

    send_due()

    callback = only()
    assert callback.state == state
    assert least <= (callback.next_at - begun).total_seconds() <= most + 2
    assert [(each.status, each.callback_id) for each in CallbackAttempt.objects.all()] == [(status, callback.pk)]


def test_a_receiver_that_asks_to_be_left_alone_is(receiver):
    receiver.respond = lambda request: answer(503, Retry_After="1800")
    finished(run_for(receiver.url))

    send_due()

    assert timedelta(minutes=29) < only().next_at - now() <= timedelta(minutes=30)


def test_who_is_not_there_is_tried_again_and_the_words_say_why(receiver):
    finished(run_for("http://127.0.0.1:1/hook"))

    send_due()

    callback = only()
    assert callback.state == "waiting"
    assert "no connection to 127.0.0.1:1" in callback.words
    assert callback.tries.get().status is None


def test_after_a_day_a_callback_is_dead_and_a_person_can_send_it_again(receiver):
    receiver.respond = lambda request: answer(500)
    run = finished(run_for(receiver.url))
    Callback.objects.update(gives_up_at=now())
    send_due()
    dead = only()

    receiver.respond = yes
    replay([dead.pk], "ada")
    send_due()

    assert dead.state == CallbackState.DEAD
    assert "500" in dead.words
    assert status_of([run.pk]) == {run.pk: "delivered"}
    assert receiver.arrived[0].headers["webhook-id"] == receiver.arrived[1].headers["webhook-id"]


def test_only_a_dead_letter_is_sent_again(receiver):
    finished(run_for(receiver.url))
    send_due()

    with pytest.raises(CallbackRefused, match="Only a dead letter"):
        replay([only().pk], "ada")


def test_a_private_address_is_refused_when_it_is_connected_to(outreach, receiver):
    run = run_for(receiver.url)
    outreach(ALLOWED_NETWORKS=[])

    finished(run)
    send_due()

    callback = only()
    assert callback.state == CallbackState.DEAD
    assert "OUTREACH_ALLOWED_NETWORKS" in callback.words
    assert receiver.arrived == []
    assert issubclass(BlockedAddress, OSError)


def test_a_redirect_is_not_followed_and_is_said(receiver):
    receiver.respond = lambda request: answer(302, Location="http://169.254.169.254/")
    finished(run_for(receiver.url))

    send_due()

    assert len(receiver.arrived) == 1
    assert "leads elsewhere" in only().words


def test_410_ends_a_callback_and_switches_its_webhook_off(receiver):
    hook, _ = webhook(receiver.url, "run.completed")
    receiver.respond = lambda request: answer(410)

    finished(run_for(""))
    send_due()

    hook.refresh_from_db()
    assert only().state == CallbackState.DEAD
    assert (hook.enabled, hook.switched_off_why) == (False, "It answered 410: nobody is there any more.")
    assert hook.history.last().what == "switched off"


def test_what_a_receiver_says_is_kept_short_and_without_secrets(receiver):
    receiver.respond = lambda request: answer(500, b"no: password=hunter2 " + b"x" * 100_000)
    finished(run_for(receiver.url))

    send_due()

    words = only().tries.get().words
    assert "hunter2" not in words
    assert len(words) <= 300


# ---- a webhook that fails ----


def test_a_webhook_that_only_fails_for_a_day_is_switched_off_with_notice(receiver, caplog):
    hook, _ = webhook(receiver.url, "run.completed")
    receiver.respond = lambda request: answer(500)
    Webhook.objects.update(failing_since=now() - timedelta(hours=24), failures=19)

    finished(run_for(""))
    send_due()

    hook.refresh_from_db()
    assert not hook.enabled
    assert "24 hours" in hook.switched_off_why
    assert [record.levelname for record in caplog.records if "switched off" in record.message] == ["ERROR"]
    assert only().state == CallbackState.WAITING


@pytest.mark.parametrize(("hours", "failures"), [(23, 100), (48, 5)])
def test_a_webhook_that_failed_for_less_long_or_less_often_stays_on(receiver, hours, failures):
    hook, _ = webhook(receiver.url, "run.completed")
    receiver.respond = lambda request: answer(500)
    Webhook.objects.update(failing_since=now() - timedelta(hours=hours), failures=failures)

    finished(run_for(""))
    send_due()

    hook.refresh_from_db()
    assert hook.enabled


def test_one_success_makes_a_webhook_well_again(receiver):
    hook, _ = webhook(receiver.url, "run.completed")
    Webhook.objects.update(failing_since=now() - timedelta(hours=48), failures=100)

    finished(run_for(""))
    send_due()

    hook.refresh_from_db()
    assert (hook.enabled, hook.failing_since, hook.failures) == (True, None, 0)


def test_what_waits_for_a_webhook_that_is_off_is_sent_when_it_is_on_again(receiver):
    hook, _ = webhook(receiver.url, "run.completed")
    finished(run_for(""))
    webhooks.switch_off(hook.pk, "ada")
    send_due()
    before = list(receiver.arrived)

    webhooks.switch_on(hook.pk, "ada")
    send_due()

    assert before == []
    assert receiver.types == ["run.completed"]


def test_what_was_written_while_a_webhook_was_switched_off_does_not_hold_up_others(receiver):
    hook, _ = webhook(receiver.url, "run.completed")
    finished(run_for(receiver.url))
    Webhook.objects.filter(pk=hook.pk).update(enabled=False)  # and its callbacks were not told of it

    assert not send_due()

    assert Callback.objects.get(webhook=hook).next_at is None
    assert len(receiver.arrived) == 1


def test_the_sweep_finds_what_was_put_aside_while_somebody_switched_on(receiver):
    webhook(receiver.url, "run.completed")
    finished(run_for(""))
    Callback.objects.update(next_at=None)

    outbox.sweep()
    send_due()

    assert len(receiver.arrived) == 1


def test_what_a_deleted_webhook_was_to_be_told_is_dead_and_stays_so(receiver):
    hook, _ = webhook(receiver.url, "run.completed")
    run = finished(run_for(""))
    webhooks.remove(hook, "ada")

    send_due()

    assert only().state == CallbackState.DEAD
    assert receiver.arrived == []
    assert status_of([run.pk]) == {}
    with pytest.raises(CallbackRefused):
        replay([only().pk], "ada")


# ---- senders ----


def test_one_process_sends_at_a_time(receiver):
    finished(run_for(receiver.url))
    CallbackSender.objects.create(pk=1, owner="elsewhere:1:1", until=now() + timedelta(seconds=30))

    send_due()
    before = len(receiver.arrived)
    CallbackSender.objects.update(until=now())
    send_due()

    assert (before, len(receiver.arrived)) == (0, 1)


def test_what_a_sender_had_that_died_is_sent_when_its_claim_has_ended(receiver):
    finished(run_for(receiver.url))
    (lost,) = outbox.claim(10)

    send_due()
    before = len(receiver.arrived)
    Callback.objects.update(next_at=now())
    send_due()

    assert (before, len(receiver.arrived)) == (0, 1)
    assert receiver.arrived[0].headers["webhook-id"] == lost.key


def test_the_answer_of_a_sender_whose_claim_has_ended_does_not_count(receiver):
    finished(run_for(receiver.url))
    (late,) = outbox.claim(10)
    Callback.objects.update(next_at=now())
    (other,) = outbox.claim(10)

    for due in (late, other):
        with transaction.atomic():
            outbox.settle([Told(due, Reply(200), Verdict(CallbackState.DELIVERED), now())])

    assert late.claim != other.claim
    assert only().attempts == CallbackAttempt.objects.count() == 1


def test_those_who_claim_at_once_get_each_callback_once(receiver):
    run = finished(run_for(""))
    Callback.objects.bulk_create(Callback(url=receiver.url, type="run.failed", body="{}", run=run) for _ in range(40))

    claimed = cast.side_by_side(4, lambda number: [each.id for each in outbox.claim(10)])

    ids = [each for some in claimed for each in some]
    assert len(ids) == len(set(ids))
    assert len(ids) + len(outbox.claim(40)) == 40


def test_few_at_once_go_to_one_host():
    run = finished(run_for(""))
    with receiving(in_eights()) as receiver:
        Callback.objects.bulk_create(
            Callback(url=receiver.url, type="run.completed", body="{}", run=run) for _ in range(64)
        )

        send_due()

    assert len(receiver.arrived) == 64
    assert receiver.most_at_once == 8
    assert set(Callback.objects.values_list("state", flat=True)) == {"delivered"}


def in_eights() -> Conduct:
    """Answers nobody before eight have asked."""
    eight = asyncio.Barrier(8)

    async def conduct(request: Received, writer: asyncio.StreamWriter) -> None:
        await eight.wait()
        writer.write(answer(204, b""))
        await writer.drain()

    return conduct


def test_a_host_that_is_silent_holds_up_nobody_else(receiver, monkeypatch):
    monkeypatch.setattr("campaigns.callbacks.sending.ANSWER", 1.0)
    monkeypatch.setattr("campaigns.callbacks.sending.IN_HAND", 60)
    monkeypatch.setattr("campaigns.callbacks.sending.PATIENCE", 1.0)
    run = finished(run_for(""))
    with receiving(stays_silent) as silent:
        silent_ones = [Callback(url=silent.url, type="run.completed", body="{}", run=run) for _ in range(200)]
        Callback.objects.bulk_create(silent_ones)
        Callback.objects.create(url=receiver.url, type="run.completed", body="{}", run=run)

        send_due(seconds=6, should_stop=lambda: bool(receiver.arrived))  # all of them would take 25 s

    assert len(receiver.arrived) == 1
    assert not Callback.objects.filter(claim__gt="").exists()


def test_a_stop_is_heard_and_what_had_not_begun_is_put_back(receiver):
    run = finished(run_for(""))
    Callback.objects.bulk_create(Callback(url=receiver.url, type="run.completed", body="{}", run=run) for _ in range(9))

    left = send_due(should_stop=lambda: True)

    assert left
    assert receiver.arrived == []


def test_what_was_told_is_forgotten_after_a_month_and_dead_letters_are_kept(receiver):
    finished(run_for(receiver.url))
    send_due()
    Callback.objects.update(ended_at=now() - timedelta(days=31))
    Callback.objects.create(
        url=receiver.url, type="x", body="{}", state=CallbackState.DEAD, ended_at=now() - timedelta(days=300)
    )

    outbox.sweep()

    assert only().state == CallbackState.DEAD
    assert not CallbackAttempt.objects.exists()
