"""`manage.py simulate`: what is asked for, what is printed, and how it ends."""

import dataclasses
import io
import json
import os
import pty
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from delivery.core.script import EXAMPLE
from delivery.management.commands.simulate import Command

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = (
    "--deliveries", "--vendor", "--middlewares", "--retries", "--strategy", "--uncertain", "--workers", "--seed",
    "--json", "--plot",
)  # fmt: skip
SETTINGS = (
    "rate", "burst", "latency", "spread", "errors", "rejects", "slow", "drops", "down", "locked", "batch",
    "concurrency", "weight", "keys",
)  # fmt: skip
# Every kind of trouble, and as much of chance as a script can have.
TROUBLED = (
    "--deliveries=300",
    "--workers=2",
    "--strategy=weighted",
    "--uncertain=resend",
    "--vendor=alpha:rate=100/s,latency=80ms,spread=50%,errors=5%,rejects=2%,slow=1%,drops=2%,down=1s-2s",
    "--vendor=beta:latency=30ms,spread=90%,errors=5%,drops=2%,batch=7,keys=yes",
)


def told(*arguments):
    """What it prints when it is called from Python."""
    stdout = io.StringIO()
    call_command("simulate", *arguments, stdout=stdout)
    return stdout.getvalue()


def told_as_json(*arguments):
    return json.loads(told("--json", *arguments))


