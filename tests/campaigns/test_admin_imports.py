"""Imports of contacts and exports in the admin."""

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from campaigns.contacts.work import work_on
from campaigns.models import ContactImport, ImportState
from tests.campaigns.cast import contact_list, crowd, initialized, list_audience, workflow
from tests.campaigns.importing import imported, people, uploaded

FILE = "Mail address,Full name,City\nada@example.test,Ada,London\nnobody,No,Rome\n"
ROLES = {
    "role_0": "address", "role_1": "name", "role_2": "attribute", "as_2": "town", "policy": "overwrite",
    "deed": "check",
}  # fmt: skip


def staff(name: str, *permissions: str) -> Client:
    user = User.objects.create(username=name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    signed_in = Client()
    signed_in.force_login(user)
    return signed_in


@pytest.fixture
def editor(db) -> Client:
    names = ("view_contactlist", "view_contact", "view_contactimport", "add_contactimport", "change_contactimport")
    return staff("editor", *names)


@pytest.fixture
def viewer(db) -> Client:
    return staff("viewer", "view_contactlist", "view_contactimport")


def page(of: ContactImport) -> str:
    return reverse("admin:campaigns_contactimport_change", args=[of.pk])


def deed(who: Client, of: ContactImport, **said: str):
    return who.post(reverse("admin:campaigns_contactimport_deed", args=[of.pk]), said, follow=True)


def test_a_file_goes_the_whole_way(editor):
    friends = contact_list([])
    file = SimpleUploadedFile("people.csv", FILE.encode())

    shown = editor.post(
        reverse("admin:campaigns_contactlist_import", args=[friends.pk]), {"file": file}, follow=True
    ).content.decode()

    of = ContactImport.objects.get()
    assert "Check the file" in shown
    assert "ada@example.test" in shown
    assert "being checked" in deed(editor, of, **ROLES).content.decode()
    work_on(of.pk)
    shown = editor.get(page(of)).content.decode()
    assert "What would come of it" in shown
    assert reverse("admin:campaigns_contactimport_errors", args=[of.pk]) in shown
    deed(editor, of, deed="start")
    work_on(of.pk)
    assert people(friends) == {"ada@example.test": ("Ada", {"town": "London"})}
    assert "Undo the import" in editor.get(page(of)).content.decode()
    deed(editor, of, deed="undo")
    work_on(of.pk)
    assert people(friends) == {}


def test_what_cannot_be_is_said_beside_the_column(editor):
    of = uploaded(contact_list([]), FILE)

    shown = deed(editor, of, **ROLES | {"role_1": "address", "as_2": "my town"}).content.decode()
    assert "One column is the address, not two." in shown
    shown = deed(editor, of, **ROLES | {"as_2": "my town"}).content.decode()
    assert "A good one: my_town." in shown

    of.refresh_from_db()
    assert of.state == ImportState.UPLOADED


def test_a_file_that_is_none_is_refused_beside_the_field(editor):
    friends = contact_list([])
    file = SimpleUploadedFile("people.xlsx", b"PK\x03\x04")

    shown = editor.post(reverse("admin:campaigns_contactlist_import", args=[friends.pk]), {"file": file})

    assert "this is a spreadsheet or an archive" in shown.content.decode()


def test_a_list_and_its_bad_rows_are_files_for_spreadsheets(editor):
    friends = contact_list([("ada@example.test", "=1", {})])
    of = imported(friends, FILE.replace("Mail address", "email"))

    for name, pk in (("contactlist_export", friends.pk), ("contactimport_errors", of.pk)):
        answer = editor.get(reverse(f"admin:campaigns_{name}", args=[pk]))
        content = b"".join(answer.streaming_content)
        assert content.startswith("\ufeff".encode())
        assert b"=1" not in content.replace(b"'=1", b"")


def test_who_may_only_look_sees_and_changes_nothing(viewer):
    of = uploaded(contact_list([]), FILE)

    shown = viewer.get(page(of)).content.decode()
    assert "people.csv" in shown
    assert "Check the file" not in shown
    assert deed(viewer, of, **ROLES).status_code == 403
    assert viewer.get(reverse("admin:campaigns_contactlist_import", args=[of.contact_list_id])).status_code == 403
    assert viewer.get(reverse("admin:campaigns_contactlist_export", args=[of.contact_list_id])).status_code == 403


def test_progress_makes_the_page_anew_when_the_state_is_another(editor):
    of = uploaded(contact_list([]), FILE)
    url = reverse("admin:campaigns_contactimport_progress", args=[of.pk])

    assert "HX-Refresh" not in editor.get(url, {"state": "uploaded"}).headers
    assert editor.get(url, {"state": "checking"}).headers["HX-Refresh"] == "true"


def test_a_run_and_all_runs_are_exported_from_their_pages(db):
    reader = staff("reader", "view_run", "view_delivery")
    run = initialized(workflow(audience=list_audience(crowd(2))))

    shown = reader.get(reverse("admin:campaigns_run_change", args=[run.pk])).content.decode()
    assert "Export deliveries" in shown
    answer = reader.get(reverse("admin:campaigns_run_export_deliveries", args=[run.pk]))
    assert b"".join(answer.streaming_content).count(b"@example.test") == 2
    assert "Export all runs" in reader.get(reverse("admin:campaigns_run_changelist")).content.decode()
    answer = reader.get(reverse("admin:campaigns_run_export_runs"))
    assert b"".join(answer.streaming_content).count(b"\r\n") == 2
