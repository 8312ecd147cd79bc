"""The process environment: each variable is read, a bad one is named with what was expected, no secret is repeated."""

import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from delivery.core.throttle import Period, Rate
from outreach.checks import environment_is_valid, refuse_to_serve_with_problems
from outreach.environment import Environment, Problem
from tests.sinks import ROOT

NAME = "OUTREACH_TRIED_OUT"
KEY = urlsafe_b64encode(b"k" * 32).decode()
PASSWORD = "hunter2"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], Environment]:
    """An environment in which the variable has this value, or is not there."""

    def make(value: str | None) -> Environment:
        monkeypatch.setenv(NAME, value or "")
        if value is None:
            monkeypatch.delenv(NAME)
        return Environment()

    return make


def expected(environment: Environment) -> str:
    """What the only problem says was expected."""
    (problem,) = environment.problems
    assert problem.variable == NAME
    return problem.expected


# --- One question at a time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("1", True),
        ("true", True),
        ("YES", True),
        (" on ", True),
        ("0", False),
        ("False", False),
        ("no", False),
        ("OFF", False),
        ("", False),
    ],
)
def test_a_boolean_is_read_in_its_usual_spellings(given, raw, value):
    environment = given(raw)

    assert environment.boolean(NAME, not value) is value
    assert environment.problems == []


@pytest.mark.parametrize("raw", ["maybe", "2", "truee", "ja"])
def test_a_boolean_that_is_none_is_refused(given, raw):
    environment = given(raw)

    assert environment.boolean(NAME, True) is True
    assert expected(environment) == f"true or false, not {raw!r}"


@pytest.mark.parametrize(("raw", "value"), [("5", 5), (" 600 ", 600), ("", 30), (None, 30), ("0030", 30)])
def test_a_number_is_read_and_a_missing_one_has_its_default(given, raw, value):
    environment = given(raw)

    assert environment.whole(NAME, 30, 5, 600) == value
    assert environment.problems == []


@pytest.mark.parametrize("raw", ["4", "601", "-5", "1e2", "30s", "3.5", "many", "9" * 400, "1_0"])
def test_a_number_that_is_none_or_out_of_range_is_refused(given, raw):
    environment = given(raw)

    assert environment.whole(NAME, 30, 5, 600) == 30
    assert expected(environment) == f"a whole number from 5 to 600, not {raw!r}"


@pytest.mark.parametrize(
    ("raw", "quantity", "period"),
    [
        ("600/minute", 600, Period.MINUTE),
        (" 5 / Hour ", 5, Period.HOUR),
        ("1/day", 1, Period.DAY),
        (None, 1000, Period.SECOND),
        ("", 1000, Period.SECOND),
    ],
)
def test_a_rate_is_a_number_in_each_period_of_which_all_may_come_at_once(given, raw, quantity, period):
    environment = given(raw)

    assert environment.rate(NAME, "1000/second") == Rate.of(quantity, period, quantity)
    assert environment.problems == []


def test_there_may_be_no_rate(given):
    assert given("none").rate(NAME, "1000/second") is None


@pytest.mark.parametrize("raw", ["600", "0/second", "600/fortnight", "-1/second", "1.5/second", "10000000/second"])
def test_a_rate_that_is_none_is_refused(given, raw):
    environment = given(raw)

    assert environment.rate(NAME, "1000/second") == Rate.of(1000, Period.SECOND, 1000)
    assert expected(environment).startswith("a rate such as 600/minute")


@pytest.mark.parametrize(("raw", "value"), [("DEBUG", "DEBUG"), (" DEBUG ", "DEBUG"), ("", "INFO"), (None, "INFO")])
def test_a_choice_is_one_of_the_words_and_a_missing_one_has_its_default(given, raw, value):
    environment = given(raw)

    assert environment.choice(NAME, "INFO", ("DEBUG", "INFO")) == value
    assert environment.problems == []


