"""Fixtures of the tests on campaigns. Models are imported inside: Django is set up after this file is read."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django import Settings

from tests.sinks import ROOT

Manage = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def outreach(settings: Settings) -> Callable[..., None]:
    """Changes values of settings.OUTREACH for this test: `outreach(LISTED_PROBLEMS=2)`."""

    def change(**values: object) -> None:
        settings.OUTREACH = {**settings.OUTREACH, **values}

    return change


@pytest.fixture
def output_dir(outreach: Callable[..., None], tmp_path: Path) -> Path:
    """Where execution logs go: a folder of this test's own, for run ids begin anew in each."""
    directory = tmp_path / "output"
    outreach(OUTPUT_DIR=directory)
    return directory


@pytest.fixture
def process_environment(transactional_db: None, settings: Settings, output_dir: Path) -> dict[str, str]:
    """The whole environment of a process that works on this test's database."""
    from django.db import connection

    database = connection.settings_dict
    if connection.vendor == "sqlite":
        url = f"sqlite:///{database['NAME']}"
    else:
        url = "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**database)
    return {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": settings.SECRET_KEY,
        "OUTREACH_SECRET_KEYS": ",".join(settings.OUTREACH["SECRET_KEYS"]),
        "OUTREACH_OUTPUT_DIR": str(output_dir),
        "OUTREACH_VAR_DIR": str(output_dir.parent / "var"),
        "DATABASE_URL": url,
        "DJANGO_SETTINGS_MODULE": "outreach.settings",
    }


@pytest.fixture
def manage(process_environment: dict[str, str]) -> Manage:
    """Runs `manage.py` to its end as a process on this test's database; keywords are further variables."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=process_environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
