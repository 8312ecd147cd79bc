"""Rows as octets: CSV (RFC 4180) or JSON lines. Pure.

In CSV a cell that a spreadsheet would take for a formula gets an apostrophe before it (OWASP, "CSV Injection"): a name
of `=HYPERLINK(...)` that somebody entered in a form must not run in the operator's spreadsheet. That is a change of
what stands there, so a program takes JSON lines, which are exact.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
CSV, JSON_LINES = "csv", "jsonl"
MEDIA_TYPES = {CSV: "text/csv", JSON_LINES: "application/jsonl"}

Rows = Iterable[Sequence[Sequence[object]]]  # in pieces


def defused(text: str) -> str:
    """A text that a spreadsheet takes for a text."""
    return f"'{text}" if text.startswith(FORMULA) else text


def as_csv(columns: Iterable[Sequence[str]], rows: Rows) -> Iterator[bytes]:
    """The header, piece by piece as its columns become known, and the rows."""
    first = True
    for names in columns:
        if names:
            line = _lines([[defused(name) for name in names]]).removesuffix(b"\r\n")
            yield line if first else b"," + line
            first = False
    yield b"\r\n"
    for piece in rows:
        if piece:
            yield _lines([[_cell(value) for value in row] for row in piece])


def as_json_lines(columns: Sequence[str], rows: Rows) -> Iterator[bytes]:
    """An object to each row."""
    for piece in rows:
        if piece:
            lines = (
                json.dumps(dict(zip(columns, row, strict=True)), default=_json, ensure_ascii=False) for row in piece
            )
            yield "".join(f"{line}\n" for line in lines).encode(errors="replace")


def _lines(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode(errors="replace")


def _cell(value: object) -> object:
    match value:
        case None:
            return ""
        case str():
            return f"'{value}" if value.startswith(FORMULA) else value
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.isoformat()
        case int() | float():
            return value
    return defused(json.dumps(value, default=_json, ensure_ascii=False))


def _json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
