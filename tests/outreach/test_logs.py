"""Log lines: whatever wrote them they have one form, they carry the run from its trigger to each attempt, and no secret
can be read in them."""

import io
import json
import logging
import re
from logging.config import dictConfig

import pytest
import structlog
from django.conf import settings
from django.db import transaction

from campaigns.finish import write_missing_logs
from campaigns.models import Run, RunState
from campaigns.transitions import move
from delivery.core.envelope import Kind, Outcome
from delivery.logs import bound
from delivery.models import Engine
from delivery.secrets import Sealed
from outreach import logs
from tests.campaigns import cast
from tests.delivery.pumping import ACCEPTED, TROUBLE, FakeEngine, pool_of, pumped
from tests.sinks import RecordingSink

SECRET = "hunter2hunter2"


def written(log, *, as_text=False):
    """What `log` writes with a logger of its own."""
    logger = logging.getLogger("tests.outreach.written")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter(as_text=as_text))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        log(logger)
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


def fail(words):
    raise ValueError(words)


# --- The form of a line ----------------------------------------------------------------------------------------------


def test_a_line_says_when_who_what_and_all_that_was_bound_or_added():
    def log(logger):
        with bound(run=7, correlation_id="abc"), bound(request_id="r1"):
            logger.warning("%d of %d", 1, 2, extra={"state": "sending"})
        logger.info("after")

    logging.getLogger("tests.outreach.written").setLevel(logging.INFO)
    first, second = map(json.loads, written(log).splitlines())

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first.pop("timestamp"))
    assert first == {
        "level": "warning",
        "logger": "tests.outreach.written",
        "event": "1 of 2",
        "state": "sending",
        "run": 7,
        "correlation_id": "abc",
        "request_id": "r1",
    }
    assert second.keys() == {"timestamp", "level", "logger", "event"}


def test_whatever_is_bound_inside_goes_before_and_comes_back_afterwards():
    def log(logger):
        with bound(run=1):
            with bound(run=2):
                logger.warning("inner")
            logger.warning("outer")

    assert [json.loads(line)["run"] for line in written(log).splitlines()] == [2, 1]


def test_a_reference_of_a_delivery_is_a_correlation_id_and_goes_before_the_one_that_is_bound():
    def log(logger):
        with bound(correlation_id="of another run"):
            logger.warning("attempt", extra={"reference": "of this run"})

    line = json.loads(written(log))
    assert line["correlation_id"] == "of this run"
    assert "reference" not in line


def test_a_traceback_is_one_line_of_json_and_shows_no_local_variable():
    def log(logger):
        password = SECRET
        try:
            fail(f"password={password}\nsecond line")
        except ValueError:
            logger.exception("broken")

    for as_text in (False, True):
        text = written(log, as_text=as_text)
        assert SECRET not in text
        assert "ValueError: password=***" in text
    (line,) = written(log).splitlines()
    assert json.loads(line)["exception"].startswith("Traceback")


@pytest.mark.parametrize(
    "hidden",
    [
        {"smtp_password": SECRET},
        {"engine": {"options": [{"apiKey": SECRET}]}},
        {"url": f"postgres://reader:{SECRET}@db.example/crm"},
        {"words": f'{{"error": "bad", "api_key": "{SECRET}"}}'},
        {"headers": f"Authorization: Token {SECRET}"},
        {"words": f"Bearer {SECRET} is not valid"},
        {"path": f"/u/{SECRET}"},
        {"given": ValueError(f"token={SECRET}")},
    ],
)
def test_a_secret_cannot_be_read_wherever_it_stands(hidden):
    for as_text in (False, True):
        text = written(lambda logger: logger.warning("look", extra=hidden), as_text=as_text)
        assert SECRET not in text
        assert "***" in text


def test_a_secret_in_the_message_itself_cannot_be_read_and_the_line_is_still_json():
    line = written(lambda logger: logger.warning('cannot log in: {"password": "%s", "port": 25}', SECRET))

    assert json.loads(line)["event"] == 'cannot log in: {"password": "***", "port": 25}'


def test_what_cannot_be_json_is_written_as_text():
    line = written(lambda logger: logger.warning("look", extra={"thing": object, "octets": b"x", "at": None}))

    assert json.loads(line)["thing"] == "<class 'object'>"
    assert json.loads(line)["octets"] == "b'x'"


@pytest.mark.parametrize(
    ("form", "debug", "is_json"),
    [("auto", False, True), ("auto", True, False), ("json", True, True), ("text", False, False)],
)
def test_auto_is_json_unless_a_person_reads_it(form, debug, is_json, capsys):
    line = logs.logging_config("INFO", form, debug=debug)["formatters"]["line"]

    assert line["as_text"] is not is_json


@pytest.mark.parametrize("name", ["campaigns.x", "delivery.x", "outreach.x", "django.request", "django-q", "other"])
def test_every_logger_writes_the_same_form(name, capsys):
    dictConfig(logs.logging_config("INFO", "json", debug=False))
    try:
        logging.getLogger(name).error("said", extra={"api_key": SECRET})
    finally:
        dictConfig(settings.LOGGING)

    (line,) = capsys.readouterr().err.splitlines()
    assert {key: json.loads(line)[key] for key in ("logger", "event", "api_key")} == {
        "logger": name,
        "event": "said",
        "api_key": "***",
    }


# --- From the trigger to the attempt ---------------------------------------------------------------------------------


def answer(address, time):
    """Ada's mail comes through at the second try, Grace's address is dead, Bjørn's is taken."""
    if address.startswith("ada"):
        return TROUBLE if time == 1 else ACCEPTED
    if address.startswith("Grace"):
        return Outcome(Kind.RECIPIENT, "550 5.1.1", f"<{address}>: unknown (token={SECRET})", hard=True)
    return ACCEPTED


