"""API tokens in the admin and by command: made, shown once, revoked; for whom, and by whom."""

import json

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.urls import reverse

from outreach.access import tokens
from outreach.models import ApiToken
from tests.outreach.access import browser, token, user

pytestmark = pytest.mark.django_db

LIST = "admin:outreach_apitoken_changelist"
ADD = "admin:outreach_apitoken_add"


@pytest.fixture
def admin():
    return user("ada", role="Admin")


def made_by(client, **fields: object):
    given = {"name": "shop", "scopes": ["read", "send"], "expires_at_0": "", "expires_at_1": ""}
    return client.post(reverse(ADD), given | fields)


def shown_in(page) -> str:
    (text,) = set(tokens.WELL_FORMED.findall(page.text))
    return text


# ---- in the admin ----


def test_a_token_is_shown_on_the_page_that_answers_the_form_and_opens_what_it_should(admin):
    page = made_by(browser(admin), user=admin.pk)

    token = tokens.find(shown_in(page))
    assert (token.name, token.user, token.scopes, token.created_by) == ("shop", admin, ["read", "send"], "ada")
    assert "no-store" in page.headers["Cache-Control"]


def test_a_token_is_shown_nowhere_a_second_time(admin):
    person = browser(admin)
    text = shown_in(made_by(person, user=admin.pk))
    hidden = text[tokens.SHOWN :]

    pages = [
        reverse(LIST),
        reverse("admin:outreach_apitoken_change", args=[ApiToken.objects.get().pk]),
        reverse("admin:index"),
        reverse(LIST) + "?q=" + text[: tokens.SHOWN],
    ]

    assert all(hidden not in person.get(page).text for page in pages)
    assert text[: tokens.SHOWN] in person.get(pages[0]).text


def test_the_button_that_copies_it_needs_no_script_within_the_page(admin):
    page = made_by(browser(admin), user=admin.pk).text

    assert 'data-copy="token"' in page
    assert "outreach/copy.js" in page


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scopes": []}, "This field is required"),
        ({"scopes": ["all"]}, "all"),
        ({"expires_at_0": "2001-01-01", "expires_at_1": "00:00"}, "This is over"),
    ],
)
def test_a_form_that_makes_no_sense_makes_no_token(admin, given, words):
    page = made_by(browser(admin), user=admin.pk, **given)

    assert words in page.text
    assert not ApiToken.objects.exists()


def test_an_admin_makes_no_token_with_the_rights_of_a_superuser(admin):
    root = user("root", is_superuser=True)

    made_by(browser(admin), user=root.pk)

    assert not ApiToken.objects.exists()


def test_who_may_not_change_users_makes_tokens_for_himself_alone():
    eve, grace = user("eve", "add_apitoken", "view_apitoken"), user("grace")

    made_by(browser(eve), user=grace.pk)
    made_by(browser(eve), user=eve.pk)

    assert [each.user for each in ApiToken.objects.all()] == [eve]


def test_a_token_is_revoked_from_its_page(admin):
    made = token(admin)

    browser(admin).post(
        reverse("admin:outreach_apitoken_revoke", args=[made.token.pk]), {"_form_submitted": "1"}, follow=True
    )

    found = tokens.find(made.text)
    assert found.revoked_at is not None
    assert found.revoked_by == "ada"


def test_who_may_only_look_revokes_nothing():
    made = token(user("ada"))
    viewer = browser(user("eve", "view_apitoken"))

    page = viewer.get(reverse("admin:outreach_apitoken_change", args=[made.token.pk]))
    viewer.post(reverse("admin:outreach_apitoken_revoke", args=[made.token.pk]), {"_form_submitted": "1"})

    assert (page.status_code, tokens.find(made.text).revoked_at) == (200, None)


def test_a_token_is_neither_changed_nor_deleted(admin):
    made = token(admin, "read").token
    person = browser(user("root", is_superuser=True))

    changed = person.post(reverse("admin:outreach_apitoken_change", args=[made.pk]), {"scopes": ["send"]})
    deleted = person.post(reverse("admin:outreach_apitoken_delete", args=[made.pk]), {"post": "yes"})

    assert (changed.status_code, deleted.status_code) == (403, 403)
    assert ApiToken.objects.get().scopes == ["read"]


def test_the_list_costs_the_same_however_many_there_are(admin, django_assert_max_num_queries):
    for _ in range(30):
        token(admin)
    person = browser(admin)

    with django_assert_max_num_queries(12):
        person.get(reverse(LIST))


# ---- by command ----


def said(capsys, *arguments: str) -> tuple[str, str]:
    call_command("api_token", *arguments)
    return tuple(capsys.readouterr())


def test_the_command_prints_a_new_token_alone_so_that_a_script_can_take_it(capsys, admin):
    out, err = said(capsys, "make", "shop", "--user", "ada", "--scopes", "read,send", "--days", "30")

    found = tokens.find(out.strip())
    assert (found.user, found.scopes) == (admin, ["read", "send"])
    assert (found.expires_at - found.created_at).days in (29, 30)
    assert "not shown again" in err


def test_without_scopes_it_reads_and_does_nothing_else(capsys, admin):
    assert tokens.find(said(capsys, "make", "shop", "--user", "ada")[0].strip()).scopes == ["read"]


def test_the_command_lists_tokens_without_what_they_are(capsys, admin):
    text = said(capsys, "make", "shop", "--user", "ada")[0].strip()

    table, rows = said(capsys, "list")[0], json.loads(said(capsys, "list", "--json")[0])

    assert text[tokens.SHOWN :] not in table + json.dumps(rows)
    assert [(row["name"], row["user"], row["state"]) for row in rows] == [("shop", "ada", "valid")]
    assert text[: tokens.SHOWN] in table


def test_the_command_revokes_by_id_or_beginning_and_says_when_somebody_was_before(capsys, admin):
    first, second = token(admin), token(admin)

    said(capsys, "revoke", str(first.token.pk))
    said(capsys, "revoke", second.token.prefix)

    assert ApiToken.objects.filter(revoked_at=None).count() == 0
    with pytest.raises(CommandError, match="revoked already") as refusal:
        call_command("api_token", "revoke", str(first.token.pk))
    assert refusal.value.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("make", "shop", "--user", "nobody"), "There is no user 'nobody'. There is: ada."),
        (("make", "shop", "--user", "ada", "--scopes", "write"), "read, edit, send"),
        (("make", "shop", "--user", "ada", "--days", "0"), "--days must be from 1"),
        (("revoke", "999999"), "There is no token '999999'"),
        (("revoke", "outreach_nosuch"), "There is no token"),
    ],
)
def test_the_command_says_what_it_cannot_do_and_what_there_is(admin, arguments, words):
    with pytest.raises(CommandError, match=words) as refusal:
        call_command("api_token", *arguments)

    assert refusal.value.returncode == 2
