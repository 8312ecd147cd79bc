"""From queued to ready to send: what is frozen, checked and written, and what happens when it is cut short."""

import subprocess
import sys
from datetime import timedelta
from email import message_from_bytes

import pytest
from django.utils import timezone

from campaigns import control
from campaigns.authoring import save_version
from campaigns.filling import CHUNK
from campaigns.initialize import initialize
from campaigns.models import ContactList, ProblemKind, RenderErrorPolicy, Run, RunProblem, RunState, Workflow
from campaigns.transitions import claim_initializing
from campaigns.work import pump
from delivery import owner
from delivery.models import Batch, Delivery, Engine, KeptMail, Message, PoolMember
from tests.campaigns import cast
from tests.sinks import ROOT

pytestmark = pytest.mark.usefixtures("output_dir")

NO_CITY = ("nowhere@example.test", "Nobody Nowhere", {})


def assert_nothing_is_left_to_send() -> None:
    tables = (Batch, Message, Delivery, KeptMail)
    assert {table.__name__: table.objects.count() for table in tables} == {table.__name__: 0 for table in tables}


def listed(run: Run) -> list[tuple[str, int, str]]:
    return list(run.problems.values_list("reason", "position", "address"))


# --- What a run is made of -------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_run_is_ready_with_a_delivery_for_everybody_and_all_that_it_needs_is_frozen():
    workflow = cast.workflow(reply_to="answers@sender.example", priority=3, time_limit_minutes=90)

    run = cast.initialized(workflow)

    assert cast.story(run) == ["queued", "initializing", "sending"]
    assert set(cast.recipients(run)) == cast.ADDRESSES
    assert (run.rows_read, run.problem_counts, run.batch.total, run.batch.priority) == (3, {}, 3, 3)
    assert run.frozen == {
        "workflow": {"id": workflow.pk, "slug": "letters", "name": "Letters"},
        "audience": "Letters-Friends",
        "template": {"slug": "letters-news", "name": "Letters-News", "version": 1},
        "step": 1,
        "steps": [
            {
                "position": 1,
                "template": {"slug": "letters-news", "name": "Letters-News", "version": 1},
                "after": "",
                "delay": "",
                "condition": "",
                "deadline_minutes": None,
                "on_late": "expire",
                "lead_seconds": None,
                "composer": None,
                "review": False,
            }
        ],
        "pool": "letters-pool",
        "priority": 3,
        "start": "checked",
        "time_limit_minutes": 90,
        "window": None,
        "stops_on": ["replied", "bounced"],
        "on_failed": "skip",
        "gap_microseconds": 100,
        "on_uncertain": "hold",
        "on_render_error": "stop",
    }
    message = Message.objects.get(batch=run.batch)
    assert (message.subject, message.text, message.html) == (cast.SUBJECT, cast.TEXT, "")
    assert (message.from_address, message.reply_to, message.return_path) == (
        "letters@sender.example",
        "answers@sender.example",
        "letters@sender.example",
    )
    assert not KeptMail.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_run_sends_the_words_it_froze_whatever_is_saved_afterwards():
    workflow = cast.workflow()
    run = cast.initialized(workflow)
    save_version(workflow.steps.get().template, subject="Changed", text="changed", html="")
    Workflow.objects.filter(pk=workflow.pk).update(from_address="changed@sender.example")

    pump(run.batch_id)

    mails = [message_from_bytes(bytes(mail.raw)) for mail in KeptMail.objects.all()]
    assert {mail["Subject"] for mail in mails} >= {"News for Ada Lovelace", "News for Grace Hopper"}
    assert {mail["From"] for mail in mails} == {"Letters <letters@sender.example>"}


@pytest.mark.django_db(transaction=True)
def test_the_next_run_sends_the_words_saved_last():
    workflow = cast.workflow()
    cast.ended(workflow)
    save_version(workflow.steps.get().template, subject="Changed", text="changed", html="")

    run = cast.ended(workflow)

    assert run.frozen["template"] == {"slug": "letters-news", "name": "Letters-News", "version": 2}
    assert KeptMail.objects.filter(subject="Changed").count() == 3


@pytest.mark.django_db
def test_a_run_is_initialised_once():
    run = cast.initialized(cast.workflow())

    assert not initialize(run.pk)

    assert (cast.fresh(run).batch_id, Delivery.objects.count()) == (run.batch_id, 3)


@pytest.mark.django_db
def test_an_empty_audience_completes_at_once():
    run = cast.initialized(cast.workflow(audience=cast.list_audience([]), version=cast.template(text="Hello")))

    assert cast.story(run) == ["queued", "initializing", "sending", "completed"]
    assert (run.batch.total, sum(run.counts.values()), run.error) == (0, 0, "")


