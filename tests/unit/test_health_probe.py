"""The probe that containers run: what it says of a worker that is well, unwell, absent, late or broken."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services import health_probe
from services.cli.main import main
from services.health_probe import NoAnswerError, ask
from shared.runtime.health import HealthServer, Pulse
from tests.support.processes import free_port

SCRIPT = Path(health_probe.__file__)


def probe(port: int | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), *arguments],
        env={"PATH": os.environ["PATH"], "TONESTREAM_HEALTH_PORT": str(port)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does ``answer`` with its first connection; its port."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def test_the_probe_tells_a_worker_that_is_alive_from_one_that_is_ready() -> None:
    pulse = Pulse()
    server = HealthServer(pulse, "127.0.0.1", 0, stale_s=10, stall_s=10)
    try:
        pulse.polled()
        for arguments in ([], ["--ready"]):
            well = probe(server.port, *arguments)
            assert (well.returncode, well.stderr) == (0, "") and "because" in json.loads(well.stdout)
        pulse.waiting("Redis is away")
        alive, not_ready = probe(server.port), probe(server.port, "--ready")
        assert alive.returncode == 0 and json.loads(alive.stdout)["live"] is True
        assert not_ready.returncode == 1 and json.loads(not_ready.stdout)["because"] == "it waits: Redis is away"
        assert main(["health", "--port", str(server.port)]) == 0
        assert main(["health", "--port", str(server.port), "--ready"]) == 1
    finally:
        server.close()


def test_where_nobody_answers_the_probe_says_so_in_one_line() -> None:
    port = free_port()
    nobody = probe(port)
    assert nobody.returncode == 1 and nobody.stdout == ""
    assert nobody.stderr == f"health_probe: no worker answers on port {port}: Connection refused\n"
    for wrong in (probe(""), probe("80 "), probe(70000), probe(80, "--live")):
        assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1


def _drip(connection: socket.socket) -> None:
    for _ in range(40):
        connection.sendall(b"H")
        time.sleep(0.1)


BROKEN: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "silent": (lambda connection: time.sleep(1), "gave no answer within 0.5 s"),
    "dripping": (_drip, "gave no answer within 0.5 s"),
    "gone": (lambda connection: None, "broke off its answer"),
    "gone in its head": (lambda connection: connection.sendall(b"HTTP/1.0 200 OK\r\nContent-"), "broke off its answer"),
    "gone in its report": (
        lambda connection: connection.sendall(b'HTTP/1.0 200 OK\r\nContent-Length: 90\r\n\r\n{"live"'),
        "broke off its answer",
    ),
    "another server": (lambda connection: connection.sendall(b"-ERR unknown command\r\n"), "is no worker"),
    "another web server": (
        lambda connection: connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        "is no worker",
    ),
    "endless": (lambda connection: connection.sendall(b"y" * 500_000), "is no worker"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_an_answer_that_is_late_or_breaks_off_is_none_and_the_reason_is_named(fault: str) -> None:
    answer, reason = BROKEN[fault]

    def after_the_question(connection: socket.socket) -> None:
        connection.recv(1000)
        answer(connection)

    began = time.monotonic()
    with answering(after_the_question) as port:
        with pytest.raises(NoAnswerError, match=reason):
            ask(port, ready=False, timeout_s=0.5)
        assert time.monotonic() - began < 3


def test_the_probe_imports_nothing_that_takes_time() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported == {"os", "socket", "sys", "time"}
    script = f"import runpy, sys; runpy.run_path({str(SCRIPT)!r}); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert not {"argparse", "http", "json", "logging", "urllib", "services", "shared"} & set(
        ast.literal_eval(loaded.stdout)
    )
