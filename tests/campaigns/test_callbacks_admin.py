"""Webhooks and callbacks in the admin: set up, tested, looked at, sent again; and who may."""

from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from campaigns.callbacks import signing, subscriptions, webhooks
from campaigns.models import Callback, CallbackAttempt, CallbackState, Webhook
from tests.campaigns import cast
from tests.campaigns.receiving import receiving, webhook
from tests.delivery.http_server import answer

pytestmark = pytest.mark.django_db

HOOK = "https://shop.example/hook"
CONFIRMED = {"_form_submitted": "1"}
FORM = {"name": "shop", "url": HOOK, "events": "run.*\ndelivery.rejected", "enabled": "on"}


@pytest.fixture(autouse=True)
def _near(outreach: Callable[..., None]) -> Iterator[None]:
    outreach(ALLOWED_NETWORKS=[ip_network("127.0.0.0/8")])
    yield
    subscriptions.forget()


def signed_in(name: str, **of_permissions: object) -> Client:
    user = User.objects.create(username=name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(**of_permissions))
    browser = Client()
    browser.force_login(user)
    return browser


@pytest.fixture
def editor() -> Client:
    return signed_in("ada", content_type__app_label="campaigns")


@pytest.fixture
def viewer() -> Client:
    return signed_in("eve", codename__startswith="view_")


def page(name: str, *args: object) -> str:
    return reverse(f"admin:campaigns_{name}", args=args)


def test_a_webhook_is_added_and_the_page_that_answers_shows_its_secret_once(editor):
    answered = editor.post(page("webhook_add"), FORM)

    hook = Webhook.objects.get()
    secret = signing.current(hook.secrets)
    assert hook.events == ["run.*", "delivery.rejected"]
    assert secret in answered.content.decode()
    assert "no-store" in answered["Cache-Control"]
    assert not any(secret in morsel.value for morsel in editor.cookies.values())
    assert secret not in editor.get(page("webhook_change", hook.pk)).content.decode()


@pytest.mark.parametrize(
    ("change", "words"),
    [({"url": "http://10.0.0.1/"}, "is not a public address"), ({"events": "run.over"}, "There is no event")],
)
def test_what_makes_no_sense_is_refused_in_the_words_of_the_api(editor, change, words):
    answered = editor.post(page("webhook_add"), FORM | change)

    assert words in answered.content.decode()
    assert not Webhook.objects.exists()


def test_a_change_is_in_the_history_and_switching_on_sends_what_waits(editor):
    hook, _ = webhook(HOOK, "run.*", "delivery.rejected")
    Callback.objects.create(url=HOOK, type="run.completed", body="{}", webhook=hook)
    webhooks.switch_off(hook.pk, why="Nothing that it was told for 24 hours arrived.")
    overview = editor.get(reverse("admin:index")).content.decode()

    answered = editor.post(page("webhook_change", hook.pk), FORM, follow=True)

    assert answered.status_code == 200
    assert "Nothing that it was told for 24 hours arrived." in overview
    assert "switched off" not in editor.get(reverse("admin:index")).content.decode()
    assert Callback.objects.get().next_at is not None
    assert hook.history.last().what == "switched on"
    assert "switched on by ada" in editor.get(page("webhook_change", hook.pk)).content.decode()


def test_a_ping_shows_the_answer(editor):
    with receiving() as receiver:
        hook, _ = webhook(receiver.url)
        answered = editor.post(page("webhook_send_ping", hook.pk), CONFIRMED, follow=True)
        receiver.respond = lambda request: answer(500, b"on fire")
        refused = editor.post(page("webhook_send_ping", hook.pk), CONFIRMED, follow=True)

    assert "It took the ping: 204" in answered.content.decode()
    assert "500 on fire" in refused.content.decode()


def test_a_secret_is_replaced_only_when_it_was_asked_for_by_a_click(editor):
    hook, old = webhook(HOOK)
    asked = editor.get(page("webhook_replace_secret", hook.pk))
    before = signing.current(Webhook.objects.get().secrets)
    answered = editor.post(page("webhook_replace_secret", hook.pk))

    new = signing.current(Webhook.objects.get().secrets)
    assert before == old != new
    assert old not in asked.content.decode()
    assert new in answered.content.decode()


