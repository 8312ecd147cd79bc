"""What all log lines of a stretch of work have in common: bound once, in every line below it.

Knows neither how lines are written nor where: `outreach.logs` does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from structlog.contextvars import bound_contextvars


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Adds `fields` to every log line inside, also in tasks and event loops that begin there; threads of an executor
    begin with none. Fields that are bound already get their old value back afterwards.

        with bound(run=run.pk, correlation_id=run.correlation_id): ...
    """
    with bound_contextvars(**fields):
        yield
