"""The fastest SMTP server and client at hand: `smtp-sink` and `smtp-source` of Debian's postfix package.

The package is downloaded and unpacked, never installed or configured. Decides where it is kept and how the programs are
run; knows nothing of what is measured against them.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import await_port, dying_with_parent, end, free_port, identity, unprivileged_account

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / "var" / "bench" / "postfix"
PROGRAMS = ("smtp-sink", "smtp-source")
# Debian's C library is the system's own: another version of it would not fit the dynamic loader.
NEVER_FETCHED = "libc6"


class SinkUnavailable(RuntimeError):
    """The postfix package cannot be had or cannot run here; the message says what is missing."""


def unpacked(cache: Path = CACHE) -> Path:
    """The root of the unpacked package, downloaded when it is not in the cache yet."""
    if not (cache / "usr/sbin/smtp-sink").exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            raise SinkUnavailable("smtp-sink comes from Debian's postfix package: apt-get and dpkg are needed")
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as work:
            _fill(Path(work))
            # By renaming, so that an interrupted download is never taken for a whole one.
            shutil.rmtree(cache, ignore_errors=True)
            (Path(work) / "tree").rename(cache)
    if absent := missing_libraries(cache):
        raise SinkUnavailable(f"{cache}: the libraries {', '.join(absent)} are not on this machine")
    return cache


def _fill(work: Path) -> None:
    tree = work / "tree"
    package = _downloaded("postfix", work)
    _unpack(package, tree)
    if missing_libraries(tree):
        for name in _library_packages(package):
            _unpack(_downloaded(name, work), tree)


def _downloaded(package: str, directory: Path) -> Path:
    # Root's downloads are done by the user _apt, who may not write into a directory of root's.
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0 and os.getuid() == 0:
        # A fresh image has no package lists, or old ones that name files which are gone.
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SinkUnavailable(f"apt-get download {package} failed: {done.stderr.strip()}")
    return next(directory.glob(f"{package}_*.deb"))


def _unpack(package: Path, tree: Path) -> None:
    subprocess.run(["dpkg", "-x", package, tree], check=True)


def _library_packages(package: Path) -> list[str]:
    depends = subprocess.run(["dpkg-deb", "-f", package, "Depends"], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"(?:^|[,|] )(lib[a-z0-9.+-]+)", depends)
    return [name for name in names if name != NEVER_FETCHED]


def _environment(tree: Path) -> dict[str, str]:
    directories = [tree / "usr/lib/postfix", *tree.glob("usr/lib/*-linux-gnu"), *tree.glob("lib/*-linux-gnu")]
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": ":".join(map(str, directories))}


def missing_libraries(tree: Path) -> list[str]:
    """The shared libraries that the unpacked programs need and that are neither in the tree nor on the machine."""
    programs = [tree / "usr/sbin" / name for name in PROGRAMS]
    answer = subprocess.run(["ldd", *programs], env=_environment(tree), capture_output=True, text=True, check=True)
    return sorted(set(re.findall(r"^\s*(\S+) => not found", answer.stdout, re.MULTILINE)))


class SmtpSink:
    """`smtp-sink`, accepting and forgetting every mail, for as long as the `with` block lasts.

    `counting=True` lets it count what it takes (`messages()`), at the price of one write per message.
    """

    def __init__(self, *, counting: bool = False, cache: Path = CACHE) -> None:
        self.port = free_port()
        self._counting = counting
        self._cache = cache

    def __enter__(self) -> Self:
        tree = unpacked(self._cache)
        # The account that the sink runs as may not look into the project's directory; a copy for everybody it may.
        self._directory = Path(tempfile.mkdtemp(prefix="outreach-smtp-sink-"))
        try:
            self._directory.chmod(0o755)
            copy = shutil.copytree(tree, self._directory / "tree", symlinks=True)
            self._start(copy)
        except BaseException:
            shutil.rmtree(self._directory)
            raise
        return self

    def _start(self, tree: Path) -> None:
        account = unprivileged_account("nobody")
        if account is None:
            raise SinkUnavailable("smtp-sink refuses to run as root, and there is no account nobody")
        command = [tree / "usr/sbin/smtp-sink", *(["-c"] if self._counting else []), f"127.0.0.1:{self.port}", "1024"]
        self._counters = self._directory / "counters"
        with self._counters.open("wb") as counters:
            # As nobody from the start, not by its own `-u nobody`: a program that drops root by itself forgets that it
            # is to die with its parent.
            self._process = subprocess.Popen(
                command,
                cwd="/",
                env=_environment(tree),
                stdout=counters,
                preexec_fn=dying_with_parent(signal.SIGKILL),
                **identity(account),
            )
        try:
            await_port(self.port, self._process)
        except BaseException:
            end(self._process, signal.SIGTERM)
            raise

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        end(self._process, signal.SIGTERM)
        shutil.rmtree(self._directory)

    @property
    def pid(self) -> int:
        """The sink's process id."""
        return self._process.pid

    def messages(self) -> int:
        """How many messages were taken so far; only of a sink that counts."""
        if not self._counting:
            raise ValueError("this sink does not count: SmtpSink(counting=True)")
        counts = re.findall(rb"mesg=(\d+)", self._counters.read_bytes()[-200:])
        return int(counts[-1]) if counts else 0


def smtp_source(port: int, messages: int, sessions: int = 20, size: int = 6_000, cache: Path = CACHE) -> float:
    """The seconds in which `smtp-source` hands that many messages over, on `sessions` kept connections: the limit that
    no client written here is expected to pass."""
    tree = unpacked(cache)
    command = [tree / "usr/sbin/smtp-source", "-d", "-s", sessions, "-m", messages, "-l", size]
    command += ["-f", "sender@outreach.example", "-t", "recipient@recipients.example", f"127.0.0.1:{port}"]
    started = time.monotonic()
    subprocess.run([str(part) for part in command], env=_environment(tree), check=True)
    return time.monotonic() - started


if __name__ == "__main__":  # the path of the program, for SMTP_SINK
    print(unpacked() / "usr/sbin/smtp-sink")
