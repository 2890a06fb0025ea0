"""How many threads a worker may use."""

from __future__ import annotations

import os

from shared.settings import Settings


def available_cores() -> int:
    """Cores that this process may use: the affinity mask if there is one, and a container's CPU quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as quota:  # noqa: PTH123 (a kernel file)
            limit, period = quota.read().split()
        if limit != "max":
            cores = min(cores, max(1, round(int(limit) / int(period))))
    except (OSError, ValueError):
        pass
    return cores


def worker_threads(settings: Settings) -> int:
    """The configured number, or one per core."""
    return settings.worker_threads or available_cores()
