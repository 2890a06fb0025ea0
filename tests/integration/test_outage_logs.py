"""A server that goes away is a line or two in the log of each worker, not thousands."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.kafka_broker import KafkaBroker
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SERVICES = ("ingestion", "aggregator")
AWAY_S = 15.0
#: Without the filter of repeated lines a worker says 20 in that time, with it 3 or 4.
MOST_A_WORKER = 12


def test_a_server_that_goes_and_comes_back_is_said_once_each(
    kafka_broker: KafkaBroker, redis_server: RedisServer, tmp_path: Path, names: Names
) -> None:
    addresses = (kafka_broker.bootstrap_servers, redis_server.url)
    with Pipeline(tmp_path, *addresses, names.prefix, services=SERVICES) as pipeline:
        until(lambda: all(said(log)["started"] for log in logs(tmp_path)))

        def answered_again(name: str) -> bool:
            return all(bool(said(log)[f"{name} answers again"]) for log in logs(tmp_path))

        for name, server in (("Kafka", kafka_broker), ("Redis", redis_server)):
            time.sleep(3.0)
            before = {log: len(log.read_text().splitlines()) for log in logs(tmp_path)}
            server.stop()
            time.sleep(AWAY_S)
            server.start()
            until(partial(answered_again, name))
            for log in logs(tmp_path):
                lines = log.read_text().splitlines()[before[log] :]
                assert len(lines) <= MOST_A_WORKER, "\n".join(lines)
                assert sum(f"{name} has not answered" in line for line in lines) == 1, "\n".join(lines)
        assert pipeline.dead() == []


def logs(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.log"))
    assert len(found) == len(SERVICES)
    return found


def said(log: Path) -> Counter[str]:
    return Counter(json.loads(line)["message"] for line in log.read_text().splitlines())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)
