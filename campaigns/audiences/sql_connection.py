"""A named database that audiences may be read from, as the operator configured it.

Decides what a connection URL may say. Opens nothing; where the URLs come from is not known here.
"""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from campaigns.audiences.exceptions import AudienceRefused

POSTGRES = "postgres"
SQLITE = "sqlite"

_DIALECTS = {"postgres": POSTGRES, "postgresql": POSTGRES, "sqlite": SQLITE}


@dataclass(frozen=True, slots=True)
class SqlConnection:
    """A database under the name that operators choose it by.

    URLs: `postgres://user:password@host:5432/database?sslmode=require` (or `postgresql://`; any libpq option may follow
    the question mark), `sqlite:///relative/path`, `sqlite:////absolute/path`. Another URL is refused at once. The URL
    is never part of a message or of the repr: it may hold a password.
    """

    name: str
    url: str = field(repr=False)

    def __post_init__(self) -> None:
        if self.dialect == SQLITE:
            _ = self.path
        else:
            _ = self.libpq_options

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"connection {self.name!r}"

    @property
    def dialect(self) -> str:
        """POSTGRES or SQLITE."""
        dialect = _DIALECTS.get(self.url.partition("://")[0].lower())
        if dialect is None:
            raise self._refused("it names no kind of database that audiences are read from")
        return dialect

    @property
    def path(self) -> str:
        """The file of an SQLite connection."""
        host_and_path = self.url.partition("://")[2].partition("?")[0]
        path = unquote(host_and_path.removeprefix("/"))
        if not host_and_path.startswith("/") or path in ("", ":memory:"):
            raise self._refused("it does not name a file")
        return path

    @property
    def libpq_options(self) -> dict[str, str]:
        """The options of a PostgreSQL connection, one by one.

        libpq is not given the URL itself: it would read one with an unescaped `@` in the password otherwise than meant,
        and quote half of the password in its error message as a host that it cannot find.
        """
        try:
            parts = urlsplit(self.url)
            options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
            named = {
                "host": parts.hostname,
                "port": parts.port and str(parts.port),
                "user": parts.username,
                "password": parts.password,
                "dbname": parts.path.removeprefix("/"),
            }
        except ValueError:  # its text would quote the URL
            raise self._refused("it cannot be read") from None
        options.update({key: unquote(value) for key, value in named.items() if value})
        if "dbname" not in options:
            raise self._refused("it does not name a database")
        return options

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not show in a message, in every spelling in which it might."""
        if self.dialect == SQLITE:
            return ()
        written = urlsplit(self.url).password or ""
        options = {value for key, value in self.libpq_options.items() if "password" in key}
        return tuple(secret for secret in {*options, written} if secret)

    def redacted(self, text: str) -> str:
        """The text without the password."""
        for secret in self.secrets:
            text = text.replace(secret, "****")
        return text

    def _refused(self, problem: str) -> AudienceRefused:
        return AudienceRefused(
            self.where,
            f"its URL cannot be used: {problem}",
            "Write postgres://user:password@host/database or sqlite:////absolute/path",
        )
