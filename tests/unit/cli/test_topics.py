"""``tonestream topics create`` on a bus that shows less than it has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.cli.main import main
from shared.bus import connect
from shared.bus.base import TopicSpec
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
