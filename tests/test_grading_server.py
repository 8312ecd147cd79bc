"""The grading server: it finds what is wrong, and nothing where nothing is; its emails can be answered in time."""

import http.client
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.grading_server import (
    DEEPEST,
    KEY,
    KEY_HEADER,
    SECOND,
    SPACING,
    Disorder,
    Email,
    Grade,
    GradingServer,
    Off,
    Posted,
    ancestors,
    dependents,
    graded,
    inbox,
    report,
    waits,
)
from tests.servers import dying_with_parent
from tests.sinks import ROOT

pytestmark = pytest.mark.once

ASKED = 5 * SECOND
MILLISECOND = SECOND // 1000
# b waits for a, c for both.
A = Email("a", due=10)
B = Email("b", due=11, after=("a",))
C = Email("c", due=12, after=("a", "b"))
EMAILS = (A, B, C)


def posted(email, before=0.5, **given):
    """Its answer, so many seconds before its deadline, answered a millisecond later."""
    arrived = ASKED + round((email.due - before) * SECOND)
    return Posted(email.id, **{"arrived": arrived, "answered": arrived + MILLISECOND, **given})


PERFECT = tuple(posted(email) for email in EMAILS)


def found(*posts, emails=EMAILS, **given):
    return graded(emails, posts, ASKED, **given).findings


def test_a_perfect_round_has_no_finding():
    assert graded(EMAILS, PERFECT, ASKED) == Grade(emails=3, accepted=3)
    assert found(*reversed(PERFECT)) == {}


@pytest.mark.parametrize("number", range(3))
def test_what_did_not_come_is_missing(number):
    left = [post for post in PERFECT if post.id != EMAILS[number].id]

    assert found(*left)["missing"] == (EMAILS[number].id,)


def test_what_was_only_answered_with_trouble_is_missing():
    assert found(*PERFECT[:2], replace(PERFECT[2], status=503)) == {"missing": ("c",)}


@pytest.mark.parametrize("status", [200, 422])
def test_what_comes_again_after_it_was_taken_or_refused_is_twice(status):
    again = posted(C, before=0.1)

    assert found(*PERFECT[:2], replace(PERFECT[2], status=status), again) == {"twice": ("c",)}


def test_what_comes_again_after_trouble_is_not_twice():
    assert found(*PERFECT[:2], posted(C, status=500), posted(C, before=0.3, status=503), posted(C, before=0.1)) == {}


def test_what_comes_after_its_deadline_is_late_by_so_much():
    assert found(*PERFECT[:2], posted(C, before=-0.25)) == {"late": (Off("c", 0.25),)}
    assert found(*PERFECT[:2], posted(C, before=0)) == {}


def test_what_comes_too_long_before_its_deadline_is_early_whatever_it_was_answered():
    assert found(posted(A, before=0.75), *PERFECT[1:]) == {"early": (Off("a", 0.75),)}
    assert found(posted(A, before=0.75, status=503), posted(A), *PERFECT[1:]) == {"early": (Off("a", 0.75),)}
    assert found(posted(A, before=0.75), *PERFECT[1:], earliest=0.75) == {}


def test_what_comes_before_another_was_answered_is_out_of_order():
    slow = replace(PERFECT[1], answered=PERFECT[2].arrived + 1)

    assert found(PERFECT[0], slow, PERFECT[2]) == {"disorder": (Disorder("c", "b", None),)}


@pytest.mark.parametrize(("waited", "disorder"), [(99_999, (Disorder("b", "a", 0.000099999),)), (100_000, ())])
def test_what_comes_less_than_the_gap_after_another_was_answered_is_out_of_order(waited, disorder):
    slow = replace(PERFECT[0], answered=PERFECT[1].arrived - waited)

    assert found(slow, *PERFECT[1:]).get("disorder", ()) == disorder


def test_the_order_counts_from_when_the_other_was_taken_not_from_its_first_try():
    first = posted(A, status=500)
    taken = replace(first, status=200, arrived=PERFECT[1].arrived, answered=PERFECT[1].arrived + 1)

    assert found(first, taken, *PERFECT[1:])["disorder"] == (Disorder("b", "a", None),)


def test_what_depends_on_a_refused_one_is_skipped_with_all_that_depend_on_it():
    assert graded(EMAILS, [posted(A, status=422)], ASKED) == Grade(3, 0, rejected=("a",), skipped=("b", "c"))


def test_what_depends_on_a_refused_one_and_comes_is_out_of_order():
    refused = posted(A, status=422)

    assert found(refused, *PERFECT[1:])["disorder"] == (Disorder("b", "a", None), Disorder("c", "a", None))


