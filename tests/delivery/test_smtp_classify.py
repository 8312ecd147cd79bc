"""The table of smtp.md §4, line by line."""

from datetime import timedelta

import pytest

from delivery.core.classify import LONGEST_WAIT, Stage, classify_reply
from delivery.core.envelope import Kind, Outcome

pytestmark = pytest.mark.once

HOURS = timedelta(hours=4)
TEN_MINUTES = timedelta(minutes=10)

REPLIES = [
    # stage, code, text, kind
    (Stage.RCPT, 551, "not local", Kind.RECIPIENT),
    (Stage.RCPT, 556, "no mail here", Kind.RECIPIENT),
    (Stage.RCPT, 550, "go away", Kind.RECIPIENT),
    (Stage.RCPT, 550, "5.9.9 never heard of", Kind.MESSAGE),
    (Stage.MAIL, 552, "5.3.4 too big", Kind.MESSAGE),
    (Stage.MAIL, 552, "too big", Kind.MESSAGE),
    (Stage.DOT, 552, "5.2.3 too big for this mailbox", Kind.MESSAGE),
    (Stage.DOT, 554, "5.6.0 bad content", Kind.MESSAGE),
    (Stage.MAIL, 553, "5.6.7 needs SMTPUTF8", Kind.MESSAGE),
    (Stage.MAIL, 555, "5.5.4 parameter unknown", Kind.MESSAGE),
    (Stage.RCPT, 501, "5.5.4 syntax", Kind.MESSAGE),
    (Stage.DATA, 503, "5.5.1 order", Kind.MESSAGE),
    (Stage.DOT, 554, "transaction failed", Kind.MESSAGE),
    (Stage.DOT, 599, "what is this", Kind.MESSAGE),
    (Stage.MAIL, 530, "5.7.0 authentication needed", Kind.ENGINE),
    (Stage.AUTH, 534, "5.7.9 too weak", Kind.ENGINE),
    (Stage.AUTH, 535, "5.7.8 wrong password", Kind.ENGINE),
    (Stage.AUTH, 535, "wrong password", Kind.ENGINE),
    (Stage.AUTH, 538, "5.7.11 encrypt", Kind.ENGINE),
    (Stage.AUTH, 500, "5.5.6 line too long", Kind.ENGINE),
    (Stage.RCPT, 550, "5.7.1 relay denied", Kind.ENGINE),
    (Stage.RCPT, 554, "Relay access denied", Kind.ENGINE),
    (Stage.MAIL, 553, "5.7.1 sender not owned by user", Kind.ENGINE),
    (Stage.RCPT, 550, "5.1.0 <a@b>: Sender address rejected: User unknown", Kind.ENGINE),
    (Stage.RCPT, 550, "5.1.1 <a@b>: Sender address rejected: User unknown", Kind.ENGINE),
    (Stage.MAIL, 550, "5.1.8 bad sender domain", Kind.ENGINE),
    (Stage.MAIL, 501, "5.1.7 bad sender", Kind.ENGINE),
    (Stage.MAIL, 550, "no", Kind.ENGINE),
    (Stage.GREETING, 521, "no mail", Kind.ENGINE),
    (Stage.GREETING, 554, "your address is refused", Kind.ENGINE),
    (Stage.EHLO, 550, "bad name", Kind.ENGINE),
    (Stage.STARTTLS, 501, "no", Kind.ENGINE),
    (Stage.DOT, 550, "5.7.26 not authenticated", Kind.ENGINE),
    (Stage.DOT, 550, "5.7.25 no PTR", Kind.ENGINE),
    (Stage.DOT, 550, "5.7.515 access denied", Kind.ENGINE),
    (Stage.DOT, 554, "5.7.1 spam", Kind.ENGINE),
    (Stage.DOT, 554, "Message rejected: Email address is not verified", Kind.ENGINE),
    (Stage.RCPT, 550, "blocked using zen.spamhaus.org", Kind.ENGINE),
    (Stage.MAIL, 421, "4.7.0 too many connections", Kind.THROTTLED),
    (Stage.GREETING, 421, "too many connections from your host", Kind.THROTTLED),
    (Stage.RCPT, 450, "4.2.1 receiving mail too fast", Kind.THROTTLED),
    (Stage.RCPT, 451, "4.7.1 slow", Kind.THROTTLED),
    (Stage.RCPT, 452, "4.5.3 too many recipients", Kind.THROTTLED),
    (Stage.RCPT, 552, "too many recipients", Kind.THROTTLED),
    (Stage.DOT, 454, "Throttling failure: Maximum sending rate exceeded.", Kind.THROTTLED),
    (Stage.AUTH, 432, "4.3.2 Concurrent connections limit exceeded", Kind.THROTTLED),
    (Stage.RCPT, 550, "5.2.1 The user is receiving mail at a rate that prevents additional messages", Kind.THROTTLED),
    (Stage.AUTH, 454, "4.7.0 temporary authentication failure", Kind.TRANSIENT),
    (Stage.STARTTLS, 454, "TLS not available", Kind.TRANSIENT),
    (Stage.MAIL, 421, "4.3.0 shutting down", Kind.TRANSIENT),
    (Stage.DOT, 451, "local error", Kind.TRANSIENT),
    (Stage.MAIL, 452, "4.3.1 disk full", Kind.TRANSIENT),
    (Stage.DOT, 451, "4.4.5 busy", Kind.TRANSIENT),
    (Stage.DOT, 499, "what is this", Kind.TRANSIENT),
]


