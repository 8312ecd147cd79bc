"""Whether an operator's SQL reads and does nothing else, as far as its text can show.

A lint: it finds mistakes early and says them well. It is not the guard. A text can be read by the database otherwise
than by this parser, and a view or an operator can hide a call; what holds then is how the query is run (`sql_postgres`,
`sql_sqlite`) and which rights the connection's user has.
"""

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from campaigns.audiences.exceptions import AudienceRefused
from campaigns.audiences.sql_functions import FUNCTIONS

if TYPE_CHECKING:
    from sqlglot import exp

MAX_QUERY = 100_000  # characters

# Words that may stand before a parenthesis and are no function. Lower case, the last word where sqlglot joins several
# (`ORDER BY`). Types are here because of `numeric(10, 2)`; `x(…)` with a type's name is a cast on PostgreSQL.
_SYNTAX_WORDS = """
    all and any array as asymmetric between by case cross cube distinct else end escape except exists fetch filter
    first from full group grouping having ilike in inner intersect is isnull join lateral left like limit match
    materialized natural next not notnull of offset on or ordinality outer over overlaps partition preceding range right
    rollup row rows select sets similar some symmetric tablesample bernoulli system then to union using values when
    where window with within regexp glob rlike null
    bit bpchar character date decimal dec double float int integer interval json jsonb numeric real text time
    timestamp timestamptz timetz varbit varchar varying zone
"""
_SYNTAX = frozenset(_SYNTAX_WORDS.split())
_WORD = re.compile(r"\w")


def check_query(query: str, dialect: str, *, where: str = "SQL query") -> None:
    """Raises `AudienceRefused` with a sentence unless this is one SELECT (with CTEs and set operations of SELECTs)
    that writes nothing, locks nothing, takes no parameters and calls only `sql_functions.FUNCTIONS`.

    `dialect` is that of the connection (`sql_connection.POSTGRES` or `SQLITE`).
    """
    statement = _only_statement(query, dialect, where)
    _check_parts(statement, where)
    _check_functions(query, dialect, statement, where)


def without_end(query: str, dialect: str) -> str:
    """A checked query without the semicolon and the comments that may end it, so that it can stand in parentheses."""
    import sqlglot
    from sqlglot.tokens import TokenType

    tokens = sqlglot.tokenize(query, read=dialect)
    last = next(token for token in reversed(tokens) if token.token_type is not TokenType.SEMICOLON)
    return query[: last.end + 1]


def _only_statement(query: str, dialect: str, where: str) -> "exp.Expression":
    import sqlglot  # 90 ms and 13 MB, for the few processes that ever look at a query
    from sqlglot import exp
    from sqlglot.errors import ParseError, SqlglotError

    if len(query) > MAX_QUERY:
        raise AudienceRefused(where, f"it is longer than {MAX_QUERY:,} characters", "Make a view of it")
    if "\0" in query:
        raise AudienceRefused(where, "it holds a NUL character", "Remove it")
    try:
        parsed = sqlglot.parse(query, read=dialect)
    except ParseError as error:
        raise AudienceRefused(where, f"it cannot be read ({_told(error.errors)})", "Correct it") from error
    except SqlglotError as error:
        raise AudienceRefused(where, f"it cannot be read ({error})", "Correct it") from error
    except RecursionError as error:
        raise AudienceRefused(where, "it is nested too deeply", "Make a view of it") from error
    statements = [
        statement for statement in parsed if statement is not None and not isinstance(statement, exp.Semicolon)
    ]
    if len(statements) != 1:
        count = f"it holds {len(statements)} statements" if statements else "it is empty"
        raise AudienceRefused(where, count, "Write exactly one SELECT")
    return statements[0]


def _check_parts(statement: "exp.Expression", where: str) -> None:
    from sqlglot import exp

    root = statement.unnest()
    if not isinstance(root, exp.Select | exp.SetOperation):
        raise AudienceRefused(where, "it is no SELECT", "Write exactly one SELECT")
    forbidden = (
        (exp.DML | exp.DDL, "it changes data ({})", "Take that part out: an audience only reads"),
        (exp.Into, "it makes a table (SELECT … INTO)", "Take INTO out: an audience only reads"),
        (exp.Lock, "it locks rows (FOR UPDATE or FOR SHARE)", "Take the lock out: an audience only reads"),
        (exp.Command, "it holds a command", "Take it out: an audience only reads"),
        (exp.Placeholder | exp.Parameter, "it takes a parameter", "Write the value itself"),
    )
    for part in root.walk():
        for kind, problem, remedy in forbidden:
            if isinstance(part, kind) and not isinstance(part, exp.Query):
                raise AudienceRefused(where, problem.format(part.key.upper()), remedy)


def _check_functions(query: str, dialect: str, statement: "exp.Expression", where: str) -> None:
    """Judges the names as they are written, not sqlglot's nodes: those bear other names (`to_char` is TIME_TO_STR)."""
    import sqlglot
    from sqlglot.tokens import TokenType

    tokens = sqlglot.tokenize(query, read=dialect)
    with_columns = _aliases_with_columns(statement)
    for token, follower in pairwise(tokens):
        if follower.token_type is not TokenType.L_PAREN or token.start in with_columns:
            continue
        quoted = token.token_type is TokenType.IDENTIFIER
        if not quoted and (token.token_type in (TokenType.STRING, TokenType.NUMBER) or not _WORD.match(token.text)):
            continue
        name = token.text if quoted else token.text.lower().split()[-1]
        if name in FUNCTIONS or (not quoted and name in _SYNTAX):
            continue
        raise AudienceRefused(
            where,
            f"function {name} is not on the list of functions an audience may use",
            "Leave it out, or put it in a view that the connection may read",
        )


def _aliases_with_columns(statement: "exp.Expression") -> set[int]:
    """Where the names of `WITH name(a, b)` and `AS name(a, b)` start: a parenthesis follows, but they are no call."""
    from sqlglot import exp

    return {
        alias.this.meta["start"]
        for alias in statement.find_all(exp.TableAlias)
        if alias.args.get("columns") and alias.this is not None and "start" in alias.this.meta
    }


def _told(errors: list[dict]) -> str:
    if not errors:
        return "syntax error"
    description = re.sub(r" for <class .*", "", errors[0]["description"]).rstrip(".")  # sqlglot's own class names
    return f"line {errors[0]['line']}, column {errors[0]['col']}: {description}"
