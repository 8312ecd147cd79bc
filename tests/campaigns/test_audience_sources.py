"""Sources of recipients: real files, a real SQLite database, a real PostgreSQL (marked), and what each refuses."""

import json
import pickle
import sqlite3
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import jinja2
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.audiences import sql_postgres, sql_sqlite
from campaigns.audiences.columns import Columns, field_name
from campaigns.audiences.contact_list import ContactListSource
from campaigns.audiences.csv_file import CsvSource
from campaigns.audiences.exceptions import AudienceError, AudienceRefused, AudienceTooSlow, AudienceUnreachable
from campaigns.audiences.reading import plain, read
from campaigns.audiences.rows import MAX_RAW, BadRow, Reason, Row
from campaigns.audiences.sql_check import check_query
from campaigns.audiences.sql_connection import POSTGRES, SQLITE, SqlConnection
from campaigns.audiences.sql_deadline import Deadline, TimeLimits
from campaigns.audiences.sql_query import SqlSource

# --- One row ---------------------------------------------------------------------------------------------------------


def test_a_row_is_read_with_a_normal_address_a_name_of_one_line_and_all_its_fields():
    row = read(7, " Ada@EXAMPLE.com ", "Ada\n  Lovelace ", {"email": " Ada@EXAMPLE.com ", "age": 36})

    assert row == Row(7, "Ada@example.com", "Ada Lovelace", {"email": " Ada@EXAMPLE.com ", "age": 36})


@pytest.mark.parametrize(
    ("address", "data", "reason", "detail"),
    [
        (None, {}, Reason.NO_ADDRESS, "The address is empty."),
        ("  ", {}, Reason.NO_ADDRESS, "The address is empty."),
        ("ada", {}, Reason.IMPOSSIBLE_ADDRESS, "There is no @ in it."),
        (42, {}, Reason.IMPOSSIBLE_ADDRESS, "There is no @ in it."),
        ("ada@x.de", {"city": "a\0b"}, Reason.NOT_A_ROW, "The field 'city' holds a NUL character."),
        ("ada@x.de", {"city": ["\udcff"]}, Reason.NOT_A_ROW, "The field 'city' holds bytes that are not UTF-8."),
    ],
)
def test_a_row_that_is_no_recipient_says_why(address, data, reason, detail):
    row = read(3, address, "", data, raw="as it was")

    assert row == BadRow(3, reason, detail, "as it was")


def test_what_is_kept_of_a_bad_row_is_short_and_can_be_stored():
    bad = read(1, "x", "", {"note": "\0\ud800" + "y" * 5000})

    assert len(bad.raw) == MAX_RAW
    assert "\0" not in BadRow(1, Reason.NOT_A_ROW, "a\0", "b\0\ud800").raw
    bad.raw.encode()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("text", "text"),
        (True, True),
        (None, None),
        (12, 12),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Decimal("12.50"), "12.50"),
        (date(2026, 3, 1), "2026-03-01"),
        (datetime(2026, 3, 1, 12, tzinfo=UTC), "2026-03-01T12:00:00+00:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (timedelta(days=1), "1 day, 0:00:00"),
        (b"\x00\xff", "00ff"),
        ({"a": [Decimal("1"), (2, None)]}, {"a": ["1", [2, None]]}),
    ],
)
def test_every_value_is_written_as_json_can_hold_it(value, written):
    assert plain(value) == written
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == written


# --- Columns and fields ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headings", "options", "address", "name"),
    [
        (["id", "email", "name"], {}, "email", "name"),
        (["E-Mail", "NAME"], {}, "e_mail", "NAME"),
        (["mail", "address", "Email"], {}, "Email", None),
        (["mail", "Address"], {}, "mail", None),
        (["Work mail", "Who"], {"address_field": "work MAIL", "name_field": "who"}, "work_mail", "Who"),
        (["EMAIL", "email"], {"address_field": "email"}, "email", None),
    ],
)
def test_the_columns_of_address_and_name_are_found(headings, options, address, name):
    columns = Columns.of("here", headings, **options)

    assert (columns.address, columns.name) == (address, name)


