"""Contacts, deliveries and runs as files: whole, exact or safe for spreadsheets, and streamed."""

import csv
import io
import json
import logging

import pytest
from django.core.signals import request_finished
from django.db import close_old_connections, connection
from django.http import StreamingHttpResponse
from rest_framework.test import APIClient

from campaigns.exports import tables
from campaigns.exports.formats import as_csv, as_json_lines, defused
from campaigns.exports.stream import answer
from campaigns.models import Contact, ContactImport, Run
from delivery.models import Delivery
from tests.campaigns.cast import contact_list, crowd, initialized, list_audience, queued, workflow
from tests.campaigns.clients import client
from tests.campaigns.importing import imported, people
from tests.problems import errors

API = "/api/v1"


@pytest.fixture
def reader(db) -> APIClient:
    return client("reader", "view_contact", "view_delivery", "view_run")


def got(who: APIClient, path: str) -> str:
    response = who.get(f"{API}/{path}")
    assert response.status_code == 200, response.content
    assert response.streaming
    return b"".join(response.streaming_content).decode()


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", ["=1+1", "+49", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])
def test_what_a_spreadsheet_takes_for_a_formula_is_a_text(text):
    assert defused(text) == f"'{text}"
    assert cells(b"".join(as_csv([["a"]], [[(text,)]])).decode())[1] == [f"'{text}"]


def test_numbers_are_numbers_and_json_lines_are_exact():
    assert b"".join(as_csv([["n", "t"]], [[(-5, "=x")]])) == b"n,t\r\n-5,'=x\r\n"
    assert json.loads(b"".join(as_json_lines(["n", "t"], [[(-5, "=x\n")]]))) == {"n": -5, "t": "=x\n"}


def test_the_contacts_of_a_list_with_a_column_for_each_attribute(reader):
    kept = contact_list([
        ("ada@example.test", "Ada, Countess", {"city": "London", "email": "other"}),
        ("bob@example.test", "=cmd|' /C calc'!A0", {"n": [1, "ü"]}),
    ])  # fmt: skip

    assert cells(got(reader, "contact-lists/friends/contacts.csv")) == [
        ["email", "name", "city", "email_", "n"],
        ["ada@example.test", "Ada, Countess", "London", "other", ""],
        ["bob@example.test", "'=cmd|' /C calc'!A0", "", "", '[1, "ü"]'],
    ]
    lines = got(reader, f"contact-lists/{kept.pk}/contacts.jsonl").splitlines()
    assert json.loads(lines[1]) == {
        "email": "bob@example.test", "name": "=cmd|' /C calc'!A0", "attributes": {"n": [1, "ü"]},
    }  # fmt: skip


def test_what_was_exported_can_be_imported_again(reader):
    everybody = contact_list(
        [("ada@example.test", "Ada", {"city": "Łódź\nZwei"}), ("b@example.test", "", {"city": ""})]
    )
    text = got(reader, "contact-lists/friends/contacts.csv")
    other = contact_list([], slug="others")

    imported(other, text)

    assert people(other) == people(everybody)


def test_the_deliveries_of_a_run(reader, output_dir):
    run = initialized(workflow(audience=list_audience(crowd(3))))
    Delivery.objects.update(state="accepted")
    Delivery.objects.filter(address="person-00002@example.test").update(state="dead", words="=boom")

    rows = cells(got(reader, f"runs/{run.pk}/deliveries.csv"))
    assert [row[1:6] for row in rows] == [
        ["run", "step", "email", "name", "state"],
        [str(run.pk), "1", "person-00001@example.test", "Person 1", "accepted"],
        [str(run.pk), "1", "person-00002@example.test", "Person 2", "dead"],
        [str(run.pk), "1", "person-00003@example.test", "Person 3", "accepted"],
    ]
    dead = [json.loads(line) for line in got(reader, "deliveries.jsonl?state=dead").splitlines()]
    assert [(each["email"], each["words"], each["deadline"]) for each in dead] == [
        ("person-00002@example.test", "=boom", None)
    ]
    assert len(got(reader, f"deliveries.jsonl?run={run.pk}&state=accepted").splitlines()) == 2


def test_every_delivery_is_there_once_whatever_the_stretches(reader, output_dir, monkeypatch):
    monkeypatch.setattr(tables, "STRETCH", 4)
    run = initialized(workflow(audience=list_audience(crowd(13))))

    lines = got(reader, "deliveries.jsonl").splitlines()

    assert [json.loads(line)["id"] for line in lines] == sorted(Delivery.objects.values_list("pk", flat=True))
    assert len(got(reader, f"runs/{run.pk}/deliveries.jsonl").splitlines()) == 13