def process(directory, *arguments, **environment):
    """A process of its own, as from a shell, in this directory."""
    return subprocess.Popen(
        [sys.executable, ROOT / "manage.py", "simulate", *arguments],
        cwd=directory,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def shell(capsys):
    """Calls it as a shell does. Returns its exit code and what it printed, on stdout and on stderr."""

    def call(*arguments, command=Command):
        code = 0
        try:
            command().run_from_argv(["manage.py", "simulate", *arguments])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


# ---- the same seed, the same bytes ----


def twice(tmp_path, *arguments):
    """What two processes print that have nothing in common but their arguments, and where each of them ran."""
    places = [tmp_path / "one", tmp_path / "two"]
    surroundings = [
        {"PYTHONHASHSEED": "1", "COLUMNS": "40", "TERM": "dumb"},
        {"PYTHONHASHSEED": "2", "COLUMNS": "200", "TERM": "xterm-256color"},
    ]
    for place in places:
        place.mkdir()
    running = [process(place, *arguments, **around) for place, around in zip(places, surroundings, strict=True)]
    ended = [(*each.communicate(), each.returncode) for each in running]
    assert [(stderr, code) for _, stderr, code in ended] == [(b"", 0)] * 2
    return [stdout for stdout, _, _ in ended], places


def test_two_processes_with_the_same_seed_print_the_same_bytes_and_draw_the_same_picture(tmp_path):
    printed, places = twice(tmp_path, *TROUBLED, "--plot=plot.svg")

    assert printed[0] == printed[1]
    assert b"Plot: plot.svg" in printed[0]
    drawn = [(place / "plot.svg").read_bytes() for place in places]
    assert drawn[0] == drawn[1]
    assert ElementTree.fromstring(drawn[0]).tag.endswith("svg")


def test_so_they_do_as_json_and_as_a_page(tmp_path):
    printed, places = twice(tmp_path, *TROUBLED, "--json", "--plot=plot.html")

    assert printed[0] == printed[1]
    assert json.loads(printed[0])["counts"]["accepted"] > 200
    drawn = [(place / "plot.html").read_bytes() for place in places]
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(b"<!doctype html>")


def test_the_same_seed_prints_the_same_and_another_one_something_else():
    first = told(*TROUBLED, "--seed=a seed of words")

    assert told(*TROUBLED, "--seed=a seed of words") == first
    assert told(*TROUBLED, "--seed=another") != first
    assert told(*TROUBLED) == told(*TROUBLED, "--seed=1")


# ---- what is printed ----


def test_it_prints_a_table_of_the_vendors_a_plot_the_time_and_the_equation():
    lines = told("--deliveries=500", "--vendor=alpha:rate=100/s,latency=80ms", "--vendor=beta").splitlines()

    rows = [line.split() for line in lines]
    assert ["alpha", "500", "500", "-", "-", "-", "-", "-"] in rows
    assert ["beta", "0", "-", "-", "-", "-", "-", "-"] in rows
    assert any(line.startswith("alpha █") and line.endswith("/s") for line in lines)
    assert any(line.startswith("Time to finish: 4.4 s") for line in lines)
    assert lines[-1] == "Reconciled: 500 = 500 accepted"


def test_where_nobody_looks_on_no_live_table_is_drawn_and_no_line_is_coloured(shell):
    code, stdout, stderr = shell("--deliveries=5")

    assert (code, stderr) == (0, "")
    assert "\x1b" not in stdout
    assert max(map(len, stdout.splitlines())) <= 110


def test_without_vendors_two_are_made_up():
    assert [vendor["name"] for vendor in told_as_json("--deliveries=5")["vendors"]] == ["alpha", "beta"]


def test_as_json_it_prints_one_object_and_nothing_else(tmp_path):
    plot = tmp_path / "plot.svg"
    line, nothing = told("--json", "--deliveries=50", "--vendor=alpha:rate=20/s", "--seed=x", f"--plot={plot}").split(
        "\n"
    )

    answer = json.loads(line)
    assert nothing == ""
    assert plot.exists()
    assert answer.keys() >= {
        "deliveries", "seed", "strategy", "workers", "seconds", "counts", "reconciles", "vendors", "throughput",
    }  # fmt: skip
    assert (answer["deliveries"], answer["seed"], answer["strategy"], answer["workers"]) == (50, "x", "priority", 1)
    assert (answer["counts"], answer["reconciles"]) == ({"accepted": 50}, True)
    (alpha,) = answer["vendors"]
    assert (alpha["name"], alpha["answers"]["accepted"], alpha["taken"]) == ("alpha", 50, 50)
    throughput = answer["throughput"]
    assert sum(throughput["per_second"]["alpha"]) * throughput["slice_seconds"] == 50


@pytest.mark.parametrize("name", ["plot.svg", "plot.html", "[red]plot ü[/].svg"])
def test_the_plot_is_written_where_it_is_wanted_and_named_as_it_was(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("[red]plot ü[").mkdir()

    printed = told("--deliveries=50", "--seed=ü & <b>", f"--plot={name}")

    assert printed.endswith(f"Plot: {name}\n")
    picture = Path(name).read_text("utf-8")
    assert "seed ü &amp; &lt;b&gt;" in picture
    assert picture.startswith("<!doctype html>" if name.endswith(".html") else "<svg ")


def test_its_help_names_every_option_and_how_a_vendor_is_written(shell, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")  # or the example is broken over lines
    code, stdout, _ = shell("--help")

    words = " ".join(stdout.split())
    assert code == 0
    assert [option for option in OPTIONS if f" {option} " not in words] == []
    assert EXAMPLE in words
    assert [setting for setting in SETTINGS if setting not in words] == []
    assert "0 every delivery is accounted for, 1 not, 2 usage error" in words


# ---- on a terminal ----


@pytest.fixture(scope="module")
def on_a_terminal(tmp_path_factory):
    """What a process whose stderr is a terminal prints: on stdout, and on the terminal."""
    terminal, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, ROOT / "manage.py", "simulate", *TROUBLED],
        cwd=tmp_path_factory.mktemp("terminal"),
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(terminal, 65_536):
            seen += piece
    except OSError:
        pass  # Linux says so when the other side is closed
    os.close(terminal)
    stdout, _ = running.communicate()
    return stdout.decode(), seen.decode()


def test_on_a_terminal_a_table_follows_the_run_and_the_report_is_the_same(on_a_terminal):
    stdout, seen = on_a_terminal

    assert "of 300 deliveries ended (" in seen
    assert "calls for mails" in seen
    assert stdout == told(*TROUBLED)


def test_on_a_terminal_nothing_but_the_table_is_seen(on_a_terminal):
    _, seen = on_a_terminal

    assert "Exception ignored" not in seen
    assert "Error" not in seen


# ---- what is asked for ----


def test_as_many_tries_as_asked_for_are_made():
    (alpha,) = told_as_json("--deliveries=20", "--vendor=alpha:errors=100%", "--middlewares=retry", "--retries=2")[
        "vendors"
    ]

    assert alpha["answers"]["transient"] == 20 * 3


@pytest.mark.parametrize(
    ("middlewares", "counts"),
    [
        ("none", {"dead": 20}),
        ("", {"dead": 20}),
        ("rate-limiter", {"dead": 20}),
        (" retry , circuit-breaker", {"accepted": 20}),
    ],
)
def test_only_the_middlewares_named_are_on(middlewares, counts):
    answer = told_as_json("--deliveries=20", "--vendor=alpha:down=0s-5s", f"--middlewares={middlewares}")

    assert answer["counts"] == counts


def test_as_many_workers_as_asked_for_share_the_work():
    arguments = "--deliveries=2000", "--vendor=alpha:concurrency=4,latency=100ms"
    alone, two = told_as_json(*arguments), told_as_json(*arguments, "--workers=2")

    assert (alone["workers"], two["workers"]) == (1, 2)
    assert two["seconds"] < 0.7 * alone["seconds"]


def test_without_the_rate_limiter_the_vendor_says_slow_down():
    arguments = "--deliveries=200", "--vendor=alpha:rate=50/s,latency=80ms"
    limited = told_as_json(*arguments)
    unlimited = told_as_json(*arguments, "--middlewares=retry,circuit-breaker")

    assert limited["vendors"][0]["answers"]["throttled"] == 0
    assert unlimited["vendors"][0]["answers"]["throttled"] > 0


def test_the_circuit_breaker_spares_a_vendor_that_is_down():
    arguments = "--deliveries=500", "--vendor=alpha:rate=50/s,latency=80ms,down=1s-9s", "--vendor=beta:rate=50/s"
    guarded = told_as_json(*arguments)
    unguarded = told_as_json(*arguments, "--middlewares=retry,rate-limiter")

    assert guarded["vendors"][0]["answers"]["transient"] < 30
    assert unguarded["vendors"][0]["answers"]["transient"] > 300


@pytest.mark.parametrize(
    ("strategy", "possible"),
    [("priority", range(200, 201)), ("sticky", range(200, 201)), ("weighted", range(80, 121))],
)
def test_the_strategy_is_the_one_named(strategy, possible):
    answer = told_as_json("--deliveries=200", "--vendor=alpha", "--vendor=beta", f"--strategy={strategy}")

    assert answer["strategy"] == strategy
    assert answer["vendors"][0]["taken"] in possible


def test_what_becomes_of_a_lost_answer_is_as_asked_for():
    arguments = "--deliveries=100", "--vendor=alpha:rate=50/s,drops=10%"

    assert told_as_json(*arguments)["counts"].keys() == {"accepted", "uncertain"}
    assert told_as_json(*arguments, "--uncertain=resend")["counts"] == {"accepted": 100}


# ---- what is refused ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--deliveries=0"], "--deliveries must be between 1 and 50,000,000, not 0."),
        (["--deliveries=-5"], "--deliveries must be between 1 and 50,000,000, not -5."),
        (["--deliveries=50000001"], "--deliveries must be between 1 and 50,000,000, not 50000001."),
        (["--workers=0"], "--workers must be between 1 and 64, not 0."),
        (["--workers=65"], "--workers must be between 1 and 64, not 65."),
        (["--retries=-1"], "--retries must be between 0 and 100, not -1."),
        (["--retries=101"], "--retries must be between 0 and 100, not 101."),
        (["--seed=\udcff"], "--seed must be printable text, not '\\udcff'."),
        (["--seed=a\nb"], "--seed must be printable text, not 'a\\nb'."),
        (["--vendor="], f"--vendor: '' does not begin with a vendor's name: write it like {EXAMPLE}."),
        (
            ["--vendor=alpha", "--vendor=beta:rate=fast"],
            "--vendor: beta: 'fast' is no rate; write it like 100/s, 3000/m or 50000/d.",
        ),
        (
            ["--vendor=alpha:latency=999999999999d"],
            "--vendor: alpha: '999999999999d' is longer than a year; write it like latency=80ms.",
        ),
        (
            ["--vendor=alpha", "--vendor=beta", "--vendor=alpha:rate=1/s"],
            "--vendor: the name alpha comes twice; give each vendor its own.",
        ),
        (
            ["--middlewares=retry,cache"],
            "--middlewares: there is no cache; there are retry, circuit-breaker, rate-limiter.",
        ),
        (["--plot=plot.png"], "--plot: plot.png must end in .svg or .html."),
        (["--plot=plot"], "--plot: plot must end in .svg or .html."),
        (["--plot=missing/plot.svg"], "--plot: there is no directory missing; make it, or name another file."),
        (["--plot=directory.svg"], "--plot: directory.svg is a directory; name a file."),
    ],
)
def test_what_cannot_be_meant_is_said_and_nothing_is_begun(shell, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    Path("directory.svg").mkdir()

    assert shell(*arguments) == (2, "", f"CommandError: {words}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["directory.svg"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--deliveries=many"], "argument --deliveries: invalid int value: 'many'"),
        (["--strategy=best"], "argument --strategy: invalid choice: 'best'"),
        (["--uncertain=guess"], "argument --uncertain: invalid choice: 'guess'"),
        (["--speed=9"], "unrecognized arguments: --speed=9"),
        (["--plot"], "argument --plot: expected one argument"),
        (["stray"], "unrecognized arguments: stray"),
    ],
)
def test_what_the_parser_refuses_ends_with_2_too(shell, arguments, words):
    code, stdout, stderr = shell(*arguments)

    assert (code, stdout) == (2, "")
    assert stderr.splitlines()[-1].startswith(f"manage.py simulate: error: {words}")