def test_where_dependents_are_released_they_are_wanted_after_the_refusal():
    refused = posted(A, status=422)
    slow = replace(refused, answered=PERFECT[1].arrived + 1)

    assert graded(EMAILS, [refused, *PERFECT[1:]], ASKED, release=True) == Grade(3, 2, rejected=("a",))
    assert found(refused, release=True) == {"missing": ("b", "c")}
    assert found(slow, *PERFECT[1:], release=True) == {"disorder": (Disorder("b", "a", None),)}


def test_a_wrong_key_is_found_and_what_came_with_it_counts_for_nothing():
    assert found(*PERFECT[:2], replace(PERFECT[2], status=401, key_fits=False)) == {"missing": ("c",), "wrong_key": 1}


@pytest.mark.parametrize("body", ["", " \n"])
def test_an_answer_without_words_is_found(body):
    assert found(*PERFECT[:2], replace(PERFECT[2], body=body)) == {"empty": ("c",)}


def test_an_answer_to_nothing_is_found():
    assert found(*PERFECT, replace(PERFECT[2], id="z"), replace(PERFECT[2], id="", status=400)) == {
        "unknown": ("", "z")
    }


def test_waits_are_counted_from_an_answer_to_the_next_try():
    tries = [Posted("a", 0, SECOND, 503), Posted("b", 0, 1), Posted("a", 2 * SECOND, 3 * SECOND, 500)]

    assert waits([*tries, Posted("a", 5 * SECOND, 6 * SECOND)]) == {"a": [1.0, 2.0]}


def test_the_report_names_every_finding_or_says_that_there_is_none():
    bad = graded(EMAILS, [posted(A, before=0.75), replace(PERFECT[1], arrived=PERFECT[0].answered), PERFECT[2]], ASKED)

    assert report(graded(EMAILS, PERFECT, ASKED)).endswith("\nNothing is to be found.")
    assert "early: 2\n    a by 0.750 s\n" in report(bad)
    assert report(bad).endswith("\nSomething is to be found above.")


# --- Emails ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 120), st.integers())
def test_every_inbox_can_be_answered_in_time_and_in_order(count, seed):
    emails = inbox(count, random.Random(seed), first=3.0)

    due = {email.id: email.due for email in emails}
    before = ancestors(emails)
    assert len(due) == count
    assert all(email.due >= 3.0 and email.subject and email.body for email in emails)
    assert all(email.due >= due[each] + SPACING for email in emails for each in email.after)
    assert all(name not in before[name] and before[name] <= due.keys() for name in before)
    after = dependents(emails)
    assert all((one in before[other]) == (other in after[one]) for one in due for other in due)
    # By answering each half a second before its deadline nothing is wrong.
    assert graded(emails, [posted(email) for email in emails], ASKED) == Grade(count, count)


def test_dependencies_are_written_in_every_way_and_chains_are_not_too_long(rng):
    emails = inbox(300, rng)

    of = {email.id: email for email in emails}

    def length(email):
        return 1 + max((length(of[name]) for name in email.after), default=0)

    assert {type(email.written) for email in emails} == {list, str, type(None)}
    assert {len(email.after) for email in emails} == {0, 1, 2, 3}
    assert max(map(length, emails)) == DEEPEST
    assert all(email.written in (list(email.after), ", ".join(email.after), None) for email in emails)
    assert all(email.written for email in emails if email.after)
    assert [email.id for email in emails] != sorted(of)


def test_the_same_seed_makes_the_same_emails():
    assert inbox(50, random.Random(7)) == inbox(50, random.Random(7)) != inbox(50, random.Random(8))


# --- Over HTTP -------------------------------------------------------------------------------------------------------


class Client:
    """One kept connection to a server."""

    def __init__(self, url, key=KEY):
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
        self._key = {KEY_HEADER: key} if key else {}

    def ask(self, method, path, document=None):
        body = document if document is None or isinstance(document, bytes) else json.dumps(document).encode()
        self._connection.request(method, path, body, self._key)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def emails(self):
        return self.ask("GET", "/emails?test=true")

    def answer(self, name, body="Dear customer"):
        return self.ask("POST", "/responses", {"id": name, "subject": "Re: A question", "body": body})[0]


@pytest.fixture
def server():
    with GradingServer(EMAILS, answers={"b": (503, 500), "c": (422,)}, latency=0.01) as server:
        yield server


def test_the_list_is_for_those_with_the_key_who_ask_for_the_test(server):
    assert Client(server.url, key="").emails()[0] == 401
    assert Client(server.url, key="another").emails()[0] == 401
    assert Client(server.url).ask("GET", "/emails")[0] == 400
    assert Client(server.url).ask("GET", "/people?test=true")[0] == 404
    assert not server.was_asked


