"""What tests of the whole project need beside Django's own fixtures."""

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from tests.campaigns.conftest import manage, output_dir, outreach, process_environment  # noqa: F401


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict]]]:
    """The lines of JSON that our own loggers have written since the test began."""
    from outreach import logs

    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.formatter())
    loggers = [logging.getLogger(name) for name in logs.OURS]
    for logger in loggers:
        logger.addHandler(handler)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    for logger in loggers:
        logger.removeHandler(handler)
