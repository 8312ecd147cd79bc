"""Reads what django-q2 has stored, and runs none of it.

Arguments and results of tasks are pickles in plain columns, and the rows of its queue are signed pickles: who loads
them as pickle does by itself runs whatever they name. Here a value is read only if it is built of nothing but texts,
numbers, tuples, lists and dicts. Knows nothing of how it is shown.
"""

import binascii
import io
import pickle
import pickletools
from base64 import b64decode
from dataclasses import dataclass
from datetime import datetime

from django_q import core_signing
from django_q.conf import Conf

LONGEST = 64 * 1024  # characters as stored; a task's own are some hundred, a long traceback is 10,000

# What a plain value is written with. Not among them: whatever names a class or calls it, and LONG_BINPUT, by which ten
# bytes ask for gigabytes.
PLAIN = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE",
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "EMPTY_TUPLE", "TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
})  # fmt: skip
# A signed task holds the instant at which it was enqueued: octets, made an instant by one of these.
INSTANTS = PLAIN | {"SHORT_BINBYTES", "STACK_GLOBAL", "REDUCE"}
INSTANT_CLASSES = frozenset({("datetime", "datetime"), ("datetime", "timezone"), ("datetime", "timedelta")})


class CannotBeShown(ValueError):
    """The stored value is no plain one, so it is not looked into."""


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task that waits: what it is called, what it will run, since when it waits."""

    name: str
    func: str
    since: datetime | None


def queued_task(payload: str) -> QueuedTask:
    """The task of a row of the queue. CannotBeShown when it was not signed with this installation's key."""
    _refuse_long(payload)
    try:
        task = core_signing.loads(payload, key=Conf.SECRET_KEY, salt=Conf.PREFIX, serializer=_SignedReader)
    except (core_signing.BadSignature, ValueError) as error:  # CannotBeShown is one of the latter
        raise CannotBeShown(str(error)) from None
    if not isinstance(task, dict):
        raise CannotBeShown("no task")
    since = task.get("started")
    return QueuedTask(
        name=_text(task.get("name")),
        func=_text(task.get("func")),
        since=since if isinstance(since, datetime) else None,
    )


def stored_text(stored: str | None) -> str:
    """The text in a pickled column, by its raw content."""
    if stored is None:
        return ""
    _refuse_long(stored)
    try:
        data = b64decode(stored, validate=True)
    except binascii.Error:
        raise CannotBeShown("no base64") from None
    return _text(_Reader(data).value())


def _refuse_long(stored: str) -> None:
    if len(stored) > LONGEST:
        raise CannotBeShown(f"more than {LONGEST} characters")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise CannotBeShown("no text")
    return value


class _Reader(pickle.Unpickler):
    """Looks at every instruction before the first one is carried out."""

    allowed = PLAIN
    classes: frozenset[tuple[str, str]] = frozenset()

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._data = data

    def value(self) -> object:
        try:
            strange = {opcode.name for opcode, _, _ in pickletools.genops(self._data)} - self.allowed
            if strange:
                raise CannotBeShown(f"holds {', '.join(sorted(strange))}")
            return self.load()
        except CannotBeShown:
            raise
        except Exception as error:  # whatever a malformed one leads to: there are a dozen kinds
            raise CannotBeShown(f"malformed: {error}") from None

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in self.classes:
            return super().find_class(module, name)
        raise CannotBeShown(f"names {module}.{name}")


class _InstantReader(_Reader):
    allowed = INSTANTS
    classes = INSTANT_CLASSES


class _SignedReader:
    """What `core_signing.loads` asks for its octets, once the signature was right."""

    def loads(self, data: bytes) -> object:
        return _InstantReader(data).value()
