"""What a benchmark reports: a table for people, one JSON line for programs, and what a tree of processes has used.

Reads /proc, so Linux only. Knows no contender and judges no figure.
"""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
KIB_PER_MB = 1024


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows under the keys of the first one: text to the left, numbers to the right."""
    columns = list(rows[0])
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    numeric = [all(isinstance(row[column], int | float) for row in rows) for column in columns]

    def line(values: Sequence[str]) -> str:
        aligned = zip(values, widths, numeric, strict=True)
        return "  ".join(v.rjust(width) if right else v.ljust(width) for v, width, right in aligned).rstrip()

    return "\n".join([line(columns), line(["-" * width for width in widths]), *map(line, cells)])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def closing_line(results: Mapping[str, object]) -> str:
    """The last line of a benchmark: everything it found, as one line of JSON."""
    return json.dumps(results, ensure_ascii=False, sort_keys=True)


def peak_rss_mb(pid: int | str = "self") -> float:
    """The most memory that one process has held so far. Not `ru_maxrss`: that one is inherited over fork and exec."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / KIB_PER_MB
    raise ValueError(f"process {pid} has no memory of its own")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree of processes holds at one moment, and the CPU time it has used until then, ended children included.

    PSS counts a page shared by n processes as 1/n, so that forked workers may be added up; RSS counts it n times.
    """

    processes: int
    cpu_seconds: float
    pss_mb: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    cpu_ticks: int


def _processes() -> dict[int, _Process]:
    found = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                # The name in parentheses may hold spaces, so the fields are counted behind it.
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended since the listing
            # state ppid ... utime stime cutime cstime: fields 4 and 14 to 17 of proc(5).
            found[int(directory.name)] = _Process(int(fields[1]), sum(map(int, fields[11:15])))
    return found


def _memory(pid: int) -> tuple[float, float]:
    """PSS and RSS in MB; nothing for a process that has ended, a zombie included."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return sizes.get("Pss", 0) / KIB_PER_MB, sizes.get("Rss", 0) / KIB_PER_MB


def _tree(root: int, processes: Mapping[int, _Process]) -> set[int]:
    tree, grown = set(), {root} & processes.keys()
    while grown:
        tree |= grown
        grown = {pid for pid, process in processes.items() if process.parent in tree} - tree
    return tree


def descendants(root: int) -> set[int]:
    """Every process below `root`."""
    return _tree(root, _processes()) - {root}


def pss_mb(pid: int) -> float:
    """What a process holds now, a page that n processes share counted as 1/n; 0 for one that has ended."""
    return _memory(pid)[0]


def usage(root: int) -> Usage:
    """What the process `root` and everything below it uses now."""
    processes = _processes()
    tree = _tree(root, processes)
    memory = [_memory(pid) for pid in tree]
    return Usage(
        processes=len(tree),
        cpu_seconds=sum(processes[pid].cpu_ticks for pid in tree) / TICKS,
        pss_mb=sum(pss for pss, _ in memory),
        rss_mb=sum(rss for _, rss in memory),
    )


class TreeMeter:
    """Measures a process tree while the `with` block lasts, by looking every `interval` seconds.

    `cpu_seconds` is what the block cost. It is exact as long as `root` has not been waited for when the block ends; of
    one that has, what came after the last look is missing. The peaks are those seen: a shorter one may be missed.
    """

    def __init__(self, root: int, interval: float = 0.1) -> None:
        self.root = root
        self.cpu_seconds = 0.0
        self.peak_pss_mb = 0.0
        self.peak_rss_mb = 0.0
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._before = usage(self.root).cpu_seconds
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._look()

    def _look(self) -> None:
        now = usage(self.root)
        self.cpu_seconds = max(self.cpu_seconds, now.cpu_seconds - self._before)
        self.peak_pss_mb = max(self.peak_pss_mb, now.pss_mb)
        self.peak_rss_mb = max(self.peak_rss_mb, now.rss_mb)
