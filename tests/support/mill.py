"""Every real service on the memory bus, to be fed with poison."""

from __future__ import annotations

import io
import wave

import numpy as np

from shared.bus.base import Outgoing
from shared.bus.memory import MemoryBus
from shared.bus.topics import topic_specs
from shared.contracts.codec import Message, decode_message
from shared.contracts.topics import Channel, Topics
from shared.runtime.envelope import outgoing
from shared.runtime.health import Pulse
from shared.runtime.loop import ServiceLoop
from shared.runtime.policy import LoopPolicy
from shared.runtime.service import AnyService
from tests.support.loop_bench import Bench, read

TOPICS = Topics("unit")


QUICK = LoopPolicy(batch_records=50, poll_s=0.02, tick_s=60, first_backoff_s=0.01, longest_backoff_s=0.02)


class Mill(Bench):
    """One real service between its topics."""

    def __init__(self, service: AnyService, output: Channel) -> None:
        self.bus = MemoryBus()
        self.bus.create_topics(topic_specs(TOPICS))
        membership = self.bus.join("g", [TOPICS.name(channel) for channel in service.inputs])
        self.pulse = Pulse()
        self.loop = ServiceLoop(service, membership, TOPICS, QUICK, self.pulse)
        self.output = output
        self.outputs = self.bus.reader([TOPICS.name(output)])
        self.dead = self.bus.reader([TOPICS.name(Channel.DEAD_LETTERS)])

    def put(self, *sent: Outgoing | Message) -> None:
        # One key, one partition: they come in the order in which they are sent.
        records = [one if isinstance(one, Outgoing) else outgoing(TOPICS, one, key="k") for one in sent]
        self.bus.publisher().publish(records)

    def made(self, count: int) -> list[Message]:
        return [decode_message(self.output, record.value) for record in read(self.outputs, count)]

    def made_until(self, request_id: str) -> list[Message]:
        """What was made up to the (last) message for that request."""
        found: list[Message] = []
        for _ in range(200):
            found += [decode_message(self.output, record.value) for record in self.outputs.poll(1000, 0.05)]
            if any(message.request_id == request_id for message in found):
                return found
        raise AssertionError(f"nothing for {request_id}: {found}")


def wav(seconds: float, rate: int = 22050) -> bytes:
    samples = np.sin(np.arange(int(seconds * rate)) * 0.06) * 12_000
    held = io.BytesIO()
    with wave.open(held, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(rate)
        opened.writeframes(samples.astype("<i2").tobytes())
    return held.getvalue()