@pytest.mark.django_db
def test_a_workflow_without_a_usable_engine_fails_with_what_to_do():
    workflow = cast.workflow()
    Engine.objects.update(enabled=False)

    run = cast.initialized(workflow)

    assert (run.state, run.batch) == (RunState.FAILED, None)
    assert run.error == "Pool letters-pool has no enabled engine: add one to it, or enable one."


@pytest.mark.django_db
def test_a_workflow_whose_engines_may_not_send_for_its_from_domain_fails_before_anything_is_sent():
    workflow = cast.workflow()
    domain = workflow.from_address.rpartition("@")[2]
    Engine.objects.update(sender_domains="elsewhere.example")

    refused = cast.initialized(workflow)
    Engine.objects.update(sender_domains=domain)
    allowed = cast.initialized(workflow)

    assert (refused.state, refused.batch) == (RunState.FAILED, None)
    assert refused.error.startswith(f"No engine of pool letters-pool may send for {domain}: add the domain to one")
    assert allowed.state == RunState.SENDING


@pytest.mark.django_db
def test_a_workflow_whose_template_has_no_version_fails_with_what_to_do():
    workflow = cast.workflow()
    step = workflow.steps.get()
    step.template = type(step.template).objects.create(name="Bare", slug="bare")
    step.save()

    run = cast.initialized(workflow)

    assert run.state == RunState.FAILED
    assert run.error == "Workflow letters has no step with a saved template: add one."


# --- Bad rows --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_bad_rows_are_counted_and_listed_with_their_reasons_and_the_good_ones_go_on():
    content = (
        "email,name,city\n"
        "ada@example.test,Ada,London\n"
        ",Nobody,Nowhere\n"
        "no-at.example.test,Missing,Nowhere\n"
        "ADA@Example.TEST,Ada again,London\n"
        "too,few\n"
        "bjørn@Bücher.example,Bjørn,Oslo\n"
        "bjørn@xn--bcher-kva.example,Bjørn again,Oslo\n"
    )

    run = cast.initialized(cast.workflow(audience=cast.csv_audience(content)))

    assert cast.recipients(run) == ["ada@example.test", "bjørn@xn--bcher-kva.example"]
    assert (run.rows_read, run.batch.total) == (7, 2)
    assert run.problem_counts == {"no_address": 1, "impossible_address": 1, "not_a_row": 1, "duplicate": 2}
    assert sorted(listed(run), key=lambda problem: problem[1]) == [
        ("no_address", 3, ""),
        ("impossible_address", 4, ""),
        ("duplicate", 5, "ADA@example.test"),
        ("not_a_row", 6, ""),
        ("duplicate", 8, "bjørn@xn--bcher-kva.example"),
    ]
    details = dict(run.problems.values_list("position", "detail"))
    assert details[4] == "There is no @ in it. (no-at.example.test,Missing,Nowhere)"
    assert details[6] == "The row has 2 column(s), the header has 3. (too,few)"


@pytest.mark.django_db
def test_a_duplicate_is_found_across_the_whole_audience():
    people = [*cast.crowd(CHUNK), ("late@example.test", "Late", {"city": "Leeds"})]
    rows = [f"{address},{name},{attributes['city']}\n" for address, name, attributes in people]
    rows.append("PERSON-00001@example.test,First again,Leeds\n")

    run = cast.initialized(cast.workflow(audience=cast.csv_audience("email,name,city\n" + "".join(rows))))

    assert cast.recipients(run) == [address for address, _, _ in people]
    assert run.problem_counts == {"duplicate": 1}
    assert listed(run) == [("duplicate", CHUNK + 3, "PERSON-00001@example.test")]
    assert Delivery.objects.get(address="person-00001@example.test").name == "Person 1"


@pytest.mark.django_db
def test_problems_are_listed_up_to_the_limit_of_each_kind_and_all_are_counted(outreach):
    outreach(LISTED_PROBLEMS=2)
    people = [(f"bad {n}", "Bad", {}) for n in range(5)] + [(f"poor-{n}@example.test", "Poor", {}) for n in range(4)]
    workflow = cast.workflow(audience=cast.list_audience([*people, cast.ADA]), on_render_error=RenderErrorPolicy.SKIP)

    run = cast.initialized(workflow)

    assert run.problem_counts == {"impossible_address": 5, "rendering": 4}
    assert list(run.problems.values_list("kind", "position")) == [
        (ProblemKind.BAD_ROW, 1),
        (ProblemKind.BAD_ROW, 2),
        (ProblemKind.RENDERING, 6),
        (ProblemKind.RENDERING, 7),
    ]


