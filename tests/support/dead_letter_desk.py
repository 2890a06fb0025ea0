"""Dead letters on the memory bus, and the command line that an operator uses on them."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from services.cli.main import main
from shared.bus.base import Outgoing, Reader, Record
from shared.bus.memory import MemoryBus
from shared.bus.topics import topic_specs
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import ErrorReport, GenreFailure, Stage
from shared.contracts.topics import Channel, Topics
from shared.runtime.dead_letters import dead_letter
from shared.runtime.envelope import outgoing
from shared.state.connection import connect
from shared.state.keys import Keys
from shared.state.requests import Requests
from tests.support.loop_bench import Bench, request


def failed(error: Exception) -> Exception:
    """``error`` as it is after being raised: with a stack trace."""
    try:
        raise error
    except Exception as raised:
        return raised


def run_to_its_end(bench: Bench) -> list[Exception]:
    raised: list[Exception] = []

    def run() -> None:
        try:
            bench.loop.run()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    if thread.is_alive():
        bench.loop.stop()
        thread.join(5)
    return raised


class Open(MemoryBus):
    """A bus that outlives the command that closes it."""

    def close(self) -> None:
        pass


class Desk:
    """The command line over a memory bus and a Redis of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.bus = Open()
        self.topics = Topics("desk")
        self.bus.create_topics(topic_specs(self.topics))
        # What every reader has passed is dropped: one that stays behind makes a log of it, as Kafka's is.
        self._keeper = self.bus.reader([self.topics.name(Channel.DEAD_LETTERS)])
        url = f"memory://{time.monotonic_ns()}"
        self.redis, self.keys = connect(url), Keys("desk")
        self.capsys = capsys
        for variable, value in (("REDIS_URL", url), ("REDIS_PREFIX", "desk"), ("TOPIC_PREFIX", "desk")):
            monkeypatch.setenv(f"TONESTREAM_{variable}", value)
        monkeypatch.setattr("shared.bus.connect.kafka_bus", lambda settings, client_id: self.bus)

    def requests(self) -> Requests:
        return Requests.open(self.redis, self.keys, "desk", 100, 100.0)

    def command(self, *arguments: str) -> tuple[int, str, str]:
        status = main(["dead-letters", *arguments])
        captured = self.capsys.readouterr()
        return status, captured.out, captured.err

    def to_dead_letters(self, sent: Outgoing, stage: Stage, offset: int = 0, error: Exception | None = None) -> None:
        original = Record(sent.topic, 0, offset, sent.key, sent.value, sent.headers)
        letter = dead_letter(self.topics, original, stage, failed(error or ValueError("a defect")), 1)
        self.bus.publisher().publish([letter])

    def bury_request(self, name: str, offset: int = 0) -> Outgoing:
        sent = outgoing(self.topics, request(name), key="one")
        self.to_dead_letters(sent, Stage.INGESTION, offset)
        return sent

    def bury_prediction(self, name: str) -> Outgoing:
        error = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.GENRE_WORKER, message="x")
        sent = outgoing(self.topics, GenreFailure(request_id=name, track_key="one", error=error))
        self.to_dead_letters(sent, Stage.AGGREGATOR)
        return sent

    def reader(self, channel: Channel) -> Reader:
        return self.bus.reader([self.topics.name(channel)])

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        status, out, _ = self.command("list", "--json", *arguments)
        assert status == 0
        return [json.loads(line) for line in out.splitlines()]
