"""A database seen from outside: by SQL alone, with no transaction left open, and patient while a server is away."""

import contextlib
import sqlite3
import time

import psycopg

PATIENCE = 60.0


class Rows:
    """A connection to the database of this URL. It is opened anew when it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.is_postgres = url.startswith("postgres")
        self._connection = self._connect()

    def _connect(self) -> "sqlite3.Connection | psycopg.Connection":
        if self.is_postgres:
            return psycopg.connect(self._url, autocommit=True)
        return sqlite3.connect(self._url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)

    def do(self, statement: str, parameters: tuple = ()) -> None:
        """Changes something. `?` stands for a parameter. May be done twice, when the server goes away meanwhile."""
        self._execute(statement, parameters)

    def read(self, query: str) -> list[tuple]:
        return self._execute(query).fetchall()

    def column(self, query: str) -> list[object]:
        return [value for (value,) in self.read(query)]

    def one(self, query: str) -> object:
        ((value,),) = self.read(query)
        return value

    def _execute(self, statement: str, parameters: tuple = ()) -> "sqlite3.Cursor | psycopg.Cursor":
        if self.is_postgres:
            statement = statement.replace("?", "%s")
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._connection.execute(statement, parameters or None if self.is_postgres else parameters)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)
            self._reconnect()

    def _reconnect(self) -> None:
        self._connection.close()
        with contextlib.suppress(psycopg.OperationalError):  # the next try will say so
            self._connection = self._connect()

    def close(self) -> None:
        self._connection.close()