@pytest.mark.django_db
def test_an_audience_that_cannot_be_read_to_its_end_fails_the_run_and_leaves_nothing():
    rows = "".join(f"{address},{name},Leeds\n" for address, name, _ in cast.crowd(CHUNK))
    torn = cast.csv_audience(f'email,name,city\n{rows}"never@example.test,ends,here\n')

    run = cast.initialized(cast.workflow(audience=torn))

    assert run.state == RunState.FAILED
    assert f"line {CHUNK + 2}: a quoted field starts here and never ends" in run.error
    assert_nothing_is_left_to_send()


# --- Variables -------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_missing_variable_is_named_with_part_and_line_before_anything_is_written():
    version = cast.template(subject="Hi {{ nickname }}", text="Hello {{ name }}\n\nfrom {{ town }}", html="")

    run = cast.initialized(cast.workflow(version=version))

    assert cast.story(run) == ["queued", "initializing", "failed"]
    assert run.error == (
        "The template needs what contact list 'Letters-Friends' (3 contacts) does not have: "
        "'nickname' in line 1 of the subject; 'town' in line 3 of the text. "
        "The audience has: city, email, name. Correct the template, or add the field to the audience."
    )
    assert run.rows_read == 0
    assert_nothing_is_left_to_send()


@pytest.mark.django_db
def test_a_variable_with_a_default_may_be_missing():
    version = cast.template(text="{{ nickname|default('friend') }}{% if town is defined %}{{ town }}{% endif %}")

    assert cast.initialized(cast.workflow(version=version)).state == RunState.SENDING


@pytest.mark.django_db(transaction=True)
def test_the_unsubscribe_link_is_a_variable_where_there_is_a_public_address(outreach):
    outreach(PUBLIC_URL="https://mail.example")
    version = cast.template(text="{{ unsubscribe_url }}")

    run = cast.ended(cast.workflow(version=version))

    assert run.state == RunState.COMPLETED
    mails = [message_from_bytes(bytes(mail.raw)) for mail in KeptMail.objects.all()]
    links = {mail.get_payload().strip() for mail in mails}
    assert len(links) == 3
    assert all(link.startswith("https://mail.example/u/") for link in links)
    assert {mail["List-Unsubscribe"] for mail in mails} == {f"<{link}>" for link in links}
    assert {mail["List-Id"] for mail in mails} == {"<letters.sender.example>"}


@pytest.mark.django_db
def test_the_unsubscribe_link_is_missing_without_a_public_address_and_the_run_says_why(outreach):
    outreach(PUBLIC_URL="")

    run = cast.initialized(cast.workflow(version=cast.template(text="{{ unsubscribe_url }}")))

    assert run.state == RunState.FAILED
    assert "'unsubscribe_url' in line 1 of the text (it is there when the workflow adds unsubscribe links" in run.error


# --- Recipients that cannot be rendered ------------------------------------------------------------------------------


@pytest.mark.django_db
def test_by_the_policy_stop_nothing_is_sent_and_every_failing_recipient_is_reported():
    people = [cast.ADA, NO_CITY, *cast.crowd(CHUNK), ("last@example.test", "Last", {})]

    run = cast.initialized(cast.workflow(audience=cast.list_audience(people)))

    assert cast.story(run) == ["queued", "initializing", "failed"]
    assert run.problem_counts == {"rendering": 2}
    assert run.rows_read == CHUNK + 3
    assert listed(run) == [("rendering", 2, "nowhere@example.test"), ("rendering", CHUNK + 3, "last@example.test")]
    assert all("line 2: the data has no `city`" in problem.detail for problem in run.problems.all())
    assert run.error.startswith(
        f"2 of {CHUNK + 3} recipients cannot be rendered, so nothing was sent. "
        "The first: row 2, nowhere@example.test: The text, line 2: the data has no `city`"
    )
    assert_nothing_is_left_to_send()


@pytest.mark.django_db(transaction=True)
def test_by_the_policy_skip_failing_recipients_are_left_out_and_accounted_for():
    workflow = cast.workflow(
        audience=cast.list_audience([cast.ADA, NO_CITY, cast.GRACE]), on_render_error=RenderErrorPolicy.SKIP
    )

    run = cast.ended(workflow)

    assert run.state == RunState.COMPLETED
    assert cast.nonzero(run.counts) == {"accepted": 2, "skipped": 1}
    assert (run.batch.total, run.problem_counts) == (3, {"rendering": 1})
    assert cast.kept_for("letters-pool") == ["Grace@example.test", "ada@example.test"]
    skipped = Delivery.objects.get(state="skipped")
    assert skipped.address == "nowhere@example.test"
    assert skipped.words.startswith("cannot be rendered: The text, line 2: the data has no `city`")
    assert skipped.settled_at is not None