@pytest.mark.parametrize(("stage", "code", "text", "kind"), REPLIES)
def test_a_reply_has_the_kind_that_the_table_gives_it(stage, code, text, kind):
    outcome = classify_reply(stage, code, text)

    assert (outcome.kind, outcome.hard, outcome.faults_engine) == (kind, False, True)


@pytest.mark.parametrize("status", ["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"])
@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DOT])
def test_the_codes_of_dead_addresses_suppress(stage, status):
    outcome = classify_reply(stage, 550, f"{status} gone")

    assert outcome == Outcome(Kind.RECIPIENT, f"550 {status}", "gone", hard=True)


def test_plain_words_for_a_dead_address_suppress_only_without_a_code_that_says_otherwise():
    assert classify_reply(Stage.RCPT, 550, "No such user here").hard
    assert not classify_reply(Stage.RCPT, 550, "5.7.1 No such user here").hard
    assert not classify_reply(Stage.DOT, 550, "No such user here").hard


@pytest.mark.parametrize("code", range(500, 600))
@pytest.mark.parametrize("text", ["refused", "5.9.9 refused", "4.1.1 contradictory", "5.1.10000 odd"])
def test_no_unknown_refusal_suppresses(code, text):
    assert not any(classify_reply(stage, code, text).hard for stage in Stage)


@pytest.mark.parametrize(
    ("stage", "code", "text"),
    [
        (Stage.RCPT, 452, "4.2.2 mailbox full"),
        (Stage.RCPT, 552, "5.2.2 mailbox full"),
        (Stage.RCPT, 552, "no room"),
        (Stage.DOT, 552, "mailbox full"),
        (Stage.RCPT, 450, "mailbox busy"),
        (Stage.RCPT, 450, "4.1.2 domain not found just now"),
        (Stage.RCPT, 451, "4.7.1 Greylisting in action"),
    ],
)
def test_trouble_of_one_mailbox_is_not_the_engines(stage, code, text):
    outcome = classify_reply(stage, code, text)

    assert (outcome.kind, outcome.hard, outcome.faults_engine) == (Kind.TRANSIENT, False, False)


@pytest.mark.parametrize(
    ("stage", "code", "text", "wait"),
    [
        (Stage.DOT, 550, "5.4.5 Daily sending limit exceeded", HOURS),
        (Stage.DOT, 550, "5.7.1 daily limit", HOURS),
        (Stage.DOT, 454, "Throttling failure: Daily message quota exceeded.", HOURS),
        (Stage.AUTH, 451, "Authentication failed: Maximum credits exceeded", HOURS),
        (Stage.DOT, 421, "4.7.28 unusual rate", TEN_MINUTES),
        (Stage.DOT, 421, "4.7.28 unusual rate, wait 30 minutes", timedelta(minutes=30)),
        (Stage.MAIL, 421, "4.7.0 too many connections, try again in 90 seconds", timedelta(seconds=90)),
        (Stage.MAIL, 421, "4.7.0 try again in 900000 hours", LONGEST_WAIT),
        (Stage.MAIL, 421, "4.7.0 try later", None),
    ],
)
def test_a_throttling_reply_says_how_long_to_wait(stage, code, text, wait):
    outcome = classify_reply(stage, code, text)

    assert (outcome.kind, outcome.retry_after) == (Kind.THROTTLED, wait)


@pytest.mark.parametrize(
    ("text", "words", "provider_id"),
    [
        ("2.0.0 Ok: queued as 4ABC", "Ok: queued as 4ABC", "4ABC"),
        ("Ok 0102018f-000000", "Ok 0102018f-000000", "0102018f-000000"),
        ("OK id=1abc-2D", "OK id=1abc-2D", "1abc-2D"),
        ("2.0.0 OK  1612345678 5si123.12 - gsmtp", "OK  1612345678 5si123.12 - gsmtp", "5si123.12"),
        ("2.6.0 <x@y> [InternalId=7] Queued", "<x@y> [InternalId=7] Queued", "x@y"),
        ("2.0.0 Ok", "Ok", ""),
        ("", "", ""),
    ],
)
def test_an_accepted_mail_keeps_the_servers_id(text, words, provider_id):
    outcome = classify_reply(Stage.DOT, 250, text)

    assert (outcome.kind, outcome.text, outcome.provider_id) == (Kind.ACCEPTED, words, provider_id)


def test_only_the_final_dot_accepts():
    assert [stage for stage in Stage if classify_reply(stage, 250, "2.0.0 Ok").kind is Kind.ACCEPTED] == [Stage.DOT]


def test_a_senseless_answer_to_the_dot_is_unknown_and_elsewhere_transient():
    assert classify_reply(Stage.DOT, 354, "go on").kind is Kind.UNKNOWN
    assert classify_reply(Stage.RCPT, 354, "go on").kind is Kind.TRANSIENT


def test_a_longer_reply_is_judged_by_its_last_line_and_kept_whole():
    outcome = classify_reply(Stage.RCPT, 550, "5.7.1 first\n5.1.1 second\n#5.1.1 third")

    assert outcome == Outcome(Kind.RECIPIENT, "550 5.1.1", "5.7.1 first second third", hard=True)
