"""What a Kafka or Redis that goes away in the midst of work leaves in the logs, on real servers."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.bus.base import BusError
from shared.bus.kafka import KafkaBus, KafkaConfig
from shared.contracts.codec import outgoing
from shared.contracts.messages import TrackRequest
from shared.contracts.topics import Topics
from tests.support.environment import worker_environment
from tests.support.kafka_broker import KafkaBroker
from tests.support.names import Names
from tests.support.processes import Server
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(240)]

#: A Redis that is away is noticed at once by those who need it.
AWAY_S = {"Kafka": 18.0, "Redis": 9.0}
#: That it is gone and that it is back, what its clients say first, and what became of the batch in hand.
MOST_LINES = 6


_URL = "https://example.org/a.mp3"


class Process:
    """A process, and what it wrote since a moment."""

    def __init__(self, module: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        self._mark = 0
        with log.open("wb") as stderr:
            command = [sys.executable, "-m", module, *arguments]
            self.process = subprocess.Popen(command, env=environment, stderr=stderr, stdout=subprocess.DEVNULL)

    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()[self._mark :]

    def from_now(self) -> None:
        self._mark += len(self.lines())

    def said(self, pattern: str) -> list[str]:
        return [line for line in self.lines() if re.search(pattern, line)]

    def until(self, pattern: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.said(pattern):
            assert time.monotonic() < deadline, "\n".join(self.lines())
            time.sleep(0.1)


@pytest.fixture
def busy(bootstrap_servers: str, redis_url: str, names: Names, tmp_path: Path) -> Iterator[dict[str, Process]]:
    """Two workers that are given requests all the time, and a `results --follow`."""
    topics = Topics(names.prefix)
    bus = KafkaBus(KafkaConfig(bootstrap_servers))
    bus.create_topics(topics.specs())
    environment = worker_environment(tmp_path, bootstrap_servers, redis_url, names.prefix)
    command: Callable[..., Process] = lambda name, module, *given: Process(  # noqa: E731
        module, list(given), environment, tmp_path / f"{name}.log"
    )
    running = {name: command(name, "tests.support.deadly_worker") for name in ("first", "second")}
    running["results"] = command("results", "services.cli.main", "results", "--follow")
    ended = threading.Event()

    def feed() -> None:
        with bus.publisher() as publisher:
            while not ended.wait(0.2):
                requests = [TrackRequest(request_id=uuid.uuid4().hex, audio_url=_URL) for _ in range(10)]
                with contextlib.suppress(BusError):
                    publisher.publish([outgoing(topics, request) for request in requests], 2.0)

    feeder = threading.Thread(target=feed)
    try:
        for name in ("first", "second"):
            running[name].until('"started"', 40)
        feeder.start()
        time.sleep(4)
        yield running
    finally:
        ended.set()
        feeder.join()
        for one in running.values():
            one.process.kill()
            one.process.wait()
        bus.close()


@pytest.mark.parametrize("name", ["Kafka", "Redis"])
def test_a_server_that_goes_in_the_midst_of_work_makes_one_line_when_it_goes_and_one_when_it_is_back(
    name: str, busy: dict[str, Process], kafka_broker: KafkaBroker, redis_server: RedisServer
) -> None:
    server: Server = {"Kafka": kafka_broker, "Redis": redis_server}[name]
    for one in busy.values():
        one.from_now()
    server.kill()
    try:
        time.sleep(AWAY_S[name])
    finally:
        server.start()
    concerned = {who: one for who, one in busy.items() if who != "results" or name == "Kafka"}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not all(one.said(f"{name} works again") for one in concerned.values()):
        time.sleep(0.2)
    counts = {who: len(one.lines()) for who, one in busy.items()}
    told = "\n".join(f"{who}: {line[:300]}" for who, one in busy.items() for line in one.lines())
    print(f"{name} away for {AWAY_S[name]:.0f} s: {counts} lines\n{told}")
    for one in concerned.values():
        assert (len(one.said(f"waiting for {name}:")), len(one.said(f"{name} works again after"))) == (1, 1), told
    assert max(counts.values()) <= MOST_LINES, told
    for line in (line for who in ("first", "second") for line in busy[who].lines()):
        fields: dict[str, Any] = json.loads(line)
        assert "exception" not in fields, line
        assert not fields["message"].startswith("waiting") or fields["since"].startswith("20")
        assert "works again" not in line or abs(fields["lasted_s"] - AWAY_S[name]) < 15, line
