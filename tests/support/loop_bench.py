"""A service loop on the memory bus, with a scripted service."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from shared.bus.base import Outgoing, Reader, Record
from shared.bus.memory import MemoryBus
from shared.bus.topics import topic_specs
from shared.contracts.codec import Message, decode_message
from shared.contracts.errors import ErrorCode, HeldError, TonestreamError
from shared.contracts.messages import ErrorReport, IngestedTrack, Stage, TrackRequest
from shared.contracts.topics import Channel, Topics
from shared.runtime.envelope import outgoing
from shared.runtime.health import Pulse
from shared.runtime.loop import ServiceLoop
from shared.runtime.policy import LoopPolicy
from shared.runtime.service import Delivery, Handled, Origin, Outcome, Service
from shared.state.in_flight import InFlightRegistry

TOPICS = Topics("unit")


PATIENT = LoopPolicy(
    batch_records=10, poll_s=0.02, tick_s=0.05, first_backoff_s=0.01, longest_backoff_s=0.02, keep_alive_s=0.01
)


def request(name: str) -> TrackRequest:
    return TrackRequest(request_id=name, audio_url=f"http://example.org/{name}.mp3")


def announced(request_id: str, code: ErrorCode = ErrorCode.NO_AUDIO, message: str = "handled") -> IngestedTrack:
    error = ErrorReport(code=code, stage=Stage.INGESTION, message=message)
    return IngestedTrack(request_id=request_id, track_key="k", source="s", error=error)


class Scripted(Service[TrackRequest, IngestedTrack]):
    """Does to each delivery what ``script`` says, and remembers the batches it saw."""

    stage = Stage.INGESTION
    inputs: ClassVar[tuple[Channel, ...]] = (Channel.REQUESTS,)
    batch_records = 10

    def __init__(self, script: Callable[[str], Handled[IngestedTrack]]) -> None:
        self.script = script
        self.batches: list[list[str]] = []
        self.cleaned: list[str] = []

    def handle(self, deliveries: Sequence[Delivery[TrackRequest]]) -> Sequence[Handled[IngestedTrack]]:
        names = [delivery.message.request_id for delivery in deliveries]
        self.batches.append(names)
        return [self.script(name) for name in names]

    def give_up(self, origin: Origin, error: TonestreamError) -> Outcome[IngestedTrack]:
        return Outcome((announced(origin.request_id, error.code, error.message),))

    def done(self, name: str) -> Outcome[IngestedTrack]:
        return Outcome((announced(name),), (lambda: self.cleaned.append(name),))


class Bench:
    #: What drives the service; the tests of this module hold for every loop (see test_streaming).
    loop_type: ClassVar[type[ServiceLoop]] = ServiceLoop

    def __init__(
        self, service: Scripted, policy: LoopPolicy = PATIENT, in_flight: InFlightRegistry | None = None
    ) -> None:
        self.bus = MemoryBus()
        self.bus.create_topics(topic_specs(TOPICS))
        self.service = service
        self.pulse = Pulse()
        membership = self.bus.join("g", [TOPICS.name(Channel.REQUESTS)])
        self.loop = self.loop_type(service, membership, TOPICS, policy, self.pulse, in_flight)
        self.outputs = self.bus.reader([TOPICS.name(Channel.TRACKS)])
        self.dead = self.bus.reader([TOPICS.name(Channel.DEAD_LETTERS)])

    def send(self, *records: TrackRequest | Outgoing) -> None:
        ready = [record if isinstance(record, Outgoing) else outgoing(TOPICS, record, key="one") for record in records]
        self.bus.publisher().publish(ready)

    def tracks(self, count: int) -> list[IngestedTrack]:
        found = []
        for record in read(self.outputs, count):
            message = decode_message(Channel.TRACKS, record.value)
            assert isinstance(message, IngestedTrack)
            found.append(message)
        return found


def read(reader: Reader, count: int, timeout_s: float = 5.0) -> list[Record]:
    """Exactly ``count`` records: waits for them, and then looks whether there is one too many."""
    found: list[Record] = []
    deadline = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < deadline:
        found += reader.poll(100, 0.05)
    found += reader.poll(100, 0.0)
    assert len(found) == count, found
    return found


@contextmanager
def running(bench: Bench) -> Iterator[None]:
    thread = threading.Thread(target=bench.loop.run)
    thread.start()
    try:
        yield
    finally:
        bench.loop.stop()
        thread.join(5)
        assert not thread.is_alive()


class Holding(Scripted):
    """Holds those requests that are in ``missing``."""

    def __init__(self, missing: set[str]) -> None:
        super().__init__(self.done)
        self.missing = missing

    def held(self, message: Message) -> HeldError | None:
        return HeldError(f"{message.request_id} needs a model") if message.request_id in self.missing else None
