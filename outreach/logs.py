"""How log lines look: JSON for machines, one line each, or readable for a person. Decides Django's LOGGING.

Every logger ends in the same formatter, whether a line comes from us, Django, django-q or gunicorn. A line carries what
`delivery.logs.bound` bound around it and the `extra` it was logged with, and no secret.
"""

import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import TextIO

import structlog
from structlog.contextvars import merge_contextvars
from structlog.processors import format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter

from delivery.redaction import redacted

Line = MutableMapping[str, object]

FORMATS = ("auto", "json", "text")
OURS = ("campaigns", "delivery", "outreach")
# Theirs, at INFO: what they say at DEBUG is for who works on them.
THEIRS = ("django", "django.server", "django-q", "gunicorn.error")


class CurrentStderr(logging.StreamHandler):
    """Writes to what `sys.stderr` is at that moment: a progress bar puts something else there, so that lines appear
    above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def logging_config(level: str, form: str, *, debug: bool) -> dict[str, object]:
    """The value of Django's LOGGING. `form` is one of FORMATS; auto is text on a terminal and with `debug`, else JSON.
    `level` is that of our own lines."""
    as_text = form == "text" or (form == "auto" and (debug or sys.stderr.isatty()))
    own = {"handlers": ["stderr"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter, "as_text": as_text}},
        "handlers": {"stderr": {"()": CurrentStderr, "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            **{name: own | {"level": level} for name in OURS},
            **{name: own | {"level": "INFO"} for name in THEIRS},
        },
    }


def formatter(*, as_text: bool = False) -> ProcessorFormatter:
    """What makes a line of a log record."""
    if as_text:
        # The traceback is the standard library's: rich's shows local variables, and so credentials.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    else:
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    return ProcessorFormatter(
        foreign_pre_chain=[_whose, ExtraAdder(), _request, _correlated, merge_contextvars],
        processors=[ProcessorFormatter.remove_processors_meta, format_exc_info, _redacted, renderer],
    )


def _whose(logger: object, name: str, line: Line) -> Line:
    """When, how grave, and who says so."""
    record = line["_record"]
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {"timestamp": at, "level": record.levelname.lower(), "logger": record.name, **line}


def _request(logger: object, name: str, line: Line) -> Line:
    """Django hands its lines the request itself, of which the id is wanted and nothing else."""
    request = line.pop("request", None)
    line.pop("server_time", None)
    if request_id := getattr(request, "request_id", ""):
        line["request_id"] = request_id
    return line


def _correlated(logger: object, name: str, line: Line) -> Line:
    """A batch's reference is its owner's word, and opaque to delivery: campaigns puts the run's correlation id there.
    It goes before what is bound: a pump may work on the deliveries of several runs."""
    if "reference" in line:
        line.setdefault("correlation_id", line.pop("reference"))
    return line


def _redacted(logger: object, name: str, line: Line) -> Line:
    return redacted(line)
