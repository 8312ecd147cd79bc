"""Single mails that programs send: the queue, limits, suppressions and the log are those of every other mail."""

from datetime import timedelta

import pytest
from django.apps import apps
from django.utils import timezone

from campaigns import housekeeping, single
from campaigns.authoring import save_version
from campaigns.models import Template
from campaigns.work import pump
from delivery import queue
from delivery.models import Batch, Delivery, KeptMail, Message, Pool, SuppressionReason
from delivery.models.batch import BatchState
from delivery.suppression import suppress
from delivery.worker import Until
from tests.campaigns import cast
from tests.campaigns.clients import client
from tests.problems import detail, errors

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("output_dir", "nothing_remembered")]

MESSAGES = "/api/v1/messages/"
WORDS = {
    "to": "ada@example.test",
    "from_address": "shop@shop.example",
    "subject": "Your order",
    "text": "It is here.\n",
}


@pytest.fixture
def nothing_remembered():
    single.forget()
    yield
    single.forget()


@pytest.fixture
def program():
    return client("program", "send_workflow")


@pytest.fixture
def main() -> Pool:
    return cast.pool()


@pytest.fixture
def welcome() -> Template:
    return cast.template(
        "welcome", subject="Welcome, {{ name }}", text="Dear {{ name }},\n", html="<p>{{ name }}</p>"
    ).template


def post(who, key: str | None = None, **body: object):
    return who.post(MESSAGES, body, format="json", **({"HTTP_IDEMPOTENCY_KEY": key} if key else {}))


def through_template(**changes: object) -> dict[str, object]:
    body = {
        "to": "ada@example.test",
        "from_address": "shop@shop.example",
        "template": "welcome",
        "data": {"name": "Ada"},
    }
    return body | changes


def send_all() -> None:
    pump(until=Until.IDLE)


def kept() -> KeptMail:
    send_all()
    return KeptMail.objects.get()


# --- What is sent ----------------------------------------------------------------------------------------------------


def test_a_mail_with_words_of_its_own_is_sent_as_they_are(program, main):
    answer = post(program, **WORDS | {"text": "Not a {{ template }}, 100 % sure.\n", "html": "<b>{% so %}</b>"})

    assert answer.status_code == 202
    delivery = Delivery.objects.get()
    assert answer.json() == {"id": delivery.pk, "state": "ready", "to": "ada@example.test"}
    assert answer.headers["Location"] == f"/api/v1/deliveries/{delivery.pk}/"
    mail = bytes(kept().raw)
    assert b"Not a {{ template }}, 100 % sure." in mail
    assert b"<b>{% so %}</b>" in mail
    delivery.refresh_from_db()
    assert delivery.state == "accepted"


def test_a_mail_through_a_template_has_its_data_made_in(program, main, welcome):
    assert (
        post(program, **through_template(name="Ada L.", from_name="Shop", reply_to="help@shop.example")).status_code
        == 202
    )

    mail = kept()
    assert (mail.subject, mail.recipient) == ("Welcome, Ada", "ada@example.test")
    for expected in (b"Dear Ada,", b"<p>Ada</p>", b"From: Shop <shop@shop.example>", b"Reply-To: help@shop.example"):
        assert expected in bytes(mail.raw)


def test_who_asked_for_a_mail_is_in_the_audit_trail(program, main):
    delivery_id = post(program, **WORDS).json()["id"]

    (entry,) = apps.get_model("outreach", "AuditEntry").objects.all()
    assert (entry.method, entry.path, entry.status) == ("POST", "/api/v1/messages/", 202)
    assert (entry.user_name, entry.thing) == ("program", str(delivery_id))


def test_the_same_person_may_get_the_same_words_twice(program, main):
    ids = {post(program, **WORDS).json()["id"] for _ in range(2)}

    send_all()

    assert len(ids) == KeptMail.objects.count() == 2


def test_mails_of_one_day_pool_and_priority_share_batch_and_message(program, main, welcome):
    for n in range(3):
        post(program, **through_template(to=f"p{n}@example.test"))
    post(program, **through_template(priority=-5))
    post(program, **WORDS)

    assert sorted(Batch.objects.values_list("priority", "total")) == [(-5, 1), (0, 4)]
    assert Message.objects.count() == 3


def test_a_new_version_of_the_template_is_used_from_then_on(program, main, welcome):
    post(program, **through_template())
    version = save_version(welcome, subject="Hello, {{ name }}", text="Hi", html="")
    post(program, **through_template())

    send_all()

    assert version.number == 2
    assert sorted(KeptMail.objects.values_list("subject", flat=True)) == ["Hello, Ada", "Welcome, Ada"]


