"""How far it is from a record's arrival to its handler, counted on the stacks of real threads."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import ClassVar

import pytest

from shared.bus.memory import MemoryBus
from shared.bus.topics import topic_specs
from shared.contracts.messages import IngestedTrack, Stage, TrackRequest
from shared.contracts.topics import Channel
from shared.runtime.envelope import outgoing
from shared.runtime.loops import loop_class
from shared.runtime.service import Delivery, Origin, Outcome, TrackByTrackService
from tests.support.loop_bench import PATIENT, TOPICS, request
from tests.support.samples import ROOT

MOST_FRAMES = 8
MOST_FILES = 6


def of_ours(frame: FrameType | None) -> list[tuple[str, str]]:
    """The (file, function) of our frames, outermost first."""
    found = []
    for entry in traceback.extract_stack(frame):
        file = Path(entry.filename)
        if file.is_relative_to(ROOT / "shared") or file.is_relative_to(ROOT / "services"):
            found.append((file.relative_to(ROOT).as_posix(), entry.name))
    return found


class Looking(TrackByTrackService[TrackRequest, IngestedTrack]):
    """Takes down the stacks of all threads while it handles."""

    stage = Stage.INGESTION
    inputs: ClassVar[tuple[Channel, ...]] = (Channel.REQUESTS,)
    batch_records = 10

    def __init__(self, streams: bool) -> None:
        super().__init__(4)
        self.streams = streams  # type: ignore[misc]
        self.seen: list[list[tuple[str, str]]] = []
        self.done = threading.Event()

    def handle_one(self, delivery: Delivery[TrackRequest]) -> Outcome[IngestedTrack]:
        if not self.done.is_set():
            mine = threading.get_ident()
            others = [of_ours(frame) for ident, frame in sys._current_frames().items() if ident != mine]
            self.seen = [*others, of_ours(None)]
            self.done.set()
        return Outcome()

    def give_up(self, origin: Origin, error: Exception) -> Outcome[IngestedTrack]:
        return Outcome()


def path(stacks: Sequence[list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """From the turn of the loop in which the record arrived to the handler, over all threads that it passed."""
    steps = dict.fromkeys(step for stack in stacks for step in stack)
    # ``run`` never ends, so no record passes through it. A comprehension is a part of its function.
    return [step for step in steps if step[1] not in {"run", "<listcomp>"}]


@pytest.mark.parametrize("streams", [False, True], ids=["batch", "streaming"])
def test_the_way_from_a_record_to_its_handler_is_short(streams: bool) -> None:
    bus = MemoryBus()
    bus.create_topics(topic_specs(TOPICS))
    service = Looking(streams)
    loop = loop_class(service)(service, bus.join("g", [TOPICS.name(Channel.REQUESTS)]), TOPICS, PATIENT)
    with bus.publisher() as publisher:
        publisher.publish([outgoing(TOPICS, request(name), key="one") for name in ("a", "b")])
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert service.done.wait(10)
    loop.stop()
    thread.join()
    steps = path(service.seen)
    before = [step for step in steps if step[1] != "handle_one"]
    assert len(before) <= MOST_FRAMES, before
    assert len({file for file, _ in steps}) <= MOST_FILES, steps