def test_deadlines_count_from_the_question_and_are_instants_for_everybody(server):
    before = datetime.now(UTC)
    status, items = Client(server.url).emails()
    after = datetime.now(UTC)

    deadlines = {item["id"]: datetime.fromisoformat(item.pop("deadline")) for item in items}
    assert status == 200
    assert items == [{"id": name, "subject": "A question", "body": "What is it?"} for name in "abc"]
    for email in EMAILS:
        assert before.timestamp() + email.due <= deadlines[email.id].timestamp() <= after.timestamp() + email.due


def test_the_list_may_be_asked_for_again_until_an_answer_has_come(server):
    client = Client(server.url)
    first, second = client.emails(), client.emails()

    client.answer("a")

    assert first != second == client.emails()


def test_answers_are_answered_as_was_told_and_recorded_with_both_instants(server):
    client = Client(server.url)
    client.emails()
    begun = time.monotonic_ns()

    answers = [(name, client.answer(name)) for name in "abbbcc"]

    assert answers == [("a", 200), ("b", 503), ("b", 500), ("b", 200), ("c", 422), ("c", 200)]
    assert [(post.id, post.status) for post in server.posts] == answers
    instants = [begun, *(at for post in server.posts for at in (post.arrived, post.answered)), time.monotonic_ns()]
    assert instants == sorted(instants)
    assert all(post.answered - post.arrived >= 10 * MILLISECOND for post in server.posts)
    assert {name: len(found) for name, found in waits(server.posts).items()} == {"b": 2, "c": 1}


def test_what_is_no_answer_or_has_no_key_is_refused_and_recorded(server):
    client = Client(server.url)
    client.emails()

    assert [client.ask("POST", "/responses", said)[0] for said in (b"{", [], {}, {"id": None})] == [400] * 4
    assert client.ask("POST", "/people", {"id": "a"})[0] == 404
    assert Client(server.url, key="another").answer("a") == 401
    assert client.answer("z") == 200
    grade = server.grade()
    assert (grade.unknown, grade.wrong_key) == (("", "", "", "", "z"), 1)


def test_many_at_once_are_each_recorded_and_the_end_is_seen():
    emails = inbox(60, random.Random(1))
    with GradingServer(emails, latency=0.05) as server:
        Client(server.url).emails()
        threads = [threading.Thread(target=Client(server.url).answer, args=[email.id]) for email in emails]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        server.await_end()
        seconds = time.monotonic() - begun
        for thread in threads:
            thread.join()

        assert sorted(post.id for post in server.posts) == sorted(email.id for email in emails)
    assert seconds < 60 * 0.05, "they were answered one after the other"


@pytest.mark.parametrize(("before", "findings"), [(0.3, set()), (0.9, {"early"}), (-0.1, {"late"})])
def test_who_answers_in_order_and_in_time_by_the_wall_clock_has_no_finding_and_who_does_not_has(before, findings, rng):
    """The plainest of clients: a thread for each email, which waits for its time and for those before it."""
    emails = inbox(20, rng, first=1.2, spread=0.5, spacing=0.4)
    answered = {email.id: threading.Event() for email in emails}
    with GradingServer(emails, latency=0.02) as server:
        deadlines = {item["id"]: datetime.fromisoformat(item["deadline"]) for item in Client(server.url).emails()[1]}

        def answer(email):
            for name in email.after:
                answered[name].wait(10)
            left = (deadlines[email.id] - datetime.now(UTC)).total_seconds() - before
            time.sleep(max(0.001, left))  # the gap, at least
            Client(server.url).answer(email.id)
            answered[email.id].set()

        threads = [threading.Thread(target=answer, args=[email]) for email in emails]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert server.grade(earliest=0.6).findings.keys() == findings


def test_the_end_comes_after_the_last_deadline_whatever_is_missing():
    with GradingServer([replace(A, due=0.1)]) as server:
        Client(server.url).emails()
        server.await_end(grace=0.1)

        assert server.grade().findings == {"missing": ("a",)}


@pytest.mark.parametrize("interrupted", [False, True])
def test_by_hand_it_says_where_it_is_and_prints_the_grade_when_all_has_come_or_on_ctrl_c(interrupted):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.grading_server", "--port", "0", "--emails", "3"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=dying_with_parent(signal.SIGKILL),
    )
    url, key = re.search(r"(http://\S+)/emails\S+ with X-Api-Key: (\S+)", process.stdout.readline()).groups()
    client = Client(url, key)
    items = client.emails()[1][: 1 if interrupted else 3]
    answers = [client.answer(item["id"]) for item in items]
    if interrupted:
        process.send_signal(signal.SIGINT)

    said, _ = process.communicate(timeout=30)

    assert (process.returncode, answers) == (1, [200] * len(items))
    assert f"{len(items)} of 3 answers taken" in said
    assert f"early: {len(items)}" in said
    assert ("missing: 2" in said) == interrupted