def test_who_is_suppressed_gets_nothing_and_the_log_says_so(program, main):
    suppress("ada@example.test", SuppressionReason.MANUAL)

    post(program, **WORDS)
    send_all()

    assert Delivery.objects.get().state == "suppressed"
    assert not KeptMail.objects.exists()


def test_an_urgent_mail_goes_before_a_campaign_that_waits(program):
    through = cast.pool(slug="slow", per_second=1)
    run = cast.initialized(cast.workflow(through=through))
    post(program, **WORDS, pool="slow", priority=-1)

    (first, *_) = queue.open_batches()

    assert first.id != run.batch_id


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        ({"to": "nobody"}, "to", "Not an address"),
        ({"from_address": "shop@"}, "from_address", "Not an address"),
        ({"subject": ""}, "subject", "may not be blank"),
        ({"text": "  "}, "text", "The mail would be empty"),
        ({"template": "welcome"}, "subject", "The template says this."),
        ({"template": "none"}, "template", "There is no template 'none'"),
        ({"data": {"a": 1}}, "data", "none is named"),
        ({"deadline": "2020-01-01T00:00:00Z"}, "deadline", "This is over."),
        ({"pool": "none"}, "pool", "There is no pool"),
        ({"subject": "a\nb"}, "subject", ""),
        ({"bcc": "x@example.test"}, "bcc", "There is no such field."),
    ],
)
def test_what_makes_no_sense_is_refused_by_field_and_nothing_is_queued(program, main, welcome, change, place, words):
    answer = post(program, **WORDS | change)

    assert answer.status_code == 400
    assert words in errors(answer)[place][0]
    assert not Delivery.objects.exists()


def test_data_that_a_template_lacks_is_named_before_anything_is_queued(program, main, welcome):
    answer = post(program, **through_template(data={"nome": "Ada"}))

    assert answer.status_code == 400
    assert "the data has no `name`" in errors(answer)["data"][0]
    assert not Delivery.objects.exists()


def test_which_pool_must_be_said_when_there_are_several_and_one_must_be_there(program):
    none = post(program, **WORDS)
    cast.pool(slug="fast")
    cast.pool(slug="cheap")
    several = post(program, **WORDS)

    assert (none.status_code, several.status_code) == (409, 409)
    assert "There is no pool" in detail(none)
    assert detail(several) == "Which pool? There is: cheap, fast."


def test_a_domain_for_which_no_engine_may_send_is_refused(program, main):
    main.engines.update(sender_domains="other.example")

    answer = post(program, **WORDS)

    assert answer.status_code == 409
    assert "may send for shop.example" in detail(answer)


def test_who_may_not_send_sends_nothing(main):
    assert post(client("editor", "change_template", "view_delivery"), **WORDS).status_code == 403
    assert not Delivery.objects.exists()


# --- Once for each key, and for each day -----------------------------------------------------------------------------


def test_the_same_key_sends_one_mail_and_another_body_is_refused(program, main):
    first, second = (post(program, key="m-1", **WORDS) for _ in range(2))
    other = post(program, key="m-1", **WORDS | {"to": "grace@example.test"})

    assert first.json() == second.json()
    assert (second.headers["Idempotency-Replayed"], other.status_code) == ("true", 422)
    assert Delivery.objects.count() == 1


def test_of_many_at_the_same_instant_with_one_key_one_is_sent(program, main):
    answers = cast.side_by_side(6, lambda number: post(program, key="m-1", **WORDS))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == Delivery.objects.count() == 1


def test_many_at_the_same_instant_are_all_written_and_counted(program, main):
    cast.side_by_side(8, lambda number: [post(program, **WORDS | {"to": f"p{number}@example.test"}) for _ in range(5)])

    batch = Batch.objects.get()
    assert (batch.total, Delivery.objects.count(), batch.rows().count()) == (40, 40, 40)


def test_the_batch_of_a_day_stays_open_until_two_days_later_and_is_done_when_its_last_mail_is(program, main):
    post(program, **WORDS)
    send_all()
    housekeeping.tick()
    assert Batch.objects.get().state == BatchState.OPEN

    Batch.objects.update(created_at=timezone.now() - timedelta(days=2, seconds=1))
    housekeeping.tick()

    assert Batch.objects.get().state == BatchState.DONE


def test_the_last_mail_of_a_day_is_waited_for(program, main):
    post(program, **WORDS)
    Batch.objects.update(created_at=timezone.now() - timedelta(days=2, seconds=1))
    housekeeping.tick()
    assert Batch.objects.get().state == BatchState.OPEN

    send_all()

    assert Batch.objects.get().state == BatchState.DONE
