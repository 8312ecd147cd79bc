"""`manage.py responder`: what it sets up, once, and what it refuses. What it does is in tests/scenarios."""

import pytest
from django.core.management import CommandError, call_command

from campaigns.models import Audience, Run, Step, Template, TemplateVersion, Workflow
from campaigns.responder import Endpoint, set_up
from delivery.models import Engine, Pool, PoolMember

pytestmark = pytest.mark.django_db

URL = "https://mail.example/api"
KEY = "sesame-of-forty-thieves"
ENDPOINT = Endpoint(URL, KEY, test=True)
TABLES = (Audience, Engine, Pool, PoolMember, Template, TemplateVersion, Workflow, Step)


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("RESPONDER_API_KEY", KEY)


def prepared(*arguments):
    """The step of the workflow that the command sets up."""
    call_command("responder", "--url", URL, "--prepare", *arguments)
    return Step.objects.select_related("workflow__audience", "composer").get()


def refusal(*arguments):
    """What the command says when it refuses to begin."""
    with pytest.raises(CommandError) as caught:
        call_command("responder", *arguments)
    assert caught.value.returncode == 2
    return str(caught.value)


def test_everything_is_there_after_the_first_time_and_nothing_twice_after_the_second():
    first = set_up(ENDPOINT)
    counts = {table.__name__: table.objects.count() for table in TABLES}
    second = set_up(ENDPOINT)

    assert first == second
    assert counts == {table.__name__: 2 if table is Engine else 1 for table in TABLES}
    assert counts == {table.__name__: table.objects.count() for table in TABLES}


def test_what_is_set_up_is_as_the_example_promises():
    workflow = set_up(ENDPOINT, lead=0.25, on_failed="release", seed="7")

    audience, pool, step = workflow.audience, workflow.pool, workflow.steps.get()
    engine = pool.engines.get()
    assert (audience.key_field, audience.depends_field, audience.deadline_field) == ("id", "dependencies", "deadline")
    assert (audience.options["url"], audience.options["parameters"]) == (f"{URL}/emails", "test=true")
    assert (engine.kind, engine.options["url"]) == ("http", f"{URL}/responses")
    assert audience.secrets.open() == engine.secrets.open() == {"credential": KEY}
    assert (workflow.start, workflow.gap_microseconds, workflow.on_failed) == ("checked", 100, "release")
    assert (step.lead_seconds, step.on_late, step.review) == (0.25, "expire", False)
    assert (step.composer.kind, step.composer.options["seed"]) == ("mock_composer", "7")
    backoff = pool.retry_policy.rule.backoff
    assert (backoff.growth, backoff.base.total_seconds()) == ("exponential", 1)
    assert (backoff.jitter.low, backoff.jitter.high) == (0.8, 1.2)


def test_later_calls_set_what_they_are_told_and_leave_what_a_person_has_changed():
    workflow = set_up(ENDPOINT)
    Step.objects.update(prompt="Say no: {{ subject }}")
    Pool.objects.update(max_attempts=2)
    Engine.objects.filter(kind="http").update(options={**workflow.pool.engines.get().options, "rules": "400: message"})

    set_up(Endpoint("https://other.example/", "another-key", "X-Key"), lead=3, seed="8")

    audience, step, engine = Audience.objects.get(), Step.objects.get(), Engine.objects.get(kind="http")
    assert (audience.options["url"], audience.options["parameters"]) == ("https://other.example/emails", "")
    assert (audience.options["key_name"], audience.secrets.open()) == ("X-Key", {"credential": "another-key"})
    assert (engine.options["url"], engine.options["key_name"]) == ("https://other.example/responses", "X-Key")
    assert (step.lead_seconds, step.composer.options["seed"]) == (3, "8")
    assert (step.prompt, Pool.objects.get().max_attempts) == ("Say no: {{ subject }}", 2)
    assert engine.options["rules"] == "400: message"


def test_preparing_sets_up_what_it_is_told_and_runs_nothing(capsys):
    step = prepared("--test-flag", "--lead", "2", "--seed", "9", "--on-failed", "release")

    assert "manage.py run_workflow responder" in capsys.readouterr().out
    assert (step.lead_seconds, step.composer.options["seed"], step.workflow.on_failed) == (2, "9", "release")
    assert step.workflow.audience.options["parameters"] == "test=true"
    assert not Run.objects.exists()


def test_another_composer_writes_when_it_is_named():
    Engine.objects.create(name="Other", slug="other", kind="mock_composer")

    assert prepared("--composer", "other").composer.slug == "other"


def test_a_composer_that_is_not_there_is_refused_with_those_that_are():
    Engine.objects.create(name="Other", slug="other", kind="mock_composer")
    Engine.objects.create(name="Relay", slug="relay", kind="sandbox")

    assert "There is no engine 'relay' that composes. There is: other." in refusal("--url", URL, "--composer", "relay")
    assert not Workflow.objects.exists()


def test_the_key_comes_from_the_variable_that_is_named(monkeypatch):
    monkeypatch.setenv("OF_MINE", "  another-key\n")

    assert prepared("--key-env", "OF_MINE").workflow.audience.secrets.open() == {"credential": "another-key"}


def test_without_a_key_and_a_terminal_it_is_refused_and_says_how_to_give_one(monkeypatch):
    monkeypatch.delenv("RESPONDER_API_KEY")

    assert "the environment variable RESPONDER_API_KEY is not set" in refusal("--url", URL)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://mail.example", "http://mail.example/emails is not encrypted: use https."),
        ("https://10.0.0.1", "add the network to OUTREACH_ALLOWED_NETWORKS"),
        ("mail.example", "is not a URL: write it as https://host/path."),
        ("https://mail.example/?key=1", "give the address alone, such as https://mail.example/api"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_a_sentence_and_nothing_is_set_up(url, said):
    assert said in refusal("--url", url)
    assert {table.__name__ for table in TABLES if table.objects.exists()} == set()


@pytest.mark.parametrize("lead", ["soon", "-1", "nan", "inf"])
def test_a_lead_that_is_no_number_of_seconds_is_refused(lead):
    with pytest.raises(CommandError, match="is no number of seconds from 0 to 86400"):
        call_command("responder", "--url", URL, f"--lead={lead}")


def test_the_key_is_in_no_message():
    assert KEY not in refusal("--url", "http://mail.example") + repr(ENDPOINT)
