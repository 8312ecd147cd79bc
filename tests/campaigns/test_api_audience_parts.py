"""What an audience has beside its settings, over REST: its first rows, its file, how far it was read."""

from io import BytesIO

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from campaigns.api.file_body import CsvFileParser
from campaigns.audiences.stored import read_upload
from campaigns.models import Audience, AudienceBookmark, Upload
from delivery.api.parsing import TooLarge
from tests.campaigns import cast
from tests.campaigns.clients import client
from tests.problems import detail, document, errors

pytestmark = pytest.mark.django_db(transaction=True)

AUDIENCES = "/api/v1/audiences/"
GUESTS = "email;name\nada@example.test;Ada\n"


@pytest.fixture
def operator() -> APIClient:
    return client("ada", "view_audience", "change_audience")


@pytest.fixture
def waiting() -> Audience:
    """An audience that waits for its file."""
    return Audience.objects.create(name="Guests", slug="guests", kind="csv")


def upload(who: APIClient, content: str | bytes, query: str = "", slug: str = "guests", as_type: str = "text/csv"):
    return who.post(f"{AUDIENCES}{slug}/upload/{query}", content, content_type=as_type)


# ---- the sample ----


def test_a_sample_shows_the_first_rows_and_what_is_wrong_with_the_bad_ones(operator):
    cast.csv_audience("email,name,city\nada@example.test,Ada,London\nnobody,Nobody,\n")

    sample = operator.get(f"{AUDIENCES}file/sample/").json()

    assert {name: sample[name] for name in ("columns", "link_columns", "error")} == {
        "columns": ["email", "name", "city"],
        "link_columns": [],
        "error": "",
    }
    assert sample["rows"][0] == {
        "position": 2,
        "address": "ada@example.test",
        "problem": "",
        "cells": ["ada@example.test", "Ada", "London"],
        "links": [],
    }
    assert (sample["rows"][1]["position"], sample["rows"][1]["problem"]) == (3, "There is no @ in it.")


def test_a_sample_of_what_cannot_be_read_says_why(operator, waiting):
    answer = operator.get(f"{AUDIENCES}guests/sample/")

    assert (answer.status_code, answer.json()["rows"]) == (200, [])
    assert answer.json()["error"] == "audience 'Guests': it has no file. Upload one."


def test_a_sample_has_ten_rows_at_most(operator):
    cast.list_audience(cast.crowd(30))

    assert len(operator.get(f"{AUDIENCES}friends/sample/").json()["rows"]) == 10


# ---- the file ----


def test_a_file_is_uploaded_read_and_replaced(operator, waiting):
    first = upload(operator, GUESTS, "?filename=spring.csv")
    sample = operator.get(f"{AUDIENCES}guests/sample/").json()
    second = upload(operator, "email\n")

    assert (first.status_code, first.json()["filename"], first.json()["size"]) == (201, "spring.csv", len(GUESTS))
    assert [row["address"] for row in sample["rows"]] == ["ada@example.test"]
    assert (second.status_code, second.json()["filename"]) == (201, "guests.csv")
    assert b"".join(read_upload(Upload.objects.get())) == b"email\n"
    assert operator.get(f"{AUDIENCES}guests/").json()["file"] == "guests.csv"


def test_a_file_of_any_encoding_is_kept_as_it_came(operator, waiting):
    content = "email,name\nbjørn@example.test,Bjørn\n".encode("utf-16")

    upload(operator, content)

    assert b"".join(read_upload(Upload.objects.get())) == content
    (row,) = operator.get(f"{AUDIENCES}guests/sample/").json()["rows"]
    assert row["cells"] == ["bjørn@example.test", "Bjørn"]


def test_a_large_file_comes_in_pieces_and_is_whole(operator, waiting):
    content = b"email\n" + b"".join(b"person-%d@example.test\n" % number for number in range(100_000))

    answer = upload(operator, content)

    assert answer.json()["size"] == len(content) > 2 * 1024**2
    assert b"".join(read_upload(Upload.objects.get())) == content