@pytest.mark.django_db
def test_a_run_of_which_everybody_is_skipped_completes_without_a_worker():
    people = [NO_CITY, ("nobody@example.test", "Nobody", {})]
    contacts = cast.list_audience(people)
    # One of a list has the field, so that it is not missing as a whole; but that one's address is none.
    ContactList.objects.get().contacts.create(address="x", identity="x", attributes={"city": "Leeds"})

    run = cast.initialized(cast.workflow(audience=contacts, on_render_error=RenderErrorPolicy.SKIP))

    assert run.state == RunState.COMPLETED
    assert cast.nonzero(run.counts) == {"skipped": 2}


# --- Cut short -------------------------------------------------------------------------------------------------------

KILLED = """
import os, sys, django
django.setup()
from campaigns.initialize import initialize
initialize(int(sys.argv[1]), lambda rows: os._exit(9))
"""


@pytest.mark.django_db(transaction=True)
def test_what_a_killed_process_left_half_written_is_taken_over_and_nothing_is_doubled(process_environment):
    people = [("bad address", "Bad", {}), *cast.crowd(CHUNK + 10)]
    run = cast.queued(cast.workflow(audience=cast.list_audience(people)))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(run.pk)], cwd=ROOT, env=process_environment, timeout=60, check=False
    )
    half = cast.fresh(run)
    assert (killed.returncode, half.state, Delivery.objects.count()) == (9, RunState.INITIALIZING, CHUNK - 1)

    assert initialize(run.pk)

    run = cast.fresh(run)
    assert list(run.events.values_list("state", "why"))[1:] == [
        ("initializing", ""),
        ("initializing", "taken over from a process that ended"),
        ("sending", ""),
    ]
    assert cast.recipients(run) == [address for address, _, _ in cast.crowd(CHUNK + 10)]
    assert (run.rows_read, run.problem_counts, run.problems.count()) == (CHUNK + 11, {"impossible_address": 1}, 1)
    assert list(Batch.objects.values_list("pk", flat=True)) == [run.batch_id]
    assert Delivery.objects.count() == run.batch.total == CHUNK + 10


@pytest.mark.django_db
def test_a_living_initialiser_is_left_alone():
    run = cast.queued(cast.workflow())
    now = timezone.now()
    assert claim_initializing(run.pk, owner.name(), now + timedelta(minutes=1), now)

    assert not initialize(run.pk)

    assert (cast.fresh(run).state, Delivery.objects.count()) == (RunState.INITIALIZING, 0)


@pytest.mark.django_db
def test_an_initialiser_of_another_host_is_taken_over_only_when_it_has_been_silent_for_too_long():
    run = cast.queued(cast.workflow())
    now = timezone.now()
    assert claim_initializing(run.pk, "another-host:4711:1", now + timedelta(minutes=1), now)

    assert not initialize(run.pk)
    Run.objects.filter(pk=run.pk).update(initializer_until=now - timedelta(seconds=1))
    assert initialize(run.pk)

    assert set(cast.recipients(cast.fresh(run))) == cast.ADDRESSES


@pytest.mark.django_db
def test_an_initialiser_that_was_too_slow_leaves_the_work_of_its_successor_alone():
    run = cast.queued(cast.workflow(audience=cast.list_audience(cast.crowd(CHUNK + 1))))
    successors = Batch(label="successor", reference="successor", pool=run.workflow.pool)

    def be_overtaken(rows: int) -> None:
        if Run.objects.get(pk=run.pk).initializer == owner.name():
            now = timezone.now()
            Run.objects.filter(pk=run.pk).update(initializer_until=now - timedelta(seconds=1))
            assert claim_initializing(run.pk, "another-host:4711:1", now + timedelta(minutes=1), now)
            successors.save()
            Run.objects.filter(pk=run.pk).update(batch=successors)
            RunProblem.objects.create(run=run, kind=ProblemKind.BAD_ROW, reason="no_address", position=1)

    assert not initialize(run.pk, be_overtaken)

    run = cast.fresh(run)
    assert (run.state, run.initializer, run.batch) == (RunState.INITIALIZING, "another-host:4711:1", successors)
    assert run.problems.count() == 1
    assert list(Batch.objects.all()) == [successors]
    assert not Delivery.objects.exists()


