"""The first rows of an audience, for an operator to see whether it is the right one."""

from dataclasses import dataclass
from itertools import islice

from campaigns.audiences.exceptions import AudienceError
from campaigns.audiences.links import LinkFields, Links
from campaigns.audiences.rows import BadRow, Row
from campaigns.audiences.stored import open_source
from campaigns.models import Audience

SAMPLE_ROWS = 10
_MAX_CELL = 100


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One row as it is shown: its fields in order, or why it will get no mail. `links` are his id, whom he depends on
    and his deadline, as they were read: those that the audience names fields for."""

    position: int
    address: str
    cells: tuple[str, ...]
    problem: str = ""
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """The beginning of an audience. With `error`, it ends where the audience could not be read further."""

    label: str
    fields: tuple[str, ...]
    rows: tuple[SampleRow, ...]
    error: str = ""
    links: tuple[str, ...] = ()  # what the columns of `SampleRow.links` are called

    @property
    def columns(self) -> int:
        """How many there are after the row's number."""
        return 1 + len(self.links) + len(self.fields)


def sample_of(audience: Audience) -> Sample:
    """The first rows, read now. What cannot be read is an `error` in the sample, never an exception."""
    label, fields, rows, linked = audience.name, (), [], LinkFields.of(audience)
    error = ""
    try:
        source = open_source(audience, patient=False)
        label, fields = source.label(), tuple(source.fields())
        for row in islice(source.rows(), SAMPLE_ROWS):
            rows.append(_shown(row, fields, linked))
    except AudienceError as problem:
        error = str(problem)
    return Sample(label, fields, tuple(rows), error, tuple(name for name, field in _columns(linked) if field))


def _columns(linked: LinkFields) -> tuple[tuple[str, str], ...]:
    return ("Id", linked.key), ("Depends on", linked.depends), ("Deadline", linked.deadline)


def _shown(row: Row | BadRow, fields: tuple[str, ...], linked: LinkFields) -> SampleRow:
    links = row if isinstance(row, BadRow) else linked.read(row)
    if isinstance(links, BadRow):
        return SampleRow(links.position, "", (_cell(links.raw),), links.detail)
    cells = tuple(_cell(row.data.get(name, "")) for name in fields)
    return SampleRow(row.position, row.address, cells, links=_read(links, linked))


def _read(links: Links, linked: LinkFields) -> tuple[str, ...]:
    deadline = "" if links.deadline is None else links.deadline.isoformat(" ")
    read = links.key, ", ".join(links.after), deadline
    return tuple(_cell(value) for value, (_, field) in zip(read, _columns(linked), strict=True) if field)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"
