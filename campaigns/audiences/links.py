"""What a recipient says of others: his id, the ids that he depends on, and until when his mail has to be gone."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from campaigns.audiences.rows import BadRow, Reason, Row
from campaigns.models import Audience

LONGEST_KEY = 200
MOST_DEPENDENCIES = 1000
EXAMPLE_DEADLINE = "2026-12-24T09:00:00+01:00"


@dataclass(frozen=True, slots=True)
class Links:
    """Of one recipient; "", () and None where the audience names no field."""

    key: str = ""
    after: tuple[str, ...] = ()
    deadline: datetime | None = None


NONE = Links()


@dataclass(frozen=True, slots=True)
class LinkFields:
    """The fields of an audience that hold them; "" for none."""

    key: str = ""
    depends: str = ""
    deadline: str = ""

    @classmethod
    def of(cls, audience: Audience) -> "LinkFields":
        return cls(audience.key_field, audience.depends_field, audience.deadline_field)

    @property
    def names(self) -> tuple[str, ...]:
        """Those that there are."""
        return tuple(filter(None, (self.key, self.depends, self.deadline)))

    def among(self, fields: Collection[str]) -> "LinkFields":
        """Without those that are not among `fields`."""
        return LinkFields(*(name if name in fields else "" for name in (self.key, self.depends, self.deadline)))

    def read(self, row: Row) -> Links | BadRow:
        """What a row says, or why that makes no sense."""
        if not self.names:
            return NONE
        try:
            return Links(
                self._key(row.data.get(self.key)) if self.key else "",
                self._after(row.data.get(self.depends)) if self.depends else (),
                self._deadline(row.data.get(self.deadline)) if self.deadline else None,
            )
        except ValueError as problem:
            return BadRow(row.position, Reason.WRONG_VALUE, str(problem), _shown(row))

    def _key(self, value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise ValueError(f"The field {self.key!r} holds no id, which is a text or a whole number such as A17.")
        return _short(self.key, str(value).strip())

    def _after(self, value: object) -> tuple[str, ...]:
        if value is None or value == "":
            return ()
        parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value
        if not isinstance(parts, list) or not all(isinstance(part, str | int) for part in parts):
            raise ValueError(f"The field {self.depends!r} holds no ids: a list, or a text such as A17, A18.")
        ids = dict.fromkeys(_short(self.depends, str(part).strip()) for part in parts if str(part).strip())
        if len(ids) > MOST_DEPENDENCIES:
            raise ValueError(f"The field {self.depends!r} holds {len(ids):,} ids; {MOST_DEPENDENCIES:,} are possible.")
        return tuple(ids)

    def _deadline(self, value: object) -> datetime | None:
        if value is None or value == "":
            return None
        try:
            read = datetime.fromisoformat(str(value).strip())
        except ValueError:
            read = None
        if read is None or read.tzinfo is None or not 2000 < read.year < 9000:
            raise ValueError(
                f"The field {self.deadline!r} holds no instant: write it with its offset, such as {EXAMPLE_DEADLINE}."
            )
        return read


def _shown(row: Row) -> str:
    return json.dumps(row.data, ensure_ascii=False, default=str)


def _short(field: str, key: str) -> str:
    if len(key) > LONGEST_KEY:
        raise ValueError(f"The field {field!r} holds an id of {len(key):,} characters; {LONGEST_KEY} are possible.")
    return key
