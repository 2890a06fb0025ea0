"""Health over HTTP, and the watchdog that ends a worker which is stuck for good."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaConnectionError

from shared.runtime import metrics
from shared.runtime.health import Contact, HealthServer, Pulse
from shared.runtime.logs import Repetitions
from shared.runtime.outages import Outages
from shared.runtime.watchdog import Attendance

ROOT = Path(__file__).resolve().parent.parent.parent


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
        attendance = Attendance(pulse, Outages(calm_s=0.05), look_every_s=0.01)
        for seconds in (0.0, 11.0, 12.0, 0.0, 0.0):
            silence[0] = seconds
            time.sleep(0.1)
        attendance.close()
    assert caplog.messages == ["waiting for Kafka: no answer for 11 s", "Kafka works again after 11 s"]


def test_an_outage_is_told_once_with_rare_reminders_until_nobody_misses_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [1000.0]
    outages = Outages(lambda: now[0], calm_s=6.0, remind_s=300.0)
    with caplog.at_level("INFO"):
        outages.missed("Redis", "loop", "111")
        outages.missed("Redis", "probe", "no answer for 9 s")
        for now[0] in range(1001, 1400):
            outages.missed("Redis", "loop", "111")
            outages.reached("Redis", "probe")
        outages.reached("Redis", "loop", silent_s=5.0)  # an answer from before it was missed
        now[0] = 1405.0
        outages.reached("Redis", "loop", silent_s=1.0)
        now[0] = 1408.0
        outages.missed("Redis", "loop", "111")  # the same fault at the next attempt: the same outage
        for now[0] in (1410.0, 1417.0, 1418.0):
            outages.reached_again("loop")
    assert caplog.messages == [
        "waiting for Redis: 111",
        "still waiting for Redis, 300 s by now: 111",
        "Redis works again after 410 s",
    ]


def test_metrics_are_served_beside_it(server: HealthServer) -> None:
    metrics.RECORDS.labels("test-service", "done").inc()
    status, body = get(server, "/metrics")
    assert status == 200
    assert 'tonestream_records_total{outcome="done",service="test-service"}' in body
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


def said_by(logger: str, message: str, error: Exception | None = None) -> logging.LogRecord:
    trouble = None if error is None else (type(error), error, None)
    return logging.makeLogRecord({"name": logger, "msg": message, "exc_info": trouble})


def test_what_a_client_says_again_and_again_is_shown_once_and_then_with_a_count() -> None:
    now = [0.0]
    filtered = Repetitions(lambda: now[0])

    def passes(logger: str, message: str) -> bool:
        return filtered.filter(said_by(logger, message))

    assert passes("kafka.net.selector", "Task 0x7f9a ran for 1.2 s")
    assert not passes("kafka.net.selector", "Task 0x7f9b ran for 5.0 s")
    assert passes("kafka.net.selector", "something else")
    assert passes("redis.retry", "one of 3") and not passes("redis.retry", "one of 4")
    assert passes("services.x", "ours") and passes("services.x", "ours")
    for now[0] in range(10, 300, 10):
        assert not passes("kafka.net.selector", "Task 0x7f9b ran for 5.0 s")
    now[0] = 301.0
    reminder = said_by("kafka.net.selector", "Task 0x7f9b ran for 5.0 s")
    assert filtered.filter(reminder) and vars(reminder)["repeated"] == 30
    now[0] = 365.0
    later = said_by("kafka.net.selector", "Task 0x7f9c ran for 1.0 s")
    assert filtered.filter(later) and "repeated" not in vars(later), "after a quiet minute it is news"


def test_all_that_kafka_python_says_about_a_broker_that_is_away_is_one_line_without_a_traceback() -> None:
    filtered = Repetitions(lambda: 0.0)
    first = said_by("kafka.producer.sender", "Uncaught error", KafkaConnectionError("111 ECONNREFUSED"))
    assert filtered.filter(first)
    assert first.getMessage() == "Uncaught error: KafkaConnectionError: 111 ECONNREFUSED" and first.exc_info is None
    for logger, message in (
        (
            "kafka.coordinator",
            "Error sending FindCoordinatorRequest to node 1 [KafkaConnectionError: 111 ECONNREFUSED]",
        ),
        ("kafka.coordinator", "Marking the coordinator dead (node coordinator-1) for group g: Node Disconnected."),
        ("kafka.net.inet", "DNS lookup failed for kafka:19092, gaierror(-2, 'Name or service not known')"),
        (
            "kafka.consumer.fetcher",
            "Fetch to node 1 failed: [Error 7] RequestTimedOutError: Request timed out after 1 ms",
        ),
        (
            "kafka.coordinator.heartbeat",
            "Heartbeat: local member_id was not recognized; this consumer needs to re-join",
        ),
    ):
        assert not filtered.filter(said_by(logger, message)), message
    assert filtered.filter(said_by("kafka.coordinator", "Not authorized to commit offsets for group g"))


_STUCK_POLL = """
import signal, time
from shared.bus.memory import MemoryBus
from shared.runtime.logs import configure
from shared.runtime.loop import ServiceLoop
from shared.runtime.health import Pulse
from shared.runtime.watchdog import Watchdog
from tests.support.deadly_worker import Deadly
from tests.unit.test_loop import PATIENT, TOPICS

configure("INFO", "json")
bus = MemoryBus()
bus.create_topics(TOPICS.specs())
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