def test_a_usage_error_leaves_an_earlier_picture_alone(shell, tmp_path):
    plot = tmp_path / "plot.svg"
    plot.write_text("earlier")

    code, _, _ = shell("--vendor=alpha:rate=fast", f"--plot={plot}")

    assert code == 2
    assert plot.read_text() == "earlier"


def test_a_picture_that_cannot_be_written_is_said_in_a_sentence(shell, tmp_path):
    plot = tmp_path / "plot.svg"
    plot.symlink_to(tmp_path / "missing" / "plot.svg")

    code, stdout, stderr = shell("--deliveries=5", f"--plot={plot}")

    assert (code, stdout) == (2, "")
    assert stderr == (
        f"CommandError: --plot: {plot} could not be written: No such file or directory. Name another file.\n"
    )


def test_called_from_python_a_usage_error_is_one_with_its_exit_code():
    with pytest.raises(CommandError) as caught:
        told("--vendor=alpha:rate=fast")

    assert caught.value.returncode == 2


def test_what_does_not_reconcile_ends_with_1_after_the_whole_report(shell):
    class Miscounting(Command):
        def _simulate(self, scenario, *, quiet):
            result = super()._simulate(scenario, quiet=quiet)
            return dataclasses.replace(result, states={"accepted": 4, "ready": 1})

    code, stdout, _ = shell("--deliveries=5", command=Miscounting)

    assert code == 1
    assert stdout.endswith("Reconciled: 5 = 5 accepted  DOES NOT RECONCILE: counted {'accepted': 4, 'ready': 1}\n")
