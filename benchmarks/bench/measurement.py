"""CPU, wall time and peak memory of processes, with all their children."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_PROC: Final = Path("/proc")
_SAMPLED_EVERY_S: Final = 0.02
_KIB_IN_MB: Final = 1024.0
#: The unit of ``ru_maxrss`` in MB.
_MAXRSS_MB: Final = 1 / _KIB_IN_MB if sys.platform == "linux" else 1 / _KIB_IN_MB**2


class NotMeasuredError(Exception):
    """Something cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a piece of work took.

    ``cpu_s`` is user and system time of the process and its children, ``peak_mb`` the largest resident memory of all
    of them together (pages that two of them share count twice).
    """

    cpu_s: float
    wall_s: float
    peak_mb: float


def own_cpu_s() -> float:
    """CPU seconds of this process and of all its descendants that have ended."""
    of = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in of)


def own_peak_mb() -> float:
    """The largest resident memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_MB


def cpu_s_of(pid: int) -> float:
    """CPU seconds of another process and of all its descendants that have ended, in steps of 10 ms.

    Raises NotMeasuredError where there is no such process, or no /proc.
    """
    try:
        # The name of the program stands in brackets and may hold anything.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError as error:
        raise NotMeasuredError(f"the CPU time of process {pid} cannot be read: {error.strerror}") from None
    user, system, children_user, children_system = map(int, fields[11:15])
    return (user + system + children_user + children_system) / os.sysconf("SC_CLK_TCK")


def run_cold(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Usage:
    """Run a command from its start to its end. What it says goes to ``log``.

    Raises NotMeasuredError if its exit status is not 0.
    """
    with log.open("ab") as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        with MemoryWatch({"it": process.pid}) as memory:
            _, status, used = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise NotMeasuredError(f"`{' '.join(command[1:4])}` ended with status {process.returncode}: {last_line(log)}")
    peak_mb = memory.peak_mb("it") or used.ru_maxrss * _MAXRSS_MB
    return Usage(used.ru_utime + used.ru_stime, wall_s, peak_mb)


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


class MemoryWatch:
    """A context manager: the peak memory of process trees, which it looks at every 20 ms. Linux only.

    ``roots`` are process IDs by name.
    """

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._roots = dict(roots)
        self._peaks = dict.fromkeys(roots, 0.0)
        self._parents: dict[int, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def __enter__(self) -> Self:
        if _PROC.is_dir():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def peak_mb(self, name: str) -> float:
        """The peak of that tree so far; 0 where there is no /proc."""
        return self._peaks[name]

    def _watch(self) -> None:
        while True:
            self._look()
            if self._done.wait(_SAMPLED_EVERY_S):
                return

    def _look(self) -> None:
        there = {int(name) for name in os.listdir(_PROC) if name.isdigit()}  # noqa: PTH208 (iterdir takes longer)
        # Only new processes are asked for their parent, so that a look takes a fraction of a millisecond.
        self._parents = {pid: parent for pid, parent in self._parents.items() if pid in there}
        self._parents |= {pid: _parent(pid) for pid in there - self._parents.keys()}
        trees: dict[int, set[int]] = {}
        for pid, parent in self._parents.items():
            trees.setdefault(parent, set()).add(pid)
        for name, root in self._roots.items():
            self._peaks[name] = max(self._peaks[name], _memory_mb(root, trees))


def _parent(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):  # it has ended
        return 0


def _memory_mb(root: int, children: Mapping[int, Iterable[int]]) -> float:
    """Resident memory now of a process and its descendants."""
    pages = 0
    waiting = [(root, 0)]
    while waiting:
        pid, size_of_parent = waiting.pop()
        size, resident = _pages(pid)
        if size == size_of_parent:
            continue  # between fork and exec a child shows the memory of its parent
        pages += resident
        waiting += [(child, size) for child in children.get(pid, ())]
    return pages * os.sysconf("SC_PAGE_SIZE") / _KIB_IN_MB**2


def _pages(pid: int) -> tuple[int, int]:
    """Virtual size and resident memory."""
    try:
        size, resident = (_PROC / str(pid) / "statm").read_text().split()[:2]
    except (OSError, ValueError):  # it has ended
        return 0, 0
    return int(size), int(resident)
