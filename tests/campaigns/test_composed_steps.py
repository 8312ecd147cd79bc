"""Steps whose text a language model writes, from the workflow to the mail."""

import email.policy
import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from campaigns.models import OnFailed, RunState, Start
from delivery import queue
from delivery.models import Composition, Delivery, DeliveryState, Engine, KeptMail
from delivery.queue import composing, leasing, links, outcomes
from delivery.worker.settling import unanswered
from tests.campaigns import cast

pytestmark = [pytest.mark.usefixtures("output_dir"), pytest.mark.django_db(transaction=True)]

PROMPT = "Write to {{ name }} about {{ city }}."


def composer(**options):
    options = {"seed": "7", "shortest_seconds": 0.01, "longest_seconds": 0.02, **options}
    return Engine.objects.create(name="Writer", slug="writer", kind="mock_composer", options=options)


def composed_workflow(audience=None, version=None, prompt=PROMPT, review=False, **settings):
    workflow = cast.workflow(audience=audience, version=version, **settings)
    workflow.steps.update(composer=composer(), prompt=prompt, review=review)
    return workflow


def bodies():
    mails = [
        email.message_from_bytes(bytes(kept.raw), policy=email.policy.default)
        for kept in KeptMail.objects.order_by("pk")
    ]
    return {mail["To"].addresses[0].addr_spec: mail for mail in mails}


def test_the_models_words_are_the_mail_and_the_template_gives_the_subject():
    run = cast.ended(composed_workflow(cast.list_audience([cast.ADA, cast.GRACE])))

    assert run.state == RunState.COMPLETED
    assert cast.nonzero(run.counts) == {"accepted": 2}
    kept = dict(Composition.objects.values_list("delivery__address", "text"))
    for address, mail in bodies().items():
        assert mail.get_body(("plain",)).get_content().split() == kept[address].split()
        assert mail["Subject"].startswith("News for ")
    assert len(set(kept.values())) == 2


def test_nothing_goes_out_before_a_person_has_read_it_and_then_as_he_decided():
    run = cast.initialized(composed_workflow(review=True))

    def review():
        try:
            while Composition.objects.filter(state="review").count() < 3:
                pass
            assert not KeptMail.objects.exists()
            first, second, third = Composition.objects.order_by("pk").values_list("pk", flat=True)
            composing.reword(first, "My own words.", "ada")
            composing.use_template([second], "ada")
            composing.reject([third], "ada")
        finally:
            connection.close()

    reviewer = threading.Thread(target=review)
    reviewer.start()
    cast.pump(run.batch_id)
    reviewer.join(20)

    run = cast.fresh(run)
    assert cast.nonzero(run.counts) == {"accepted": 2, "skipped": 1}
    assert Delivery.objects.get(state="skipped").words == "rejected in review by ada"
    plain = [mail.get_body(("plain",)).get_content().strip() for mail in bodies().values()]
    assert "My own words." in plain
    assert any(text.startswith("Hello ") for text in plain)


def test_a_prompt_that_needs_what_the_audience_lacks_is_told_before_anything_is_sent():
    run = cast.ended(composed_workflow(prompt="About {{ planet }}"))

    assert run.state == RunState.FAILED
    assert "'planet' in line 1 of the prompt" in run.error
    assert not KeptMail.objects.exists()


def in_order(**settings):
    """b depends on a; both are composed."""
    rows = 'id,email,after\na,a@example.test,""\nb,b@example.test,a\n'
    audience = cast.csv_audience(rows, key_field="id", depends_field="after")
    version = cast.template(subject="Hello", text="Hello {{ id }}")
    return composed_workflow(audience, version, prompt="About {{ id }}", **settings)


def settle_the_ready_one(run, lease, state):
    (row,) = leasing.lease(lease, run.batch_id, 10)
    with transaction.atomic():
        outcomes.settle(lease, [unanswered(row, DeliveryState(state), timezone.now())])


def test_a_dependent_that_was_skipped_without_its_words_waits_for_them_when_it_comes_back():
    run = cast.initialized(in_order())
    a, b = Delivery.objects.order_by("pk")
    Composition.objects.filter(pk=a.pk).update(state="done", text="words")
    with transaction.atomic():
        links.satisfied([a.pk], timezone.now())
    lease = leasing.acquire("another-host/boot/1:1:1", timedelta(minutes=1))
    settle_the_ready_one(run, lease, "rejected")
    assert Delivery.objects.get(pk=b.pk).state == "skipped"

    queue.replay(run.batch_id, states=["rejected"])
    settle_the_ready_one(run, lease, "accepted")

    b.refresh_from_db()
    assert (b.state, b.pending, b.code, b.words) == ("waiting", 1, "", "")
    cast.pump(run.batch_id)
    assert cast.nonzero(cast.fresh(run).counts) == {"accepted": 2}


def test_dependencies_that_were_named_after_the_workflow_was_saved_are_refused_at_the_start():
    run = cast.ended(in_order(start=Start.AT_ONCE, on_failed=OnFailed.SKIP))

    assert run.state == RunState.FAILED
    assert "let it start when every recipient has been checked" in run.error