def test_a_choice_that_is_none_of_the_words_is_refused(given):
    environment = given("loud")

    assert environment.choice(NAME, "INFO", ("DEBUG", "INFO")) == "INFO"
    assert expected(environment) == "one of DEBUG, INFO, not 'loud'"


@pytest.mark.parametrize(
    ("raw", "values"), [("a,b", ["a", "b"]), (" a , ,b,", ["a", "b"]), ("", []), (None, ["default"])]
)
def test_a_list_is_parted_by_commas(given, raw, values):
    assert given(raw).listed(NAME, "default") == values


@pytest.mark.parametrize("raw", ["", "   ", None])
def test_a_secret_must_be_there_and_the_problem_says_how_to_get_one(given, raw):
    environment = given(raw)

    assert environment.secret(NAME, "Run `make env`.") == ""
    assert environment.problems == [Problem(NAME, "a secret value; it is not set", "Run `make env`.")]


def test_a_directory_is_made(given, tmp_path):
    wanted = tmp_path / "deep" / "down"
    environment = given(str(wanted))

    assert environment.directory(NAME, tmp_path) == wanted
    assert wanted.is_dir()
    assert environment.problems == []


def test_a_directory_that_cannot_be_made_is_refused(given, tmp_path):
    (tmp_path / "file").touch()
    environment = given(str(tmp_path / "file" / "below"))

    environment.directory(NAME, tmp_path)

    assert expected(environment).startswith("a directory that can be made and written")


# --- Databases and other URLs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        ("sqlite:////srv/outreach.sqlite3", {"ENGINE": "django.db.backends.sqlite3", "NAME": "/srv/outreach.sqlite3"}),
        (
            "postgres://ada:p%40ss@db.example:5433/mail",
            {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "mail",
                "USER": "ada",
                "PASSWORD": "p@ss",
                "HOST": "db.example",
                "PORT": 5433,
            },
        ),
        ("postgresql://db.example/mail", {"ENGINE": "django.db.backends.postgresql", "NAME": "mail"}),
        (None, {"ENGINE": "django.db.backends.sqlite3", "NAME": "/default.sqlite3"}),
    ],
)
def test_a_database_url_is_read(given, raw, parts):
    environment = given(raw)

    config = environment.database(NAME, "sqlite:////default.sqlite3")

    assert {name: config[name] for name in parts} == parts
    assert environment.problems == []


@pytest.mark.parametrize(
    "raw",
    [
        f"mysql://ada:{PASSWORD}@db.example/mail",
        f"ada:{PASSWORD}@db.example/mail",
        f"postgres://ada:{PASSWORD}@db.example:port/mail",
        f"postgres://ada:{PASSWORD}@db.example:99999/mail",
        f"postgres://ada:{PASSWORD}@db.example",  # names no database
        f"postgres://ada:{PASSWORD}@db.example/",
        "sqlite://",  # in memory: each thread would have a database of its own
        "sqlite:///:memory:",
        "/srv/outreach.sqlite3",
    ],
)
def test_a_database_url_that_cannot_be_used_is_refused_and_never_repeated(given, raw):
    environment = given(raw)

    config = environment.database(NAME, "sqlite:////default.sqlite3")

    assert config["NAME"] == "/default.sqlite3"
    assert "URL" in expected(environment)
    assert PASSWORD not in repr(environment.problems)


@pytest.mark.parametrize(
    "raw", [f"ftp://ada:{PASSWORD}@files.example", f"ada:{PASSWORD}@x", "mail.example", "https:/x"]
)
def test_a_url_of_another_kind_is_refused_and_never_repeated(given, raw):
    environment = given(raw)

    assert environment.url(NAME, "", ("https", "http")) == ""
    assert expected(environment) == "a URL that starts with https:// or http://"
    assert PASSWORD not in repr(environment.problems)


def test_named_urls_are_a_json_object(given):
    environment = given('{"crm": "postgres://reader@db.example/crm", "shop-2": "sqlite:////srv/shop"}')

    assert environment.named_urls(NAME, ("postgres", "sqlite")) == {
        "crm": "postgres://reader@db.example/crm",
        "shop-2": "sqlite:////srv/shop",
    }
    assert environment.problems == []


