"""Small helpers for servers that tests start."""

from __future__ import annotations

import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Server(ABC):
    """A server that runs. ``stop``, ``kill`` and ``start`` keep its address and data; ``close`` ends it for good."""

    #: How it was come by, and what it is.
    way: str
    version: str

    @property
    def pid(self) -> int | None:
        """Its process on this machine while it runs, for whoever measures it; None if there is none to be seen."""
        return None

    @abstractmethod
    def start(self) -> None:
        """Start it and return when it answers."""

    @abstractmethod
    def stop(self) -> None:
        """A controlled shutdown."""

    @abstractmethod
    def kill(self) -> None:
        """No shutdown at all, as when the machine dies."""

    @abstractmethod
    def close(self) -> None:
        """End it and remove what it stored."""

    def restart(self) -> None:
        """Stop and start: same address, same data."""
        self.stop()
        self.start()


class ProcessServer(Server):
    """One that is a process of this machine, which ``start`` puts into ``_process``."""

    #: How long a controlled shutdown may take, seconds.
    stop_patience_s = 10.0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        if self._process is not None:
            end(self._process, self.stop_patience_s)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class NotAvailableError(Exception):
    """A server cannot be had this way; the message says why."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def run(command: Sequence[str], timeout_s: float) -> str:
    """The standard output of ``command``. NotAvailableError with the reason if it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        raise NotAvailableError(f"there is no `{command[0]}` here") from None
    except subprocess.TimeoutExpired:
        raise NotAvailableError(f"`{' '.join(command[:3])}` gave no answer in {timeout_s:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise NotAvailableError(f"`{' '.join(command[:3])}` failed: {' / '.join(said)}")
    return done.stdout


def docker_image(image: str) -> None:
    """Make sure that a Docker engine answers and has the image. NotAvailableError if not."""
    run(["docker", "info", "--format", "{{.ServerVersion}}"], timeout_s=5)
    if not run(["docker", "images", "--quiet", image], timeout_s=10).strip():
        run(["docker", "pull", "--quiet", image], timeout_s=180)


def container_pid(container: str) -> int | None:
    """The main process of a container, if it runs on this very machine and not in a virtual one."""
    said = run(["docker", "inspect", "--format", "{{.State.Pid}}", container], timeout_s=10).strip()
    return int(said) if said.isdigit() and Path("/proc", said).exists() else None


def wait_for_port(port: int, process: subprocess.Popen[bytes] | None, log: Path | None, timeout_s: float) -> None:
    """Return once something listens on the port. NotAvailableError if the process ends or time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        if process is not None and process.poll() is not None:
            raise NotAvailableError(f"the server ended with status {process.returncode}: {tail(log)}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise NotAvailableError(
                    f"nothing listened on port {port} after {timeout_s:.0f} s: {tail(log)}"
                ) from None
            time.sleep(0.05)


def end(process: subprocess.Popen[Any], patience_s: float = 10.0) -> None:
    """End a process: politely, then not."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tail(log: Path | None, lines: int = 5) -> str:
    """The last lines of a log on one line."""
    if log is None or not log.exists():
        return "no log"
    return " / ".join(log.read_text(errors="replace").splitlines()[-lines:])