@pytest.mark.parametrize(
    ("headings", "options", "message"),
    [
        (["a", "b"], {}, "here: no column holds the address; there are 'a', 'b'. "),
        (["email", "email"], {}, "here: the column 'email' is there twice; there are 'email', 'email'. "),
        (["email", "First name", "first_name"], {}, "'First name' and 'first_name' would both be 'first_name'"),
        (["email", " "], {}, "column 2 has no name"),
        (["email", "???"], {}, "column 2 is called '???', of which no name for templates can be made"),
        (
            ["email"],
            {"address_field": "mail"},
            "no column 'mail', which is set as the address field; there are 'email'",
        ),
        (["email"], {"name_field": "who"}, "no column 'who', which is set as the name field; there are 'email'"),
    ],
)
def test_columns_that_cannot_be_used_are_refused_by_name(headings, options, message):
    with pytest.raises(AudienceRefused) as refusal:
        Columns.of("here", headings, **options)

    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("heading", "field"),
    [
        ("city", "city"),
        ("Città", "Città"),
        ("First name", "first_name"),
        ("  Order No. (last) ", "order_no_last"),
        ("2nd line", "field_2nd_line"),
        ("true", "true_"),
        ("Not", "Not"),
        ("not", "not_"),
        ("self", "self_"),
        ("€", ""),
    ],
)
def test_a_heading_becomes_a_name_that_templates_can_use(heading, field):
    assert field_name(heading) == field


@settings(max_examples=200, database=None, deadline=None, print_blob=True)
@given(st.text(alphabet="aZ_ 9-.é²نtruefalsnot", max_size=8) | st.sampled_from(["None", "in", "is", "loop", "class"]))
def test_every_field_name_renders_in_a_strict_template(heading):
    field = field_name(heading)
    template = "{{ %s }}" % field  # noqa: UP031

    if field:
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
        assert environment.from_string(template).render({field: "value"}) == "value"


# --- CSV -------------------------------------------------------------------------------------------------------------


def csv_of(content: bytes, piece: int = 5, **options) -> CsvSource:
    return CsvSource(lambda: (content[start : start + piece] for start in range(0, len(content), piece)), **options)


def csv_file(path: Path, **options) -> CsvSource:
    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(30_000):
                yield chunk

    return CsvSource(chunks, label=f"CSV file {path.name!r}", **options)


def refused(source) -> str:
    with pytest.raises(AudienceRefused) as refusal:
        list(source.rows())
    return str(refusal.value)


def test_a_csv_file_is_read_with_its_damaged_rows_at_their_lines(tmp_path):
    path = tmp_path / "people.csv"
    path.write_bytes(
        b"email,First name,note\r\n"
        b'ada@x.de,Ada,"two\r\nlines, and a ""quote"""\r\n'
        b"\r\n"
        b"bob@x.de,Bob\r\n"
        b"cid@x.de,Cid,a,b\r\n"
        b'"dan"@x.de,Dan,\r\n'
        b",Eve,\r\n"
        b"fay,Fay,\r\n"
        b"gil@x.de,G\0l,\r\n"
        b"hal@x.de,Hal,"
    )

    source = csv_file(path)

    assert source.label() == "CSV file 'people.csv'"
    assert source.fields() == ("email", "first_name", "note")
    assert list(source.rows()) == [
        Row(2, "ada@x.de", "", {"email": "ada@x.de", "first_name": "Ada", "note": 'two\nlines, and a "quote"'}),
        BadRow(5, Reason.NOT_A_ROW, "The row has 2 column(s), the header has 3.", "bob@x.de,Bob"),
        BadRow(6, Reason.NOT_A_ROW, "The row has 4 column(s), the header has 3.", "cid@x.de,Cid,a,b"),
        BadRow(
            7,
            Reason.NOT_A_ROW,
            'The row has text after a closing quote; a quote inside a quoted field is written twice ("").',
            '"dan"@x.de,Dan,',
        ),
        BadRow(8, Reason.NO_ADDRESS, "The address is empty.", ",Eve,"),
        BadRow(9, Reason.IMPOSSIBLE_ADDRESS, "There is no @ in it.", "fay,Fay,"),
        BadRow(10, Reason.NOT_A_ROW, "The field 'first_name' holds a NUL character.", "gil@x.de,G�l,"),
        Row(11, "hal@x.de", "", {"email": "hal@x.de", "first_name": "Hal", "note": ""}),
    ]