@pytest.mark.parametrize("raw", [None, "", "{}"])
def test_there_may_be_no_named_urls(given, raw):
    environment = given(raw)

    assert environment.named_urls(NAME, ("postgres",)) == {}
    assert environment.problems == []


@pytest.mark.parametrize(
    "raw",
    [
        f"postgres://reader:{PASSWORD}@db.example/crm",  # no JSON
        f'["postgres://reader:{PASSWORD}@db.example/crm"]',
        f'{{"crm": "mysql://reader:{PASSWORD}@db.example/crm"}}',
        f'{{"Sales CRM": "postgres://reader:{PASSWORD}@db.example/crm"}}',
        f'{{"crm": {{"url": "postgres://reader:{PASSWORD}@db.example/crm"}}}}',
        f'{{"crm": "postgres://reader:{PASSWORD}@db.example/crm",}}',
        '{"": "postgres://db.example/crm"}',
        "null",
    ],
)
def test_named_urls_that_are_no_such_object_are_refused_and_never_repeated(given, raw):
    environment = given(raw)

    assert environment.named_urls(NAME, ("postgres", "sqlite")) == {}
    assert expected(environment).startswith('a JSON object such as {"crm": "postgres://')
    assert PASSWORD not in repr(environment.problems)


# --- Keys ------------------------------------------------------------------------------------------------------------


def test_keys_are_read_in_their_order(given):
    other = Fernet.generate_key().decode()
    environment = given(f"{KEY}, {other}")

    assert environment.fernet_keys(NAME, "hint") == [KEY, other]
    assert environment.problems == []


@pytest.mark.parametrize("raw", ["", None, " , "])
def test_missing_keys_are_a_problem_with_a_hint(given, raw):
    environment = given(raw)

    assert environment.fernet_keys(NAME, "Run `make env`.") == []
    assert environment.problems == [Problem(NAME, "one or more Fernet keys; it is not set", "Run `make env`.")]


@pytest.mark.parametrize("bad", [PASSWORD, KEY[:-4], "ключ", "=" * 44])
def test_a_key_that_is_none_is_told_by_its_place_and_never_repeated(given, bad):
    environment = given(f"{KEY},{bad}")

    assert environment.fernet_keys(NAME, "hint") == []
    assert "key 2 is not one" in expected(environment)
    assert bad not in repr(environment.problems)
    assert KEY not in repr(environment.problems)


# --- The .env file ---------------------------------------------------------------------------------------------------


