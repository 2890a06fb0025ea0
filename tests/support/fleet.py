"""The workers of every service, as a supervisor keeps them: who dies is started again."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from services.topology import SERVICE_NAMES
from shared.system.fault_points import VARIABLE

_RESTART_S = 0.3


class Fleet:
    """``size`` workers of each service. A context manager: starts them, and kills them in the end.

    They run the code of the folder ``tree``, by default this one; ``upgrade`` brings them to this one.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], size: int, tree: Path | None = None) -> None:
        self._folder = folder
        self._trees: dict[str, Path | None] = dict.fromkeys(SERVICE_NAMES, tree)
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._wanted = dict.fromkeys(SERVICE_NAMES, size)
        self._workers: dict[str, list[subprocess.Popen[bytes]]] = {name: [] for name in SERVICE_NAMES}
        self._started = 0
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        #: SIGKILLs from outside, by service; and all deaths, whoever caused them.
        self.kills: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()

    def __enter__(self) -> Self:
        for service, count in self._wanted.items():
            for _ in range(count):
                self._start(service)
        self._supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._supervisor.join()
        for worker in self._all():
            worker.kill()
            worker.wait()

    def kill(self, service: str, random: random.Random) -> None:
        """SIGKILL to one of its workers."""
        with self._lock:
            running = [worker for worker in self._workers[service] if worker.poll() is None]
            if running:
                random.choice(running).kill()
                self.kills[service] += 1

    def pause(self, service: str, seconds: float, random: random.Random) -> None:
        """SIGSTOP to one of its workers, and SIGCONT after that time: a zombie that knows nothing of its death."""
        with self._lock:
            zombie = random.choice(self._workers[service])
            zombie.send_signal(signal.SIGSTOP)
        self._closing.wait(seconds)
        zombie.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """SIGKILL to every worker at once. Their successors come upon no fault point any more."""
        with self._lock:
            self._environment.pop(VARIABLE, None)
            for worker in self._all():
                worker.kill()

    def grow(self, service: str) -> None:
        """One worker more."""
        with self._lock:
            self._wanted[service] += 1

    def shrink(self, service: str) -> None:
        """One worker fewer, told to stop in good order."""
        with self._lock:
            self._wanted[service] -= 1
            leaving = self._workers[service].pop()
        leaving.terminate()
        try:
            leaving.wait(40.0)
        except subprocess.TimeoutExpired:
            leaving.kill()
            raise AssertionError(f"a {service} did not stop in good order") from None

    def upgrade(self, service: str) -> None:
        """The workers of a service go on with this version, one after the other, as a rolling update has it."""
        with self._lock:
            self._trees[service] = None
            old = list(self._workers[service])
        for worker in old:
            worker.terminate()
            try:
                worker.wait(40.0)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            self._closing.wait(2.0)

    def fault_points(self) -> Counter[str]:
        """How often a worker died at each named fault point."""
        return Counter(re.findall(r'\{"fault_point": "([^"]+)"\}', self.logs()))

    def logs(self) -> str:
        """All that the workers said."""
        return "\n".join(log.read_text(errors="replace") for log in sorted(self._folder.glob("worker-*.log")))

    def _supervise(self) -> None:
        while not self._closing.wait(_RESTART_S):
            with self._lock:
                for service, workers in self._workers.items():
                    alive = [worker for worker in workers if worker.poll() is None]
                    self.deaths[service] += len(workers) - len(alive)
                    self._workers[service] = alive
                    for _ in range(self._wanted[service] - len(alive)):
                        self._start(service)

    def _start(self, service: str) -> None:
        self._started += 1
        log = self._folder / f"worker-{self._started:04d}-{service}.log"
        with log.open("wb") as opened:
            self._workers[service].append(
                subprocess.Popen(
                    [sys.executable, "-m", "services.cli.main", "worker", service],
                    env=self._environment,
                    cwd=self._trees[service],
                    stdout=opened,
                    stderr=opened,
                )
            )

    def _all(self) -> list[subprocess.Popen[bytes]]:
        return [worker for workers in self._workers.values() for worker in workers]


class Recoveries:
    """When results came, and how long after each fault the next one did."""

    def __init__(self) -> None:
        self.results: list[float] = []
        self.faults: list[tuple[float, str]] = []

    def fault(self, name: str) -> None:
        self.faults.append((time.monotonic(), name))

    def result(self) -> None:
        self.results.append(time.monotonic())

    def slowest(self) -> tuple[float, str]:
        """The longest wait between a fault and the next result, in seconds, and which fault it was."""
        waits = [(min(came - at for came in self.results if came >= at), name)
                 for at, name in self.faults if self.results and at <= self.results[-1]]  # fmt: skip
        return max(waits, default=(0.0, "none"))
