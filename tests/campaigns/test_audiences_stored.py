"""Audiences as operators store them: contact lists, uploaded files, queries on named databases."""

import random
import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from django.core.exceptions import ValidationError

from campaigns.audiences.exceptions import AudienceError, AudienceRefused
from campaigns.audiences.rows import BadRow, Reason, Row
from campaigns.audiences.stored import CHUNK, CONTACTS_AT_ONCE, open_source, read_upload, store_upload
from campaigns.models import Audience, AudienceKind, Contact, UploadChunk
from tests.campaigns import cast

pytestmark = pytest.mark.django_db


def sql_audience(query: str, connection: str = "crm", **settings: str) -> Audience:
    return Audience.objects.create(
        name="Query", slug="query", kind=AudienceKind.SQL, connection=connection, query=query, **settings
    )


@pytest.fixture
def crm(outreach, tmp_path: Path) -> Path:
    """A small database of the operator's, known as "crm"."""
    path = tmp_path / "crm.sqlite3"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE people (mail TEXT, who TEXT, points INTEGER)")
        database.executemany(
            "INSERT INTO people VALUES (?, ?, ?)",
            [("ada@example.test", "Ada", 3), ("nobody", "Nobody", 0), ("grace@example.test", "Grace", 5)],
        )
    database.close()
    outreach(AUDIENCE_DATABASES={"crm": f"sqlite:///{path}"})
    return path


# --- Contact lists ---------------------------------------------------------------------------------------------------


def test_a_contact_list_offers_address_name_and_every_attribute_that_any_contact_has():
    people = [("a@example.test", "A", {"city": "Leeds"}), ("b@example.test", "B", {"age": 30}), cast.ADA]

    source = open_source(cast.list_audience(people))

    assert source.fields() == ("email", "name", "age", "city")


def test_the_contacts_are_rows_with_normalised_addresses_and_their_attributes():
    rows = list(open_source(cast.list_audience()).rows())

    assert rows == [
        Row(
            1,
            "ada@example.test",
            "Ada Lovelace",
            {"email": "ada@example.test", "name": "Ada Lovelace", "city": "London"},
        ),
        Row(
            2,
            "Grace@example.test",
            "Grace Hopper",
            {"email": "Grace@Example.Test", "name": "Grace Hopper", "city": "New York"},
        ),
        Row(
            3,
            "bjørn@xn--bcher-kva.example",
            "Bjørn Ås",
            {"email": "bjørn@bücher.example", "name": "Bjørn Ås", "city": "Oslo"},
        ),
    ]


def test_an_attribute_that_one_contact_lacks_is_not_in_its_row():
    rows = list(open_source(cast.list_audience([("a@example.test", "A", {}), cast.ADA])).rows())

    assert [row.data.get("city") for row in rows] == [None, "London"]


def test_a_contact_whose_address_cannot_be_one_is_a_bad_row():
    rows = list(open_source(cast.list_audience([("nobody", "Nobody", {}), cast.ADA])).rows())

    assert [(type(row), row.position) for row in rows] == [(BadRow, 1), (Row, 2)]
    assert (rows[0].reason, rows[0].detail) == (Reason.IMPOSSIBLE_ADDRESS, "There is no @ in it.")


def test_only_the_contacts_of_the_chosen_list_are_read():
    cast.list_audience([cast.ADA], slug="others")

    rows = list(open_source(cast.list_audience([cast.GRACE])).rows())

    assert [row.address for row in rows] == ["Grace@example.test"]


def test_a_list_longer_than_one_piece_is_read_whole_and_in_order():
    count = CONTACTS_AT_ONCE + 1

    rows = list(open_source(cast.list_audience(cast.crowd(count))).rows())

    assert [row.position for row in rows] == list(range(1, count + 1))
    assert [row.address for row in rows] == [address for address, _, _ in cast.crowd(count)]


def test_an_empty_list_has_no_rows():
    source = open_source(cast.list_audience([]))

    assert source.fields() == ("email", "name")
    assert list(source.rows()) == []


