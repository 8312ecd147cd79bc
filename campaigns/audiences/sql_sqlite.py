"""Runs a query on an SQLite file in a connection that cannot do anything but read.

Decides how the database itself is held: the file is opened read-only, an authorizer lets through nothing but reading
and listed functions, a progress handler ends what takes too long, and no value may grow beyond MAX_VALUE. It does not
look at the query's text, and does not need to.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote

from campaigns.audiences.exceptions import AudienceError, AudienceRefused, AudienceUnreachable
from campaigns.audiences.sql_connection import SqlConnection
from campaigns.audiences.sql_deadline import Deadline
from campaigns.audiences.sql_functions import FUNCTIONS

BATCH = 2_000  # rows fetched at a time
MAX_VALUE = 10_000_000  # octets of one value or row
BUSY_SECONDS = 5  # how long to wait for a writer's lock
STEPS_BETWEEN_CHECKS = 10_000  # of SQLite's virtual machine: some tenths of a millisecond

_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_UNREACHABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
    }
)


def column_names(connection: SqlConnection, query: str, deadline: Deadline) -> tuple[str, ...]:
    """What the columns of the query are called, without running it for a row. It must not end in a semicolon."""
    with _opened(connection, deadline) as database:
        cursor = database.execute(f"SELECT * FROM ({query}) LIMIT 0")  # noqa: S608 - what it may do is limited already
        return _without_renaming(tuple(column[0] for column in cursor.description))


@contextmanager
def result(
    connection: SqlConnection, query: str, deadline: Deadline
) -> Iterator[tuple[tuple[str, ...], Iterator[tuple]]]:
    """The column names and the rows of the query, read as they are taken. Text that is not UTF-8 comes with lone
    surrogates in it, for the reader of the row to judge."""
    with _opened(connection, deadline) as database:
        cursor = database.execute(query)
        names = tuple(column[0] for column in cursor.description or ())
        yield names, _rows(cursor, connection, deadline)


def _rows(cursor: sqlite3.Cursor, connection: SqlConnection, deadline: Deadline) -> Iterator[tuple]:
    deadline.first_row_read()  # `execute` has run the query to its first row
    while True:
        with _translated(connection, deadline):
            batch = cursor.fetchmany(BATCH)
        if not batch:
            return
        yield from batch
        deadline.check()


@contextmanager
def _opened(connection: SqlConnection, deadline: Deadline) -> Iterator[sqlite3.Connection]:
    with _translated(connection, deadline):
        database = sqlite3.connect(
            f"file:{quote(connection.path)}?mode=ro",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,  # a generator left half-read may be closed by another thread
        )
    with closing(database):
        database.text_factory = _text
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        database.set_progress_handler(lambda: deadline.seconds_left() <= 0, STEPS_BETWEEN_CHECKS)
        with _translated(connection, deadline):
            # Table-valued functions set themselves up on first use, by steps that the authorizer would refuse.
            database.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").close()
            database.set_authorizer(_allow_reading)
            yield database


def _allow_reading(action: int, _: str | None, function: str | None, _database: str | None, _view: str | None) -> int:
    if action in _READING or (action == sqlite3.SQLITE_FUNCTION and (function or "").lower() in FUNCTIONS):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _text(octets: bytes) -> str:
    return octets.decode(errors="surrogateescape")


def _without_renaming(names: tuple[str, ...]) -> tuple[str, ...]:
    """SQLite renames the second `a` of a subquery to `a:1`; the names of the query itself are wanted."""
    return tuple(
        base if separator and number.isdecimal() and base in names[:position] else name
        for position, name in enumerate(names)
        for base, separator, number in [name.rpartition(":")]
    )


@contextmanager
def _translated(connection: SqlConnection, deadline: Deadline) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:  # Warning: more than one statement, before Python 3.12
        raise _audience_error(connection, deadline, error) from error


def _audience_error(connection: SqlConnection, deadline: Deadline, error: Exception) -> AudienceError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # extended codes share the low octet
    if code == sqlite3.SQLITE_INTERRUPT:
        return deadline.too_slow()
    if code in _UNREACHABLE:
        return AudienceUnreachable(
            connection.where, f"the database cannot be read ({error})", "See that the file is there, then try again"
        )
    return AudienceRefused(connection.where, f"the database refused the query ({error})", "Correct the query")
