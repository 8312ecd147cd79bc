"""`manage.py check_engine` as operators and scripts rely on it: what it prints and how it exits."""

import json
from io import StringIO
from ipaddress import ip_network

import pytest
from django.core.management import CommandError, call_command

from delivery.models import Engine
from delivery.secrets import Sealed
from tests.delivery import postmark_server
from tests.delivery.postmark_server import TOKEN

WRONG = "a-token-of-somebody-else"

pytestmark = pytest.mark.django_db


@pytest.fixture
def postmark(settings):
    settings.OUTREACH = settings.OUTREACH | {"ALLOWED_NETWORKS": [ip_network("127.0.0.0/8")]}
    with postmark_server.serving() as server:
        yield server


def engine(name: str, url: str, token: str = TOKEN, **fields: object) -> Engine:
    options = {"stream": "broadcast", "endpoint": url}
    slug = name.lower().replace(" ", "-")
    secrets = Sealed.seal({"token": token})
    return Engine.objects.create(name=name, slug=slug, kind="postmark", options=options, secrets=secrets, **fields)


def check_engine(*arguments: str) -> tuple[int, str]:
    """The exit code, and what was printed."""
    out = StringIO()
    try:
        call_command("check_engine", *arguments, stdout=out)
    except SystemExit as exit_:
        return exit_.code, out.getvalue()
    return 0, out.getvalue()


def refusal(*arguments: str) -> str:
    with pytest.raises(CommandError) as caught:
        call_command("check_engine", *arguments)
    assert caught.value.returncode == 2
    return str(caught.value)


def test_an_engine_in_order_is_ok_by_its_slug_and_by_its_name(postmark):
    engine("News letters", postmark.url)

    for name in ("news-letters", "News letters"):
        assert check_engine(name) == (0, "News letters (news-letters, postmark): ok\n")


def test_problems_and_warnings_are_told_apart_and_only_problems_change_the_exit(postmark):
    engine("A", postmark.url, WRONG)
    engine("B", "http://127.0.0.1:1")
    engine("C", postmark.url, enabled=False)

    code, printed = check_engine("--all")

    lines = printed.splitlines()
    assert code == 1
    assert lines[:3] == ["A (a, postmark)", "  problem  Postmark does not know this server token.", "B (b, postmark)"]
    assert lines[3].startswith("  warning  127.0.0.1 cannot be reached")
    assert lines[4:] == ["C (c, postmark, switched off): ok"]
    assert check_engine("b", "c")[0] == 0
    assert WRONG not in printed


def test_what_shows_without_asking_is_a_problem_too(db):
    Engine.objects.create(name="Relay", slug="relay", kind="smtp", options={})
    Engine.objects.create(name="Locked", slug="locked", kind="sandbox", secrets=Sealed("what no key made"))

    code, printed = check_engine("relay", "locked")

    assert code == 1
    assert "problem  The host is missing." in printed
    assert "problem  The stored credentials cannot be decrypted" in printed


def test_json_is_one_object_with_everything_in_it(postmark):
    postmark.delivery_type = "Sandbox"
    engine("A", postmark.url)
    engine("B", postmark.url, WRONG, enabled=False)

    code, printed = check_engine("a", "b", "--json")

    common = {"kind": "postmark"}
    assert code == 1
    assert json.loads(printed) == {
        "ok": False,
        "engines": [
            common
            | {
                "slug": "a",
                "name": "A",
                "enabled": True,
                "ok": True,
                "problems": [],
                "warnings": ["This Postmark server is a sandbox: it delivers nothing."],
            },
            common
            | {
                "slug": "b",
                "name": "B",
                "enabled": False,
                "ok": False,
                "problems": ["Postmark does not know this server token."],
                "warnings": [],
            },
        ],
    }


def test_an_engine_that_is_named_twice_is_checked_once(postmark):
    engine("A", postmark.url)

    assert check_engine("a", "A", "a")[1].count("ok") == 1


def test_words_of_a_provider_are_not_taken_for_markup(db):
    Engine.objects.create(name="[bold]Relay", slug="relay", kind="smtp", options={"host": "[red]nowhere/[/red]"})

    assert "“[red]nowhere/[/red]” is not a host name" in check_engine("relay")[1]
    assert check_engine("relay")[1].startswith("[bold]Relay (relay")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "There is no engine 'nowhere'. There is: a, b."),
        (["a", "nowhere", "there"], "There is no engine 'nowhere' and 'there'. There is: a, b."),
        ([], "Name the engines to check, or give --all alone. There is: a, b."),
        (["a", "--all"], "Name the engines to check, or give --all alone. There is: a, b."),
    ],
)
def test_a_mistake_in_the_command_line_exits_with_2_and_says_what_there_is(arguments, words):
    for name in ("a", "b"):
        Engine.objects.create(name=name, slug=name, kind="sandbox")

    assert refusal(*arguments) == words


def test_without_any_engine_it_says_where_one_is_made():
    assert refusal("--all") == "There is no engine yet: add one in the admin."
