"""Kafka and Redis that go and come back, on real servers: a worker waits for them, and its health says so."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.bus.kafka.bus import KafkaBus, KafkaConfig
from shared.bus.topics import topic_specs
from shared.contracts.topics import Topics
from tests.support.environment import worker_environment
from tests.support.kafka_broker import KafkaBroker
from tests.support.names import Names
from tests.support.processes import Server, free_port
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(240)]

#: How soon health has to tell that a server is gone, and that it is back.
PROMISED_S = 15.0


class Worker:
    """A worker process with its health endpoint and its log."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._port = free_port()
        self._log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.deadly_worker"],
                env=environment | {"TONESTREAM_HEALTH_PORT": str(self._port)},
                stderr=stderr,
            )

    def ask(self, probe: str) -> tuple[int, dict[str, Any]]:
        """Status and report; 0 if nobody answers yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/{probe}", timeout=5) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
        except OSError:
            return 0, {}

    def until(self, probe: str, status: int, timeout_s: float) -> tuple[float, dict[str, Any]]:
        """How long it takes until ``probe`` has that status, and its report."""
        began = time.monotonic()
        while True:
            found, report = self.ask(probe)
            took = time.monotonic() - began
            if found == status:
                return took, report
            assert self.process.poll() is None, self.log()
            assert took < timeout_s, f"{found} {report}\n{self.log()}"
            time.sleep(0.1)

    def log(self) -> str:
        return self._log.read_text()

    def lines(self, *containing: str) -> int:
        return sum(any(part in line for part in containing) for line in self.log().splitlines())

    def terminated_in(self) -> float:
        """Seconds that SIGTERM takes; its status has to be that of an orderly end."""
        began = time.monotonic()
        self.process.terminate()
        assert self.process.wait(30) == 0, self.log()
        return time.monotonic() - began


@pytest.fixture
def start(bootstrap_servers: str, redis_url: str, names: Names, tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    bus = KafkaBus(KafkaConfig(bootstrap_servers))
    bus.create_topics(topic_specs(Topics(names.prefix)))
    bus.close()
    environment = worker_environment(tmp_path, bootstrap_servers, redis_url, names.prefix)
    workers: list[Worker] = []

    def started() -> Worker:
        workers.append(Worker(environment, tmp_path / f"{len(workers)}.log"))
        return workers[-1]

    yield started
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


@pytest.mark.parametrize("name", ["Kafka", "Redis"])
def test_a_worker_whose_server_goes_is_live_and_not_ready_until_it_is_back_and_one_that_starts_meanwhile_waits(
    name: str, start: Callable[[], Worker], kafka_broker: KafkaBroker, redis_server: RedisServer
) -> None:
    server: Server = {"Kafka": kafka_broker, "Redis": redis_server}[name]
    idle = start()
    _, report = idle.until("readyz", 200, 40)
    assert "Kafka and Redis answer" in report["because"]
    server.stop()
    try:
        late, impatient = start(), start()
        gone_s, report = idle.until("readyz", 503, PROMISED_S)
        assert f"{name} has not answered for" in report["because"], report
        for worker in (late, impatient):
            worker.until("livez", 200, 40)
            deadline = time.monotonic() + 40
            while f"{name} is away" not in (report := worker.ask("readyz")[1])["because"]:
                assert time.monotonic() < deadline, report
                time.sleep(0.1)
        # It waits, inside an attempt or between two.
        time.sleep(1)
        ended_s = impatient.terminated_in()
        assert ended_s < 2, f"SIGTERM took {ended_s:.1f} s"
        for worker in (idle, late):
            assert worker.ask("livez")[0] == 200 and worker.ask("readyz")[0] == 503
        assert len(late.log().splitlines()) == 1, late.log()
        assert len(idle.log().splitlines()) < 8, idle.log()
    finally:
        server.start()
    back_s, _ = idle.until("readyz", 200, PROMISED_S)
    late_s, _ = late.until("readyz", 200, PROMISED_S)
    print(f"{name}: not ready {gone_s:.1f} s after its end, ready {back_s:.1f} s and {late_s:.1f} s after its return")
    deadline = time.monotonic() + 5
    while not idle.lines(f"{name} answers again"):
        assert time.monotonic() < deadline, idle.log()
    for worker, away, there in (
        (idle, f"{name} has not answered", f"{name} answers again"),
        (late, f"{name} is away", f"{name} is there"),
    ):
        assert (worker.lines(away), worker.lines(there)) == (1, 1), worker.log()
        assert worker.terminated_in() < 10
