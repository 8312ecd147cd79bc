"""Which way imports run: campaigns -> delivery, outreach on top, and a core that could run anywhere."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = {"campaigns", "delivery", "outreach"}
# Each may import what stands before it.
CORE = [
    {"envelope"},
    {"meaning", "throttle", "breaker", "retry", "window"},
    {"classify", "answer", "warmup", "script", "condition", "failover", "sequence"},
    {"dispatch"},
]
# Standard library that brings a clock, a socket, a thread, a file or the process with it.
IMPURE = {
    "asyncio", "builtins", "concurrent", "http", "io", "logging", "multiprocessing", "os", "pathlib", "secrets",
    "select", "signal", "smtplib", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time",
    "urllib", "uuid",
}  # fmt: skip


def sources(folder):
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def imported(path):
    """The dotted names that a file imports, wherever in it: `from a import b` as both `a` and `a.b`."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def offences(folder, forbidden):
    """file: name, for every import of a folder's files that `forbidden` holds of."""
    return {
        f"{path.relative_to(ROOT)}: {name}" for path in sources(folder) for name in imported(path) if forbidden(name)
    }


def top(name):
    return name.partition(".")[0]


def test_delivery_knows_nothing_of_campaigns():
    assert offences("delivery", lambda name: top(name) == "campaigns") == set()


def test_nothing_imports_outreach():
    assert offences("campaigns", lambda name: top(name) == "outreach") == set()
    assert offences("delivery", lambda name: top(name) == "outreach") == set()


def test_no_application_imports_the_tests():
    for app in APPS:
        assert offences(app, lambda name: top(name) == "tests") == set()


def test_the_core_imports_the_standard_library_and_itself_and_nothing_with_a_clock_or_a_socket():
    def foreign(name):
        own = name == "delivery.core" or name.startswith("delivery.core.")
        return top(name) in IMPURE or not (own or top(name) in sys.stdlib_module_names)

    assert offences("delivery/core", foreign) == set()


@pytest.mark.parametrize("module", sorted(set().union(*CORE)))
def test_the_cores_modules_import_only_leftwards(module):
    rank = next(i for i, row in enumerate(CORE) if module in row)
    leftwards = set().union(*CORE[:rank])

    found = {name.split(".")[2] for name in imported(ROOT / f"delivery/core/{module}.py") if name.count(".") >= 2
             and name.startswith("delivery.core.")}  # fmt: skip

    assert found <= leftwards


def test_every_module_of_the_core_has_its_place_in_that_order():
    assert {path.stem for path in sources("delivery/core")} - {"__init__"} == set().union(*CORE)


def test_the_core_never_asks_what_time_it_is_nor_rolls_dice_of_its_own():
    asked = {
        f"{path.name}:{node.lineno} {ast.unparse(node.func)}"
        for path in sources("delivery/core")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[0] in ("datetime", "date", "datetime.datetime", "random")
    }

    assert asked == set()
