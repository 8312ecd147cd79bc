"""Dockerfile, compose.yaml and the units of docs/deploying.md, as far as they can be tried without a container engine.

The image's files are laid out as the Dockerfile copies them, and the very commands of the image and of compose.yaml are
run there, on a PostgreSQL and a Redis of the tests. Not tried: that the images exist, and the two lines that install
packages and make the user; those hadolint reads.
"""

import configparser
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from cryptography.fernet import Fernet

from tests import postgres, redis_server
from tests.clusters import PATIENCE, Cluster, enqueue
from tests.servers import dying_with_parent, free_port
from tests.sinks import ROOT

pytestmark = pytest.mark.once

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "outreach"]
VARIABLE = re.compile(r"\$\{(\w+)[^}]*\}")
SECONDS = {"s": 1, "m": 60}


def seconds(text: str) -> int:
    return int(text[:-1]) * SECONDS[text[-1]]


# ---- the Dockerfile ----


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments of an exec form."""
        return json.loads(self.text)

    @property
    def pairs(self) -> dict[str, str]:
        """The variables of an ENV."""
        return dict(pair.split("=", 1) for pair in shlex.split(self.text))


def instructions() -> list[list[Instruction]]:
    """Those of each stage."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    stages: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, rest.strip()))
    return stages


FINAL = instructions()[-1]
IMAGE_ENVIRONMENT = {k: v for i in FINAL if i.name == "ENV" for k, v in i.pairs.items() if k != "PATH"}
[WEB_COMMAND] = [i.words for i in FINAL if i.name == "CMD"]
[HEALTH_CHECK] = [json.loads(i.text.partition("CMD ")[2]) for i in FINAL if i.name == "HEALTHCHECK"]


def copied(stage: list[Instruction]) -> dict[str, str]:
    """What a stage copies from the build's context: source and target."""
    pairs = [i.text.split() for i in stage if i.name == "COPY" and not i.text.startswith("--from")]
    assert all(len(pair) == 2 for pair in pairs)
    return dict(pairs)


IGNORE_LINES = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]


def ignored(path: str) -> bool:
    """Whether the build's context lacks a file: the last line that fits it, or a folder above it, decides."""
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    verdict = False
    for line in IGNORE_LINES:
        pattern = line.removeprefix("!")
        anywhere = pattern.removeprefix("**/")
        candidates = [name.rpartition("/")[2] for name in above] if anywhere != pattern else above
        # fnmatch lets a star pass slashes, which Docker's does not: only names of one part have one here.
        if any(fnmatchcase(name, anywhere) for name in candidates if "/" not in name or "*" not in anywhere):
            verdict = not line.startswith("!")
    return verdict


def test_what_is_copied_exists_and_is_not_ignored():
    sources = [source for stage in instructions() for source in copied(stage)]

    assert sources
    assert [source for source in sources if not (ROOT / source).exists() or ignored(source)] == []


@pytest.mark.parametrize(
    "private",
    [
        ".env", ".git/config", "var/outreach.sqlite3", "output/2026-11-24/1.json", ".venv/bin/python",
        "tests/conftest.py",
        "db.sqlite3", "campaigns/__pycache__/apps.cpython-311.pyc", "delivery/queue/__pycache__", "outreach/x.pyc",
    ],
)  # fmt: skip
def test_nothing_private_and_nothing_compiled_gets_into_the_image(private):
    assert ignored(private)