@pytest.mark.django_db
def test_a_slow_initialiser_cannot_fail_the_run_of_its_successor():
    rows = "".join(f"{address},{name},Leeds\n" for address, name, _ in cast.crowd(CHUNK))
    torn = cast.csv_audience(f'email,name,city\n{rows}"never@example.test,ends,here\n')
    run = cast.queued(cast.workflow(audience=torn))

    def be_overtaken(rows: int) -> None:
        now = timezone.now()
        Run.objects.filter(pk=run.pk).update(initializer_until=now - timedelta(seconds=1))
        assert claim_initializing(run.pk, "another-host:4711:1", now + timedelta(minutes=1), now)

    initialize(run.pk, be_overtaken)

    assert (cast.fresh(run).state, cast.fresh(run).error) == (RunState.INITIALIZING, "")


@pytest.mark.django_db
def test_a_run_that_is_cancelled_while_it_initialises_leaves_nothing_behind():
    people = [("bad address", "Bad", {}), *cast.crowd(CHUNK + 10)]
    run = cast.queued(cast.workflow(audience=cast.list_audience(people)))

    assert not initialize(run.pk, lambda rows: control.cancel(run, "ada", "wrong list"))

    run = cast.fresh(run)
    assert list(run.events.values_list("state", "by", "why"))[-1] == ("cancelled", "ada", "wrong list")
    assert (run.state, run.batch, run.error) == (RunState.CANCELLED, None, "")
    assert_nothing_is_left_to_send()


@pytest.mark.django_db
def test_a_run_that_is_cancelled_when_all_is_written_leaves_nothing_behind():
    run = cast.queued(cast.workflow())

    assert not initialize(run.pk, lambda rows: control.cancel(run, "ada"))

    assert cast.story(run) == ["queued", "initializing", "cancelled"]
    assert_nothing_is_left_to_send()


@pytest.mark.django_db
def test_an_initialiser_that_was_overtaken_when_all_was_written_does_not_start_the_run():
    run = cast.queued(cast.workflow())

    def be_overtaken(rows: int) -> None:
        now = timezone.now()
        Run.objects.filter(pk=run.pk).update(initializer_until=now - timedelta(seconds=1))
        assert claim_initializing(run.pk, "another-host:4711:1", now + timedelta(minutes=1), now)

    assert not initialize(run.pk, be_overtaken)

    assert cast.fresh(run).state == RunState.INITIALIZING
    assert_nothing_is_left_to_send()


@pytest.mark.django_db
def test_a_run_that_was_cancelled_before_is_not_initialised():
    run = cast.queued(cast.workflow())
    control.cancel(run, "ada")

    assert not initialize(run.pk)

    assert cast.story(run) == ["queued", "cancelled"]
    assert_nothing_is_left_to_send()


# --- Tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_test_goes_to_the_sandbox_and_to_so_many_good_recipients_only():
    people = [("bad address", "Bad", {}), cast.ADA, cast.GRACE, cast.BJORN]

    run = cast.ended(cast.workflow(audience=cast.list_audience(people)), test_limit=2)

    assert run.state == RunState.COMPLETED
    assert (run.rows_read, run.problem_counts, cast.nonzero(run.counts)) == (
        3,
        {"impossible_address": 1},
        {"accepted": 2},
    )
    assert cast.kept_for("sandbox") == ["Grace@example.test", "ada@example.test"]
    assert cast.kept_for("letters-pool") == []
    mails = [message_from_bytes(bytes(mail.raw)) for mail in KeptMail.objects.all()]
    assert {mail["X-Outreach-Test"] for mail in mails} == {f"run {run.pk}"}


@pytest.mark.django_db(transaction=True)
def test_a_second_test_uses_the_same_sandbox():
    workflow = cast.workflow()

    runs = [cast.ended(workflow, test_limit=1) for _ in range(2)]

    assert [run.frozen["pool"] for run in runs] == ["sandbox", "sandbox"]
    assert PoolMember.objects.filter(pool__slug="sandbox").count() == 1
    assert cast.kept_for("sandbox") == ["ada@example.test", "ada@example.test"]


@pytest.mark.django_db(transaction=True)
def test_a_run_that_is_no_test_bears_no_mark_of_one():
    cast.ended(cast.workflow())

    assert [message_from_bytes(bytes(mail.raw))["X-Outreach-Test"] for mail in KeptMail.objects.all()] == [None] * 3