def test_the_secret_of_runs_is_shown_to_those_who_may_and_by_a_command(editor, viewer, capsys):
    call_command("callback_secret")
    printed = capsys.readouterr().out.split()

    shown, refused = editor.get(page("webhook_run_secret")), viewer.get(page("webhook_run_secret"))

    assert printed == signing.installation_secrets()
    assert printed[0] in shown.content.decode()
    assert refused.status_code == 403


def test_who_may_only_look_changes_nothing(viewer):
    hook, _ = webhook(HOOK)
    dead = Callback.objects.create(url=HOOK, type="run.completed", body="{}", state=CallbackState.DEAD)

    viewer.post(page("webhook_change", hook.pk), FORM | {"name": "mine"})
    statuses = [
        viewer.get(page("webhook_change", hook.pk)).status_code,
        viewer.get(page("callback_change", dead.pk)).status_code,
        viewer.post(page("webhook_send_ping", hook.pk), CONFIRMED).status_code,
        viewer.post(page("webhook_replace_secret", hook.pk)).status_code,
        viewer.post(page("callback_replay_this", dead.pk), CONFIRMED).status_code,
    ]

    assert statuses == [200, 200, 403, 403, 403]
    assert Webhook.objects.get().name == "shop"
    assert Callback.objects.get().state == CallbackState.DEAD


def test_a_callback_is_shown_with_its_attempts_and_what_it_says_without_its_urls_query(editor):
    told = Callback.objects.create(
        url=f"{HOOK}?key=of-the-shop", type="run.completed", body='{"type": "run.completed"}'
    )
    CallbackAttempt.objects.create(callback=told, at=now(), seconds=0.5, status=500, words="on fire")

    shown = editor.get(page("callback_change", told.pk)).content.decode()

    assert "on fire" in shown
    assert "&quot;type&quot;: &quot;run.completed&quot;" in shown
    assert "of-the-shop" not in shown


def test_dead_letters_are_sent_again_one_by_one_or_several(editor):
    dead = [
        Callback.objects.create(url=HOOK, type="run.completed", body="{}", state=CallbackState.DEAD) for _ in range(3)
    ]

    editor.post(page("callback_replay_this", dead[0].pk), CONFIRMED)
    editor.post(
        page("callback_changelist"), {"action": "replay_selected", "_selected_action": [each.pk for each in dead[1:]]}
    )

    assert set(Callback.objects.values_list("state", flat=True)) == {"waiting"}


def test_the_list_is_narrowed_and_asks_no_more_for_many_than_for_few(editor, django_assert_max_num_queries):
    for number in range(30):
        hook, _ = webhook(HOOK, name=f"shop {number}")
        Callback.objects.create(url=HOOK, type="run.completed", body="{}", webhook=hook)
    Callback.objects.create(url=HOOK, type="engine.held", body="{}", webhook=hook, state=CallbackState.DEAD)

    with django_assert_max_num_queries(10):
        everything = editor.get(page("callback_changelist")).content.decode()
    narrowed = editor.get(page("callback_changelist") + "?state__exact=dead&type=engine.held").content.decode()

    assert everything.count("field-to_whom") >= 31
    assert narrowed.count("field-to_whom") == everything.count("field-to_whom") - 30


def test_a_runs_page_says_how_far_its_callbacks_are(editor):
    run = cast.queued(cast.workflow(), callback_url=HOOK)
    Callback.objects.create(url=HOOK, type="run.completed", body="{}", run=run, state=CallbackState.DEAD)

    shown = editor.get(page("run_change", run.pk)).content.decode()

    link = page("callback_changelist") + f"?run__id__exact={run.pk}"
    assert "1 dead letter" in shown
    assert link in shown
    assert "field-to_whom" in editor.get(link).content.decode()


def test_a_deleted_webhook_leaves_what_waited_as_dead(editor):
    hook, _ = webhook(HOOK)
    Callback.objects.create(url=HOOK, type="run.completed", body="{}", webhook=hook)

    editor.post(page("webhook_delete", hook.pk), {"post": "yes"})

    assert not Webhook.objects.exists()
    assert Callback.objects.get().state == CallbackState.DEAD
    assert "a webhook that was deleted" in editor.get(page("callback_changelist")).content.decode()
