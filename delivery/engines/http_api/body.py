"""The body of a call: the record of a mail, and what stands around several of them.

The record is a JSON document whose texts may be templates (`delivery.templating.record`). With several in a call the
body is a list of them, or a document with a place for that list.
"""

import json
from collections.abc import Iterable, Mapping

from delivery.engines.http_api.fields import names_of
from delivery.templating import Budget, TemplateProblem, compile_record
from delivery.templating.values import is_template

RECORDS = "{{ records }}"  # the place for the list, in a text of its own
_written = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class BodyTemplate:
    """See the module. `names` are the fields that the record uses."""

    def __init__(self, source: str, batch_document: str = "") -> None:
        """Raises TemplateProblem."""
        self._record = compile_record(source)
        self._before, self._after = _around(batch_document) if batch_document else (b"[", b"]")
        self.names = names_of(self._record.parts)

    def record(self, data: Mapping[str, object], budget: Budget) -> bytes:
        """Raises TemplateProblem, and ValueError for what JSON cannot say."""
        return _written(self._record.fill(data, budget)).encode()

    def joined(self, records: Iterable[bytes]) -> bytes:
        """Several records as one body."""
        return self._before + b",".join(records) + self._after


def _around(document: str) -> tuple[bytes, bytes]:
    """The document's JSON before and after the list of records."""
    mark = json.dumps(RECORDS)
    try:
        text = _written(json.loads(document))
    except (ValueError, RecursionError) as error:
        raise TemplateProblem("batch document", 1, f"The document around the records is no JSON: {error}.") from None
    before, found, after = text.partition(mark)
    if not found or is_template(before + after) or after.startswith(":"):
        words = f"The document around the records must have {mark} once, and no other template."
        raise TemplateProblem("batch document", 1, words)
    return before.encode() + b"[", b"]" + after.encode()
