"""Health over HTTP, and the watchdog that ends a worker which is stuck for good."""

from __future__ import annotations

import json
import logging
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shared.runtime import metrics
from shared.runtime.health import Contact, HealthServer, Pulse
from shared.runtime.logs import REPEATING, NotAgain
from shared.runtime.watchdog import Attendance, Watchdog

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def pulse() -> Pulse:
    return Pulse()


@pytest.fixture
def server(pulse: Pulse) -> Iterator[HealthServer]:
    made = HealthServer(pulse, "127.0.0.1", 0, stale_s=30.0, stall_s=900.0)
    yield made
    made.close()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def asked(server: HealthServer, path: str) -> tuple[int, dict[str, Any]]:
    status, body = get(server, path)
    return status, json.loads(body)


def test_a_worker_that_starts_is_live_but_not_ready(server: HealthServer) -> None:
    status, report = asked(server, "/livez")
    assert (status, report["live"], report["because"]) == (200, True, "it is starting")
    status, report = asked(server, "/readyz")
    assert (status, report["ready"], report["because"]) == (503, False, "it is starting and has not polled yet")


def test_a_probe_that_hangs_up_early_leaves_no_traceback(
    server: HealthServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def closed(request: socket.socket) -> None:
        request.close()
        answered.set()

    monkeypatch.setattr(server._server, "shutdown_request", closed)
    with socket.create_connection(("127.0.0.1", server.port)) as probe:
        probe.send(b"GET /readyz HTTP/1.1\r\n")
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets the connection
    assert answered.wait(5)
    assert capsys.readouterr().err == ""


def test_a_worker_that_polls_is_ready_and_one_that_waits_for_a_server_is_live_and_says_for_what(
    server: HealthServer, pulse: Pulse
) -> None:
    pulse.polled()
    assert asked(server, "/readyz")[1]["because"] == "it polled 0 s ago"
    pulse.waiting("Redis cannot be used")
    status, report = asked(server, "/readyz")
    assert status == 503 and report["because"] == "it waits: Redis cannot be used"
    assert report["waiting_for"] == "Redis cannot be used"
    assert asked(server, "/livez")[0] == 200


def test_a_worker_whose_servers_give_no_answer_is_not_ready_and_names_them(server: HealthServer, pulse: Pulse) -> None:
    silence = {"Kafka": 0.0, "Redis": 0.0}
    pulse.watch(*(Contact(name, partial(silence.__getitem__, name), 10.0) for name in silence))
    pulse.polled()
    assert asked(server, "/readyz")[1]["because"] == "it polled 0 s ago, and Kafka and Redis answer"
    silence["Kafka"] = 88.0
    status, report = asked(server, "/readyz")
    assert (status, report["because"]) == (503, "Kafka has not answered for 88 s")
    assert asked(server, "/livez")[0] == 200
    silence["Redis"] = 11.0
    assert "Redis has not answered for 11 s" in asked(server, "/readyz")[1]["because"]


def test_a_worker_whose_loop_or_batch_is_stuck_is_not_live(pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    pulse.polled()
    assert pulse.live(10).ok
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 11)
    assert not pulse.live(10).ok and pulse.live(10).because == "its loop has not moved for 11 s"
    assert "it last polled 11 s ago" in pulse.ready(10).because
    pulse.moved()
    assert pulse.live(10).ok
    pulse.batch_started()
    monkeypatch.setattr(time, "monotonic", lambda: now + 22)
    pulse.polled()
    assert not pulse.live(10).ok and pulse.live(10).because == "it has worked on one batch for 11 s"
    pulse.waiting("Redis")
    assert pulse.live(10).ok, "it is Redis that is late"


def test_a_worker_that_ends_by_itself_is_left_alone_and_takes_no_work(pulse: Pulse) -> None:
    pulse.polled()
    pulse.stop_asked()
    assert pulse.live(10).ok and pulse.ready(10).because == "it was asked to end"
    pulse.watch(Contact("Kafka", lambda: 100.0, 10.0))
    pulse.stopped("too many dead letters")
    assert pulse.contacts == (), "it has left its group, and Kafka does not answer it any more"
    assert pulse.live(-1).ok and pulse.ready(10).because == "it stopped: too many dead letters"


def test_the_old_name_of_the_probe_asks_whether_the_worker_is_live(server: HealthServer, pulse: Pulse) -> None:
    pulse.waiting("Kafka")
    assert get(server, "/healthz")[0] == 200
    assert asked(server, "/healthz")[1]["live"] is True


def test_a_server_that_goes_and_comes_back_makes_one_line_of_log_each(
    pulse: Pulse, caplog: pytest.LogCaptureFixture
) -> None:
    silence = [0.0]
    pulse.watch(Contact("Kafka", lambda: silence[0], 10.0))
    with caplog.at_level("INFO"):
        attendance = Attendance(pulse, look_every_s=0.01)
        for seconds in (0.0, 11.0, 12.0, 0.0, 0.0):
            silence[0] = seconds
            time.sleep(0.1)
        attendance.close()
    assert caplog.messages == ["Kafka has not answered for 11 s; waiting for it", "Kafka answers again"]


def test_metrics_are_served_beside_it(server: HealthServer) -> None:
    metrics.RECORDS.labels("aggregator", "done").inc()
    status, body = get(server, "/metrics")
    assert status == 200
    assert 'tonestream_records_total{outcome="done",service="aggregator"}' in body
    # Nothing has polled yet.
    assert "\ntonestream_ready 0.0\n" in body
    assert get(server, "/secrets")[0] == 404


STUCK = {
    "in a batch": ("pulse.batch_started()", "pulse.polled()", 70),
    "in its loop": ("pulse.polled()", "pass", 70),
    "in its loop while it waits": ("pulse.waiting('Kafka')", "pass", 70),
    "in its loop after it was asked to end": ("pulse.stop_asked()", "pass", 70),
    "not: it waits for Redis": ("pulse.batch_started()", "pulse.waiting('Redis')", 0),
    "in a batch after it was asked to end": ("pulse.batch_started(); pulse.stop_asked()", "pulse.polled()", 70),
    "not: it ends when it is asked to": ("pulse.stop_asked()", "end = 0", 0),
}


@pytest.mark.parametrize("where", STUCK)
def test_a_worker_that_is_stuck_ends_itself_and_logs_what_its_threads_do(where: str) -> None:
    first, then, status = STUCK[where]
    stall_s = 60 if "asked" in where else 0.3
    script = (
        "import time; from shared.runtime.health import Pulse; from shared.runtime.watchdog import Watchdog\n"
        "from shared.runtime.logs import configure; configure('INFO', 'json')\n"
        f"pulse = Pulse(); {first}; Watchdog(pulse, stall_s={stall_s}, stop_s=0.3)\n"
        "def stuck_here():\n"
        "    end = time.monotonic() + 1.5\n"
        f"    while time.monotonic() < end: time.sleep(0.02); {then}\n"
        "stuck_here()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False, capture_output=True, text=True
    )
    assert done.returncode == status, done.stderr
    if status:
        (line,) = (json.loads(line) for line in done.stderr.splitlines())
        assert "ending the process" in line["message"] and "in stuck_here" in line["stacks"]
        assert "MainThread" in line["stacks"] and "watchdog" in line["stacks"]


def ended(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, timeout=60, check=False, capture_output=True, text=True)


def test_a_worker_that_is_stuck_while_it_holds_the_lock_of_the_log_ends_and_leaves_its_stacks() -> None:
    done = ended(
        "import logging, time; from shared.runtime.health import Pulse; from shared.runtime import watchdog\n"
        "from shared.runtime.logs import configure; configure('INFO', 'json')\n"
        "watchdog._LAST_WORDS_S = 0.3\n"
        "watchdog.Watchdog(Pulse(), stall_s=0.3)\n"
        "def stuck_here():\n"
        "    logging.getLogger().handlers[0].acquire(); time.sleep(30)\n"
        "stuck_here()"
    )
    assert done.returncode == Watchdog.EXIT_STATUS and "in stuck_here" in done.stderr


def test_native_code_that_never_gives_back_the_lock_of_python_still_leaves_stacks() -> None:
    done = ended(
        "import ctypes; from shared.runtime.health import Pulse; from shared.runtime import watchdog\n"
        "import time; watchdog._NATIVE_S = 0.5\n"
        "guard = watchdog.Watchdog(Pulse(), stall_s=0.4, stop_s=5); time.sleep(0.2)\n"
        "def stuck_here():\n"
        "    ctypes.PyDLL(None).usleep(2_500_000)  # PyDLL keeps the lock meanwhile\n"
        "stuck_here()\n"
        "time.sleep(0.01); guard.close()"
    )
    assert "in stuck_here" in done.stderr and "Timeout" in done.stderr


def test_what_is_said_again_and_again_is_logged_once_a_minute_with_a_count() -> None:
    now = [0.0]
    once = NotAgain(lambda: now[0])

    def said(logger: str, message: str, *values: object, **extra: object) -> str | None:
        record = logging.makeLogRecord({"name": logger, "msg": message, "args": values, **extra})
        return record.getMessage() if once.filter(record) else None

    assert said("kafka.coordinator", "no answer from %s", "node 1") == "no answer from node 1"
    assert said("kafka.coordinator", "no answer from %s", "node 2") is None, "the same of another node"
    assert said("kafka.coordinator", "something else") == "something else"
    assert said("shared.bus", "x") == said("shared.bus", "x") == "x", "what is not marked is always said"
    for count in range(30):
        assert (said("shared.runtime.loop", "put off: %s", "away", **REPEATING) is None) is (count > 0)
    now[0] = 61.0
    assert said("kafka.coordinator", "no answer from %s", "node 1") == "no answer from node 1 (and 1 times before)"
    assert said("shared.runtime.loop", "put off: %s", "away", **REPEATING) == "put off: away (and 29 times before)"
    now[0] = 122.0
    assert said("shared.runtime.loop", "put off: %s", "away", **REPEATING) == "put off: away"


_STUCK_POLL = """
import signal, time
from shared.bus.memory import MemoryBus
from shared.bus.topics import topic_specs
from shared.runtime.logs import configure
from shared.runtime.loop import ServiceLoop
from shared.runtime.health import Pulse
from shared.runtime.watchdog import Watchdog
from tests.support.deadly_worker import Deadly
from tests.support.loop_bench import PATIENT, TOPICS

configure("INFO", "json")
bus = MemoryBus()
bus.create_topics(topic_specs(TOPICS))
membership = bus.join("g", [TOPICS.name(channel) for channel in Deadly.inputs])
def never_returns(max_records, timeout_s):
    print("polling", flush=True)
    while True: pass
membership.poll = never_returns
pulse = Pulse()
loop = ServiceLoop(Deadly(), membership, TOPICS, PATIENT, pulse)
def stop(number, frame):
    pulse.stop_asked()
    loop.stop()
signal.signal(signal.SIGTERM, stop)
Watchdog(pulse, stall_s=60, stop_s=0.5)
loop.run()
"""


def test_a_worker_whose_poll_never_returns_still_ends_on_sigterm() -> None:
    command = [sys.executable, "-c", _STUCK_POLL]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == "polling\n"
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 70
    assert "asked to end" in said and "in never_returns" in said