def test_a_linter_finds_nothing_in_the_dockerfile():
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        reason = "hadolint is not installed (requirements-dev.txt)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)

    done = subprocess.run([linter, "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "")


def test_packages_come_by_the_lock_and_the_image_runs_as_nobody_special():
    [install] = [i.text for stage in instructions() for i in stage if i.name == "RUN" and "pip install" in i.text]
    [user] = [i.text for i in FINAL if i.name == "USER"]
    [stop] = [i.text for i in FINAL if i.name == "STOPSIGNAL"]

    assert "--require-hashes -r /requirements.txt" in install
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert stop == "SIGTERM"


# ---- compose.yaml ----


def test_whatever_compose_hands_over_is_in_env_example():
    listed = set(re.findall(r"(?m)^([A-Z_]+)=", (ROOT / ".env.example").read_text()))
    handed = {name for service in OURS for name in SERVICES[service]["environment"]}
    asked_for = set(VARIABLE.findall((ROOT / "compose.yaml").read_text()))

    assert handed | asked_for
    assert handed | asked_for <= listed


def test_no_secret_stands_in_compose():
    values = [str(value) for service in SERVICES.values() for value in service.get("environment", {}).values()]
    secret = {name for service in SERVICES.values() for name in service.get("environment", {}) if "PASSWORD" in name}

    assert secret == {"POSTGRES_PASSWORD"}
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    assert [value for value in values if re.search(r"://[^/@]*:[^/@]+@", VARIABLE.sub("", value))] == []


def test_who_waits_for_whom_can_be_waited_for():
    volumes = {mount.partition(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    waits = {
        (on, how["condition"]) for service in SERVICES.values() for on, how in service.get("depends_on", {}).items()
    }

    assert volumes == set(COMPOSE["volumes"])
    assert waits == {
        ("postgres", "service_healthy"),
        ("redis", "service_healthy"),
        ("migrate", "service_completed_successfully"),
    }
    assert all(SERVICES[on]["healthcheck"]["test"] for on, condition in waits if condition == "service_healthy")
    assert SERVICES["migrate"]["restart"] == "no"


def test_a_worker_comes_back_whatever_ended_it_is_given_time_to_end_and_can_be_many():
    from campaigns.cluster import GRACE

    worker = SERVICES["worker"]

    assert worker["restart"] == "always"
    assert worker["init"] is True
    assert seconds(worker["stop_grace_period"]) > GRACE
    assert not {"container_name", "ports", "hostname", "deploy"} & worker.keys()


# ---- what they start ----


@dataclass(frozen=True)
class Installation:
    """The image's files, with a database that its own command has migrated."""

    folder: Path
    environment: dict[str, str]

    def of(self, service: str) -> dict[str, str]:
        """What a service's process finds: the image's variables, those of .env, those of compose.yaml; the values that
        name other hosts and folders of the container are the tests' own."""
        names = SERVICES[service]["environment"].keys() | IMAGE_ENVIRONMENT.keys()
        assert names - {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"} <= self.environment.keys()
        return {"PYTHONDONTWRITEBYTECODE": "1"} | self.environment

    def run(self, command: list[str], service: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.of(service), capture_output=True, text=True, timeout=PATIENCE
        )


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, postgres_server_url: str) -> Iterator[Installation]:
    redis_server.needed()
    folder = tmp_path_factory.mktemp("image")
    name = f"containers_{uuid.uuid4().hex}"
    with redis_server.RedisServer() as redis, contextlib.ExitStack() as cleaning:
        cleaning.callback(postgres.drop_database, postgres_server_url, name)
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            # of .env
            "SECRET_KEY": "k" * 50,
            "OUTREACH_SECRET_KEYS": Fernet.generate_key().decode(),
            "ALLOWED_HOSTS": "outreach.example",
            "OUTREACH_WORKERS": "1",
            # of compose.yaml and the image
            "DATABASE_URL": postgres.create_database(postgres_server_url, name),
            "REDIS_URL": redis.url,
            "OUTREACH_VAR_DIR": str(folder / "data/var"),
            "OUTREACH_OUTPUT_DIR": str(folder / "data/output"),
            "PORT": str(free_port()),
        }
        made = Installation(folder / "app", environment)
        lay_out(made)
        migrated = made.run(SERVICES["migrate"]["command"], "migrate")
        assert migrated.returncode == 0, migrated.stderr
        yield made


def lay_out(made: Installation) -> None:
    """Copies what the Dockerfile copies, and carries out its lines that run our own code."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        below = Path(folder).relative_to(ROOT)
        return {name for name in names if ignored(str(below / name))}

    made.folder.mkdir()
    for source, target in copied(FINAL).items():
        assert target.startswith("./")
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, made.folder / target, ignore=left_out)
        else:
            shutil.copy(ROOT / source, made.folder / target)
    building = {"PATH": made.environment["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    [line] = [i.text for i in FINAL if i.name == "RUN" and "manage.py" in i.text]
    # Where two builds on one machine would meet.
    line = line.replace("/tmp/build", str(made.folder.parent / "build"))
    done = subprocess.run(["sh", "-c", line], cwd=made.folder, env=building, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def answers(port: str, path: str) -> int | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_the_image_is_made_of_what_its_commands_need(installation):
    checked = installation.run(["python", "manage.py", "check", "--deploy", "--fail-level", "ERROR"], "web")

    assert checked.returncode == 0, checked.stderr
    assert (installation.folder / "staticfiles/staticfiles.json").exists()
    assert not (installation.folder / "tests").exists()
    assert not (installation.folder / ".env").exists()


def test_the_migrations_are_done_once_and_a_second_time_changes_nothing(installation):
    again = installation.run(SERVICES["migrate"]["command"], "migrate")

    assert again.returncode == 0
    assert "No migrations to apply" in again.stdout


def test_the_web_server_comes_up_is_found_healthy_and_ends_when_asked(installation, tmp_path):
    assert "command" not in SERVICES["web"]
    port = installation.environment["PORT"]
    with (tmp_path / "log").open("wb") as log:
        web = subprocess.Popen(
            WEB_COMMAND,
            cwd=installation.folder,
            env=installation.of("web"),
            stdout=log,
            stderr=log,
            preexec_fn=dying_with_parent(signal.SIGTERM),
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while answers(port, "/health/live") is None:
            assert web.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        healthy = installation.run(HEALTH_CHECK, "web")
        web.send_signal(signal.SIGTERM)
        ended = web.wait(PATIENCE)
        unhealthy = installation.run(HEALTH_CHECK, "web")
    finally:
        web.kill()
        web.wait()

    # The check asks by 127.0.0.1, which an installation's ALLOWED_HOSTS need not name.
    assert healthy.returncode == 0, healthy.stderr
    assert ended == 0
    assert unhealthy.returncode != 0


@pytest.mark.parametrize("broker", ["database", "redis"])
def test_a_worker_comes_up_works_and_ends_when_asked(installation, tmp_path, broker):
    environment = installation.of("worker") | {"OUTREACH_BROKER": broker}
    command = SERVICES["worker"]["command"]

    with Cluster(environment, tmp_path / "log", command=command, cwd=installation.folder) as worker:
        enqueue(environment, tmp_path / "made")
        worker.wait_until((tmp_path / "made").exists)
        ended = worker.stop()

    assert ended == 0


def test_redis_takes_the_options_that_compose_gives_it(tmp_path):
    redis_server.needed()
    program, *options = SERVICES["redis"]["command"]
    port = str(free_port())
    server = subprocess.Popen(
        [program, *options, "--port", port, "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        preexec_fn=dying_with_parent(signal.SIGKILL),
    )
    try:
        deadline = time.monotonic() + PATIENCE
        asked = ["redis-cli", "-p", port, "config", "get", "maxmemory-policy"]
        while "noeviction" not in subprocess.run(asked, capture_output=True, text=True).stdout:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        server.kill()
        server.wait()


# ---- systemd ----


def units() -> dict[str, configparser.ConfigParser]:
    """The units that docs/deploying.md shows, by their names."""
    text = (ROOT / "docs/deploying.md").read_text()
    found = {}
    for name, content in re.findall(r"`/etc/systemd/system/([\w-]+\.service)`[^\n]*\n+```ini\n(.*?)```", text, re.S):
        found[name] = configparser.ConfigParser(interpolation=None, strict=False)
        found[name].optionxform = str
        found[name].read_string(content)
    return found


def test_the_units_start_the_commands_that_are_tried_here_and_signal_the_head_alone():
    from campaigns.cluster import GRACE

    service = {name: unit["Service"] for name, unit in units().items()}
    worker, web = service["outreach-worker.service"], service["outreach-web.service"]

    assert worker["ExecStart"].endswith("/.venv/bin/" + " ".join(SERVICES["worker"]["command"]))
    assert web["ExecStart"].endswith("/.venv/bin/" + " ".join(WEB_COMMAND))
    assert (worker["KillMode"], worker["Restart"]) == ("mixed", "always")
    assert int(worker["TimeoutStopSec"]) > GRACE
