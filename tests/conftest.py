"""One pytest session, one database: chooses it, and sets the environment before Django's settings read it.

pytest-django loads the settings before any conftest when it finds DJANGO_SETTINGS_MODULE in pyproject.toml, in the
environment or in `--ds`. So none of them may name it: `pytest_configure` below does, after it has set everything else.
xdist's workers inherit the environment of their controller, and need nothing more. A conftest in a folder below is
imported before Django is set up: it imports models inside its fixtures.
"""

import base64
import contextlib
import os
import random
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests import postgres

SETTINGS_MODULE = "outreach.settings"
SEED_VARIABLE = "OUTREACH_TEST_SEED"
SERVER_VARIABLE = "OUTREACH_TEST_POSTGRES_URL"
# Nothing listens there. With PostgreSQL missing every test is skipped, and one that is not must not find a database.
NO_DATABASE = "postgres://nobody@127.0.0.1:1/missing"

missing_key = pytest.StashKey[str | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("outreach")
    group.addoption(
        "--database",
        choices=("sqlite", "postgres"),
        default="sqlite",
        help="the database of the whole session; PostgreSQL is started by the tests themselves",
    )
    group.addoption("--seed", type=int, default=None, help="replays the random tests of the run that printed this seed")


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _in_ci() -> bool:
    return os.environ.get("CI") == "true"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("help") or config.getoption("version"):
        return
    config.stash[missing_key] = postgres.missing()
    if not _is_worker(config):
        _set_environment(config)
    _load_django_settings(config)


def _set_environment(config: pytest.Config) -> None:
    directory = tempfile.TemporaryDirectory(prefix="outreach-tests-")
    config.add_cleanup(directory.cleanup)
    seed = config.getoption("seed")
    os.environ.pop(SERVER_VARIABLE, None)
    os.environ |= {
        SEED_VARIABLE: str(int.from_bytes(os.urandom(4)) if seed is None else seed),
        "SECRET_KEY": "only-for-tests-" + "k" * 50,
        "OUTREACH_SECRET_KEYS": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "OUTREACH_VAR_DIR": directory.name,
        "OUTREACH_API_RATE": "none",  # a draw now and then would change how many queries a request has
        "OUTREACH_OUTPUT_DIR": str(Path(directory.name) / "output"),
        "DATABASE_URL": _database_url(config, Path(directory.name)),
    }


def _database_url(config: pytest.Config, directory: Path) -> str:
    if config.getoption("database") == "sqlite":
        return f"sqlite:///{directory / 'outreach.sqlite3'}"
    if reason := config.stash[missing_key]:
        if _in_ci():
            raise pytest.UsageError(f"{reason}. With CI=true that is an error.")
        return NO_DATABASE
    session = contextlib.ExitStack()
    config.add_cleanup(session.close)
    server = session.enter_context(postgres.PostgresServer(fsync=False))
    os.environ[SERVER_VARIABLE] = server.url("postgres")
    return server.url("outreach")


def _load_django_settings(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("django"):
        return
    from django.conf import settings

    if settings.configured and not _is_worker(config):
        raise pytest.UsageError(
            "Django's settings were loaded before tests/conftest.py could choose the database. Remove "
            "DJANGO_SETTINGS_MODULE from pyproject.toml (for one run: -o DJANGO_SETTINGS_MODULE=) and from the "
            "environment, and --ds from the command."
        )
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS_MODULE
    # pytest-django sets Django up in its own pytest_configure, which comes last, if the settings are loaded by then.
    _ = settings.DATABASES


def pytest_report_header(config: pytest.Config) -> list[str]:
    database = config.getoption("database")
    reason = config.stash[missing_key]
    verdict = f" (every test is skipped: {reason})" if database == "postgres" and reason else ""
    seed = os.environ[SEED_VARIABLE]
    return [f"database: {database}{verdict}", f"random seed: {seed} (to replay: --seed {seed})"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What has nothing to do with a database need not be run once for each of them."""
    if config.getoption("database") == "postgres":
        once = [item for item in items if item.get_closest_marker("once")]
        items[:] = [item for item in items if item not in set(once)]
        config.hook.pytest_deselected(items=once)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = item.config.stash[missing_key]
    if reason is None:
        return
    # A session on PostgreSQL comes this far only outside CI.
    if item.config.getoption("database") == "postgres":
        pytest.skip(reason)
    if item.get_closest_marker("postgres") or "postgres_server_url" in item.fixturenames:
        if _in_ci():
            pytest.fail(f"{reason}. With CI=true that is an error.", pytrace=False)
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and "seed" in item.fixturenames:
        seed = os.environ[SEED_VARIABLE]
        report.sections.append(("random seed", f"{seed} (to replay: --seed {seed})"))
    return report


@pytest.fixture(scope="session")
def seed() -> int:
    """The session's random seed: of --seed, or drawn and printed."""
    return int(os.environ[SEED_VARIABLE])


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """A generator of this test's own: the same numbers for the same seed, whichever tests run beside it."""
    return random.Random(f"{seed} {request.node.nodeid}")


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """A PostgreSQL server, by the URL of its maintenance database: the session's, or one started now."""
    if shared := os.environ.get(SERVER_VARIABLE):
        yield shared
        return
    with postgres.PostgresServer(fsync=False) as server:
        yield server.url("postgres")


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database for this test alone, whatever database the session runs on."""
    name = f"scratch_{uuid.uuid4().hex}"
    yield postgres.create_database(postgres_server_url, name)
    postgres.drop_database(postgres_server_url, name)


@pytest.fixture(autouse=True)
def _no_manifest(request: pytest.FixtureRequest) -> None:
    """Pages are tested without `collectstatic`, whose manifest the real storage of static files wants to see."""
    if not request.config.pluginmanager.hasplugin("django"):
        return
    settings = request.getfixturevalue("settings")
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = settings.STORAGES | {"staticfiles": plain}