@pytest.mark.django_db(transaction=True)
def test_every_line_about_a_run_has_its_id_from_the_trigger_to_the_failing_attempt(lines, output_dir):
    pool, engines = pool_of(FakeEngine(answer))
    Engine.objects.update(secrets=Sealed.seal({"password": SECRET}))

    run = cast.initialized(cast.workflow(through=pool))
    pumped(engines)
    write_missing_logs()

    found = lines()
    assert {line.get("correlation_id") for line in found} == {run.correlation_id}
    assert {line["run"] for line in found if line["logger"].startswith("campaigns")} == {run.pk}
    assert [line["event"] for line in found] == [
        "run is queued",
        "run is initializing",
        "run is sending",
        *["attempt: transient", "attempt: recipient"][:: 1 if found[3]["kind"] == "transient" else -1],
        "run is completed",
        "execution log written",
    ]
    refused = next(line for line in found if line.get("kind") == "recipient")
    assert {name: refused[name] for name in ("engine", "code", "words", "attempts", "end", "delivery")} == {
        "engine": pool.engines.get().name,
        "code": "550 5.1.1",
        "words": "<***>: unknown (token=***)",
        "attempts": 1,
        "end": "rejected",
        "delivery": run.batch.first_id + 1,
    }
    text = json.dumps(found).lower()
    assert SECRET not in text
    assert not any(name in text for name in ("ada@", "grace@", "bjørn@", "bj\\u00f8rn@"))


@pytest.mark.django_db(transaction=True)
def test_attempts_of_several_runs_in_one_pump_have_each_their_own_id(lines, output_dir):
    pool, engines = pool_of(FakeEngine(lambda address, time: Outcome(Kind.RECIPIENT, "550", "no")))
    runs = [cast.initialized(cast.workflow(slug, through=pool)) for slug in ("first", "second")]

    with bound(run=0, correlation_id="of whoever woke the pump"):
        pumped(engines)

    attempts = [line for line in lines() if line["logger"] == "delivery.attempts"]
    by_run = {
        run.correlation_id: {line["delivery"] for line in attempts if line["correlation_id"] == run.correlation_id}
        for run in runs
    }
    assert by_run == {
        run.correlation_id: set(range(run.batch.first_id, run.batch.last_id + 1)) for run in map(cast.fresh, runs)
    }
    assert len(attempts) == 6


@pytest.mark.django_db(transaction=True)
def test_accepted_mails_have_lines_only_with_debug(lines, output_dir):
    def attempts():
        return [line["kind"] for line in lines() if line["logger"] == "delivery.attempts"]

    pool, engines = pool_of(FakeEngine())
    cast.initialized(cast.workflow("quiet", through=pool))
    pumped(engines)
    quiet = attempts()

    logging.getLogger("delivery").setLevel(logging.DEBUG)
    try:
        cast.initialized(cast.workflow("loud", through=pool))
        pumped(engines)
    finally:
        logging.getLogger("delivery").setLevel(settings.LOG_LEVEL)

    assert (quiet, attempts()) == ([], ["accepted"] * 3)


@pytest.mark.django_db(transaction=True)
def test_a_move_that_is_rolled_back_has_no_line(lines):
    run = cast.queued(cast.workflow())
    with transaction.atomic():
        move(run.pk, RunState.CANCELLED)
        transaction.set_rollback(True)

    assert [line["event"] for line in lines()] == ["run is queued"]


@pytest.mark.django_db(transaction=True)
def test_a_command_at_a_terminal_says_nothing_on_stderr_when_all_is_well_unless_it_was_told_to(manage):
    with RecordingSink() as sink:
        cast.workflow(through=cast.smtp_pool(sink.port))
        quiet = manage("run_workflow", "letters", "--json")
        told = manage("run_workflow", "letters", "--json", OUTREACH_LOG_LEVEL="DEBUG", OUTREACH_LOG_FORMAT="json")

    run_id = json.loads(told.stdout)["run_id"]
    correlation_id = Run.objects.get(pk=run_id).correlation_id
    said = [json.loads(line) for line in told.stderr.splitlines()]
    about = [line for line in said if line["logger"].partition(".")[0] in ("campaigns", "delivery")]
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert {line.get("correlation_id") for line in about} == {correlation_id}
    assert [line["kind"] for line in about if line["logger"] == "delivery.attempts"] == ["accepted"] * 3
    assert about[0]["event"] == "run is queued"


# --- Requests --------------------------------------------------------------------------------------------------------


def test_a_request_keeps_its_callers_id_in_the_answer_and_in_its_lines(client, lines):
    response = client.get("/health/live", headers={"X-Request-ID": "caller-0815"})

    assert response.headers["X-Request-ID"] == "caller-0815"
    assert structlog.contextvars.get_contextvars() == {}


@pytest.mark.parametrize("given", ["short", "x" * 65, "with space", "line\tbreak", "ünicode-id"])
def test_a_request_whose_id_could_not_stand_in_a_line_gets_a_fresh_one(client, given):
    first, second = (client.get("/health/live", HTTP_X_REQUEST_ID=given).headers["X-Request-ID"] for _ in range(2))

    assert re.fullmatch(r"[0-9a-f]{16}", first)
    assert first != second


def test_the_line_on_a_missing_page_has_the_requests_id_and_not_the_request(client, capsys):
    dictConfig(logs.logging_config("INFO", "json", debug=False))
    try:
        client.get(f"/u/{SECRET}/nowhere", headers={"X-Request-ID": "caller-0815"})
    finally:
        dictConfig(settings.LOGGING)

    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["logger"], line["request_id"], line["status_code"]) == ("django.request", "caller-0815", 404)
    assert line["event"] == "Not Found: /u/***/nowhere"
    assert "request" not in line
