"""Health over HTTP, and the watchdog that ends a worker which is stuck for good."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.runtime import metrics
from shared.runtime.health import HealthServer, Pulse

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def pulse() -> Pulse:
    return Pulse()


@pytest.fixture
def server(pulse: Pulse) -> Iterator[HealthServer]:
    made = HealthServer(pulse, "127.0.0.1", 0, stale_s=30.0)
    yield made
    made.close()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_is_green_only_after_a_poll_and_says_what_is_waited_for(server: HealthServer, pulse: Pulse) -> None:
    assert get(server, "/healthz")[0] == 503
    pulse.polled()
    status, body = get(server, "/healthz")
    assert status == 200 and json.loads(body)["healthy"] is True
    pulse.waiting("Redis cannot be used")
    status, body = get(server, "/healthz")
    assert status == 503 and json.loads(body)["waiting_for"] == "Redis cannot be used"


def test_metrics_are_served_beside_it(server: HealthServer) -> None:
    metrics.RECORDS.labels("test-service", "done").inc()
    status, body = get(server, "/metrics")
    assert status == 200
    assert 'tonestream_records_total{outcome="done",service="test-service"}' in body
    assert get(server, "/secrets")[0] == 404


@pytest.mark.parametrize(("waiting", "status"), [("None", 70), ("'Redis'", 0)])
def test_a_worker_stuck_in_a_batch_ends_itself_but_not_one_that_waits_for_a_dependency(
    waiting: str, status: int
) -> None:
    script = (
        "import time; from shared.runtime.health import Pulse; from shared.runtime.watchdog import Watchdog;"
        f"pulse = Pulse(); pulse.batch_started(); pulse.waiting({waiting});"
        "Watchdog(pulse, stall_s=0.2); time.sleep(2)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == status
