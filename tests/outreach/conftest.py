"""What tests of the whole project need beside Django's own fixtures."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from pytest_django import DjangoDbBlocker

from tests.campaigns.conftest import manage, output_dir, outreach, process_environment  # noqa: F401

if TYPE_CHECKING:
    from tests.outreach.everything import Everything


@pytest.fixture(scope="module")
def installation(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["Everything"]:
    """One of each, for all tests of a module: each undoes what it does."""
    from django.conf import settings
    from django.core import signals
    from django.db import close_old_connections, transaction
    from django.test import override_settings

    from campaigns import waits
    from tests.outreach.everything import Everything

    options = settings.OUTREACH | {"OUTPUT_DIR": tmp_path_factory.mktemp("output"), "ALLOWED_NETWORKS": []}
    with django_db_blocker.unblock(), override_settings(OUTREACH=options), transaction.atomic():
        # With nobody at work no run comes to its end, and who waits for one would wait in vain.
        for _ in range(waits.MOST):
            waits.places.acquire()
        # A server closes a connection that is in a transaction when a request begins and when it ends.
        for signal in (signals.request_started, signals.request_finished):
            signal.disconnect(close_old_connections)
        yield Everything()
        for signal in (signals.request_started, signals.request_finished):
            signal.connect(close_old_connections)
        waits.places.release(waits.MOST)
        transaction.set_rollback(True)


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
