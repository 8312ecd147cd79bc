"""Runs a query on PostgreSQL in a connection of its own, inside a transaction that cannot write.

Decides how the database itself is held: READ ONLY from the transaction's first word, the query as the body of a
server-side cursor (DECLARE takes one statement, and none that writes), a time limit set anew before every step, and
other limits on what a stalled reader may hold. It does not look at the query's text. What it cannot stop, only the
rights of the connection's user can: functions that act outside the transaction, such as reading a server's files.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from campaigns.audiences.exceptions import AudienceError, AudienceRefused, AudienceUnreachable
from campaigns.audiences.sql_connection import SqlConnection
from campaigns.audiences.sql_deadline import Deadline

BATCH = 2_000  # rows fetched at a time
CONNECT_SECONDS = 10
LOCK_SECONDS = 10  # waiting for a table that is being altered
CANCEL_MARGIN = 1  # second between the server's clock and ours in which a cancelled statement counts as too slow

# A server that is gone is noticed within a minute, not within the system's two hours.
_KEEPALIVE = {"keepalives": "1", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}


def column_names(connection: SqlConnection, query: str, deadline: Deadline) -> tuple[str, ...]:
    """What the columns of the query are called: it is planned, not run."""
    with result(connection, query, deadline) as (names, _rows_not_taken):
        return names


@contextmanager
def result(
    connection: SqlConnection, query: str, deadline: Deadline
) -> Iterator[tuple[tuple[str, ...], Iterator[tuple]]]:
    """The column names and the rows of the query, fetched as they are taken."""
    with closing(_connected(connection)) as database, _translated(connection, deadline):
        _set_for_transaction(
            database,
            lock_timeout=LOCK_SECONDS * 1000,
            idle_in_transaction_session_timeout=int(deadline.limits.total.total_seconds() * 1000),
        )
        with database.cursor(name="audience") as cursor:
            _limit_next_statement(database, deadline)
            cursor.execute(query.encode())
            names = tuple(column.name for column in cursor.description or ())
            yield names, _rows(database, cursor, connection, deadline)


def _rows(
    database: psycopg.Connection, cursor: psycopg.ServerCursor, connection: SqlConnection, deadline: Deadline
) -> Iterator[tuple]:
    size = 1  # the first limit is for a row, not for a batch
    while True:
        with _translated(connection, deadline):
            _limit_next_statement(database, deadline)
            batch = cursor.fetchmany(size)
        if not batch:
            return
        deadline.first_row_read()
        yield from batch
        size = BATCH


def _connected(connection: SqlConnection) -> psycopg.Connection:
    ours = {"application_name": "outreach audience", "client_encoding": "UTF8"}
    defaults = _KEEPALIVE | {"connect_timeout": str(CONNECT_SECONDS)}
    try:
        # As one string: keywords of `connect` that are none of libpq's (`autocommit`) must not come from a URL.
        database = psycopg.connect(make_conninfo(**{**defaults, **connection.libpq_options, **ours}))
    except psycopg.Error as error:
        raise AudienceUnreachable(
            connection.where,
            f"no connection to the database ({connection.redacted(_told(error))})",
            "See that the server is up and the connection's URL is right, then try again",
        ) from None  # libpq's own words, which may quote what is left out here
    database.read_only = True  # BEGIN READ ONLY; after its first query a transaction cannot be made writable again
    return database


def _limit_next_statement(database: psycopg.Connection, deadline: Deadline) -> None:
    """Gives the next statement what is left of the time. Done before each, so that a query which sets another limit
    itself (`set_config`) gains nothing by it."""
    deadline.check()
    _set_for_transaction(database, statement_timeout=max(1, int(deadline.seconds_left() * 1000)))


def _set_for_transaction(database: psycopg.Connection, **milliseconds: int) -> None:
    for name, value in milliseconds.items():
        database.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value)))


@contextmanager
def _translated(connection: SqlConnection, deadline: Deadline) -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, UnicodeDecodeError) as error:  # the latter: a database in SQL_ASCII holds any bytes
        raise _audience_error(connection, deadline, error) from error


def _audience_error(connection: SqlConnection, deadline: Deadline, error: Exception) -> AudienceError:
    told = connection.redacted(_told(error))
    if isinstance(error, errors.QueryCanceled) and deadline.seconds_left() <= CANCEL_MARGIN:
        return deadline.too_slow()
    if isinstance(error, errors.ReadOnlySqlTransaction | errors.InsufficientPrivilege):
        return AudienceRefused(connection.where, f"the database forbids it ({told})", "An audience may only read")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return AudienceUnreachable(connection.where, f"the query broke off ({told})", "Try again")
    return AudienceRefused(connection.where, f"the database refused the query ({told})", "Correct the query")


def _told(error: Exception) -> str:
    """The server's one sentence, without the lines of the query that it adds."""
    diagnosis = getattr(error, "diag", None)
    return (diagnosis and diagnosis.message_primary) or " ".join(str(error).split())