# --- Uploads ---------------------------------------------------------------------------------------------------------


def test_an_upload_is_kept_in_pieces_and_read_back_as_it_was(rng: random.Random):
    content = rng.randbytes(2 * CHUNK + 4321)
    cuts = [0, *sorted(rng.sample(range(len(content)), 40)), len(content)]
    audience = cast.csv_audience(b"email\n")

    upload = store_upload(audience, "people.csv", (content[a:b] for a, b in pairwise(cuts)))

    assert b"".join(read_upload(upload)) == content
    assert (upload.filename, upload.size) == ("people.csv", len(content))
    assert list(upload.chunks.values_list("position", flat=True)) == [0, 1, 2]


def test_an_upload_is_kept_smaller_than_it_is():
    audience = cast.csv_audience("email\n" + "person@example.test\n" * 50_000)

    stored = sum(len(chunk.content) for chunk in UploadChunk.objects.all())

    assert stored < audience.upload.size / 10


def test_a_new_upload_takes_the_place_of_the_whole_old_one():
    audience = cast.csv_audience(b"email\n" + b"old@example.test\n" * (2 * CHUNK // 17))

    store_upload(audience, "new.csv", [b"email\nnew@example.test\n"])

    source = open_source(Audience.objects.get(pk=audience.pk))
    assert [row.address for row in source.rows()] == ["new@example.test"]
    assert "(new.csv)" in source.label()
    assert UploadChunk.objects.count() == 1


def test_an_upload_that_breaks_off_leaves_the_old_one():
    audience = cast.csv_audience("email\nold@example.test\n")

    def broken() -> Iterator[bytes]:
        yield b"email\nnew@example.test\n" * (CHUNK // 10)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store_upload(audience, "new.csv", broken())

    assert [row.address for row in open_source(audience).rows()] == ["old@example.test"]


def test_a_file_that_is_replaced_while_it_is_read_is_no_shorter_audience():
    audience = cast.csv_audience(b"email\n" + b"old@example.test\n" * (2 * CHUNK // 17))
    rows = open_source(audience).rows()
    next(rows)
    store_upload(audience, "new.csv", [b"email\nnew@example.test\n"])

    with pytest.raises(AudienceError, match="replaced while it was read"):
        list(rows)


def test_the_settings_of_a_csv_audience_are_those_it_is_read_with():
    content = "Wer|Post|Größe\nZoë|ZOE@example.test|5\n".encode("latin-1")
    audience = cast.csv_audience(content, encoding="latin-1", delimiter="|", address_field="Post", name_field="Wer")

    source = open_source(audience)

    assert source.fields() == ("Wer", "Post", "Größe")
    assert list(source.rows()) == [
        Row(2, "ZOE@example.test", "Zoë", {"Wer": "Zoë", "Post": "ZOE@example.test", "Größe": "5"})
    ]


def test_an_uploaded_file_gives_its_bad_rows_with_reason_and_line():
    content = 'email,name\n,Nobody\nada@example.test,Ada\na b@example.test,Space\n"x",y,z\n'

    rows = list(open_source(cast.csv_audience(content)).rows())

    assert [(row.position, getattr(row, "reason", "good")) for row in rows] == [
        (2, Reason.NO_ADDRESS),
        (3, "good"),
        (4, Reason.IMPOSSIBLE_ADDRESS),
        (5, Reason.NOT_A_ROW),
    ]


def test_an_empty_file_is_refused():
    with pytest.raises(AudienceRefused, match="the file is empty"):
        open_source(cast.csv_audience("")).fields()


# --- Queries ---------------------------------------------------------------------------------------------------------


def test_a_query_is_read_from_the_connection_of_its_name(crm):
    audience = sql_audience("SELECT mail, who, points * 2 AS score FROM people ORDER BY points DESC", name_field="who")

    source = open_source(audience)

    assert source.fields() == ("mail", "who", "score")
    assert list(source.rows()) == [
        Row(1, "grace@example.test", "Grace", {"mail": "grace@example.test", "who": "Grace", "score": 10}),
        Row(2, "ada@example.test", "Ada", {"mail": "ada@example.test", "who": "Ada", "score": 6}),
        BadRow(3, Reason.IMPOSSIBLE_ADDRESS, "There is no @ in it.", '{"mail": "nobody", "who": "Nobody", "score": 0}'),
    ]


@pytest.mark.postgres
def test_a_query_is_read_from_postgresql_as_well(outreach, postgres_url):
    with psycopg.connect(postgres_url) as database:
        database.execute("CREATE TABLE people AS SELECT 'ada@example.test' AS email, 36 AS age")
    outreach(AUDIENCE_DATABASES={"crm": postgres_url})

    rows = list(open_source(sql_audience("SELECT email, age FROM people")).rows())

    assert rows == [Row(1, "ada@example.test", "", {"email": "ada@example.test", "age": 36})]


def test_a_query_that_writes_is_refused_and_writes_nothing(crm):
    source = open_source(sql_audience("DELETE FROM people RETURNING mail"))

    with pytest.raises(AudienceRefused, match="no SELECT"):
        list(source.rows())

    with sqlite3.connect(crm) as database:
        assert database.execute("SELECT count(*) FROM people").fetchone() == (3,)
    database.close()


def test_an_unknown_connection_is_told_with_those_there_are(outreach):
    outreach(AUDIENCE_DATABASES={"shop": "sqlite:////shop", "crm": "postgres://reader:hunter2@db.example/crm"})

    with pytest.raises(AudienceRefused) as caught:
        open_source(sql_audience("SELECT 1 AS email", connection="cms"))

    assert "'cms'" in str(caught.value)
    assert "crm, shop" in str(caught.value)
    assert "OUTREACH_AUDIENCE_DATABASES" in str(caught.value)
    assert "hunter2" not in str(caught.value)


# --- Settings that cannot work ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "list"}, "it has no contact list. Choose one."),
        ({"kind": "csv"}, "it has no file. Upload one."),
        ({"kind": "fax"}, "there is no kind 'fax'. Choose one of list, csv, sql, http."),
    ],
)
def test_an_audience_that_lacks_what_its_kind_needs_says_so(given, said):
    audience = Audience.objects.create(name="Bare", slug="bare", **given)

    with pytest.raises(AudienceRefused) as caught:
        open_source(audience)

    assert str(caught.value) == f"audience 'Bare': {said}"


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"kind": "list"}, "contact_list", "Choose the list."),
        ({"kind": "sql", "connection": "cms", "query": "SELECT 1 AS email"}, "connection", "no connection 'cms'"),
        ({"kind": "sql", "connection": "crm", "query": ""}, "query", "it is empty"),
        ({"kind": "sql", "connection": "crm", "query": "DROP TABLE people"}, "query", "it is no SELECT"),
        ({"kind": "sql", "connection": "crm", "query": "SELECT 1; SELECT 2"}, "query", "2 statements"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_their_field(crm, given, field, said):
    audience = Audience(name="Bad", slug="bad", **given)

    with pytest.raises(ValidationError) as caught:
        audience.clean()

    assert list(caught.value.message_dict) == [field]
    assert said in caught.value.message_dict[field][0]


@pytest.mark.parametrize(
    "given",
    [{"kind": "csv"}, {"kind": "sql", "connection": "crm", "query": "SELECT mail FROM people WHERE points > 1"}],
)
def test_settings_that_can_work_are_taken(crm, given):
    audience = Audience(name="Good", slug="good", **given)

    assert audience.clean() is None


@pytest.mark.django_db
def test_a_contact_whose_attributes_are_no_object_is_read_without_them():
    audience = cast.list_audience([("ann@a.example", "Ann", {"city": "Leeds"}), ("bob@b.example", "Bob", {})])
    Contact.objects.filter(address="bob@b.example").update(attributes=["not", "an", "object"])

    source = open_source(audience)

    assert source.fields() == ("email", "name", "city")
    assert [row.data for row in source.rows()][1] == {"email": "bob@b.example", "name": "Bob"}