def test_a_file_that_is_said_to_be_too_large_is_refused_and_the_old_one_stays(operator, waiting):
    upload(operator, GUESTS)

    answer = operator.generic(
        "POST",
        f"{AUDIENCES}guests/upload/",
        "email\n",
        content_type="text/csv",
        CONTENT_LENGTH=str(100 * 1024**2 + 1),
    )

    assert (answer.status_code, "at most 100 MB" in detail(answer)) == (413, True)
    assert b"".join(read_upload(Upload.objects.get())) == GUESTS.encode()


def test_no_more_is_read_of_a_file_than_it_may_have():
    class Small(CsvFileParser):
        most = 1024**2

    endless = BytesIO(b"x" * (5 * 1024**2))

    with pytest.raises(TooLarge, match="at most 1 MB"):
        Small().parse(endless)
    assert endless.tell() < 2 * 1024**2


def test_only_a_csv_audience_has_a_file(operator):
    cast.list_audience()

    answer = upload(operator, GUESTS, slug="friends")

    assert (answer.status_code, "only one of csv has a file" in detail(answer)) == (409, True)
    assert not Upload.objects.exists()


@pytest.mark.parametrize(
    ("content", "query", "as_type", "status"),
    [
        ("", "", "text/csv", 400),
        (GUESTS, "?filename=", "text/csv", 400),
        (GUESTS, "?filename=" + "x" * 256, "text/csv", 400),
        (GUESTS, "?filename=a%00b", "text/csv", 400),
        (GUESTS, "", "application/json", 415),
        (GUESTS, "", "multipart/form-data; boundary=x", 415),
    ],
)
def test_what_is_no_file_is_refused(operator, waiting, content, query, as_type, status):
    answer = upload(operator, content, query, as_type=as_type)

    assert document(answer)["status"] == status
    assert not Upload.objects.exists()


# ---- how far it was read ----


def test_an_audience_is_read_from_its_beginning_again(operator, waiting):
    url = f"{AUDIENCES}guests/bookmark/"
    AudienceBookmark.objects.create(audience=waiting, value="2026-11-01", moved_at=timezone.now(), run_id=7)

    before = operator.get(url).json()
    answers = [operator.post(f"{url}reset/") for _ in range(2)]

    assert (before["value"], before["run"]) == ("2026-11-01", 7)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json() == operator.get(url).json()
    assert (answers[0].json()["value"], answers[0].json()["run"]) == ("", None)


def test_an_audience_that_was_never_read_has_a_bookmark_at_its_beginning(operator, waiting):
    bookmark = {"value": "", "moved_at": None, "run": None}

    assert operator.get(f"{AUDIENCES}guests/bookmark/").json() == bookmark
    assert operator.post(f"{AUDIENCES}guests/bookmark/reset/").json() == bookmark


# ---- who ----


def test_each_deed_needs_its_permission(waiting):
    people = {
        "nobody": APIClient(),
        "outsider": client("outsider", "add_audience", "delete_audience"),
        "viewer": client("viewer", "view_audience"),
        "editor": client("editor", "change_audience"),
    }

    statuses = {
        name: [
            who.get(f"{AUDIENCES}guests/sample/").status_code,
            who.get(f"{AUDIENCES}guests/bookmark/").status_code,
            upload(who, GUESTS).status_code,
            who.post(f"{AUDIENCES}guests/bookmark/reset/").status_code,
        ]
        for name, who in people.items()
    }

    assert statuses == {
        "nobody": [401, 401, 401, 401],
        "outsider": [403, 403, 403, 403],
        "viewer": [200, 200, 403, 403],
        "editor": [403, 403, 201, 200],
    }


def test_what_is_asked_of_no_audience_is_not_found(operator):
    answers = [
        operator.get(f"{AUDIENCES}none/sample/"),
        operator.get(f"{AUDIENCES}none/bookmark/"),
        operator.post(f"{AUDIENCES}none/bookmark/reset/"),
        upload(operator, GUESTS, slug="none"),
    ]

    assert [document(answer)["status"] for answer in answers] == [404] * 4
    assert not any("errors" in document(answer) for answer in answers)


def test_a_wrong_name_of_a_file_is_said_at_its_place(operator, waiting):
    assert list(errors(upload(operator, GUESTS, "?filename=a%0Ab"))) == ["filename"]