def test_runs_with_what_became_of_them(reader, output_dir):
    done = initialized(workflow(audience=list_audience(crowd(3))))
    Run.objects.filter(pk=done.pk).update(state="completed", counts={"accepted": 3})
    waiting = queued(done.workflow)

    header, first, second = cells(got(reader, "runs.csv"))
    assert header[:3] == ["id", "workflow", "state"]
    assert header[-8:] == ["accepted", "rejected", "suppressed", "expired", "skipped", "cancelled", "dead", "uncertain"]
    assert (first[:3], first[-8]) == ([str(done.pk), "letters", "completed"], "3")
    assert (second[:3], second[-8]) == ([str(waiting.pk), "letters", "queued"], "0")
    assert len(cells(got(reader, "runs.csv?workflow=letters&state=queued"))) == 2


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_between_two_pieces(monkeypatch):
    monkeypatch.setattr(tables, "AT_ONCE", 2)
    everybody = contact_list(crowd(5))

    seen = []
    for _ in answer(tables.contacts(everybody), "jsonl", by="x"):
        seen.append(connection.in_atomic_block)
        # A client that is slow holds up nobody: another one writes meanwhile.
        Contact.objects.filter(name="Person 1").update(attributes={})

    assert seen == [False, False, False]


def test_the_first_octets_come_before_the_rows_are_read(reader, django_assert_num_queries):
    everybody = contact_list(crowd(3))
    pieces = iter(answer(tables.contacts(everybody), "csv", by="x"))

    with django_assert_num_queries(0):
        assert next(pieces) == b"email,name"


def test_runs_cost_the_same_few_statements_however_many_there_are(db, django_assert_num_queries):
    flow = workflow(audience=list_audience(crowd(1)))
    for _ in range(3):
        queued(flow)

    with django_assert_num_queries(2):
        b"".join(answer(tables.runs(), "csv", by="x"))


def test_who_took_what_is_in_the_log_also_when_he_hung_up(reader, caplog, monkeypatch):
    monkeypatch.setattr(tables, "AT_ONCE", 2)
    everybody = contact_list(crowd(5))
    with caplog.at_level(logging.INFO, "campaigns.exports.stream"):
        hung_up(answer(tables.contacts(everybody), "jsonl", by="reader"))
        got(reader, "contact-lists/friends/contacts.jsonl")

    told = [(line.message, line.by, line.export, getattr(line, "rows", None)) for line in caplog.records]
    assert told == [
        ("export begins", "reader", "contacts-friends", None),
        ("export ends", "reader", "contacts-friends", 2),
        ("export begins", "reader", "contacts-friends", None),
        ("export ends", "reader", "contacts-friends", 5),
    ]


def hung_up(response: StreamingHttpResponse) -> None:
    """Takes the first piece and no more."""
    next(iter(response.streaming_content))
    # The end of a request closes connections that are of no use any more; this one is the test's.
    request_finished.disconnect(close_old_connections)
    try:
        response.close()
    finally:
        request_finished.connect(close_old_connections)


def test_what_cannot_be_narrowed_by_is_refused(reader):
    contact_list([])

    assert list(errors(reader.get(f"{API}/deliveries.csv?stat=dead"))) == ["stat"]
    assert list(errors(reader.get(f"{API}/deliveries.csv?state=lost"))) == ["state"]
    assert list(errors(reader.get(f"{API}/deliveries.csv?run=99"))) == ["run"]
    assert list(errors(reader.get(f"{API}/runs.jsonl?workflow=none"))) == ["workflow"]
    assert list(errors(reader.get(f"{API}/contact-lists/friends/contacts.csv?page=1"))) == ["page"]


@pytest.mark.parametrize(
    "path", ["contact-lists/none/contacts.csv", "runs/7/deliveries.csv", "runs.xml", "imports/7/errors.csv"]
)
def test_what_is_not_there_is_not_found(db, path):
    who = client("admin", "view_contact", "view_delivery", "view_run", "view_contactimport")

    assert who.get(f"{API}/{path}").status_code == 404


def test_who_may_not_look_takes_nothing_away(db):
    stranger = client("stranger")
    everybody = contact_list([])
    of = ContactImport.objects.create(contact_list=everybody, filename="x.csv")

    paths = ("contact-lists/friends/contacts.csv", "deliveries.csv", "runs.csv", f"imports/{of.pk}/errors.csv")
    for path in paths:
        assert stranger.get(f"{API}/{path}").status_code == 403
