"""The first rows of an audience, for an operator to see whether it is the right one."""

from dataclasses import dataclass
from itertools import islice

from campaigns.audiences.exceptions import AudienceError
from campaigns.audiences.rows import BadRow, Row
from campaigns.audiences.stored import open_source
from campaigns.models import Audience

SAMPLE_ROWS = 10
_MAX_CELL = 100


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One row as it is shown: its fields in order, or why it will get no mail."""

    position: int
    address: str
    cells: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """The beginning of an audience. With `error`, it ends where the audience could not be read further."""

    label: str
    fields: tuple[str, ...]
    rows: tuple[SampleRow, ...]
    error: str = ""


def sample_of(audience: Audience) -> Sample:
    """The first rows, read now. What cannot be read is an `error` in the sample, never an exception."""
    label, fields, rows = audience.name, (), []
    try:
        source = open_source(audience, patient=False)
        label, fields = source.label(), tuple(source.fields())
        for row in islice(source.rows(), SAMPLE_ROWS):
            rows.append(_shown(row, fields))
    except AudienceError as error:
        return Sample(label, fields, tuple(rows), str(error))
    return Sample(label, fields, tuple(rows))


def _shown(row: Row | BadRow, fields: tuple[str, ...]) -> SampleRow:
    if isinstance(row, BadRow):
        return SampleRow(row.position, "", (_cell(row.raw),), row.detail)
    return SampleRow(row.position, row.address, tuple(_cell(row.data.get(name, "")) for name in fields))


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"
