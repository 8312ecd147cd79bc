"""The rules of callbacks that need no database: signatures, and what an answer means."""

from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from campaigns.callbacks import signing
from campaigns.callbacks.retry import Reply, judge
from campaigns.models import CallbackState

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(hours=24)


def test_what_is_signed_is_verified_by_standard_webhooks_and_nothing_else_is(rng):
    secret, body = signing.new_secret(), b'{"name": "Bj\xc3\xb8rn"}'
    headers = signing.headers([secret], "msg_1", datetime.now(UTC), body)

    assert Verifier(secret).verify(body, headers) == {"name": "Bjørn"}
    for other in (body + b" ", body.replace(b"name", b"nama")):
        with pytest.raises(WebhookVerificationError):
            Verifier(secret).verify(other, headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(body, headers | {"webhook-id": "msg_2"})
    with pytest.raises(WebhookVerificationError):
        Verifier(signing.new_secret()).verify(body, headers)


def test_the_signature_is_what_the_library_itself_makes():
    secret, body = signing.new_secret(), b"{}"

    headers = signing.headers([secret], "msg_1", NOON, body)

    assert headers["webhook-signature"] == Verifier(secret).sign("msg_1", NOON, body.decode())


def test_several_secrets_sign_side_by_side():
    old, new = signing.new_secret(), signing.new_secret()
    headers = signing.headers([new, old], "msg_1", datetime.now(UTC), b"{}")

    assert all(Verifier(secret).verify(b"{}", headers) == {} for secret in (old, new))


def waits(reply, attempts, rng):
    verdict = judge(reply, attempts, NOON + DAY, NOON, rng)
    assert verdict.state is CallbackState.WAITING
    return (verdict.next_at - NOON).total_seconds()


@pytest.mark.parametrize("status", [None, 408, 425, 429, 500, 502, 503, 504])
def test_trouble_that_passes_is_waited_for_from_five_seconds_to_two_hours(status, rng):
    for attempts in range(1, 40):
        longest = min(5 * 2 ** (attempts - 1), 7200)

        assert longest / 2 <= waits(Reply(status), attempts, rng) <= longest


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 422])
def test_what_somebody_has_to_mend_is_waited_for_from_five_minutes(status, rng):
    for attempts in range(1, 40):
        longest = min(300 * 2 ** (attempts - 1), 7200)

        assert longest / 2 <= waits(Reply(status), attempts, rng) <= longest


def test_a_receiver_may_ask_for_more_time_and_not_for_less(rng):
    assert waits(Reply(429, wait=timedelta(hours=3)), 1, rng) == 3 * 3600
    assert waits(Reply(429, wait=timedelta(seconds=1)), 1, rng) >= 2.5


def test_the_last_try_comes_when_the_day_ends_and_none_after_it(rng):
    end = NOON + timedelta(minutes=1)

    assert judge(Reply(500), 20, end, NOON, rng).next_at == end
    assert judge(Reply(500), 21, end, end, rng).state is CallbackState.DEAD
    assert judge(Reply(200), 21, end, end, rng).state is CallbackState.DELIVERED


@pytest.mark.parametrize("reply", [Reply(410), Reply(None, "10.0.0.1 is not a public address.", hopeless=True)])
def test_what_no_try_can_mend_is_dead_at_once(reply, rng):
    assert judge(reply, 1, NOON + DAY, NOON, rng).state is CallbackState.DEAD


def test_who_is_never_there_is_tried_some_twenty_times_in_a_day(rng):
    now, attempts = NOON, 0
    while True:
        attempts += 1
        verdict = judge(Reply(None, "no answer"), attempts, NOON + DAY, now, rng)
        if verdict.state is CallbackState.DEAD:
            break
        now = verdict.next_at

    assert now == NOON + DAY
    assert 20 <= attempts <= 40
