"""Contacts by a file over REST: uploaded, looked at, checked, imported, undone."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from campaigns.contacts.work import work_on
from campaigns.models import ContactImport, ContactList, ImportState
from tests.campaigns.cast import contact_list
from tests.campaigns.clients import client
from tests.campaigns.importing import imported, people, uploaded
from tests.problems import detail, errors

FILE = "E-Mail-Adresse;Name;First city\nada@example.test;Ada;London\nnobody;Nobody;Rome\n"
IMPORTS = "/api/v1/imports"


@pytest.fixture
def friends(db) -> ContactList:
    return contact_list([])


@pytest.fixture
def editor(db) -> APIClient:
    return client("editor", "view_contactimport", "add_contactimport", "change_contactimport")


@pytest.fixture
def viewer(db) -> APIClient:
    return client("viewer", "view_contactimport")


def upload(who: APIClient, content: str | bytes = FILE, query: str = "?filename=people.csv"):
    octets = content.encode() if isinstance(content, str) else content
    return who.generic("POST", f"/api/v1/contact-lists/friends/imports/{query}", octets, content_type="text/csv")


def test_a_file_goes_the_whole_way(editor, friends):
    made = upload(editor)

    assert made.status_code == 201
    said = made.json()
    assert (said["state"], said["filename"], said["size"], said["by"]) == (
        "uploaded",
        "people.csv",
        len(FILE),
        "editor",
    )
    assert said["columns"] == ["E-Mail-Adresse", "Name", "First city"]
    assert said["sample"] == [["ada@example.test", "Ada", "London"], ["nobody;Nobody;Rome"]]
    assert said["mapping"] == {
        "address": "E-Mail-Adresse", "name": "Name", "attributes": {"First city": "first_city"},
    }  # fmt: skip
    address = f"{IMPORTS}/{said['id']}"

    answer = editor.post(
        f"{address}/check/",
        {"mapping": {"address": "E-Mail-Adresse", "attributes": {"First city": "city"}}, "policy": "overwrite"},
        format="json",
    )
    assert (answer.status_code, answer.json()["state"]) == (202, "checking")
    work_on(said["id"])
    checked = editor.get(f"{address}/").json()
    assert (checked["state"], checked["policy"], checked["problem_counts"]) == (
        "checked", "overwrite", {"impossible_address": 1},
    )  # fmt: skip
    assert (checked["forecast"]["new"], checked["forecast"]["bad"]) == (1, 1)

    assert editor.post(f"{address}/start/").json()["state"] == "importing"
    work_on(said["id"])
    assert editor.get(f"{address}/").json()["counts"] == checked["forecast"]
    assert people(friends) == {"ada@example.test": ("", {"city": "London"})}

    assert editor.post(f"{address}/undo/").json()["state"] == "undoing"
    work_on(said["id"])
    assert editor.get(f"{address}/").json()["undone"]["deleted"] == 1
    assert people(friends) == {}


def test_a_form_may_carry_the_file(editor, friends):
    file = SimpleUploadedFile("from a form.csv", FILE.encode(), content_type="text/csv")

    made = editor.post("/api/v1/contact-lists/friends/imports/", {"file": file}, format="multipart")

    assert (made.status_code, made.json()["filename"]) == (201, "from a form.csv")


def test_another_encoding_and_delimiter_are_said_beside_the_file(editor, friends):
    made = upload(editor, "email|city\nbj@example.test|Malmö\n".encode("cp1252"), "?encoding=cp1252&delimiter=|")

    assert made.json()["sample"] == [["bj@example.test", "Malmö"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "No file was submitted"),
        (b"\n", "the file is empty"),
        (b"PK\x03\x04...", "this is a spreadsheet or an archive, not a CSV file"),
        (b"email\n\xff\xfe\n", "is not utf-8"),
        (b"email,email\n", "the column 'email' is there twice"),
    ],
)
def test_a_file_that_is_none_is_refused_in_words_and_not_kept(editor, friends, content, words):
    assert words in errors(upload(editor, content))["file"][0]
    assert not ContactImport.objects.exists()


def test_a_file_that_is_too_large_is_refused(editor, friends, outreach):
    outreach(IMPORT_MEGABYTES=1)

    answer = upload(editor, b"email\n" + b"x" * 1024**2)

    assert (answer.status_code, "OUTREACH_IMPORT_MEGABYTES" in detail(answer)) == (413, True)


def test_what_is_said_beside_the_file_is_checked(editor, friends):
    assert list(errors(upload(editor, query="?encodign=utf-8"))) == ["encodign"]
    assert "delimiter" in errors(upload(editor, query="?delimiter=ab"))


def test_a_mapping_that_cannot_be_names_its_columns(editor, friends):
    made = upload(editor).json()
    mapping = {
        "address": "Mail",
        "name": "Nam",
        "attributes": {"First city": "first city", "Town": "town", "Name": "email"},
    }

    answer = editor.post(f"{IMPORTS}/{made['id']}/check/", {"mapping": mapping}, format="json")

    assert errors(answer) == {
        "mapping/address": ["Which column holds the address? There is: 'E-Mail-Adresse', 'Name', 'First city'."],
        "mapping/name": ["There is no column 'Nam'. There is: 'E-Mail-Adresse', 'Name', 'First city'."],
        "mapping/attributes/First city": [
            "Templates cannot write 'first city': letters, digits and underscores. A good one: first_city."
        ],
        "mapping/attributes/Town": ["There is no such column. There is: 'E-Mail-Adresse', 'Name', 'First city'."],
        "mapping/attributes/Name": [
            "Every contact has email and name already: choose another name, such as other_email."
        ],
    }


def test_two_columns_cannot_become_one_attribute(editor, friends):
    made = upload(editor, "email,a,b\n").json()

    answer = editor.post(
        f"{IMPORTS}/{made['id']}/check/",
        {"mapping": {"address": "email", "attributes": {"a": "x", "b": "x"}}},
        format="json",
    )

    assert "The column 'a' becomes 'x' already" in errors(answer)["mapping/attributes/b"][0]


def test_a_file_without_a_column_that_looks_like_an_address_asks_which_one_it_is(editor, friends):
    made = upload(editor, "who,city\nada@example.test,Rome\n").json()

    assert made["mapping"]["address"] == ""
    answer = editor.post(f"{IMPORTS}/{made['id']}/check/", {}, format="json")
    assert "Which column holds the address?" in errors(answer)["mapping/address"][0]


def test_steps_out_of_order_are_a_conflict(editor, friends):
    of = uploaded(friends, FILE)

    for deed in ("start", "undo"):
        answer = editor.post(f"{IMPORTS}/{of.pk}/{deed}/")
        assert (answer.status_code, "is uploaded" in detail(answer)) == (409, True)


def test_bad_rows_are_a_file_of_their_own(editor, friends):
    of = imported(friends, "email,city\nno,Rome\n=1+1@,Oslo\n")

    answer = editor.get(f"{IMPORTS}/{of.pk}/errors.csv")

    lines = b"".join(answer.streaming_content).decode().split("\r\n")
    assert lines[0] == "row,reason,detail,content"
    assert lines[1].startswith("2,impossible_address,")
    assert lines[1].endswith('"no,Rome"')
    assert lines[2].endswith('"\'=1+1@,Oslo"')
    assert lines[3:] == [""]


def test_who_may_only_look_changes_nothing(viewer, friends):
    of = uploaded(friends, FILE)

    assert viewer.get(f"{IMPORTS}/{of.pk}/").status_code == 200
    assert upload(viewer).status_code == 403
    for deed in ("check", "start", "undo"):
        assert viewer.post(f"{IMPORTS}/{of.pk}/{deed}/").status_code == 403
    of.refresh_from_db()
    assert of.state == ImportState.UPLOADED


def test_nobody_else_sees_anything(friends):
    of = uploaded(friends, FILE)
    stranger = client("stranger")

    for path in (f"{IMPORTS}/", f"{IMPORTS}/{of.pk}/", f"{IMPORTS}/{of.pk}/errors.csv"):
        assert stranger.get(path).status_code == 403


def test_lists_cost_the_same_however_many_there_are(viewer, friends, django_assert_num_queries):
    for _ in range(2):
        uploaded(friends, FILE)
    viewer.get(f"{IMPORTS}/")
    with django_assert_num_queries(5) as few:
        viewer.get(f"{IMPORTS}/")
    for _ in range(5):
        uploaded(friends, FILE)

    with django_assert_num_queries(len(few.captured_queries)):
        answer = viewer.get(f"{IMPORTS}/?state=uploaded")

    assert len(answer.json()["results"]) == 7
    assert viewer.get("/api/v1/contact-lists/friends/imports/?page_size=3").json()["next"]


@pytest.mark.parametrize("path", ["/api/v1/contact-lists/none/imports/", f"{IMPORTS}/7/", f"{IMPORTS}/7/errors.csv"])
def test_what_is_not_there_is_not_found(viewer, path):
    assert viewer.get(path).status_code == 404