@pytest.mark.parametrize(
    ("encoding", "option"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-8-sig", "cp1252"),
        ("utf-16", None),
        ("utf-16-be", "utf-16-be"),
        ("cp1252", "cp1252"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("piece", [1, 3, 100_000])
def test_a_csv_file_is_read_in_its_encoding_with_any_line_ends_in_pieces_of_any_size(encoding, option, newline, piece):
    content = newline.join(["email,name", "zoë@x.de,Zoë", "bob@x.de,Bob"]).encode(encoding)

    rows = list(csv_of(content, piece, encoding=option).rows())

    assert rows == [
        Row(2, "zoë@x.de", "Zoë", {"email": "zoë@x.de", "name": "Zoë"}),
        Row(3, "bob@x.de", "Bob", {"email": "bob@x.de", "name": "Bob"}),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_in_the_header(delimiter):
    source = csv_of(delimiter.join(["email", '"a, b; c"', "name"]).encode() + b"\n")

    assert source.fields() == ("email", "a_b_c", "name")


def test_a_delimiter_that_is_given_is_believed():
    source = csv_of(b"email;first,name\nada@x.de;Lovelace,Ada\n", delimiter=";")

    assert list(source.rows()) == [Row(2, "ada@x.de", "", {"email": "ada@x.de", "first_name": "Lovelace,Ada"})]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "the CSV file: the file is empty. "),
        (b"\r\n\r\n", {}, "the CSV file: the file is empty. "),
        (b"name,city\n", {}, "line 1: no column holds the address; there are 'name', 'city'. "),
        (b"\n\nemail,email\n", {}, "line 3: the column 'email' is there twice"),
        (b'"email"x,b\n', {}, "line 1: the header has text after a closing quote"),
        ("email,name\n".encode("utf-16-le"), {}, "UTF-16 without a byte order mark"),
        ("email,name\n".encode("utf-16-le"), {"encoding": "utf-16"}, "UTF-16 without a byte order mark"),
        (b"email,n\r\na@x.de,1\r\nb@x.de,Jos\xe9\r\n", {}, "line 3: the byte 0xE9 is not utf-8"),
        (b"email,n\ra@x.de,1\rb@x.de,Jos\xe9\r", {}, "line 3: the byte 0xE9 is not utf-8"),
        (b"email\na@x.de\n\xc3", {}, "line 3: the byte 0xC3 is not utf-8 (unexpected end of data)"),
        (b'email,n\na@x.de,"1\nb@x.de,2\n', {}, "line 2: a quoted field starts here and never ends"),
        (b'email,n\na@x.de,"1\n' + b"b@x.de,2\n" * 20_000, {}, "line 2: a field that starts here is longer than"),
        (b"email,n\na@x.de,1\n" + b"x" * 1_200_000, {}, "line 3: the line is longer than 1,000,000 characters"),
        (b"PK\x03\x04\x14\0", {}, "this is a spreadsheet or an archive"),
        (b"email\n", {"encoding": "rot13"}, "'rot13' is not an encoding"),
        (b"email\n", {"encoding": "klingon"}, "'klingon' is not an encoding"),
        (b"email\n", {"delimiter": ";;"}, "';;' is no delimiter"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_with_the_line(content, options, message):
    assert message in refused(csv_of(content, piece=20_000, **options))


def test_an_undecodable_byte_far_into_the_file_is_found_on_its_line(tmp_path):
    path = tmp_path / "people.csv"
    path.write_bytes(b"email\r\n" + b"ada@example.com\r\n" * 50_000 + b"\xff\r\n" + b"bob@x.de\r\n" * 9)

    assert "CSV file 'people.csv', line 50002: the byte 0xFF is not utf-8" in refused(csv_file(path))


def test_a_file_that_is_gone_is_unreachable(tmp_path):
    source = csv_file(tmp_path / "gone.csv")

    with pytest.raises(AudienceUnreachable, match=r"CSV file 'gone\.csv': the file cannot be read"):
        source.fields()


@pytest.mark.parametrize(
    "reading", [CsvSource.fields, lambda source: next(source.rows()), lambda source: list(source.rows())]
)
def test_the_file_is_closed_after_each_reading_however_far_it_went(tmp_path, reading):
    path = tmp_path / "people.csv"
    path.write_bytes(b"email\n" + b"ada@x.de\n" * 50_000)
    opened = []  # keeps the file alive, so that nothing but the source closes it

    def open_chunks() -> Iterator[bytes]:
        opened.append(path.open("rb"))
        return opened[-1]

    reading(CsvSource(open_chunks))

    assert [file.closed for file in opened] == [True]


def test_the_fields_of_a_long_file_are_read_from_its_beginning():
    def chunks() -> Iterator[bytes]:
        yield b"email,name\n" + b"ada@x.de,Ada\n" * 10_000
        pytest.fail("the file was read beyond its beginning")

    assert CsvSource(chunks).fields() == ("email", "name")


def test_a_csv_of_200_000_rows_is_read_in_constant_memory(tmp_path):
    path = tmp_path / "many.csv"
    with path.open("w") as file:
        file.write("email,name,note\n")
        file.writelines(f"user{number}@example.com,User {number},{'x' * 80}\n" for number in range(200_000))
    source = csv_file(path)

    tracemalloc.start()
    try:
        count = sum(isinstance(row, Row) for row in source.rows())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert path.stat().st_size > 20_000_000
    assert count == 200_000
    assert peak < 2_000_000


# --- Contact list ----------------------------------------------------------------------------------------------------


def test_a_contact_list_is_read_batch_by_batch_and_its_addresses_are_judged_again():
    batches = [[("Ada@x.de", "Ada", {"city": "Ulm"}), ("broken", "", {})], [("bob@x.de", "", {})]]
    source = ContactListSource(lambda: iter(batches), ["city"], "contact list 'Customers'")

    assert (source.label(), source.fields()) == ("contact list 'Customers'", ("city",))
    for _ in range(2):
        assert list(source.rows()) == [
            Row(1, "Ada@x.de", "Ada", {"city": "Ulm"}),
            BadRow(2, Reason.IMPOSSIBLE_ADDRESS, "There is no @ in it.", "{}"),
            Row(3, "bob@x.de", "", {}),
        ]


# --- SQL: what the text may say --------------------------------------------------------------------------------------

READING = [
    "SELECT email FROM people",
    "SELECT email FROM people; -- done",
    "SELECT email FROM people UNION SELECT name FROM people EXCEPT SELECT 'x'",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3), o(k) AS (SELECT 1) SELECT i FROM n",
    "SELECT count(*) FILTER (WHERE (id) > 1) OVER (PARTITION BY (name) ORDER BY (id)) FROM people WHERE id IN (1, 2)",
    "SELECT CAST(id AS numeric(10, 2)), coalesce(name, ''), upper(substr(email, 1, 3)) FROM people",
    "SELECT CASE WHEN (id > 1) THEN (1) ELSE (2) END FROM people WHERE NOT (id = 1) OR EXISTS (SELECT 1)",
    "SELECT email FROM people WHERE name LIKE '%a' ORDER BY random() LIMIT (2) OFFSET (0)",
    "SELECT 'a;b', 'pg_sleep(1)', 'É' FROM people",
]
READING_POSTGRES = [
    "SELECT now() - interval '3 days', extract(year FROM now()), to_char(now(), 'YYYY'), id::numeric(10,2) FROM people",
    "SELECT string_agg(name, ',' ORDER BY (id)), percentile_cont(0.5) WITHIN GROUP (ORDER BY (id)) FROM people",
    "SELECT * FROM jsonb_to_recordset('[]') AS x(a int, b text), LATERAL (SELECT 1) AS s",
    "SELECT position('a' in name), trim(both ' ' from name), data ? 'vip' FROM people WHERE id = ANY ('{1}')",
    "SELECT name, grouping(name) FROM people GROUP BY GROUPING SETS ((name), ()), ROLLUP (email)",
    "(SELECT j FROM (VALUES (1)) AS m(j)) UNION (SELECT 2)",
]
READING_SQLITE = [
    "SELECT strftime('%Y', 'now'), iif(id, 1, 2), data ->> '$.a', group_concat(name, ',') FROM people",
    "SELECT value FROM json_each('[1, 2]')",
    "SELECT name FROM people WHERE name GLOB ('a*') AND json_extract(data, '$.a') IS NULL",
]

# What the text must not say. All of it is refused by the lint, and by the database too when the lint is left out.
EVERYWHERE = [
    "SELECT 1; DELETE FROM people",
    "SELECT 1; COMMIT; DELETE FROM people",
    "DELETE FROM people",
    "INSERT INTO people (email) VALUES ('x')",
    "UPDATE people SET name = 'x'",
    "WITH d AS (DELETE FROM people RETURNING *) SELECT * FROM d",
    "WITH d AS (INSERT INTO people (email) VALUES ('x') RETURNING *) SELECT * FROM d",
    "SELECT * INTO copied FROM people",
    "CREATE TABLE copied AS SELECT 1",
    "DROP TABLE people",
    "SELECT * FROM people FOR UPDATE",
    "BEGIN",
    "VACUUM",
]
ONLY_SQLITE = [
    "ATTACH DATABASE '/tmp/other.db' AS other",
    "PRAGMA table_info(people)",
    "SELECT * FROM pragma_table_info('people')",
    "SELECT load_extension('evil')",
    "SELECT writefile('/tmp/x', 'y')",
    "SELECT fts3_tokenizer('x')",
    "SELECT zeroblob(1000000000)",
    "SELECT email FROM people WHERE id = ?",
]
ONLY_POSTGRES = [
    "COPY people TO '/tmp/people'",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "EXPLAIN ANALYZE DELETE FROM people",
    "DO $$ BEGIN DELETE FROM people; END $$",
    "CALL wipe()",
    "TRUNCATE people",
    "SET statement_timeout = 0",
    "SELECT * FROM people FOR NO KEY UPDATE SKIP LOCKED",
    "SELECT nextval('people_id_seq')",
    "SELECT setval('people_id_seq', 9)",
    "SELECT pg_sleep(60)",
    "SELECT pg_catalog.pg_sleep(60)",
    'SELECT "pg_sleep"(60)',
    "SELECT PG_SLEEP /* so */ (60)",
    'SELECT U&"pg\\005fsleep"(60)',
    "SELECT * FROM ROWS FROM (pg_sleep(60)) AS x",
    "WITH pg_sleep(a) AS (SELECT 1) SELECT pg_sleep(60) FROM pg_sleep",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT set_config('statement_timeout', '0', false) UNION ALL SELECT pg_sleep(60)::text",
    "SELECT query_to_xml('DELETE FROM people', true, true, '')",
    "SELECT wipe()",
    "SELECT lo_export(1, '/tmp/x')",
]
# Harmless or up to the rights of the connection's user: here the text is all that is judged.
LINT_ALONE = [
    (POSTGRES, "SELECT pg_read_file('/etc/hostname')"),
    (POSTGRES, "SELECT dblink_exec('host=other', 'DELETE FROM people')"),
    (POSTGRES, "SELECT set_config('default_transaction_read_only', 'off', false)"),
    (POSTGRES, "SELECT pg_advisory_lock(1)"),
    (POSTGRES, "SELECT email FROM people WHERE name = :name"),
    (POSTGRES, "SELECT email FROM people WHERE name = %(name)s"),
    (POSTGRES, "SELECT $1"),
    (POSTGRES, "VALUES (1)"),
    (POSTGRES, 'SELECT "in"(1)'),
    (SQLITE, "VALUES (1)"),
    (SQLITE, "EXPLAIN SELECT 1"),
    (SQLITE, ""),
    (SQLITE, "-- nothing"),
    (SQLITE, "SELECT '"),
    (SQLITE, "SELECT 1\0"),
    (SQLITE, "SELECT " + "(" * 5000 + "1" + ")" * 5000),
    (SQLITE, "SELECT '" + "x" * 100_000 + "'"),
]


@pytest.mark.parametrize(
    ("dialect", "query"),
    [(POSTGRES, query) for query in READING + READING_POSTGRES]
    + [(SQLITE, query) for query in READING + READING_SQLITE],
)
def test_a_query_that_only_reads_passes_the_check(dialect, query):
    check_query(query, dialect)


@pytest.mark.parametrize(
    ("dialect", "query"),
    [(POSTGRES, query) for query in EVERYWHERE + ONLY_POSTGRES]
    + [(SQLITE, query) for query in EVERYWHERE + ONLY_SQLITE]
    + LINT_ALONE,
)
def test_a_query_that_does_anything_else_is_refused_by_the_check(dialect, query):
    with pytest.raises(AudienceRefused, match=r"^people: "):
        check_query(query, dialect, where="people")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1; SELECT 2", "it holds 2 statements"),
        ("DROP TABLE people", "it is no SELECT"),
        ("WITH d AS (DELETE FROM people RETURNING *) SELECT * FROM d", "it changes data (DELETE)"),
        ("SELECT * INTO x FROM y", "it makes a table (SELECT … INTO)"),
        ("SELECT 1 FROM x FOR UPDATE", "it locks rows"),
        ("SELECT pg_sleep(1)", "function pg_sleep is not on the list of functions an audience may use"),
        ("SELECT :who", "it takes a parameter"),
        ("SELECT FROM WHERE", "it cannot be read (line 1, column"),
    ],
)
def test_the_check_says_what_is_wrong(query, message):
    with pytest.raises(AudienceRefused) as refusal:
        check_query(query, POSTGRES)

    assert message in str(refusal.value)


# --- SQL: connections ------------------------------------------------------------------------------------------------


def test_a_connection_takes_its_url_apart():
    connection = SqlConnection("crm", "postgresql://ada:p%40ss@db.example:5433/crm?sslmode=require")

    assert connection.dialect == POSTGRES
    assert connection.libpq_options == {
        "host": "db.example",
        "port": "5433",
        "user": "ada",
        "password": "p@ss",
        "dbname": "crm",
        "sslmode": "require",
    }
    assert SqlConnection("shop", "sqlite:////data/the%20shop.db").path == "/data/the shop.db"
    assert SqlConnection("shop", "sqlite:///shop.db").path == "shop.db"


@pytest.mark.parametrize(
    "url",
    [
        "s3cret",
        "mysql://ada:s3cret@db/crm",
        "postgres://ada:s3cret@db:notaport/crm",
        "postgres://ada:s3cret@db",
        "postgres://ada:s3cret@[db/crm",
        "postgres://ada:s3cret@db/crm?sslmode",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_never_quoted(url):
    with pytest.raises(AudienceRefused, match=r"^connection 'crm': its URL cannot be used") as refusal:
        SqlConnection("crm", url)

    assert "s3cret" not in str(refusal.value)


def test_a_url_cannot_set_what_is_not_libpqs_to_set():
    connection = SqlConnection("crm", "postgres://127.0.0.1:1/crm?autocommit=1")

    with pytest.raises(AudienceUnreachable, match='invalid connection option "autocommit"'):
        list(SqlSource(connection, "SELECT 'ada@x.de' AS email").rows())


@pytest.mark.parametrize("option", ["", "?connect_timeout=s3cret"])
def test_a_password_is_in_no_message_and_no_repr(option):
    connection = SqlConnection("crm", f"postgres://ada:s3cret@127.0.0.1:1/crm{option}")

    with pytest.raises(AudienceUnreachable, match="connection 'crm': no connection to the database") as failure:
        list(SqlSource(connection, "SELECT 'ada@x.de' AS email").rows())

    assert "s3cret" not in repr(connection)
    assert "s3cret" not in str(failure.value)


# --- SQL: deadlines --------------------------------------------------------------------------------------------------

LIMITS = TimeLimits(first_row=timedelta(seconds=60), total=timedelta(minutes=30))


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_row_has_its_own_limit_and_the_whole_another():
    clock = Clock()
    deadline = Deadline("people", LIMITS, clock)

    clock.now += 59
    deadline.check()
    assert deadline.seconds_left() == 1
    clock.now += 1
    with pytest.raises(AudienceTooSlow, match="people: there was no row within 60 s"):
        deadline.check()

    deadline.first_row_read()
    deadline.check()
    assert deadline.seconds_left() == 1740
    clock.now += 1740
    with pytest.raises(AudienceTooSlow, match="people: not all rows were there within 1800 s"):
        deadline.check()


# --- SQL on SQLite ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path) -> SqlConnection:
    path = tmp_path / "the shop?.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT, name TEXT, data)")
    database.executemany(
        "INSERT INTO people (email, name, data) VALUES (?, ?, ?)",
        [("Ada@X.de", "Ada", '{"a": 1}'), ("nobody", "Bob", None), (None, "Cid", 1.5), ("dan@x.de", None, b"\xff")],
    )
    database.execute("INSERT INTO people (email, name) VALUES ('eve@x.de', CAST(x'45ff' AS TEXT))")
    database.commit()
    database.close()
    return SqlConnection("shop", f"sqlite:///{quote(str(path))}")


def contents(connection: SqlConnection) -> list[tuple]:
    database = sqlite3.connect(connection.path)
    try:
        return database.execute("SELECT id, email FROM people").fetchall()
    finally:
        database.close()


def run_unchecked(
    driver, connection: SqlConnection, query: str, limits: TimeLimits = LIMITS, clock=None
) -> list[tuple]:
    """The query as the driver runs it, with the lint left out."""
    with driver.result(connection, query, Deadline("people", limits, clock or time.monotonic)) as (_, rows):
        return list(rows)


def test_a_query_on_sqlite_is_read_as_rows(shop):
    source = SqlSource(shop, "SELECT email, name, data FROM people ORDER BY id; -- everybody")

    assert source.label() == "query on 'shop'"
    assert source.fields() == ("email", "name", "data")
    assert list(source.rows()) == [
        Row(1, "Ada@x.de", "Ada", {"email": "Ada@X.de", "name": "Ada", "data": '{"a": 1}'}),
        BadRow(
            2, Reason.IMPOSSIBLE_ADDRESS, "There is no @ in it.", '{"email": "nobody", "name": "Bob", "data": null}'
        ),
        BadRow(3, Reason.NO_ADDRESS, "The address is empty.", '{"email": null, "name": "Cid", "data": 1.5}'),
        Row(4, "dan@x.de", "", {"email": "dan@x.de", "name": None, "data": "ff"}),
        BadRow(
            5,
            Reason.NOT_A_ROW,
            "The field 'name' holds bytes that are not UTF-8.",
            '{"email": "eve@x.de", "name": "E?", "data": null}',
        ),
    ]


@pytest.mark.parametrize("reading", [SqlSource.fields, lambda source: list(source.rows())])
def test_two_columns_of_one_name_are_refused_before_and_while_reading(shop, reading):
    source = SqlSource(shop, "SELECT email, name, email FROM people")

    with pytest.raises(AudienceRefused, match="query on 'shop': the column 'email' is there twice"):
        reading(source)


@pytest.mark.parametrize("reading", [SqlSource.fields, lambda source: list(source.rows())])
def test_a_source_checks_its_query_before_it_opens_anything(tmp_path, reading):
    source = SqlSource(SqlConnection("gone", f"sqlite:///{tmp_path}/gone.db"), "DELETE FROM people")

    with pytest.raises(AudienceRefused, match="query on 'gone': it is no SELECT"):
        reading(source)


@pytest.mark.parametrize("query", READING + READING_SQLITE)
def test_what_the_check_lets_through_the_sqlite_guard_lets_through_too(shop, query):
    assert run_unchecked(sql_sqlite, shop, query) is not None


@pytest.mark.parametrize("query", EVERYWHERE + ONLY_SQLITE)
def test_with_the_check_left_out_sqlite_itself_refuses(shop, query):
    before = contents(shop)

    with pytest.raises(AudienceRefused, match="connection 'shop': the database refused the query"):
        run_unchecked(sql_sqlite, shop, query)

    assert contents(shop) == before
    assert [path.name for path in Path(shop.path).parent.iterdir()] == ["the shop?.db"]


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {} FROM n"


def test_an_endless_query_on_sqlite_is_ended_before_its_first_row(shop):
    brief = TimeLimits(first_row=timedelta(milliseconds=50), total=timedelta(seconds=30))

    with pytest.raises(AudienceTooSlow, match="there was no row within"):
        run_unchecked(sql_sqlite, shop, ENDLESS.format("count(*)"), brief)


def test_an_endless_stream_from_sqlite_is_ended_at_the_limit_for_the_whole(shop):
    clock = Clock()
    taken = []

    def take_one_a_second() -> None:
        for row in SqlSource(shop, ENDLESS.format("i AS email"), limits=LIMITS, monotonic=clock).rows():
            taken.append(row.position)
            clock.now += 1

    with pytest.raises(AudienceTooSlow, match="not all rows were there within 1800 s"):
        take_one_a_second()

    assert 1800 <= len(taken) <= 1800 + sql_sqlite.BATCH


def test_a_value_that_grows_without_end_is_refused_by_sqlite(shop):
    query = "SELECT " + "hex(" * 24 + "email" + ")" * 24 + " AS email FROM people"

    with pytest.raises(AudienceRefused, match="too big"):
        run_unchecked(sql_sqlite, shop, query)


@pytest.mark.parametrize("content", [None, b"this is no database, only a text that is long enough to be read" * 20])
def test_a_file_that_is_no_database_is_unreachable(tmp_path, content):
    path = tmp_path / "odd.db"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(AudienceUnreachable, match="connection 'odd': the database cannot be read"):
        list(SqlSource(SqlConnection("odd", f"sqlite:///{path}"), "SELECT email FROM people").rows())


def test_a_query_on_100_000_rows_of_sqlite_is_read_in_constant_memory(shop):
    source = SqlSource(shop, ENDLESS.format("'u' || i || '@x.de' AS email") + " LIMIT 100000")
    next(source.rows())  # sqlglot is imported by now

    tracemalloc.start()
    try:
        count = sum(isinstance(row, Row) for row in source.rows())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == 100_000
    assert peak < 3_000_000


# --- SQL on PostgreSQL -----------------------------------------------------------------------------------------------


@pytest.fixture
def crm(postgres_url) -> Iterator[SqlConnection]:
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute("CREATE TABLE people (id serial, email text, name text, data jsonb)")
        database.execute(
            "INSERT INTO people (email, name, data) VALUES ('Ada@X.de', 'Ada', '{\"a\": [1]}'), ('', 'B', NULL)"
        )
        database.execute(
            "CREATE FUNCTION wipe() RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM people; RETURN 1; END'"
        )
        yield SqlConnection("crm", postgres_url)
        database.execute("DROP FUNCTION wipe(); DROP TABLE people")


@pytest.mark.postgres
def test_a_query_on_postgres_is_read_as_rows(crm):
    source = SqlSource(
        crm, "SELECT email, name, data, 1.50 AS price, date '2026-03-01' AS day FROM people ORDER BY id;"
    )

    assert source.fields() == ("email", "name", "data", "price", "day")
    assert list(source.rows()) == [
        Row(
            1,
            "Ada@x.de",
            "Ada",
            {"email": "Ada@X.de", "name": "Ada", "data": {"a": [1]}, "price": "1.50", "day": "2026-03-01"},
        ),
        BadRow(
            2,
            Reason.NO_ADDRESS,
            "The address is empty.",
            '{"email": "", "name": "B", "data": null, "price": "1.50", "day": "2026-03-01"}',
        ),
    ]


@pytest.mark.postgres
@pytest.mark.parametrize("reading", [SqlSource.fields, lambda source: list(source.rows())])
def test_postgres_too_refuses_two_columns_of_one_name(crm, reading):
    with pytest.raises(AudienceRefused, match="query on 'crm': the column 'email' is there twice"):
        reading(SqlSource(crm, "SELECT email, name, email FROM people"))


@pytest.mark.postgres
@pytest.mark.parametrize("query", READING + READING_POSTGRES)
def test_what_the_check_lets_through_postgres_lets_through_too(crm, query):
    assert run_unchecked(sql_postgres, crm, query) is not None


@pytest.mark.postgres
@pytest.mark.parametrize("query", EVERYWHERE + ONLY_POSTGRES)
def test_with_the_check_left_out_postgres_itself_refuses(crm, query):
    brief = TimeLimits(first_row=timedelta(milliseconds=300), total=timedelta(milliseconds=600))

    with pytest.raises(
        (AudienceRefused, AudienceTooSlow), match=r"connection 'crm': the database|people: (there was no|not all)"
    ):
        run_unchecked(sql_postgres, crm, query, brief)

    with psycopg.connect(crm.url) as database:
        assert database.execute("SELECT count(*) FROM people").fetchone() == (2,)
        assert database.execute("SELECT last_value FROM people_id_seq").fetchone() == (2,)
        assert database.execute("SELECT to_regclass('copied')").fetchone() == (None,)


@pytest.mark.postgres
def test_postgres_streams_in_batches_and_leaves_no_connection_behind(crm):
    rows = SqlSource(crm, "SELECT 'u' || generate_series(1, 100000000) || '@x.de' AS email").rows()
    first = [next(rows).address for _ in range(5000)]
    rows.close()

    assert first == [f"u{number}@x.de" for number in range(1, 5001)]
    with psycopg.connect(crm.url, autocommit=True) as database:
        ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'outreach audience' AND state = 'active'"
        assert database.execute(ours).fetchone() == (0,)


@pytest.mark.postgres
def test_a_value_that_python_cannot_hold_refuses_the_query(crm):
    with pytest.raises(AudienceRefused, match=r"connection 'crm': the database refused the query .*infinity"):
        list(SqlSource(crm, "SELECT email, CAST('infinity' AS timestamp) AS since FROM people").rows())


@pytest.mark.postgres
def test_a_query_that_the_server_ends_is_unreachable_not_refused(crm):
    rows = SqlSource(crm, "SELECT 'u' || n || '@x.de' AS email FROM generate_series(1, 1000000) AS g(n)").rows()
    next(rows)
    with psycopg.connect(crm.url, autocommit=True) as database:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'outreach audience'"
        )

        with pytest.raises(AudienceUnreachable, match="connection 'crm': the query broke off"):
            list(rows)


# --- Errors ----------------------------------------------------------------------------------------------------------


def test_an_error_says_where_what_and_what_to_do_and_survives_the_way_between_processes():
    error = AudienceTooSlow("query on 'crm'", "no row within 60 s", "Make it faster")

    returned = pickle.loads(pickle.dumps(error))

    assert (type(returned), isinstance(returned, AudienceError)) == (AudienceTooSlow, True)
    assert str(returned) == "query on 'crm': no row within 60 s. Make it faster."
    assert (returned.where, returned.problem, returned.remedy) == (error.where, error.problem, error.remedy)
