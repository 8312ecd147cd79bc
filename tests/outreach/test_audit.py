"""The audit trail: who did what over the API, also what was refused, and never a value."""

from datetime import timedelta

import pytest
from django.db import DatabaseError
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from campaigns import housekeeping
from delivery.models import Bucket
from outreach.access import audit as writing
from outreach.access.forget import forget_old
from outreach.models import AuditEntry
from tests.campaigns import cast
from tests.outreach.access import bearer, browser, token, user
from tests.problems import errors

pytestmark = pytest.mark.django_db

LISTS = "/api/v1/contact-lists/"
TRAIL = "/api/v1/audit/"
SECRET = "nobody-may-read-this"


@pytest.fixture
def ada():
    return user("ada", "add_contactlist", "change_contactlist", "view_contactlist", "view_auditentry")


def entry(**fields: object) -> AuditEntry:
    usual = {"user_name": "ada", "user_id": 1, "method": "POST", "route": "r", "path": "/p", "status": 200}
    return AuditEntry.objects.create(**usual | fields)


# ---- what is written ----


def test_a_change_is_written_with_who_what_where_and_the_names_of_the_fields(ada):
    made = token(ada)

    answer = bearer(made.text).post(
        LISTS, {"name": SECRET, "slug": SECRET}, format="json", headers={"X-Request-ID": "request-of-mine"}
    )

    (kept,) = AuditEntry.objects.values()
    assert answer.status_code == 201
    assert SECRET not in repr(kept)
    del kept["id"], kept["at"]
    assert "contact-lists/" in kept["route"]
    assert kept == {
        "user_name": "ada",
        "user_id": ada.pk,
        "token_name": "shop",
        "token_id": made.token.pk,
        "method": "POST",
        "route": kept["route"],
        "path": LISTS,
        "thing": str(answer.json()["id"]),
        "status": 201,
        "request_id": "request-of-mine",
        "body_fields": ["name", "slug"],
        "address": "127.0.0.1",
    }


def test_what_is_done_in_a_browser_has_no_token(ada):
    kept = cast.contact_list([])

    browser(ada).patch(f"{LISTS}{kept.slug}/", {"name": "Foes"}, format="json")

    found = AuditEntry.objects.get()
    assert (found.user_name, found.token_name, found.token_id, found.thing) == ("ada", "", None, kept.slug)


@pytest.mark.parametrize(
    ("scopes", "body", "status"),
    [(("read",), {"name": "a"}, 403), (("edit",), {"nonsense": 1}, 400), (("edit",), ["a"], 400)],
)
def test_what_was_refused_is_written_as_well(ada, scopes, body, status):
    bearer(token(ada, *scopes).text).post(LISTS, body, format="json")

    assert AuditEntry.objects.get().status == status


def test_a_body_that_cannot_be_read_is_refused_and_written(ada):
    bearer(token(ada).text).post(LISTS, "{", content_type="application/json")

    found = AuditEntry.objects.get()
    assert (found.status, found.body_fields) == (400, [])


def test_reads_and_those_whom_nobody_knows_are_not_written(ada):
    bearer(token(ada).text).get(LISTS)
    bearer("outreach_" + "x" * 40).post(LISTS, {}, format="json")
    APIClient().post(LISTS, {}, format="json")
    browser(ada).get(reverse("admin:index"))

    assert not AuditEntry.objects.exists()


def test_a_trigger_keeps_a_record_of_its_own(ada):
    program = bearer(token(user("root", is_superuser=True)).text)

    program.post("/api/v1/trigger", {"workflow_id": 999_999}, format="json")

    assert not AuditEntry.objects.exists()


def test_a_trigger_that_is_not_allowed_is_written_here_for_it_has_no_other_record(ada):
    bearer(token(ada).text).post("/api/v1/trigger", {"workflow_id": 1}, format="json")

    found = AuditEntry.objects.get()
    assert (found.path, found.status) == ("/api/v1/trigger", 403)


def test_an_entry_outlives_token_and_user(ada):
    bearer(token(ada).text).post(LISTS, {}, format="json")

    ada.delete()

    assert AuditEntry.objects.get().user_name == "ada"


def test_names_are_cut_to_what_a_row_holds(ada):
    body = {"x" * 5000: 1} | {f"field-{n}": 1 for n in range(500)}

    bearer(token(ada).text).post(LISTS, body, format="json")

    kept = AuditEntry.objects.get().body_fields
    assert (len(kept), len(kept[0])) == (50, 100)


