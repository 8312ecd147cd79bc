"""The review of composed texts: what waits is seen, decided once, by those who may; and a composer sends nothing."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ValidationError
from django.test import Client
from django.utils import timezone

from delivery import queue
from delivery.admin.compositions import MOST
from delivery.models import Composition, Delivery, Engine, Pool, PoolMember
from delivery.queue import composing, leasing
from delivery.queue.composing import Result
from tests.delivery import admin_pages
from tests.delivery.admin_pages import CONFIRMED, queries_of, signed_in, superuser, text_of
from tests.delivery.composing import composed_batch, composer, deliveries, ids_of, states
from tests.delivery.test_admin_pools import form as pool_form

REVIEW = "/admin/delivery/composition/"

pytestmark = pytest.mark.django_db


@pytest.fixture
def root() -> Client:
    return superuser()


def in_review(size=1, **options):
    """A batch whose words wait for a person, and the ids of its deliveries."""
    batch = composed_batch(size, review=True, **options)
    lease_id = leasing.acquire("another-host/boot/1:1:1", timedelta(minutes=5))
    items = composing.claim(lease_id, batch.pk, composer().pk, size)
    composing.settle(lease_id, [Result(item.id, "review", 1, f"Hello <b>Ann</b> {n}") for n, item in enumerate(items)])
    return batch, ids_of(batch)


def allowed_to(*permissions) -> Client:
    user = User.objects.create(username="operator", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return signed_in(user)


def page(client, pk):
    return client.get(f"{REVIEW}{pk}/change/")


def chosen(client, action, ids, **extra):
    return client.post(REVIEW, {"action": action, "_selected_action": ids, **extra}, follow=True)


def dialog(client, pk, action):
    return client.post(f"{REVIEW}{pk}/{action}/", CONFIRMED, follow=True)


# ---- the list ----


def test_the_list_shows_what_waits_for_review_with_recipient_run_deadline_and_words(root):
    batch, _ = in_review(deadline=timezone.now() + timedelta(days=3))

    shown = text_of(root.get(REVIEW))

    assert "person-0@example.test" in shown
    assert batch.label in shown
    assert "Hello <b>Ann</b> 0" in shown
    assert "&lt;b&gt;Ann" in root.get(REVIEW).content.decode()


def test_what_has_been_decided_or_whose_mail_has_ended_is_not_in_the_list(root):
    batch, (approved, rejected, cancelled, waits) = in_review(4)
    composing.approve([approved], "root")
    composing.reject([rejected], "root")
    Delivery.objects.filter(pk=cancelled).update(state="cancelled")
    composed_batch(1)

    shown = text_of(root.get(REVIEW))

    addresses = list(Delivery.objects.order_by("pk").values_list("address", flat=True))
    assert [address for address in addresses[:4] if f">{address}<" in shown] == ["person-3@example.test"]
    assert (states(batch)[3], waits) == ("review", ids_of(batch)[3])


def test_the_earliest_deadline_stands_first(root):
    now = timezone.now()
    in_review(1)
    late, _ = in_review(1, deadline=now + timedelta(days=2))
    early, _ = in_review(1, deadline=now + timedelta(days=1))

    shown = text_of(root.get(REVIEW))

    rows = shown[shown.index("<table") :]
    assert rows.index(f">{early.label}<") < rows.index(f">{late.label}<")


def test_the_list_of_one_run_and_of_one_address(root):
    first, _ = in_review(2)
    in_review(1)

    by_run = root.get(f"{REVIEW}?batch={first.pk}").context["cl"].result_list
    by_address = root.get(f"{REVIEW}?q=person-1").context["cl"].result_list

    assert [row.batch_id for row in by_run] == [first.pk] * 2
    assert [row.delivery.address for row in by_address] == ["person-1@example.test"]
    assert root.get(f"{REVIEW}?batch=x").status_code == 200


def test_an_empty_list_says_what_it_is_for(root):
    assert "Nothing waits for review." in text_of(root.get(REVIEW))


def test_a_longer_list_asks_no_more_questions(root):
    in_review(3)
    few = len(queries_of(root, REVIEW))
    in_review(30)

    assert len(queries_of(root, REVIEW)) == few


# ---- one text ----


def test_the_page_shows_what_was_asked_of_whom_and_for_whom(root):
    batch, (pk,) = in_review()

    shown = text_of(page(root, pk))

    for expected in (
        "person-0@example.test",
        batch.label,
        "Hi Ann 0",  # the subject
        "Write to Ann 0.",  # the prompt
        "Hello <b>Ann</b> 0",
        '"first": "Ann 0"',
        "Approve and send",
        "Use the template",
        "Reject",
    ):
        assert expected in shown


def test_saving_approves_the_text_as_it_stands_there(root):
    batch, (pk,) = in_review()

    response = root.post(f"{REVIEW}{pk}/change/", {"text": "  My own\r\n\r\n\r\n\r\nwords "}, follow=True)

    row = Composition.objects.get(pk=pk)
    assert (row.state, row.text, row.reviewed_by) == ("done", "My own\n\nwords", "root")
    assert deliveries(batch) == [("ready", 0)]
    assert "Approved: the mail to person-0@example.test goes out." in text_of(response)
    assert response.redirect_chain[-1][0] == REVIEW


def test_no_text_is_not_approved(root):
    batch, (pk,) = in_review()

    response = root.post(f"{REVIEW}{pk}/change/", {"text": " \n "})

    assert "This field is required." in text_of(response)
    assert states(batch) == ["review"]


@pytest.mark.parametrize(
    ("action", "state", "delivery", "words"),
    [
        ("use-template", "fallback", ("ready", 0), "The template goes out instead."),
        ("reject", "rejected", ("skipped", 1), "Rejected: nothing is sent."),
    ],
)
def test_a_text_is_replaced_by_the_template_or_rejected_after_a_question(root, action, state, delivery, words):
    batch, (pk,) = in_review()
    assert "cannot be undone" in text_of(root.get(f"{REVIEW}{pk}/reject/"))

    response = dialog(root, pk, action)

    assert (states(batch), deliveries(batch)) == ([state], [delivery])
    assert words in text_of(response)


def test_what_somebody_else_has_decided_is_not_decided_again(root):
    batch, (pk,) = in_review()
    composing.reject([pk], "somebody else")

    for action in ("use-template", "reject"):
        assert "meanwhile" in text_of(dialog(root, pk, action))
    assert root.post(f"{REVIEW}{pk}/change/", {"text": "Late"}).status_code == 403

    shown = text_of(page(root, pk))
    assert "Approve and send" not in shown
    assert f"{REVIEW}{pk}/reject/" not in shown
    assert "somebody else" in shown
    assert states(batch) == ["rejected"]


def test_two_who_approve_at_the_same_time_are_told_apart(root, monkeypatch):
    _, (pk,) = in_review()
    reword = composing.reword

    def slower(delivery_id, text, by):
        reword(delivery_id, "The quicker one's words", "somebody else")
        return reword(delivery_id, text, by)

    monkeypatch.setattr(composing, "reword", slower)
    response = root.post(f"{REVIEW}{pk}/change/", {"text": "Late"}, follow=True)

    assert "meanwhile" in text_of(response)
    assert composing.texts([pk]) == {pk: "The quicker one's words"}


def test_a_text_whose_mail_was_cancelled_says_so_and_is_not_decided(root):
    batch, (pk,) = in_review()
    queue.cancel(batch.pk)

    shown = text_of(page(root, pk))

    assert "waits for review, but its mail is cancelled" in shown
    assert "Approve and send" not in shown


# ---- many texts ----


def test_many_are_approved_at_once_and_it_is_said_how_many_were_too_late(root):
    batch, ids = in_review(3)

    response = chosen(root, "approve_selected", ids)

    assert (states(batch), deliveries(batch)) == (["done"] * 3, [("ready", 0)] * 3)
    assert "3 approved." in text_of(response)
    assert set(Composition.objects.values_list("reviewed_by", flat=True)) == {"root"}


def test_many_go_as_the_template(root):
    batch, ids = in_review(2)

    response = chosen(root, "use_template_selected", ids)

    assert (states(batch), "2 sent as the template." in text_of(response)) == (["fallback"] * 2, True)


def test_many_are_rejected_only_after_a_question(root):
    batch, ids = in_review(2)

    asked = chosen(root, "reject_selected", ids)
    assert "Send nothing to these 2?" in text_of(asked)
    assert states(batch) == ["review"] * 2

    response = chosen(root, "reject_selected", ids, confirmed="1")
    assert (states(batch), "2 rejected." in text_of(response)) == (["rejected"] * 2, True)


def test_more_than_can_be_overlooked_are_not_decided_at_once(root, monkeypatch):
    monkeypatch.setattr("delivery.admin.compositions.MOST", 1)
    batch, ids = in_review(2)

    response = chosen(root, "approve_selected", ids)

    assert "Choose between 1 and 1 texts at a time." in text_of(response)
    assert (states(batch), MOST) == (["review"] * 2, 1000)


# ---- who may ----


def test_who_may_only_look_sees_the_texts_and_decides_nothing():
    batch, (pk,) = in_review()
    viewer = admin_pages.viewer()

    shown = text_of(page(viewer, pk))
    viewer.post(f"{REVIEW}{pk}/change/", {"text": "Mine"})
    chosen(viewer, "approve_selected", [pk])
    dialog(viewer, pk, "reject")

    assert "Hello <b>Ann</b> 0" in shown
    assert "Approve and send" not in shown
    assert states(batch) == ["review"]


@pytest.mark.parametrize("permission", ["change_composition", "change_delivery"])
def test_who_may_change_texts_or_deliveries_reviews(permission):
    batch, (pk,) = in_review()
    operator = allowed_to(permission)

    assert "Hello <b>Ann</b> 0" in text_of(operator.get(REVIEW))
    chosen(operator, "approve_selected", [pk])

    assert states(batch) == ["done"]


def test_who_may_do_nothing_sees_nothing():
    _, (pk,) = in_review()
    outsider = allowed_to()

    assert [outsider.get(url).status_code for url in (REVIEW, f"{REVIEW}{pk}/change/")] == [403, 403]


def test_nobody_adds_or_deletes_texts(root):
    _, (pk,) = in_review()

    assert [root.get(f"{REVIEW}{url}").status_code for url in ("add/", f"{pk}/delete/")] == [403, 403]


# ---- composers and pools ----


@pytest.mark.parametrize("kind", ["openai", "mock_composer"])
def test_an_engine_that_composes_has_no_place_in_a_pool(root, kind):
    writer = Engine.objects.create(name="Writer", slug="writer", kind=kind)
    words = "Writer writes mails and sends none, so it cannot be in a pool: choose it as the composer of a step."

    response = root.post("/admin/delivery/pool/add/", pool_form([writer]))

    assert words in text_of(response)
    assert not Pool.objects.exists()
    member = PoolMember(pool=Pool.objects.create(name="P", slug="p"), engine=writer)
    with pytest.raises(ValidationError, match="such as an SMTP server"):
        member.full_clean()


def test_a_composer_is_set_up_like_any_engine_and_its_key_is_never_shown_again(root):
    fields = {
        "name": "Writer",
        "slug": "writer",
        "enabled": "on",
        "option_base_url": "https://127.0.0.1:1/v1",
        "option_model": "small-1",
        "option_credential": "sk-0123456789",
        "option_temperature": "0",
        "option_max_tokens": "500",
        "fault_threshold": 5,
        "cool_off_seconds": 15,
        "warmup_growth": 1.4,
        "limits-TOTAL_FORMS": 0,
        "limits-INITIAL_FORMS": 0,
    }

    refused = root.post("/admin/delivery/engine/add/?kind=openai", fields)
    assert "OUTREACH_ALLOWED_NETWORKS" in text_of(refused)
    root.post("/admin/delivery/engine/add/?kind=mock_composer", fields | {"option_seed": "7"})

    writer = Engine.objects.get()
    assert (writer.kind, writer.options) == ("mock_composer", {"seed": "7"})
    stored = Engine.objects.create(name="Real", slug="real", kind="openai", options={"base_url": "x", "model": "y"})
    stored.secrets = stored.secrets.seal({"credential": "sk-0123456789"})
    stored.save()
    assert "sk-0123456789" not in text_of(root.get(f"/admin/delivery/engine/{stored.pk}/change/"))
