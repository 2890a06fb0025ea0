"""``tonestream topics create`` on a bus that shows less than it has, and on one that comes late."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.cli.commands import topics as command
from services.cli.main import main
from shared.bus import connect
from shared.bus.base import BusUnavailableError, TopicSpec
from shared.bus.memory import MemoryBus


class Secretive(MemoryBus):
    """A client may create its topics and describe none of them."""

    def existing(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        return {}

    def grow_topics(self, partitions: dict[str, int]) -> None:
        assert partitions == {}


@pytest.mark.parametrize("more", [[], ["--partitions", "3"]])
def test_topics_that_may_not_be_described_are_created_all_the_same(
    more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = Secretive()
    monkeypatch.setattr(connect, "kafka_bus", lambda settings, client_id: bus)
    assert main(["topics", "create", *more]) == 0
    said = capsys.readouterr()
    assert "created tonestream.requests\n" in said.out and said.err == ""
    assert main(["topics", "create", *more]) == 0
    said = capsys.readouterr()
    assert "created" not in said.out
    assert ("tonestream.requests may not be described by this client" in said.err) == bool(more)


class Late(MemoryBus):
    """The broker answers the third attempt."""

    attempts = 0

    def create_topics(self, topics: Sequence[TopicSpec], timeout_s: float = 30.0) -> list[str]:
        self.attempts += 1
        if self.attempts < 3:
            raise BusUnavailableError("no Kafka broker answers at kafka:9092, as hush-hush")
        return super().create_topics(topics, timeout_s)


def test_a_broker_that_comes_late_is_waited_for_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = Late()
    monkeypatch.setenv("TONESTREAM_KAFKA_SASL_PASSWORD", "hush-hush")
    monkeypatch.setattr(connect, "kafka_bus", lambda settings, client_id: bus)
    monkeypatch.setattr(command, "_PAUSE_S", 0.0)
    assert main(["topics", "create"]) == 1
    assert "no Kafka broker answers" in capsys.readouterr().err
    assert main(["topics", "create", "--wait"]) == 0
    said = capsys.readouterr()
    assert said.err.count("waiting for Kafka: no Kafka broker answers") == 1 and "hush" not in said.err
    assert "created tonestream.requests\n" in said.out and bus.attempts == 3