def test_a_trail_that_cannot_be_written_does_not_undo_the_answer(ada, lines, monkeypatch):
    class Broken:
        def save(self, **kwargs: object) -> None:
            raise DatabaseError("disk full")

    monkeypatch.setattr(writing, "_entry", lambda request, response: Broken())

    answer = bearer(token(ada).text).post(LISTS, {"name": "a", "slug": "a"}, format="json")

    assert answer.status_code == 201
    assert "is not in the audit trail: disk full" in lines()[-1]["event"]


# ---- over the API ----


def test_the_trail_is_read_over_the_api_newest_first(ada):
    entry(path="/first")
    entry(path="/second", token_name="shop", token_id=3, body_fields=["name"], address="192.0.2.7")

    answer = bearer(token(ada).text).get(TRAIL).json()

    assert [each["path"] for each in answer["results"]] == ["/second", "/first"]
    newest = answer["results"][0]
    assert (newest["user"], newest["token"], newest["token_id"]) == ("ada", "shop", 3)
    assert (newest["body_fields"], newest["address"]) == (["name"], "192.0.2.7")


def test_the_trail_is_narrowed_by_user_and_method_and_by_nothing_else(ada):
    entry(user_name="grace")
    entry(method="DELETE")
    program = bearer(token(ada).text)

    assert len(program.get(TRAIL, {"user": "grace"}).json()["results"]) == 1
    assert len(program.get(TRAIL, {"method": "DELETE"}).json()["results"]) == 1
    assert "user_name" in errors(program.get(TRAIL, {"user_name": "grace"}))


@pytest.mark.parametrize("rows", [1, 40])
def test_a_page_of_the_trail_costs_the_same_however_many_rows_it_has(ada, rows, django_assert_num_queries):
    for _ in range(rows):
        entry()
    person = browser(user("root", is_superuser=True))
    person.get(TRAIL)

    with django_assert_num_queries(3):  # session, user, the page
        assert len(person.get(TRAIL).json()["results"]) == rows


def test_an_entry_is_read_by_its_id_and_never_changed(ada):
    kept = entry()
    program = bearer(token(user("root", is_superuser=True)).text)

    assert program.get(f"{TRAIL}{kept.pk}/").json()["id"] == kept.pk
    for method in ("put", "patch", "delete"):
        assert getattr(program, method)(f"{TRAIL}{kept.pk}/", {}, format="json").status_code == 405


# ---- in the admin ----


def test_the_admin_shows_the_trail_and_lets_nobody_change_it():
    kept = entry(path="/api/v1/engines/7/", token_name="shop", status=403)
    person = browser(user("root", is_superuser=True))

    shown = person.get(reverse("admin:outreach_auditentry_changelist"), {"user": "ada", "method": "POST"})
    none = person.get(reverse("admin:outreach_auditentry_changelist"), {"user": "grace"})
    page = reverse("admin:outreach_auditentry_change", args=[kept.pk])

    assert "/api/v1/engines/7/" in shown.text
    assert "/api/v1/engines/7/" not in none.text
    assert person.get(page).status_code == 200
    assert person.post(page, {"status": 200}).status_code == 403
    assert person.post(reverse("admin:outreach_auditentry_delete", args=[kept.pk])).status_code == 403


# ---- how long it is kept ----


def test_what_is_older_than_the_setting_says_goes_with_the_tick(outreach, output_dir):
    outreach(AUDIT_DAYS=400)
    for days in (401, 399):
        AuditEntry.objects.filter(pk=entry(path=f"/{days}").pk).update(at=timezone.now() - timedelta(days=days))

    housekeeping.tick()

    assert list(AuditEntry.objects.values_list("path", flat=True)) == ["/399"]


def test_a_trail_without_anything_old_is_looked_at_once(django_assert_num_queries):
    for _ in range(10):
        entry()

    with django_assert_num_queries(2):  # the oldest entry; buckets
        forget_old()


def test_buckets_of_callers_who_are_long_gone_go_and_those_of_engines_stay():
    for key, state in (("api:token:1", 1), ("api:token:2", 2**62), ("engine-limit:1", 1)):
        Bucket.objects.create(key=key, state=state)

    forget_old()

    assert set(Bucket.objects.values_list("pk", flat=True)) == {"api:token:2", "engine-limit:1"}
