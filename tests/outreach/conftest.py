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
    from rest_framework.test import APIClient

    from tests.outreach.documented import Route
    from tests.outreach.everything import Everything


@pytest.fixture(scope="module")
def installation(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["Everything"]:
    """One of each, for all tests of a module: each undoes what it does."""
    from django.conf import settings
    from django.db import connection, transaction
    from django.test import override_settings

    from campaigns import waits
    from tests.outreach.everything import Everything

    options = settings.OUTREACH | {"OUTPUT_DIR": tmp_path_factory.mktemp("output"), "ALLOWED_NETWORKS": []}
    with django_db_blocker.unblock(), override_settings(OUTREACH=options), transaction.atomic():
        # With nobody at work no run comes to its end, and who waits for one would wait in vain.
        for _ in range(waits.MOST):
            waits.places.acquire()
        # Else a request would close the connection, when it begins and when it ends, because of the transaction.
        connection.settings_dict["AUTOCOMMIT"] = False
        yield Everything()
        connection.settings_dict["AUTOCOMMIT"] = True
        waits.places.release(waits.MOST)
        transaction.set_rollback(True)


@pytest.fixture(scope="module")
def document(installation: "Everything") -> dict:
    """The OpenAPI document."""
    from django.test import Client

    return Client().get("/api/v1/schema/?format=json").json()


@pytest.fixture(scope="module")
def everywhere(document: dict, installation: "Everything") -> list["Route"]:
    """Every operation that the document names."""
    from tests.outreach.documented import routes

    return routes(document, installation)


@pytest.fixture
def program(installation: "Everything") -> "APIClient":
    """Who may do everything."""
    from tests.outreach.access import bearer

    return bearer(installation.token)


@pytest.fixture
def judge(installation: "Everything") -> Callable[..., str]:
    """Says what is wrong with an answer."""
    from tests.outreach.everything import SECRET
    from tests.outreach.judging import fault

    return lambda answer, **kwargs: fault(answer, (installation.token, SECRET), **kwargs)


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