def test_a_dotenv_file_is_read_and_the_process_environment_goes_before_it(given, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("OUTREACH_ONLY_IN_FILE", "")
    monkeypatch.delenv("OUTREACH_ONLY_IN_FILE")
    given("of the process")
    file = tmp_path / ".env"
    file.write_text(f"{NAME}=of the file\nOUTREACH_ONLY_IN_FILE='of the file'\n")

    environment = Environment(file)

    assert environment.text(NAME) == "of the process"
    assert environment.text("OUTREACH_ONLY_IN_FILE") == "of the file"


def test_a_dotenv_file_may_be_missing(given, tmp_path):
    given("value")

    assert Environment(tmp_path / ".env").text(NAME) == "value"


# --- The system check ------------------------------------------------------------------------------------------------


def test_each_problem_is_an_error_with_the_variable_what_was_expected_and_the_hint(settings):
    settings.ENVIRONMENT_PROBLEMS = (Problem("A", "true or false"), Problem("B", "a secret value", "Run `make env`."))

    errors = environment_is_valid(None)

    assert [(error.id, error.msg, error.hint, error.is_serious()) for error in errors] == [
        ("outreach.E001", "The environment variable A must be true or false.", None, True),
        ("outreach.E001", "The environment variable B must be a secret value.", "Run `make env`.", True),
    ]


def test_a_server_does_not_start_with_problems(settings):
    settings.ENVIRONMENT_PROBLEMS = (Problem("A", "true or false"), Problem("B", "a secret value", "Run `make env`."))

    with pytest.raises(SystemExit) as exit_:
        refuse_to_serve_with_problems()

    assert str(exit_.value).splitlines() == [
        "The environment variable A must be true or false.  (outreach.E001)",
        "The environment variable B must be a secret value. Run `make env`. (outreach.E001)",
    ]


def test_without_problems_nothing_is_said(settings):
    settings.ENVIRONMENT_PROBLEMS = ()

    assert environment_is_valid(None) == []
    refuse_to_serve_with_problems()


# --- As a process ----------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """All that a process needs, and nothing of this one's. Both keys are given, so that no .env file fills them in."""
    return {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": "k" * 50,
        "OUTREACH_SECRET_KEYS": KEY,
        "OUTREACH_VAR_DIR": str(tmp_path / "var"),
        "OUTREACH_OUTPUT_DIR": str(tmp_path / "output"),
    }


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_good_environment_passes_the_check(environment):
    process = python(environment, "manage.py", "check")

    assert (process.returncode, process.stderr) == (0, "")


def test_every_bad_variable_is_named_at_once_and_the_check_exits_non_zero(environment, tmp_path):
    (tmp_path / "file").touch()
    bad = {
        "DEBUG": ("maybe", "must be true or false"),
        "SECRET_KEY": ("", "must be a secret value; it is not set"),
        "OUTREACH_SECRET_KEYS": (f"{KEY},{PASSWORD}", "must be Fernet keys"),
        "DATABASE_URL": (f"mysql://ada:{PASSWORD}@db.example/mail", "must be a URL that starts with sqlite://"),
        "OUTREACH_PUBLIC_URL": ("mail.example", "must be a URL that starts with https:// or http://"),
        "BEHIND_HTTPS_PROXY": ("perhaps", "must be true or false"),
        "OUTREACH_LEASE_SECONDS": ("4", "must be a whole number from 5 to 600"),
        "OUTREACH_WORKERS": ("many", "must be a whole number from 1 to 64"),
        "OUTREACH_AUDIENCE_DATABASES": (f'{{"crm": "mysql://ada:{PASSWORD}@db/crm"}}', "must be a JSON object such as"),
        "OUTREACH_IMPORT_MEGABYTES": ("0", "must be a whole number from 1 to 100"),
        "OUTREACH_LISTED_PROBLEMS": ("1", "must be a whole number from 10 to 100000"),
        "TIME_ZONE": ("Mars/Olympus", "must be the name of a time zone such as Europe/Zurich"),
        "OUTREACH_LOG_LEVEL": ("loud", "must be one of DEBUG, INFO, WARNING, ERROR"),
        "OUTREACH_LOG_FORMAT": ("xml", "must be one of auto, json, text"),
        "OUTREACH_METRICS_TOKEN": (PASSWORD, "must be at least 16 characters of A-Z, a-z, 0-9"),
        "OUTREACH_READY_NEEDS_WORKER": ("perhaps", "must be true or false"),
        "OUTREACH_OUTPUT_DIR": (str(tmp_path / "file"), "must be a directory that can be made and written"),
    }

    process = python(environment | {name: value for name, (value, _) in bad.items()}, "manage.py", "check")

    assert process.returncode == 1
    said = process.stdout + process.stderr
    told = {line for line in said.splitlines() if "outreach.E001" in line}
    missed = {name for name, (_, words) in bad.items() if not any(f" {name} {words}" in line for line in told)}
    assert missed == set()
    assert len(told) == len(bad)
    assert "make env" in said
    assert PASSWORD not in said
    assert KEY not in said


@pytest.mark.parametrize("server", ["outreach.asgi", "outreach.wsgi"])
def test_no_server_starts_with_a_bad_environment(environment, server):
    process = python(environment | {"OUTREACH_SECRET_KEYS": ""}, "-c", f"import {server}")

    assert process.returncode == 1
    assert "OUTREACH_SECRET_KEYS must be one or more Fernet keys; it is not set" in process.stderr
    assert "Traceback" not in process.stderr
