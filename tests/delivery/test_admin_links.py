"""The admin of deliveries that hang together: which step, what is waited for, who depends on whom, what was heard."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.utils.timezone import now

from delivery import queue, related
from delivery.admin import delivery_links
from delivery.admin.deliveries import deliveries_url
from delivery.admin.instants import shown_instant
from delivery.core.sequence import Edge, On, Rules
from delivery.models import Batch, Delivery, Dependency, Engine, Event, Message, Pool, Suppression
from tests.delivery import admin_pages
from tests.delivery.admin_pages import CONFIRMED, queries_of, signed_in, superuser, text_of
from tests.delivery.composing import composed_batch, ids_of

pytestmark = pytest.mark.django_db

DELIVERIES = "/admin/delivery/delivery/"
NOW = now()


@pytest.fixture
def root() -> Client:
    return superuser()


def batch_of(steps=1, **fields):
    """An open batch of so many messages, the subjects of which are their numbers."""
    pool, _ = Pool.objects.get_or_create(name="Pool", slug="pool")
    serial = Batch.objects.count()
    fields = {"state": "open"} | fields
    batch = Batch.objects.create(label=f"Batch {serial}", reference=f"links{serial}", pool=pool, **fields)
    for position in range(1, steps + 1):
        Message.objects.create(
            batch=batch,
            token=f"token{serial}x{position}",
            subject=f"Subject {position}",
            position=position,
            from_address="a@b.example",
            return_path="a@b.example",
        )
    return batch


def delivery_of(batch, name="ann", step=1, *, key="", **fields):
    fields = {"state": "waiting"} | fields
    address = f"{name}@example.test"
    made = Delivery.objects.create(
        batch=batch,
        message=batch.messages.get(position=step),
        address=address,
        identity=address,
        key=key,
        data={},
        **fields,
    )
    ids = Delivery.objects.filter(batch=batch).order_by("pk").values_list("pk", flat=True)
    Batch.objects.filter(pk=batch.pk).update(first_id=ids.first(), last_id=ids.last(), total=len(ids))
    batch.refresh_from_db()
    return made


def fan(count, met=False):
    """A delivery, and so many that depend on it."""
    batch = batch_of(ordered=True)
    first = delivery_of(batch, "first", key="first", state="ready")
    pending = 0 if met else 1
    for number in range(count):
        later = delivery_of(batch, f"p{number}", key=f"p{number}", pending=pending)
        Dependency.objects.create(batch=batch, delivery=later, on_key="first", predecessor=first, met=met)
    return batch, first


def page(client, delivery):
    return text_of(client.get(f"{DELIVERIES}{delivery.pk}/change/"))


# ---- the list ----


def test_the_list_of_a_batch_of_several_steps_shows_the_step_and_filters_by_it(root):
    batch = batch_of(2)
    for name in ("ann", "ben"):
        for step in (1, 2):
            delivery_of(batch, name, step)

    everything = root.get(deliveries_url(batch.pk))
    of_two = root.get(deliveries_url(batch.pk, step=2))

    assert "step" in everything.context["cl"].list_display
    assert "2: Subject 2" in text_of(everything)
    assert [row.message.position for row in everything.context["cl"].result_list] == [2, 1, 2, 1]
    assert [row.message.position for row in of_two.context["cl"].result_list] == [2, 2]


def test_a_list_of_one_step_or_of_all_batches_has_no_step(root):
    batch = batch_of(1)
    delivery_of(batch)

    pages = [root.get(url) for url in (DELIVERIES, deliveries_url(batch.pk))]

    assert [("step" in each.context["cl"].list_display) for each in pages] == [False, False]
    assert not any("By step" in text_of(each) for each in pages)


@pytest.mark.parametrize("step", ["3", "x", "9" * 30])
def test_a_step_that_is_not_there_leads_to_the_plain_list(step, root):
    batch = batch_of(2)
    delivery_of(batch)

    response = root.get(f"{deliveries_url(batch.pk)}&step={step}")

    assert (response.status_code, response.headers["Location"]) == (302, f"{DELIVERIES}?e=1")


def test_the_list_asks_as_much_for_many_rows_of_many_steps_as_for_few(root):
    batch = batch_of(2)
    delivery_of(batch)
    few = queries_of(root, deliveries_url(batch.pk))
    for number in range(30):
        delivery_of(batch, f"p{number}", 1 + number % 2)

    many = queries_of(root, deliveries_url(batch.pk))

    assert len(many) == len(few) <= 11
    assert not any('"delivery_message"."html"' in sql for sql in many)


# ---- what is waited for ----


def waits(delivery):
    return delivery_links.waits_for(delivery, Batch.objects.get(pk=delivery.batch_id), NOW)


def test_what_is_waited_for_is_said():
    batch, first = fan(1)
    later = Delivery.objects.get(key="p0")
    timed = delivery_of(batch, "timed", not_before=NOW + timedelta(days=1))
    both = delivery_of(batch, "both", pending=2, not_before=NOW + timedelta(days=1))
    for number in range(2):
        Dependency.objects.create(batch=batch, delivery=both, on_key=f"k{number}")

    until = f"for its time, until {shown_instant(NOW + timedelta(days=1))}"
    assert waits(first) == "for its turn"
    assert waits(later) == "for 1 other that it depends on"
    assert waits(timed) == until
    assert waits(both) == f"for 2 others that it depends on; {until}"


def test_a_held_batch_is_a_reason_and_is_said_with_its_own():
    batch, first = fan(0)
    Batch.objects.update(state="held", hold_reason="the price is wrong")

    assert waits(first) == "for its batch to be resumed (the price is wrong); for its turn"
    assert waits(delivery_of(batch)) == "for its batch to be resumed (the price is wrong)"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("wanted", "for its text to be composed"),
        ("claimed", "for its text, which is being composed"),
        ("review", "for a person to review its text"),
    ],
)
def test_a_text_that_is_not_there_is_waited_for(state, words):
    batch = composed_batch(1)
    delivery = Delivery.objects.get(pk=ids_of(batch)[0])
    delivery.composition.state = state
    delivery.composition.save()

    assert waits(delivery) == words


def test_a_mail_that_follows_several_waits_for_them():
    batch = batch_of(3, sequenced=True)
    one, two, three = batch.messages.order_by("position")
    three.rules = Rules(after=(Edge(one.pk), Edge(two.pk, On.OPENED))).as_json()
    three.save()

    assert waits(delivery_of(batch, step=3, pending=2)) == "for the earlier steps (2 of them) to end as wanted"


def test_the_page_of_what_has_ended_says_nothing_of_waiting(root):
    _, first = fan(0)
    Delivery.objects.update(state="accepted", settled_at=NOW)

    assert "for its turn" not in page(root, first)


# ---- who depends on whom ----


def test_a_deliverys_page_leads_to_what_it_depends_on_and_to_what_depends_on_it(root):
    batch, first = fan(1)
    later = Delivery.objects.get(key="p0")
    Dependency.objects.create(batch=batch, delivery=later, on_key="later still")

    of_first, of_later = page(root, first), page(root, later)

    assert f'href="{DELIVERIES}{later.pk}/change/">p0 (p0@example.test)</a>: waiting' in of_first
    assert f'href="{DELIVERIES}{first.pk}/change/">first (first@example.test)</a>: ready, still waited for' in of_later
    assert "later still: not found so far" in of_later


@pytest.mark.parametrize("met", [False, True])
def test_no_more_than_fifty_dependents_are_listed_and_it_is_said_that_there_are_more(met, root):
    _, first = fan(60, met)

    shown = page(root, first)

    assert shown.count("@example.test)</a>: waiting") == 50
    assert "and more" in shown


def test_of_a_large_batch_only_those_that_still_wait_are_looked_for(monkeypatch):
    batch, first = fan(3)
    Dependency.objects.filter(delivery__key="p0").update(met=True)
    monkeypatch.setattr(related, "SMALL_BATCH", 2)

    shown = delivery_links.depended_on_by(first, batch)

    assert "p0" not in shown
    assert "p1" in shown


def test_a_page_asks_as_much_for_fifty_dependents_as_for_one(root):
    _, alone = fan(1)
    _, wanted = fan(50)
    root.get(f"{DELIVERIES}{alone.pk}/change/")  # what is asked once for all pages

    few, many = (len(queries_of(root, f"{DELIVERIES}{each.pk}/change/")) for each in (alone, wanted))

    assert few == many <= 25


# ---- steps, deadlines, conversations ----


def test_a_deliverys_page_shows_its_step_and_the_others_to_the_same_recipient(root):
    batch = batch_of(3, sequenced=True)
    first = delivery_of(batch, step=1, state="accepted", settled_at=NOW)
    third = delivery_of(batch, step=3, state="skipped", words="message 1 to this recipient was opened")
    delivery_of(batch, "somebody else", step=2)
    thread = f"{batch.messages.get(position=1).token}.{first.pk:x} gone.ffffff"
    second = delivery_of(batch, step=2, thread=thread)

    shown = page(root, second)

    assert f'href="{DELIVERIES}{first.pk}/change/">step 1</a>: accepted' in shown
    assert f'href="{DELIVERIES}{third.pk}/change/">step 3</a>: skipped, message 1 to this recipient was opened' in shown
    assert f'href="{DELIVERIES}{first.pk}/change/">delivery {first.pk}</a>' in shown
    assert "delivery 16777215, gone" in shown
    assert "somebody else" not in shown


@pytest.mark.parametrize(
    ("after", "words"), [(timedelta(), ", kept"), (timedelta(microseconds=1), ", sent late"), (None, "")]
)
def test_a_deadline_is_shown_with_whether_it_was_kept(after, words, root):
    ended = {} if after is None else {"state": "accepted", "settled_at": NOW + after}
    delivery = delivery_of(batch_of(), deadline=NOW, **ended)

    shown = page(root, delivery)

    assert f"{shown_instant(NOW)}{words}" in shown
    assert words or f"{shown_instant(NOW)}," not in shown


def test_a_composed_text_is_shown_as_text_with_its_state_and_its_author(root):
    delivery = Delivery.objects.get(pk=ids_of(composed_batch(1))[0])
    composition = delivery.composition
    composition.state, composition.text, composition.reviewed_by = "done", "Dear <b>Ann</b>", "grace"
    composition.save()

    raw = root.get(f"{DELIVERIES}{delivery.pk}/change/").content.decode()

    assert "Dear &lt;b&gt;Ann&lt;/b&gt;" in raw
    assert f"/admin/delivery/composition/{delivery.pk}/change/" in raw
    assert "composer, reviewed by grace" in raw


def test_the_plainest_delivery_shows_no_order_and_no_composed_text(root):
    shown = page(root, delivery_of(batch_of()))

    shown = shown.replace("Composed texts", "")  # in the menu
    assert ("Depends on" in shown, "Other steps" in shown, "Composed text" in shown) == (False, False, False)


# ---- what was heard ----


def sent(**fields):
    batch = batch_of(stops_on=["replied"])
    return delivery_of(batch, state="accepted", tried_at=NOW, settled_at=NOW, **fields)


def record_url(delivery):
    return f"{DELIVERIES}{delivery.pk}/record-event/"


def test_an_event_is_recorded_after_a_question_and_shown(root):
    delivery = sent()

    asked = root.get(record_url(delivery))
    answer = root.post(record_url(delivery), CONFIRMED | {"kind": "opened", "source": "he said so"}, follow=True)

    assert "What was heard of this mail?" in text_of(asked)
    event = Event.objects.get()
    assert (event.delivery, event.kind, event.source) == (delivery, "opened", "he said so, by root")
    assert NOW - timedelta(seconds=1) <= event.at <= now()
    assert f"{shown_instant(event.at)}: opened (he said so, by root)" in text_of(answer)
    assert not Suppression.objects.exists()


def test_a_reply_stops_what_the_batch_stops_at_and_that_is_said(root):
    delivery = sent()

    answer = root.post(record_url(delivery), CONFIRMED | {"kind": "replied", "at": "2026-01-02T03:04"}, follow=True)

    event = Event.objects.get()
    assert (f"{event.at:%Y-%m-%d %H:%M}", event.source) == ("2026-01-02 03:04", "by root")
    assert "Recorded: replied. ann@example.test gets no more of this run." in text_of(answer)
    assert Suppression.objects.get().scope == delivery.batch.reference


@pytest.mark.parametrize("answers", [{"kind": "eaten"}, {"kind": "replied", "at": "9000-01-01T00:00"}])
def test_what_cannot_be_is_not_recorded(answers, root):
    delivery = sent()

    root.post(record_url(delivery), CONFIRMED | answers)

    assert not Event.objects.exists()


def test_of_a_mail_that_was_never_handed_over_nothing_is_asked(root):
    assert "record-event" not in page(root, delivery_of(batch_of()))
    assert "record-event" in page(root, sent())


@pytest.mark.parametrize("permission", ["send_workflow", "change_delivery"])
def test_who_may_send_may_say_what_was_heard(permission):
    user = User.objects.create(username="sender", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_delivery", permission]))

    signed_in(user).post(record_url(sent()), CONFIRMED | {"kind": "replied"})

    assert Event.objects.count() == 1


def test_who_may_only_look_cannot():
    viewer, delivery = admin_pages.viewer(), sent()

    assert viewer.post(record_url(delivery), CONFIRMED | {"kind": "replied"}).status_code == 403
    assert "record-event" not in page(viewer, delivery)
    assert not Event.objects.exists()


def test_no_more_than_fifty_events_are_listed(root):
    delivery = sent()
    queue.record_events(
        [queue.Heard(delivery.pk, "opened", NOW - timedelta(minutes=n), f"look {n}") for n in range(60)]
    )

    shown = page(root, delivery)

    assert shown.count("opened (look") == 50
    assert "and more" in shown


# ---- engines that write ----


def test_a_composer_is_no_sender_in_its_form_and_in_the_lists(root):
    composer = Engine.objects.create(name="Writer", slug="writer", kind="mock_composer")
    sender = Engine.objects.create(name="Sandbox", slug="sandbox", kind="sandbox")

    def form(engine):
        return text_of(root.get(f"/admin/delivery/engine/{engine.pk}/change/"))

    assert [("sender_domains" in form(each), "Warm-up" in form(each)) for each in (sender, composer)] == [
        (True, True),
        (False, False),
    ]
    assert "Mock composer (writes mails)" in text_of(root.get("/admin/delivery/engine/"))
    kinds = text_of(root.get("/admin/delivery/engine/add/"))
    assert (
        kinds.index("Sends mails") < kinds.index("kind=smtp") < kinds.index("Writes mails") < kinds.index("kind=openai")
    )


def test_a_composer_keeps_what_its_form_does_not_show_when_it_is_saved(root):
    composer = Engine.objects.create(name="Writer", slug="writer", kind="mock_composer", sender_domains="a.example")
    form = {"name": "Scribe", "slug": "writer", "enabled": "on", "fault_threshold": 5, "cool_off_seconds": 15}
    limits = {"limits-TOTAL_FORMS": 0, "limits-INITIAL_FORMS": 0}
    own = {"option_seed": "1", "option_shortest": "0.4", "option_longest": "0.6", "option_failures": "0"}

    response = root.post(f"/admin/delivery/engine/{composer.pk}/change/", form | limits | own)

    errors = response.context and response.context["adminform"].form.errors
    assert response.status_code == 302, errors
    composer.refresh_from_db()
    assert (composer.name, composer.sender_domains) == ("Scribe", "a.example")


def test_the_dependents_of_a_delivery_are_found_by_an_index():
    _, first = fan(3)
    rows = Dependency.objects.filter(predecessor=first.pk, met=False)

    if connection.vendor == "sqlite":  # PostgreSQL reads a table as small as this as a whole
        assert "dependency_unmet" in rows.explain()
    assert rows.count() == 3
