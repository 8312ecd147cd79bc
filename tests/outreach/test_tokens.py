"""API tokens: what they open, and until when."""

import logging
from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from outreach.access import tokens
from outreach.models import ApiToken
from tests.outreach.access import bearer, browser, token, user
from tests.problems import detail

pytestmark = pytest.mark.django_db

TRAIL = "/api/v1/audit/"


@pytest.fixture
def ada():
    return user("ada", "view_auditentry", "view_workflow", "add_contactlist", "view_contactlist")


def test_a_token_opens_what_its_user_may_see(ada):
    assert bearer(token(ada).text).get(TRAIL).status_code == 200


def test_a_token_has_a_beginning_to_be_found_by_and_238_random_bits(ada):
    texts = {token(ada).text for _ in range(50)}

    assert len(texts) == 50
    assert all(tokens.WELL_FORMED.fullmatch(text) and len(text) == 49 for text in texts)


def test_of_a_token_only_its_hash_is_kept_and_six_characters_to_recognise_it_by(ada):
    made = token(ada)

    (kept,) = ApiToken.objects.values()

    assert made.text not in repr(kept)
    assert made.text[len(kept["prefix"]) :] not in repr(kept)
    assert kept["prefix"] == made.text[:15]


@pytest.mark.parametrize(
    "shown", ["", "x", "outreach_", "outreach_" + "a" * 40, "outreach_" + "a" * 4000, "outreach_ü" + "a" * 39, "a b c"]
)
def test_an_unknown_token_is_refused_and_told_how_a_request_shows_one(ada, shown):
    answer = bearer(shown).get(TRAIL)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "Authorization: Bearer outreach_" in detail(answer)


def test_without_any_token_the_answer_says_that_one_is_wanted():
    answer = APIClient().get(TRAIL)

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_revoked_token_opens_nothing_from_that_instant_on(ada):
    made = token(ada)
    program = bearer(made.text)
    before = program.get(TRAIL).status_code

    tokens.revoke(made.token, "grace", timezone.now())

    after = program.get(TRAIL)
    assert (before, after.status_code, detail(after)) == (200, 401, "This token was revoked.")


def test_a_revocation_is_recorded_once_and_with_who_was_first(ada):
    made = token(ada).token

    assert tokens.revoke(made, "grace", timezone.now())
    assert not tokens.revoke(made, "edsger", timezone.now())
    assert made.revoked_by == "grace"


def test_an_expired_token_opens_nothing(ada):
    made = token(ada, expires_at=timezone.now() + timedelta(days=1))
    program = bearer(made.text)
    before = program.get(TRAIL).status_code
    ApiToken.objects.update(expires_at=timezone.now())

    after = program.get(TRAIL)

    assert (before, after.status_code, detail(after)) == (200, 401, "This token has expired.")


def test_a_token_of_somebody_who_was_shut_out_opens_nothing(ada):
    program = bearer(token(ada).text)
    ada.is_active = False
    ada.save()

    answer = program.get(TRAIL)

    assert (answer.status_code, detail(answer)) == (401, "The user of this token is not active.")


def test_a_token_loses_what_its_user_loses(ada):
    program = bearer(token(ada).text)
    ada.user_permissions.clear()

    assert program.get(TRAIL).status_code == 403


def test_a_bad_token_is_refused_also_beside_a_good_session(ada):
    person = browser(ada)

    assert person.get(TRAIL).status_code == 200
    assert person.get(TRAIL, headers={"Authorization": "Bearer outreach_no"}).status_code == 401


def test_a_token_needs_no_form_token_and_a_session_does(ada):
    program, person = bearer(token(ada).text), browser(ada, enforce_csrf_checks=True)
    program.handler.enforce_csrf_checks = True
    wanted = {"name": "Friends", "slug": "friends"}

    refused = person.post("/api/v1/contact-lists/", wanted, format="json")
    done = program.post("/api/v1/contact-lists/", wanted, format="json")

    assert (refused.status_code, done.status_code) == (403, 201)


def test_the_last_use_is_written_once_a_minute(ada, django_assert_num_queries):
    made = token(ada)
    tokens.note_use(made.token, timezone.now())
    first = ApiToken.objects.get().last_used_at

    with django_assert_num_queries(0):
        tokens.note_use(ApiToken(pk=made.token.pk, last_used_at=first), first + timedelta(seconds=59))
    tokens.note_use(ApiToken(pk=made.token.pk, last_used_at=first), first + timedelta(seconds=60))

    assert ApiToken.objects.get().last_used_at == first + timedelta(seconds=60)


def test_a_token_that_was_used_a_moment_ago_costs_one_query(ada, django_assert_num_queries):
    made = token(ada)
    tokens.note_use(made.token, timezone.now())

    with django_assert_num_queries(1):
        found = tokens.find(made.text)
        tokens.note_use(found, timezone.now())
        assert found.user == ada


@pytest.mark.parametrize("scopes", [[], ["write"], ["read", "all"]])
def test_scopes_that_do_not_exist_are_refused(ada, scopes):
    with pytest.raises(Exception, match="read, edit, send"):
        tokens.make("shop", ada, scopes, by="ada")


def test_no_line_of_the_log_holds_a_token_whatever_becomes_of_the_request(ada, lines):
    made = token(ada)

    bearer(made.text).get(f"/api/v1/workflows/{made.text}/")
    bearer(made.text).get(TRAIL, headers={"X-Request-ID": made.text})
    bearer(made.text + "x").post(TRAIL, {made.text: made.text}, format="json")
    logging.getLogger("outreach").warning("Somebody sent %s in a letter", made.text)

    assert len(lines()) >= 1
    assert made.text not in repr(lines())
