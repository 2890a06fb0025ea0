"""The probe of a container: cheap, and clear whatever the worker does."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from shared.runtime import health_probe
from shared.runtime.health import HealthServer, Pulses

PROBE = [sys.executable, "-I", "-S", health_probe.__file__]


def probe(port: object, *arguments: str) -> tuple[int, str, str]:
    environment = {**os.environ, "TONESTREAM_HEALTH_PORT": str(port)}
    done = subprocess.run(
        [*PROBE, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    return done.returncode, done.stdout, done.stderr


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that gives one such answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield int(listening.getsockname()[1])


@pytest.mark.parametrize(("stall_s", "status"), [(900.0, 0), (0.0, 1)], ids=["alive", "stuck"])
def test_a_worker_that_is_alive_is_healthy_and_one_that_is_stuck_is_not(stall_s: float, status: int) -> None:
    server = HealthServer(Pulses(), "127.0.0.1", 0, stale_s=30.0, stall_s=stall_s)
    try:
        found, said, complained = probe(server.port)
        assert (found, complained) == (status, "") and json.loads(said)["live"] is (status == 0)
        assert health_probe.ask(server.port)[0] is (status == 0)
        assert not health_probe.ask(server.port, health_probe.READY)[0]  # it has not polled yet
        assert probe(server.port, health_probe.READY)[0] == 1
    finally:
        server.close()


def test_nobody_there_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    refused = f"[Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"
    assert probe(port) == (1, "", f"no worker answers on port {port}: {refused}\n")


@pytest.mark.parametrize(
    "answer",
    [lambda one: None, lambda one: one.sendall(b"HTTP/1.1 200 OK\r\n"), lambda one: one.sendall(b"SSH-2.0\r\n\r\n")],
    ids=["nothing", "broken off", "another protocol"],
)
def test_an_answer_that_breaks_off_is_one_line(answer: Callable[[socket.socket], None]) -> None:
    with answering(answer) as port:
        status, said, complained = probe(port)
    assert (status, said) == (1, "") and complained.count("\n") == 1
    assert complained.startswith(f"no worker answers on port {port}: ")


def test_a_worker_that_gives_its_answer_drop_by_drop_is_not_waited_for() -> None:
    def drip(connection: socket.socket) -> None:
        with suppress(OSError):
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.05)

    started = time.monotonic()
    with answering(drip) as port, pytest.raises(OSError, match="timed out"):
        health_probe.ask(port, timeout_s=0.5)
    assert time.monotonic() - started < 3.0


@pytest.mark.parametrize("port", ["", "x", "0", "65536"])
def test_a_port_that_is_none_is_named(port: str) -> None:
    assert probe(port) == (2, "", f"TONESTREAM_HEALTH_PORT is {port!r}, and no port\n")


def test_the_probe_loads_nothing_but_sockets() -> None:
    source = Path(health_probe.__file__).read_text(encoding="utf-8")
    imported = [line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert set(imported) == {"os", "socket", "sys", "time"}
